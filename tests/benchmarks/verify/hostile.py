"""How long hostile text keeps the event loop to itself, by the clock on the wall: `python -m tests.benchmarks.verify.hostile`.

Every built-in verifier is given a megabyte of each bait, in a process that does nothing else; whole answers of such text, and
what is hardly an answer, go through a server's own way of verifying. What the scheduler says that another program had the core
for is taken off; and since whatever else disturbs can only make a figure larger, what was slow is looked at again, and the
shortest counts. Nothing may go on for a case that is over, and the process may not grow beyond its bar.
"""

import argparse
import asyncio
import gc
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

from tests.benchmarks.evidence import CHECKOUT, Bar, Evidence
from tests.benchmarks.verify.baits import BAITS, CODE_BAITS, FLOODS, LARGE, OPTIONS, SCHEMA_BAIT, SCHEMAS, large
from tests.benchmarks.verify.reading import SaidJudge

from predawn.plugins import Exchange
from predawn.plugins.testing import Answer, Script, workbench
from predawn.plugins.verify import VerifyPlugin, VerifySettings
from predawn.plugins.verify.verifiers import BUILT_IN, AsksModel, Opens, create
from predawn.proxy.extensions import Step
from predawn.proxy.tasks import Tasks

LONGEST_S = 0.02
MOST_MB = 256
"""What the process may grow by, from its first case to its largest."""
LOOKED_AT_S = 0.25
"""Of each case: what has not held the loop up by then goes on in slices as it has begun."""
ASKED = b'{"model": "m", "stream": true, "messages": [{"role": "user", "content": "hello"}]}'
SAID = 1 << 16
"""Characters of it that a model says which a verifier asks."""
NESTED = ("nested", "brackets", "emoji", "sums", "lines", "ones", "fences", "backslashes")
"""Baits of whole answers."""


@dataclass(frozen=True, slots=True)
class Case:
    """One verifier or way, and what it is given."""

    what: str
    bait: str
    work: Callable[["Loop"], Coroutine[Any, Any, None]]


class Loop:
    """Watches how long the event loop's turns take, with a task that wants each of them."""

    def __init__(self) -> None:
        self.wall_s = self.cpu_s = 0.0
        self._tasks = Tasks()

    async def __aenter__(self) -> Self:
        await self._tasks.cancel()
        self.wall_s = self.cpu_s = 0.0
        self._tasks.spawn(self._watch(), "watch")
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.sleep(0)
        await self._tasks.cancel()

    async def _watch(self) -> None:
        account = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
        try:
            wall, cpu, waited = time.perf_counter(), time.thread_time(), _waited_s(account)
            while True:
                await asyncio.sleep(0)
                now, used, kept_waiting = time.perf_counter(), time.thread_time(), _waited_s(account)
                took = now - wall - (kept_waiting - waited)
                self.wall_s, self.cpu_s = max(self.wall_s, took), max(self.cpu_s, used - cpu)
                wall, cpu, waited = time.perf_counter(), used, kept_waiting
        finally:
            os.close(account)


def _waited_s(account: int) -> float:
    """How long this thread has been ready to work while another program had the core, as the scheduler counts it."""
    return int(os.pread(account, 100, 0).split()[1]) / 1e9


async def looked_at(loop: Loop, name: str, text: str, request: Any = None) -> None:
    """One verifier looks at all of it as one step; a model that it asks says the same."""
    verifier = create(name, OPTIONS.get(name, {}) if request is None else {})
    if isinstance(verifier, AsksModel):
        verifier.bind(SaidJudge([text[:SAID], text[:SAID]]).send)
    exchange = Exchange(json.dumps(request or {"messages": [{"role": "user", "content": "hello"}]}).encode(), model="m")
    where: Any = "tool_call" if name == "tool_call" else "content"
    call = {"function": {"name": "f", "arguments": text}} if where == "tool_call" else None
    step = Step(text, where, "own", 0, len(text), is_last=True, tool_call=call, forked=text)
    with ExitStack() as opened:
        if isinstance(verifier, Opens):  # as the server does when it starts
            opened.callback(verifier.close)
            verifier.open()
        async with loop, asyncio.timeout(LOOKED_AT_S):
            await verifier.verify(step, exchange)
    await exchange.close()


async def answered(loop: Loop, mode: Any, text: str, chunks: int) -> None:
    """A whole answer, verified by all that need no model."""
    size = len(text) // chunks
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    await relayed(
        loop,
        mode,
        *(
            b"data: "
            + json.dumps({"id": "x", "choices": [{"index": 0, "delta": {"content": piece}}]}).encode()
            + b"\n\n"
            for piece in pieces
        ),
    )


