"""Log probabilities leave with the text they belong to, or not at all: a token's entry spells the token."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

from predawn.plugins.redact.masker import Segment


class Entry(NamedTuple):
    """The entry of one token, and the characters of its lane that the token may have contributed to."""

    value: dict[str, Any]
    start: int
    end: int


class TokenQueue:
    """Holds entries back until their text is settled, and drops those that touch masked text."""

    __slots__ = ("_entries", "_masked", "_received", "_settled")

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()
        self._masked: list[tuple[int, int]] = []
        self._received = 0
        self._settled = 0

    def feed(self, text: str, logprobs: Any) -> None:
        """Take the next piece of text with the entries that came beside it."""
        start = self._received
        self._received += len(text)
        rows = rows_of(logprobs)
        tokens = [row.get("token") for row in rows]
        if all(isinstance(token, str) for token in tokens) and "".join(map(str, tokens)) == text:
            for row, token in zip(rows, tokens, strict=True):
                end = start + len(str(token))
                self._entries.append(Entry(row, start, end))
                start = end
        else:  # bytes of a character, or spelled in another way: any of the text may be theirs, or the next character
            self._entries.extend(Entry(row, start, max(self._received, start + 1)) for row in rows)

    def settle(self, segments: list[Segment], *, final: bool = False) -> list[dict[str, Any]]:
        """Entries that may leave, given what of the text was settled."""
        for segment in segments:
            end = self._settled + len(segment.text)
            if segment.rule is not None:
                self._masked.append((self._settled, end))
            self._settled = end
        released: list[dict[str, Any]] = []
        while self._entries and (final or self._entries[0].end <= self._settled):
            entry = self._entries.popleft()
            if not any(start < entry.end and entry.start < end for start, end in self._masked):
                released.append(entry.value)
        first = self._entries[0].start if self._entries else self._settled
        self._masked = [(start, end) for start, end in self._masked if end > first]
        return released


def rows_of(logprobs: Any) -> list[dict[str, Any]]:
    """Entries as a list of objects with a `token`; the columns of a completion become rows."""
    if isinstance(logprobs, list):
        return [row for row in logprobs if isinstance(row, dict)]
    if not isinstance(logprobs, dict):
        return []
    columns = {key: values for key, values in logprobs.items() if isinstance(values, list)}
    count = len(columns.get("tokens", ()))
    rows = [{key: values[at] for key, values in columns.items() if len(values) == count} for at in range(count)]
    for row in rows:
        row["token"] = row.pop("tokens")
    return rows


def like(shape: Any, rows: list[dict[str, Any]]) -> Any:
    """Rows in the shape in which they came: a list, or columns."""
    if not isinstance(shape, dict):
        return rows
    names = {key: "token" if key == "tokens" else key for key in shape}
    return {
        key: [row[names[key]] for row in rows if names[key] in row] if isinstance(values, list) else values
        for key, values in shape.items()
    }
