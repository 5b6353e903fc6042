"""Chunks that are there together leave in one write: a system call costs more than all else that is done to a chunk."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeAlias, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Generator

T = TypeVar("T")
Take: TypeAlias = "Callable[[Collection[T]], bool]"
Listen: TypeAlias = "Callable[[Take[T] | None], None]"
MOST_BYTES = 64 << 10
"""Joined before they are written all the same."""
LEAST = 64
"""What an event counts for at least: a thousand tiny ones keep others waiting as a large one does."""


class Sink(Protocol):
    """The client's side of a stream."""

    def write(self, data: bytes) -> None: ...


class Meter(Protocol):
    """What observes a stream."""

    def saw(self, data: bytes) -> None: ...


class JoinedWrites:
    """Holds what is to be written until `flush`. As a context it flushes at its end, unless the task is cancelled."""

    __slots__ = ("_meter", "_seen", "_shown", "_sink", "size")

    def __init__(self, sink: Sink, meter: Meter) -> None:
        self._sink = sink
        self._meter = meter
        self._seen: list[bytes] = []
        self._shown: list[bytes] = []
        self.size = 0
        """Bytes that wait to be written, an event counting for `LEAST` at least."""

    def add(self, event: bytes, *, is_shown: bool = True) -> None:
        """One event; the meter sees those that the client does not, too."""
        self._seen.append(event)
        self.size += max(len(event), LEAST)
        if is_shown:
            self._shown.append(event)

    def flush(self) -> None:
        """Write all there is. Raises `ConnectionResetError` if the client is gone."""
        if not self._seen:
            return
        seen, shown = self._seen, self._shown
        self._seen, self._shown, self.size = [], [], 0
        joined = seen[0] if len(seen) == 1 else b"".join(seen)
        self._meter.saw(joined)
        if len(shown) < len(seen):
            joined = b"".join(shown)
        if joined:
            self._sink.write(joined)

    def flush_before_waiting(self) -> None:
        """The same; that the client is gone is said by the next one, or by cancelling the task that waits."""
        with suppress(ConnectionError):
            self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: object) -> None:
        if kind is None or (issubclass(kind, Exception) and not issubclass(kind, ConnectionError)):
            self.flush()  # what came before an error goes before it


class Passing(Generic[T]):
    """Items that whoever waits for the next one may take where they come, which wakes no task and no generator.

    `listen(take)`: while somebody waits, `take` is called with what has come. It must not wait and must not raise;
    where it says True, that is done with, else it is iterated over as ever.
    """

    __slots__ = ("_items", "listen")

    def __init__(self, items: AsyncGenerator[T, None], listen: Listen[T]) -> None:
        self._items = items
        self.listen = listen

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Awaitable[T]:
        return self._items.__anext__()

    async def aclose(self) -> None:
        """Close what is iterated over."""
        await self._items.aclose()


def listening_to(items: AsyncIterator[T]) -> Listen[T] | None:
    """How to listen to items that can be taken where they come."""
    return getattr(items, "listen", None)


class Unhurried(Generic[T]):
    """The same items; `before_waiting` is called whenever the next one is not there yet. It must not raise."""

    __slots__ = ("_before_waiting", "_items")

    def __init__(self, items: AsyncIterator[T], before_waiting: Callable[[], None]) -> None:
        self._items = items
        self._before_waiting = before_waiting

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> _Next[T]:
        return _Next(self._items.__anext__(), self._before_waiting)


class _Next(Generic[T]):
    """Awaits what it is given, and says so first if that takes any waiting."""

    __slots__ = ("_awaited", "_before_waiting")

    def __init__(self, awaited: Awaitable[T], before_waiting: Callable[[], None]) -> None:
        self._awaited = awaited
        self._before_waiting = before_waiting

    def __await__(self) -> Generator[Any, Any, T]:
        steps = self._awaited.__await__()
        try:
            pending = next(steps)
        except StopIteration as ended:
            return cast("T", ended.value)
        self._before_waiting()
        return (yield from rest_of(steps, pending))


def rest_of(steps: Generator[Any, Any, T], pending: Any) -> Generator[Any, Any, T]:
    """What is left of an awaitable that waits for `pending`, as `yield from` would go on with it."""
    while True:
        sent: Any = None
        thrown: BaseException | None = None
        try:
            sent = yield pending
        except GeneratorExit:
            steps.close()
            raise
        except BaseException as exc:  # noqa: BLE001 - it is handed on, cancellation too
            thrown = exc
        try:
            pending = steps.send(sent) if thrown is None else steps.throw(thrown)
        except StopIteration as ended:
            return cast("T", ended.value)