async def relayed(loop: Loop, mode: Any, *raw: bytes) -> None:
    """The same of what an upstream says, byte for byte."""
    names = [name for name in BUILT_IN if name not in ("judge", "answer_fork")]
    told = [{name: OPTIONS[name]} if name in OPTIONS else name for name in names]
    settings = VerifySettings.model_validate({"verifiers": told, "mode": mode, "then": "accept"})
    script = Script.of(Answer(raw=(*raw, b"data: [DONE]\n\n")))
    async with workbench(VerifyPlugin(settings), upstream=script, strict=False) as bench:
        async with loop, asyncio.timeout(4 * LOOKED_AT_S):
            # `run` would look at each chunk again, which is no server's work
            await bench.http("POST", "/v1/chat/completions", ASKED, headers={"Content-Type": "application/json"})


async def flooded(loop: Loop, mode: Any, raw: bytes) -> None:
    await relayed(loop, mode, raw)


def cases() -> Iterator[Case]:
    for name in BUILT_IN:
        for bait in BAITS:
            text = large(bait)
            if name == "tool_call":
                text = "[" + text[:-1]
            yield Case(name, bait, partial(looked_at, name=name, text=text))
    sound = json.dumps({"a": [[[1, 2.5, "x", None]]] * 20_000})
    for name in ("json_schema", "tool_call"):
        yield Case(name, "a large sound document", partial(looked_at, name=name, text=sound))
    for number, schema in enumerate(SCHEMAS):
        asked = {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}}
        yield Case(
            "json_schema",
            f"schema {number}",
            partial(looked_at, name="json_schema", text=SCHEMA_BAIT, request=asked),
        )
    for code in CODE_BAITS:
        text = f"```python\n{code}\n```\n"
        yield Case("python", f"code {code[:8]!r}", partial(looked_at, name="python", text=text))
    for mode in ("observe", "gate"):
        for bait in NESTED:
            text = large(bait)[: LARGE // 4]
            for chunks in (1, 500):
                yield Case(
                    f"an answer in {mode}",
                    f"{bait} in {chunks}",
                    partial(answered, mode=mode, text=text, chunks=chunks),
                )
        for name, raw in FLOODS.items():
            yield Case(f"an answer in {mode}", f"flood of {name}", partial(flooded, mode=mode, raw=raw))


async def stall(case: Case) -> Loop:
    """The longest turn that the case makes, once; raises what it raises, but for the time that is over."""
    loop = Loop()
    with suppress(TimeoutError):
        await case.work(loop)
    return loop


def left_over() -> list[str]:
    """Tasks of ours that go on though all is over."""
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("predawn.")]


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def measured(times: int) -> dict[str, Any]:
    """By verifier: the longest turn, and what made it; and by how much the process has grown."""
    await answered(Loop(), "gate", "Warm. 3 + 4 = 7. " * 20, 10)  # what is imported late is there now
    gc.collect()
    gc.freeze()  # as the server does, and as rarely as it
    gc.set_threshold(100_000, 1, 300)
    found: dict[str, dict[str, Any]] = {}
    began_mb = peak_mb()
    for case in cases():
        gc.collect()  # what the case before has left is not this one's
        loop = await stall(case)
        wall_s, cpu_s = loop.wall_s, loop.cpu_s
        for _ in range(times - 1):
            if wall_s <= LONGEST_S / 2:
                break
            again = await stall(case)
            wall_s, cpu_s = min(wall_s, again.wall_s), min(cpu_s, again.cpu_s)
        if left := left_over():
            raise RuntimeError(f"{case.what}: {case.bait}: {len(left)} tasks go on, {left[:3]}")
        worst = found.setdefault(case.what, {"wall_ms": 0.0, "cases": 0})
        worst["cases"] += 1
        if wall_s * 1000 > worst["wall_ms"]:
            worst |= {"wall_ms": wall_s * 1000, "cpu_ms": cpu_s * 1000, "bait": case.bait}
    return {"cases": found, "grown_mb": peak_mb() - began_mb}


def alone(*words: str) -> bytes:
    """What this module prints as a program: a process of its own, so that nothing else's work and garbage is in it."""
    command = [sys.executable, "-m", "tests.benchmarks.verify.hostile", *words]
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT)}  # where PYTHONSAFEPATH is set, no module is found by the folder
    done = subprocess.run(command, check=False, capture_output=True, cwd=CHECKOUT, env=env, timeout=600)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[1:])} failed: {done.stderr.decode(errors='replace').strip()[-600:]}")
    return done.stdout


def hostile(evidence: Evidence, times: int = 3) -> None:
    found = evidence.figures["hostile"] = json.loads(alone("--times", str(times)))
    name, worst = max(found["cases"].items(), key=lambda one: one[1]["wall_ms"])
    evidence.bars["hostile_text_stall"] = Bar(worst["wall_ms"], LONGEST_S * 1000, "ms", f"{name}: {worst['bait']}")
    evidence.bars["hostile_text_memory"] = Bar(found["grown_mb"], MOST_MB, "MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=3)
    json.dump(asyncio.run(measured(parser.parse_args().times)), sys.stdout, indent=1)


if __name__ == "__main__":
    main()
