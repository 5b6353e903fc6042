"""The chosen sample as a client hears it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predawn.plugins import Chunk
from predawn.plugins.sampling.streaming import Growth, follow, of_choice, without_logprobs
from predawn.plugins.testing import settle
from predawn.proxy.tasks import Tasks

DONE = Chunk(b"data: [DONE]\n\n", is_last=True)


def piece(text: str, index: int = 0, finish: str | None = None, **more: Any) -> Chunk:
    return Chunk.of({"choices": [{"index": index, "delta": {"content": text}, "finish_reason": finish, **more}]})


async def given_out(chunks: list[Chunk]) -> AsyncIterator[Chunk]:
    for chunk in chunks:
        yield chunk


async def nothing() -> None: ...


@given(st.integers(0, 6), st.integers(0, 6))
def test_what_came_is_heard_at_once_and_the_rest_as_it_comes(before: int, after: int) -> None:
    async def run() -> None:
        kept = [piece(str(number)) for number in range(before)]
        growth, heard, tasks = Growth(), list[Chunk](), Tasks()

        async def listen() -> None:
            async for chunk in follow(lambda: kept, growth, nothing):
                heard.append(chunk)

        task = tasks.spawn(listen(), "listen")
        await settle()
        assert heard == kept
        for number in range(after):
            kept.append(piece(str(number)))
            growth.grew()
            await settle()
            assert heard == kept
        growth.end()
        await task

        assert len(heard) == before + after

    asyncio.run(run())


async def test_what_it_ended_with_is_raised_after_all_that_came() -> None:
    growth = Growth()
    growth.end(ValueError("lost"))
    growth.end()
    heard: list[Chunk] = []
    kept = [piece("a")]
    with pytest.raises(ValueError, match="lost"):
        async for chunk in follow(lambda: kept, growth, nothing):
            heard.append(chunk)

    assert heard == kept


async def test_the_other_calls_are_over_before_the_usage_is_told() -> None:
    told: list[str] = []

    async def quiet() -> None:
        told.append("quiet")

    growth = Growth()
    growth.end()
    kept = [piece("a"), Chunk(b'data: {"choices":[],"usage":{"prompt_tokens":1}}\n\n'), DONE]
    async for chunk in follow(lambda: kept, growth, quiet):
        told.append("text" if chunk is kept[0] else "end")

    assert told == ["text", "quiet", "end", "end"]


async def test_one_of_several_choices_is_heard_as_the_only_one() -> None:
    chunks = [piece("a", 0), piece("b", 1), piece("c", 1, "stop"), piece("d", 0, "stop"), DONE]
    heard = [chunk async for chunk in of_choice(given_out(chunks), 1)]

    assert [(chunk.data or {}).get("choices", [{}])[0].get("index") for chunk in heard] == [0, 0, None]
    assert heard[-1] is DONE


async def test_choices_without_a_number_are_numbered_by_their_place() -> None:
    """As they are heard, so that the text that won is the text that is given out."""
    body = Chunk.of({"choices": [{"delta": {"content": "a"}}, {"delta": {"content": "b"}}]})
    (heard,) = [chunk async for chunk in of_choice(given_out([body]), 1)]

    assert (heard.data or {})["choices"] == [{"index": 0, "delta": {"content": "b"}}]


async def test_a_choice_that_has_ended_gets_the_mark_that_its_call_never_came_to() -> None:
    chunks = [piece("a", 0), piece("b", 1, "stop"), piece("c", 0)]

    assert [chunk async for chunk in of_choice(given_out(chunks), 1)][-1].raw == DONE.raw
    assert [chunk async for chunk in of_choice(given_out(chunks), 0)][-1].raw != DONE.raw


async def test_log_probabilities_are_taken_out_and_nothing_else() -> None:
    plain = piece("a")
    chunks = [plain, piece("b", logprobs={"content": [{"token": "b", "logprob": -1.0}]}), DONE]
    heard = [chunk async for chunk in without_logprobs(given_out(chunks))]

    assert heard[0] is plain
    assert heard[1].data == {
        "choices": [{"index": 0, "delta": {"content": "b"}, "finish_reason": None, "logprobs": None}]
    }
    assert heard[2] is DONE
