"""Compressed bodies of upstreams that compress although they were asked not to."""

from __future__ import annotations

import zlib

MOST_AT_ONCE = 1 << 20
"""Bytes handed out at a time: a small body may inflate to a thousand times its size."""
GZIP, ZLIB, RAW = 31, 15, -15
"""How `zlib` calls the three framings."""
MAGIC = b"\x1f\x8b"
"""How gzip begins."""


class Inflater:
    """Undoes `gzip` or `deflate`; the relay forwards bodies plain. Raises `ValueError` on what is neither."""

    __slots__ = ("_has_begun", "_is_gzip", "_zlib")

    def __init__(self, coding: bytes) -> None:
        name = coding.strip().lower()
        self._is_gzip = name in (b"gzip", b"x-gzip")
        self._has_begun = False
        self._zlib = (
            zlib.decompressobj(GZIP if self._is_gzip else ZLIB) if self._is_gzip or name == b"deflate" else None
        )

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """What `data` says, as far as it is handed out at once, and what of it is to be fed again."""
        if self._zlib is None:
            raise ValueError("it answered in a content coding nobody asked for")
        if not self._has_begun:
            self._has_begun = True
            # some leave out what should frame "deflate" (RFC 9110 §8.4.1.2)
            if not self._is_gzip and data[0] & 0x0F != zlib.DEFLATED:
                self._zlib = zlib.decompressobj(RAW)
        if self._zlib.eof:
            if not (self._is_gzip and MAGIC.startswith(data[:2])):
                return b"", b""  # padding
            self._zlib = zlib.decompressobj(GZIP)
        try:
            shown = self._zlib.decompress(data, MOST_AT_ONCE)
            if len(shown) == MOST_AT_ONCE and not self._zlib.unconsumed_tail:
                shown += self._zlib.decompress(b"")  # the rest of what the last byte stands for
        except zlib.error as exc:
            raise ValueError("what it sent as compressed is not") from exc
        return shown, self._zlib.unconsumed_tail or self._zlib.unused_data

    def check_end(self) -> None:
        """Raises `ValueError` if more would have to come."""
        if self._has_begun and self._zlib is not None and not self._zlib.eof:
            raise ValueError("the compressed answer was cut off")
