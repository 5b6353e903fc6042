"""Several choices, and the first chunk of each: who speaks, whose verdict it is, what it cost."""

import json

import pytest
from tests.plugins.verify.test_verify_plugin import FULL, PREFILLS, REST, WRONG, asking, plugins, run
from tests.plugins.verify.wary import Sums

from predawn.plugins import Chunk, Plugin, PluginSettings, Verdict, hookimpl
from predawn.plugins.record.snapshot import Snapshot
from predawn.plugins.testing import Answer, Script, run_plugin
from predawn.plugins.verify.result import result_of

MODES = ("observe", "optimistic", "gate", "intervene")


class RoleInFirst(Plugin[PluginSettings]):
    """An upstream whose first chunk says who speaks and what at once."""

    def __init__(self):
        super().__init__(PluginSettings())

    @hookimpl
    async def around_completion(self, exchange, call_next):
        reply = await call_next(exchange)

        async def joined():
            async for chunk in reply.chunks:
                data = chunk.data
                delta = data["choices"][0]["delta"] if data and data["choices"] else {}
                if delta.get("role") and not delta.get("content"):
                    continue
                if delta.get("content") and not joined_once:
                    joined_once.append(True)
                    choice = {**data["choices"][0], "delta": {"role": "assistant", **delta}}
                    chunk = Chunk.of({**data, "choices": [choice]})
                yield chunk

        joined_once = []
        return reply.with_chunks(joined())


def roles_of(result):
    deltas = [chunk.data["choices"][0]["delta"] for chunk in result.chunks if chunk.data and chunk.data["choices"]]
    return [delta["role"] for delta in deltas if "role" in delta]


def read(**given):
    return [*plugins(Sums(), **given), RoleInFirst()]


@pytest.mark.parametrize(
    ("mode", "then", "first"),
    [
        ("gate", "stop", "3 + 4 = 8. Well."),
        ("gate", "retry", "3 + 4 = 8. Well."),
        ("intervene", "stop", "3 + 4 = 8. Well."),
        ("gate", "stop", "Fine. 3 + 4 = 8. Well."),
        ("intervene", "stop", "Fine. 3 + 4 = 8. Well."),
        ("optimistic", "stop", "3 + 4 = 8. Well."),
        ("gate", "stop", "Fine. Well. Bye."),
        ("optimistic", "stop", "Fine. " * 500),
    ],
)
async def test_who_speaks_is_said_once_whatever_becomes_of_the_first_chunk(mode, then, first):
    script = Script.of(Answer(pieces=(first,)), " Bye.")
    result = await run_plugin(read(mode=mode, then=then), "hi", upstream=script, stream=True)

    assert roles_of(result) == ["assistant"]


async def test_who_speaks_comes_before_anything_that_is_said():
    script = Script.of(Answer(pieces=("3 + 4 = 8. Well.",)), " Bye.")
    result = await run_plugin(read(mode="intervene"), "hi", upstream=script, stream=True)

    assert result.chunks[0].data["choices"][0]["delta"]["role"] == "assistant"
    assert result.text == "3 + 4 = 7. Bye."


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("mode", MODES)
async def test_a_verdict_names_its_choice(mode, stream):
    script = Script(answers=(Answer(texts=("Fine.", WRONG, "Good. Fine.")), Answer(text=REST)))
    result = await run(script, Sums(), mode=mode, stream=stream, request=asking(n=3), config=PREFILLS)
    told = {(one.choice, one.outcome) for one in result.exchange.verdicts}

    assert {(0, "pass"), (1, "violation"), (2, "pass")} <= told
    assert not {(0, "violation"), (2, "violation")} & told


async def test_the_record_tells_choices_apart():
    script = Answer(texts=("Fine.", WRONG))
    result = await run(script, Sums(), mode="observe", request=asking(n=2))
    record = json.loads(Snapshot.of(result.exchange).record)

    assert record["checks_by_choice"]["0"] == {"sums": {"pass": 1}}
    assert record["checks_by_choice"]["1"]["sums"]["violation"] == 1


async def test_the_record_of_one_choice_is_as_short_as_it_was():
    result = await run(WRONG, Sums(), mode="observe")

    assert "checks_by_choice" not in Snapshot.of(result.exchange).record


async def test_a_verdict_says_when_it_was_said():
    result = await run(WRONG, Sums(), mode="gate")
    times = [one.at_s for one in result.exchange.verdicts]

    assert all(0 < at <= result.ledger.total_s for at in times)
    assert Verdict("pass", at_s=1.0) == Verdict("pass")


@pytest.mark.parametrize("stream", [True, False])
async def test_thoughts_of_every_call_are_counted(stream):
    script = Script.of(
        Answer(reasoning="One two. 1 + 1 = 3. Three", text="x"), Answer(reasoning=" four five.", text="Six.")
    )
    request = asking(**(FULL if stream else {}))
    result = await run(script, Sums(), mode="intervene", stream=stream, config=PREFILLS, request=request)

    assert result.message["reasoning_content"] == "One two. 1 + 1 = 2. four five."
    assert result.usage["completion_tokens_details"]["reasoning_tokens"] == result.ledger.reasoning == 4
    assert result.usage["completion_tokens"] == 5


@pytest.mark.parametrize("stream", [True, False])
async def test_thoughts_are_counted_where_the_upstream_does_not_tell(stream):
    silent = {"completion_tokens_details": None}
    script = Script.of(
        Answer(reasoning="One two. 1 + 1 = 3. Three", text="x", usage=silent),
        Answer(reasoning=" four five.", text="Six.", usage=silent),
    )
    request = asking(**(FULL if stream else {}))
    result = await run(script, Sums(), mode="intervene", stream=stream, config=PREFILLS, request=request)

    assert result.ledger.reasoning == 4


async def test_thoughts_of_a_stopped_answer_are_those_that_were_sent():
    answer = Answer(reasoning="One two. 1 + 1 = 3. Three", text="x")
    result = await run(answer, Sums(), mode="gate", request=asking(**FULL))

    assert result.usage["completion_tokens_details"]["reasoning_tokens"] == 2


@pytest.mark.parametrize("usage", [{"completion_tokens": 10**9}, {"completion_tokens": -5}, {"prompt_tokens": "many"}])
@pytest.mark.parametrize("mode", ["gate", "intervene"])
async def test_a_usage_that_lies_makes_no_negative_tokens(mode, usage):
    script = Script.of(Answer(text=WRONG, usage=usage), Answer(text=REST, usage=usage))
    result = await run(script, Sums(), mode=mode, request=asking(**FULL))
    ledger = result.ledger

    assert result_of(result.exchange).violations == 1
    assert min(ledger.output, ledger.discarded, ledger.reasoning, ledger.prompt, ledger.discarded_prompt) >= 0
