"""What a run has found out so far, one JSON line each, so that an interrupted run goes on where it was."""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self, TextIO


class Journal:
    """Values by key; written at once. A line that was cut off by a crash is left out."""

    def __init__(self, path: Path) -> None:
        self._values: dict[str, Any] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = b""
        if path.exists():
            for line in path.read_bytes().splitlines(keepends=True):
                if not line.endswith(b"\n"):
                    break
                key, value = json.loads(line)
                self._values[key] = value
                whole += line
        path.write_bytes(whole)
        self._file: TextIO = path.open("a", encoding="utf-8")

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __len__(self) -> int:
        return len(self._values)

    def under(self, prefix: str) -> Iterator[tuple[str, Any]]:
        """Keys that begin so, without that beginning, and their values."""
        for key, value in self._values.items():
            if key.startswith(prefix):
                yield key.removeprefix(prefix), value

    def add(self, key: str, value: Any) -> None:
        self._values[key] = value
        self._file.write(json.dumps([key, value]) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Bar:
    """A progress bar on the standard error: redrawn in place in a terminal, a line every tenth elsewhere."""

    def __init__(self, what: str, total: int, done: int = 0) -> None:
        self._what, self._total, self._first, self._done = what, total, done, done
        self._began, self._shown, self._is_terminal = time.monotonic(), -1, sys.stderr.isatty()
        self._draw("")

    def step(self, count: int = 1, note: str = "") -> None:
        self.to(self._done + count, note)

    def to(self, done: int, note: str = "") -> None:
        self._done = done
        self._draw(note)

    def _draw(self, note: str) -> None:
        total = max(self._total, 1)
        spent = time.monotonic() - self._began
        new = self._done - self._first
        left = f"{spent / new * (total - self._done):.0f} s left" if 0 < new and self._done < total else ""
        text = f"{self._what}: {self._done}/{self._total} {note} {left}".rstrip()
        if self._is_terminal:
            filled = 30 * self._done // total
            print(f"\r\x1b[2K{'█' * filled}{'░' * (30 - filled)} {text}", end="", file=sys.stderr, flush=True)
            if self._done >= total:
                print(file=sys.stderr)
        elif (tenth := 10 * self._done // total) != self._shown:
            self._shown = tenth
            print(f"  {text}", file=sys.stderr, flush=True)
