"""The chosen sample as a client hears it: what came already at once, the rest as it comes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from predawn.plugins import Chunk
from predawn.proxy.wire.openai import is_usage_only

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence


class Growth:
    """Tells one listener that there is more, or that it is over and why."""

    __slots__ = ("_waiter", "error", "is_over")

    def __init__(self) -> None:
        self._waiter: asyncio.Future[None] | None = None
        self.is_over = False
        self.error: BaseException | None = None

    def grew(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def end(self, error: BaseException | None = None) -> None:
        """No more will come. Said twice, the first time counts."""
        if not self.is_over:
            self.is_over, self.error = True, error
            self.grew()

    async def wait(self) -> None:
        """Wait for more; at once if it is over."""
        if not self.is_over:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
            self._waiter = None


async def follow(
    kept: Callable[[], Sequence[Chunk]], growth: Growth, before_end: Callable[[], Awaitable[None]]
) -> AsyncIterator[Chunk]:
    """The chunks of a call from its first to its last; `before_end` is awaited before those that tell what it cost.

    Raises what the call ended with.
    """
    place = 0
    settled = False
    while True:
        chunks = kept()
        while place < len(chunks):
            chunk = chunks[place]
            place += 1
            if not settled and (chunk.is_last or is_usage_only(chunk.raw)):
                settled = True
                await before_end()
            yield chunk
        if growth.is_over and place >= len(kept()):
            break
        await growth.wait()
    if growth.error is not None:
        raise growth.error
    if not settled:
        await before_end()


async def of_choice(chunks: AsyncIterator[Chunk], choice: int) -> AsyncIterator[Chunk]:
    """What one of several choices says, as if it were the only one.

    The others may have been given up once it had ended, and the call's end mark with them.
    """
    has_ended = has_mark = False
    async for chunk in chunks:
        has_mark = has_mark or chunk.is_last
        data = chunk.data
        choices = data.get("choices") if data is not None else None
        if data is None or not isinstance(choices, list) or not choices:
            yield chunk
            continue
        numbered = ((one.get("index", place), one) for place, one in enumerate(choices) if isinstance(one, dict))
        own = [one for index, one in numbered if index == choice]
        has_ended = has_ended or any(one.get("finish_reason") is not None for one in own)
        if own:
            yield chunk.with_data({**data, "choices": [{**one, "index": 0} for one in own]})
    if has_ended and not has_mark:
        yield Chunk(b"data: [DONE]\n\n", is_last=True)


async def without_logprobs(chunks: AsyncIterator[Chunk]) -> AsyncIterator[Chunk]:
    """Log-probabilities taken out again where the client did not ask for them."""
    async for chunk in chunks:
        data = chunk.data
        choices = data.get("choices") if data is not None else None
        if data is None or not isinstance(choices, list) or not any(map(_has_logprobs, choices)):
            yield chunk
        else:
            yield chunk.with_data({**data, "choices": [_without(one) for one in choices]})


def _has_logprobs(choice: Any) -> bool:
    return isinstance(choice, dict) and choice.get("logprobs") is not None


def _without(choice: Any) -> Any:
    return {**choice, "logprobs": None} if isinstance(choice, dict) else choice
