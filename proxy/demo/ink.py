"""Colours, where there is a terminal that shows them: https://no-color.org."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Mapping

CODES = {"dim": "2", "bold": "1", "good": "32", "bad": "31", "name": "36"}


class Ink:
    """Puts text into colours, or leaves it alone."""

    def __init__(self, out: TextIO, env: Mapping[str, str]) -> None:
        self.colours = out.isatty() and not env.get("NO_COLOR") and env.get("TERM") != "dumb"

    def __call__(self, style: str, text: str) -> str:
        """`text` in a style of `CODES`."""
        return f"\x1b[{CODES[style]}m{text}\x1b[0m" if self.colours and text else text
