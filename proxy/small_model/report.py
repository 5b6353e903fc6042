"""What a person sees while things are fetched: a line that rewrites itself on a terminal, few plain lines elsewhere."""

from __future__ import annotations

from typing import TextIO


class Report:
    """Steps and progress on a text stream."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._moving = out.isatty()
        self._open_line = False
        self._last: tuple[str, int] = ("", -1)

    def step(self, text: str) -> None:
        """One finished line."""
        self.end_line()
        self._out.write(f"{text}\n")
        self._out.flush()

    def start(self, text: str) -> None:
        """The beginning of a line that others continue."""
        self.end_line()
        self._out.write(text)
        self._out.flush()

    def end_line(self) -> None:
        """End a progress line, if there is one."""
        if self._open_line:
            self._out.write("\n")
            self._out.flush()
            self._open_line = False

    def progress(self, title: str, done_mb: float, total_mb: int) -> None:
        """How much of something has arrived; without a terminal, one line per quarter."""
        done = min(done_mb, total_mb)
        if self._moving:
            self._out.write(f"\r  {title}: {done:.0f} of {total_mb} MB\x1b[K")
            self._out.flush()
            self._open_line = True
            return
        quarter = 4 * round(done) // total_mb if total_mb else 0
        if (title, quarter) != self._last:
            self._last = (title, quarter)
            self.step(f"  {title}: {done:.0f} of {total_mb} MB")
