"""Probes: asked where it pays, booked as discarded, harmless where they fail."""

from __future__ import annotations

import math

import pytest
from tests.plugins.budget.cases import CONFIG, EASY, HARD, outcome, state
from tests.plugins.budget.test_budget_plugin import ask, decision

from predawn.plugins.budget import BudgetPlugin
from predawn.plugins.budget.policies import Case
from predawn.plugins.budget.probing import hardness_of, is_worth_it, usual_price
from predawn.plugins.budget.settings import STANDARD_TIERS
from predawn.plugins.calls import TokenLogprob
from predawn.plugins.testing import Answer, ScriptedUpstream, workbench

ALWAYS = {"probe": "always"}


def is_probe(received):
    return any(received.json.get(name) == 24 for name in ("max_tokens", "max_completion_tokens"))


def upstream():
    return ScriptedUpstream(choose=lambda received: "7" if is_probe(received) else "the answer")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_probe_is_asked_without_what_shapes_the_answer_and_booked_as_discarded(stream):
    scripted = upstream()
    request = ask(EASY, tools=[{"type": "function", "function": {"name": "f"}}], max_tokens=900)
    async with workbench(BudgetPlugin, upstream=scripted, settings=ALWAYS, config=CONFIG) as bench:
        result = await bench.run(request, stream=stream)

    probe, answered = scripted.requests[0].json, scripted.requests[-1].json
    assert is_probe(scripted.requests[0])
    assert probe["messages"] == request["messages"]
    assert not {"tools", "max_tokens"} & probe.keys()
    assert answered["tools"] == request["tools"]
    assert answered["max_tokens"] == 900
    assert result.ledger.discarded > 0
    assert {call.purpose for call in result.ledger.calls} == {"probe", "serve"}


async def test_two_answers_that_agree_make_a_request_look_easier_than_two_that_do_not():
    async def difficulty(answers):
        said = iter(answers * 10)

        def choose(received):
            return Answer(text=next(said)) if is_probe(received) else "fine"

        plugin = BudgetPlugin(BudgetPlugin.settings_type(**ALWAYS))
        async with workbench(plugin, upstream=ScriptedUpstream(choose=choose), config=CONFIG) as bench:
            await bench.run(ask(HARD))
            plugin._running.allocator.capabilities.found("thinker", logprobs=False)
            return (await bench.run(ask(HARD))).exchange

    same, different = await difficulty(["7"]), await difficulty(["7", "8", "9"])

    assert decision_of(same)["views"]["probe"][0] < decision_of(different)["views"]["probe"][0]


def decision_of(exchange):
    return next(one.detail for one in exchange.decisions if one.what == "assessed")


@pytest.mark.parametrize("status", [400, 429, 500])
async def test_a_probe_that_fails_harms_nobody(status):
    def choose(received):
        return Answer(status=status) if is_probe(received) else "the answer"

    async with workbench(
        BudgetPlugin, upstream=ScriptedUpstream(choose=choose), settings=ALWAYS, config=CONFIG
    ) as bench:
        result = await bench.run(ask(HARD))

    assert (result.status, result.text) == (200, "the answer")
    assert "probe" not in decision(result, "assessed")["views"]


async def test_errors_of_a_provider_say_nothing_of_log_probabilities():
    def choose(received):
        return Answer(status=503) if is_probe(received) else "the answer"

    plugin = BudgetPlugin(BudgetPlugin.settings_type(**ALWAYS))
    async with workbench(plugin, upstream=ScriptedUpstream(choose=choose), config=CONFIG) as bench:
        for _ in range(5):
            await bench.run(ask(HARD))

    assert plugin._running.allocator.capabilities.of("thinker").logprobs is None


async def test_a_day_that_is_spent_sends_no_probe():
    settings = {**ALWAYS, "ceilings": {"tokens_per_day": 30}}
    scripted = upstream()
    async with workbench(BudgetPlugin, upstream=scripted, settings=settings, config=CONFIG) as bench:
        result = await bench.run(ask(HARD))

    assert result.status == 200
    assert not any(is_probe(received) for received in scripted.requests)


async def test_a_probe_counts_against_the_ceiling_of_its_request():
    settings = {**ALWAYS, "ceilings": {"request_tokens": 100}}
    scripted = upstream()
    async with workbench(BudgetPlugin, upstream=scripted, settings=settings, config=CONFIG) as bench:
        result = await bench.run(ask(HARD, "plain"))

    assert result.ledger.discarded > 0
    assert scripted.requests[-1].json["max_tokens"] == 100 - result.ledger.discarded


async def test_a_long_prompt_is_not_read_twice_for_a_little_knowledge():
    async def probes(text):
        scripted = upstream()
        plugin = BudgetPlugin(BudgetPlugin.settings_type(policy="marginal", target_tokens=2000))
        async with workbench(plugin, upstream=scripted, config=CONFIG) as bench:
            await bench.run(ask(text))
        return sum(map(is_probe, scripted.requests))

    asked = [await probes(f"{text} {'and so on ' * 20_000}") for text in (EASY, HARD)]

    assert asked == [0, 0]


def token(chance, top=()):
    return TokenLogprob("x", math.log(chance), tuple((name, math.log(one)) for name, one in top))


def test_an_unsure_beginning_is_hard_and_a_sure_one_easy():
    assert hardness_of([token(0.99)] * 5) < 0.1 < 0.9 < hardness_of([token(0.3), token(0.3)])


def test_the_chance_to_begin_thinking_is_the_difficulty():
    assert hardness_of([token(0.5, [("<think>", 0.7), ("7", 0.3)])]) == pytest.approx(0.7)


def case(difficulty=0.5, gains=True):
    made = state()
    for at in range(200):
        tier = STANDARD_TIERS[at % 4]
        quality = 0.4 + 0.15 * (at % 4) if gains else 0.5
        made.learn(
            outcome(
                str(at), tier=tier.name, difficulty=0.5, quality=quality, tokens=100.0 * 4 ** (at % 4), source="verdict"
            )
        )
    return Case(difficulty, "math", made, STANDARD_TIERS)


def test_a_probe_is_worth_it_only_where_it_is_cheap_and_little_is_known():
    undecided = case()
    price = usual_price(undecided)

    assert price > 0
    assert not is_worth_it(undecided, 0.99, 24, price)
    assert not is_worth_it(undecided, 0.2, 1e9, price)


def test_some_request_is_worth_a_probe():
    worth = [is_worth_it(case(at / 10), 0.2, 1, price) for at in range(1, 10) for price in (1e-5, 1e-4, 3e-4, 1e-3)]

    assert any(worth)
    assert not all(worth)
