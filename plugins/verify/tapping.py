"""A body that is read by two: whoever relays it, as if nobody else did, and a listener who is handed each piece."""

from __future__ import annotations

from typing import TYPE_CHECKING

from predawn.proxy.exchange import tapped

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from predawn.proxy.exchange import ByteSource, TappedSource


class Overheard:
    """A source whose pieces are told to `hears`, too."""

    __slots__ = ("_hears", "_source")

    def __init__(self, source: ByteSource, hears: Callable[[bytes], None]) -> None:
        self._source = source
        self._hears = hears

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for data in self._source:
            self._hears(data)
            yield data

    async def aclose(self) -> None:
        await self._source.aclose()


class OverheardTap(Overheard):
    """The same of a source that can be listened to."""

    __slots__ = ("_tap",)

    def __init__(self, source: TappedSource, hears: Callable[[bytes], None]) -> None:
        super().__init__(source, hears)
        self._tap = source

    @property
    def idle_s(self) -> float:
        return self._tap.idle_s

    @property
    def at_end(self) -> bool:
        return self._tap.at_end

    @property
    def is_complete(self) -> bool:
        return self._tap.is_complete

    @property
    def error(self) -> Exception | None:
        return self._tap.error

    def read_nowait(self) -> bytes:
        data = self._tap.read_nowait()
        if data:
            self._hears(data)
        return data

    def listen(self, callback: Callable[[], None] | None) -> None:
        self._tap.listen(callback)

    def pause(self) -> None:
        self._tap.pause()

    def resume(self) -> None:
        self._tap.resume()


def overheard(source: ByteSource, hears: Callable[[bytes], None]) -> Overheard:
    """`source` for the relay, which loses nothing by it."""
    tap = tapped(source)
    return OverheardTap(tap, hears) if tap is not None else Overheard(source, hears)
