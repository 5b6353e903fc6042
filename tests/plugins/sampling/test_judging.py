"""What a judge's words mean, and what becomes of a verifier that fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predawn.plugins import Boundary, Exchange, Plugin, RegisterVerifier, Step, Verdict, hookimpl
from predawn.plugins.sampling import SamplingPlugin
from predawn.plugins.sampling.judging import read_judgement
from predawn.plugins.sampling.settings import SamplingSettings
from predawn.plugins.testing import Answer, Received, RunResult, ScriptedUpstream, run_plugin


@pytest.mark.parametrize(
    ("words", "meaning"),
    [
        ("better: 1", 1),
        ("Better: **2**", 2),
        ("`better: 0`", 0),
        ("2", 2),
        ("**1**.", 1),
        ("I first thought better: 1, but in the end\nbetter: 2", 2),
        ("", 0),
        ("Both are good in 1 way", 0),
        ("better: 12", 0),
        ("The first is a better one, 2 reasons:", 0),
    ],
)
def test_only_a_clear_word_counts(words: str, meaning: int) -> None:
    assert read_judgement(words) == meaning


@given(st.text(max_size=300))
def test_any_text_of_a_judge_can_be_read(text: str) -> None:
    assert read_judgement(text) in {0, 1, 2}


def provider(judge: dict[bool, str], answers: list[str]) -> ScriptedUpstream:
    """Answers in turn; a judge is told which answer stands first, and says what `judge` has for it."""
    waiting = list(answers)

    def choose(received: Received) -> Answer | str:
        if "two answers to it" in received.text:
            return judge[received.text.index(answers[0]) < received.text.index(answers[1])]
        return waiting.pop(0)

    return ScriptedUpstream(choose=choose)


async def judged(upstream: ScriptedUpstream) -> RunResult:
    wish = {"strategy": "judge", "samples": 2}
    request = {"messages": [{"role": "user", "content": "A line about dawn."}], "predawn": {"sampling": wish}}
    return await run_plugin(SamplingPlugin(SamplingSettings()), request, upstream=upstream)


async def test_the_better_one_in_both_orders_wins() -> None:
    result = await judged(provider({True: "better: 2", False: "better: 1"}, ["Dawn is grey.", "Dawn is gold."]))

    assert result.text == "Dawn is gold."
    assert result.ledger.verify > 0
    assert result.usage["predawn"]["verify_tokens"] == result.ledger.verify


async def test_a_judge_that_only_likes_the_first_place_is_not_heard() -> None:
    result = await judged(provider({True: "better: 1", False: "better: 1"}, ["Dawn is grey.", "Dawn is gold."]))

    assert result.status == 200
    assert result.text in {"Dawn is grey.", "Dawn is gold."}
    assert result.exchange.decisions[-1].detail["comparisons"] == 1


async def test_a_judge_that_fails_costs_nobody_the_answer() -> None:
    def choose(received: Received) -> Answer | str:
        return Answer(status=500) if "two answers to it" in received.text else "Dawn is grey."

    result = await judged(ScriptedUpstream(choose=choose))

    assert result.status == 200
    assert result.text == "Dawn is grey."


class Taste:
    """Likes answers with gold in them; takes long or breaks where the answer says so."""

    name = "taste"
    boundary: Boundary = "paragraph"
    timeout_s = 0.02

    def __init__(self) -> None:
        self.steps: list[Step] = []

    async def verify(self, step: Step, exchange: Exchange) -> Verdict:
        self.steps.append(step)
        if "slow" in step.text:
            await asyncio.Event().wait()
        if "broken" in step.text:
            raise ValueError("cannot taste this")
        if "odd" in step.text:
            return None  # type: ignore[return-value]
        return Verdict("pass" if "gold" in step.text else "violation", feedback="not gold")


class TastePlugin(Plugin):
    @hookimpl
    def register_verifiers(self, register: RegisterVerifier) -> None:
        register(Taste())

    @hookimpl
    async def lifespan(self, app: object) -> AsyncIterator[None]:
        yield


async def tasted(*answers: str) -> RunResult:
    waiting = list(answers)
    wish = {"strategy": "best_of", "samples": len(answers), "verifier": "taste"}
    request = {"messages": [{"role": "user", "content": "A line about dawn."}], "predawn": {"sampling": wish}}
    upstream = ScriptedUpstream(choose=lambda _: waiting.pop(0))
    return await run_plugin([SamplingPlugin(SamplingSettings()), TastePlugin], request, upstream=upstream)


async def test_best_of_takes_what_a_registered_verifier_likes() -> None:
    result = await tasted("Dawn is grey.", "Dawn is gold.", "Dawn is dull.")

    assert result.text == "Dawn is gold."


async def test_a_verifier_that_fails_or_hangs_harms_no_answer() -> None:
    result = await tasted("Dawn is slow.", "Dawn is broken.", "Dawn is odd.")

    assert result.status == 200
    assert result.text.startswith("Dawn is")
    assert [verdict.outcome for verdict in result.exchange.verdicts] == ["unsure"]


async def test_what_a_verifier_says_of_the_answer_is_on_the_exchange() -> None:
    result = await tasted("Dawn is grey.", "Dawn is gold.")

    assert [(verdict.outcome, verdict.verifier) for verdict in result.exchange.verdicts] == [("pass", "taste")]


async def test_a_judge_of_a_provider_that_refuses_temperatures_is_sent_none() -> None:
    def choose(received: Received) -> Answer | str:
        return "better: 0" if "two answers to it" in received.text else f"Dawn is {received.json['seed']}."

    wish = {"strategy": "judge", "samples": 2}
    request = {"messages": [{"role": "user", "content": "A line about dawn."}], "predawn": {"sampling": wish}}
    models = [{"name": "test", "upstream": "scripted", "reasoning": "reasoning_effort"}]
    upstream = ScriptedUpstream(choose=choose)
    result = await run_plugin(SamplingPlugin, request, upstream=upstream, config={"models": models})
    judges = [received.json for received in result.requests if "two answers to it" in received.text]

    assert len(judges) == 2
    assert all(body["max_completion_tokens"] == 512 for body in judges)
    assert not any("temperature" in body or "max_tokens" in body for body in judges)


async def test_a_verifier_that_nobody_registered_is_refused() -> None:
    wish = {"strategy": "best_of", "samples": 2, "verifier": "tset"}
    request = {"messages": [{"role": "user", "content": "A line about dawn."}], "predawn": {"sampling": wish}}
    result = await run_plugin([SamplingPlugin(SamplingSettings()), TastePlugin], request)

    assert result.status == 400
    assert "taste" in result.error["message"]
