"""Whatever the text: cuts change no verdict, nothing raises, and the event loop is held up 20 ms at most."""

import asyncio
import gc
import json
import time
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.benchmarks.verify.baits import BAITS, CODE_BAITS, LARGE, OPTIONS, SCHEMA_BAIT, SCHEMAS, large
from tests.benchmarks.verify.plants import PLANTS
from tests.benchmarks.verify.reading import chunks_of, steps_of, verdicts_of
from tests.plugins.verify.verifiers.reading import asking_for, read

from predawn.plugins import Exchange
from predawn.plugins.verify.verifiers import BUILT_IN, create
from predawn.proxy.extensions import Step
from predawn.proxy.tasks import Tasks

LONGEST_STALL_S = 0.02
CUT_SAFE = ["arithmetic", "json_schema", "regex", "python", "grounded", "constraints"]


class Watch:
    """How long the loop's thread worked without a break, at most.

    What other processes take does not count, nor what collecting garbage takes: that grows with the test process.
    """

    def __init__(self):
        self.longest_s = 0.0
        self._tasks = Tasks()

    async def __aenter__(self):
        gc.disable()
        self._tasks.spawn(self._watch(), "watch")
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_):
        await asyncio.sleep(0)
        await self._tasks.cancel()
        gc.enable()

    async def _watch(self):
        last = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            self.longest_s, last = max(self.longest_s, now - last), now


async def least(look):
    """The least of up to five looks: what the code does it does each time, what a busy machine does it does not."""
    looks = []
    while len(looks) < 5 and min(looks, default=1) > LONGEST_STALL_S:
        looks.append(await look())
    return min(looks)


async def looked_at(name, text, *, where="content"):
    async def look():
        verifier, exchange = (
            create(name, OPTIONS.get(name, {})),
            Exchange(json.dumps({"messages": [{"role": "user", "content": "hello"}]}).encode()),
        )
        step = Step(
            text, where, "own", 0, len(text), is_last=True, tool_call={"function": {"name": "f", "arguments": text}}
        )
        async with Watch() as watch:
            try:
                async with asyncio.timeout(0.1):
                    await verifier.verify(step, exchange)
            except TimeoutError:
                pass
        return watch.longest_s

    return await least(look)


@pytest.mark.parametrize("bait", BAITS)
@pytest.mark.parametrize("name", [*CUT_SAFE, "answer_fork"])
async def test_a_megabyte_holds_nobody_up(name, bait):
    assert await looked_at(name, large(bait)) <= LONGEST_STALL_S


@pytest.mark.parametrize("bait", ["braces", "nested", "quotes", "lists", "ones", "surrogates"])
async def test_large_arguments_hold_nobody_up(bait):
    text = ("[" + BAITS[bait] * (LARGE // len(BAITS[bait])))[:LARGE]

    assert await looked_at("tool_call", text, where="tool_call") <= LONGEST_STALL_S


@pytest.mark.parametrize("name", ["json_schema", "tool_call"])
async def test_a_large_sound_document_holds_nobody_up(name):
    text = json.dumps({"a": [[[1, 2.5, "x", None]]] * 20_000})

    assert await looked_at(name, text) <= LONGEST_STALL_S


@pytest.mark.parametrize("schema", SCHEMAS)
async def test_a_schema_made_to_multiply_holds_nobody_up(schema):
    async def look():
        verifier, exchange = create("json_schema"), Exchange(json.dumps(asking_for(schema)).encode())
        async with Watch() as watch, asyncio.timeout(20):
            for step in steps_of(verifier.boundary, [SCHEMA_BAIT]):
                await verifier.verify(step, exchange)
        return watch.longest_s

    assert await least(look) <= LONGEST_STALL_S


@pytest.mark.parametrize("code", CODE_BAITS, ids=lambda code: code[:6])
async def test_code_made_to_be_hard_to_parse_holds_nobody_up(code):
    assert await looked_at("python", f"```python\n{code}\n```\n") <= LONGEST_STALL_S


@given(st.integers(0, 10**6), st.sampled_from(CUT_SAFE), st.booleans(), st.integers(1, 40))
@settings(max_examples=150)
async def test_chunks_change_no_verdict(seed, name, wrong, longest):
    case = PLANTS[name](Random(seed), wrong)
    told = []
    for random in (Random(seed), Random(seed + 1)):
        verifier, exchange = create(name, case.options), Exchange(json.dumps(dict(case.request)).encode())
        steps = steps_of(verifier.boundary, chunks_of(case.text, random, longest), case.where)
        told.append([(step.end, (await verifier.verify(step, exchange)).outcome) for step in steps])

    assert told[0] == told[1]


PIECES = [
    *BAITS.values(),
    "Ann = 3. ",
    "Bob is Ann + 4. ",
    "Bob = 8. ",
    '"said the man in the moon" ',
    "25%",
    "\n\n",
    ".",
    "```",
    "x = (",
    "true",
    "desks: 5\n",
    "chairs = 1",
]


@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join), st.sampled_from(CUT_SAFE), st.integers(0, 99))
@settings(max_examples=300)
async def test_no_text_makes_a_verifier_raise(text, name, seed):
    verdicts = await read(create(name, OPTIONS.get(name, {})), text, chunks=chunks_of(text, Random(seed), 9))

    assert {verdict.outcome for verdict in verdicts} <= {"pass", "violation", "unsure"}


@pytest.mark.parametrize("name", sorted(PLANTS))
@pytest.mark.parametrize("wrong", [True, False], ids=["planted", "look-alike"])
async def test_plants_are_told_from_look_alikes(name, wrong):
    random = Random(f"{name} {wrong}")
    failed = []
    for _ in range(25):
        case = PLANTS[name](random, wrong)
        told = any(
            verdict.outcome == "violation" for verdict in await verdicts_of(create(name, case.options), case, random)
        )
        if told != wrong:
            failed.append(case.text)

    assert failed == []


def test_every_built_in_verifier_has_plants():
    assert set(PLANTS) == set(BUILT_IN)
