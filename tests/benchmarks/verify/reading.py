"""Reads a planted answer as the server does: chunks, then steps, then one verifier."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from tests.benchmarks.verify.plants.case import Case

from predawn.plugins import Chunk, Exchange, Reply, Verdict
from predawn.plugins.verify.cutting import cutter, name_of
from predawn.plugins.verify.verifiers import AsksModel
from predawn.proxy.extensions import Step


def chunks_of(text: str, random: Random, most: int = 12) -> list[str]:
    """The text cut anywhere."""
    pieces: list[str] = []
    at = 0
    while at < len(text):
        length = random.randint(1, most)
        pieces.append(text[at : at + length])
        at += length
    return pieces


def steps_of(boundary: Any, chunks: Sequence[str], where: Any = "content", call: Any = None) -> Iterator[Step]:
    """The steps that come of chunks. The last one is whatever is left, even nothing."""
    text = "".join(chunks)
    cut = cutter(boundary)
    ends = [end for chunk in chunks for end in cut.feed(chunk)]
    if not ends or ends[-1] < len(text) or ends[-1] == len(text):
        ends = [end for end in ends if end < len(text)] + [len(text)]
    start = 0
    for index, end in enumerate(ends):
        yield Step(
            text[start:end],
            where,
            name_of(boundary),
            start,
            end,
            text[:start],
            index=index,
            tool_call=call,
            is_last=index == len(ends) - 1,
        )
        start = end


def exchange_for(case: Case) -> Exchange:
    return Exchange(json.dumps(dict(case.request)).encode(), model="m")


class SaidJudge:
    """Answers calls with what is to be said, one after the other."""

    def __init__(self, said: Sequence[str]) -> None:
        self.said = list(said)
        self.asked: list[Exchange] = []

    async def send(self, exchange: Exchange) -> Reply:
        self.asked.append(exchange)
        text = self.said.pop(0) if self.said else ""

        async def chunks() -> Any:
            yield Chunk.of({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": "stop"}]})
            yield Chunk(b"data: [DONE]\n\n", is_last=True)

        return Reply.of_chunks(chunks(), headers={"Content-Type": "text/event-stream"})


async def verdicts_of(verifier: Any, case: Case, random: Random) -> list[Verdict]:
    """What is said of each step, in order."""
    exchange = exchange_for(case)
    said = list(case.said)
    if isinstance(verifier, AsksModel):
        verifier.bind(SaidJudge(said).send)
        said = []
    found: list[Verdict] = []
    for step in steps_of(verifier.boundary, chunks_of(case.text, random), case.where, case.call):
        if said and hasattr(verifier, "fork"):
            step = replace(step, forked=said.pop(0) or None)
        found.append(await verifier.verify(step, exchange))
    await exchange.close()
    return found
