"""The plugin in the proxy: what upstreams get, what clients and records are told, what is learnt from it."""

from __future__ import annotations

import json
import time

import pytest
from tests.plugins.budget.cases import CONFIG, EASY, HARD, outcome

from predawn.plugins import Difficulty, Plugin, Verdict, hookimpl
from predawn.plugins.budget import BudgetPlugin
from predawn.plugins.budget.capabilities import BELIEVED
from predawn.plugins.sampling import SamplingPlugin, SamplingSettings
from predawn.plugins.testing import Answer, ScriptedUpstream, run_plugin, workbench
from predawn.proxy.dispatch import HookError


def ask(text=EASY, model="thinker", **more):
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def decision(result, what="allocated"):
    return next(one.detail for one in result.exchange.decisions if (one.by, one.what) == ("budget", what))


async def run(request, settings=None, **more):
    return await run_plugin(BudgetPlugin, request, settings=settings, config=CONFIG, **more)


async def test_hard_requests_are_thought_about_and_easy_ones_are_not():
    easy, hard = await run(ask(EASY)), await run(ask(HARD))

    assert easy.sent.json["reasoning_effort"] == "low"
    assert hard.sent.json["reasoning_effort"] == "high"


async def test_the_record_tells_difficulty_estimator_tier_and_why():
    result = await run(ask(HARD))
    assessed, allocated = decision(result, "assessed"), decision(result)

    assert assessed["estimator"] == "features"
    assert assessed["views"]["features"][0] == assessed["score"] > 0.8
    assert (assessed["kind"], assessed["shape"]) == ("math", "depth")
    assert (allocated["policy"], allocated["tier"]) == ("tiers", "hardest")
    assert allocated["why"].startswith("difficulty 0.")
    assert result.exchange.budget.effort == "high"
    assert result.headers["x-predawn-budget"] == "tier=hardest; effort=high"
    assert float(result.headers["x-predawn-difficulty"]) == pytest.approx(assessed["score"], abs=0.01)


async def test_assess_says_how_hard_a_request_looks():
    result = await run(ask(EASY))

    assert 0 <= result.exchange.difficulty.score < 0.25
    assert 0 < result.exchange.difficulty.confidence < 1


@pytest.mark.parametrize("own", [{"reasoning_effort": "minimal"}, {"reasoning_effort": "high"}])
async def test_an_effort_of_the_clients_own_stands_byte_for_byte(own):
    request = json.dumps(ask(HARD, **own)).encode()
    result = await run(request)

    assert result.sent.json["reasoning_effort"] == own["reasoning_effort"]
    assert result.exchange.budget.effort is None


async def test_a_model_without_a_knob_gets_the_clients_own_bytes():
    request = json.dumps(ask(HARD, "plain"), indent=3).encode()
    result = await run(request)

    assert result.sent.body == request


async def test_a_limit_of_the_clients_is_never_raised():
    tiers = [{"name": "only", "max_output_tokens": 500}]
    low, high = [await run(ask(max_tokens=limit), {"tiers": tiers}) for limit in (50, 5000)]

    assert (low.sent.json["max_tokens"], high.sent.json["max_tokens"]) == (50, 500)


async def test_a_tier_limits_answers_whose_client_set_no_limit():
    result = await run(ask(), {"tiers": [{"name": "only", "max_output_tokens": 500}]})

    assert result.sent.json["max_completion_tokens"] == 500


@pytest.mark.parametrize("own", [{"max_tokens": 500.0}, {"max_tokens": "500"}, {"max_completion_tokens": 500}])
async def test_room_for_thinking_never_raises_a_limit_of_the_clients(own):
    config = {"models": [{"name": "claude", "upstream": "scripted", "reasoning": "thinking_budget"}]}
    result = await run_plugin(BudgetPlugin, ask(HARD, "claude", **own), config=config)

    assert {name: result.sent.json.get(name) for name in own} == own
    assert "max_tokens" in own or "max_tokens" not in result.sent.json


@pytest.mark.parametrize("own", [{"temperature": 0.2}, {"tool_choice": "required"}, {"tool_choice": {"type": "any"}}])
async def test_a_request_beside_which_a_model_cannot_think_says_no_effort(own):
    config = {"models": [{"name": "claude", "upstream": "scripted", "reasoning": "thinking_budget"}]}
    result = await run_plugin(BudgetPlugin, ask(HARD, "claude", **own), config=config)

    assert "thinking" not in result.sent.json
    assert "effort" not in result.headers["x-predawn-budget"]


class Elsewhere(Plugin):
    """Judges difficulty in budget's place, and badly."""

    @hookimpl(tryfirst=True)
    async def assess(self, exchange):
        return Difficulty(float("nan"), 0.9, "elsewhere")


async def test_a_budget_is_given_by_whomever_the_difficulty_was_judged_and_however_badly():
    plugin = BudgetPlugin(BudgetPlugin.settings_type())
    async with workbench(Elsewhere(Plugin.settings_type()), plugin, config=CONFIG) as bench:
        result = await bench.run(ask(HARD))

    assert decision(result)["why"] == "difficulty 0.50"
    assert [one.difficulty for one in plugin.memory.of("default", "thinker")] == [0.5]


async def test_what_a_client_made_of_a_tier_says_nothing_of_the_tier():
    plugin = BudgetPlugin(BudgetPlugin.settings_type())
    async with workbench(plugin, config=CONFIG) as bench:
        for more in ({}, {"reasoning_effort": "high"}, {"predawn": {"budget": {"effort": "high"}}}):
            await bench.run(ask(EASY, **more))
        tiers = [one.tier for one in plugin.memory.of("default", "thinker")]

    assert tiers == ["easy", "", ""]


async def test_a_request_may_ask_for_a_tier_an_effort_or_to_be_left_alone():
    tier = await run(ask(EASY), headers={"x-predawn-budget": "hardest"})
    effort = await run(ask(EASY, predawn={"budget": {"effort": "medium"}}))
    off = await run(ask(HARD), headers={"x-predawn-budget": "off"})

    assert decision(tier)["why"] == "asked for"
    assert tier.sent.json["reasoning_effort"] == "high"
    assert effort.sent.json["reasoning_effort"] == "medium"
    assert "reasoning_effort" not in off.sent.json
    assert off.exchange.budget is None


@pytest.mark.parametrize("asked", [7, {"tier": "huge"}, {"effort": 3}, {"samples": 0}, {"wat": 1}, {"verify": "x"}, []])
async def test_a_wish_that_cannot_be_meant_is_refused(asked):
    result = await run(ask(predawn={"budget": asked}), strict=False)

    assert result.status == 400
    assert result.error["param"] == "predawn.budget"


@pytest.mark.parametrize("text", ["x-predawn-budget: hardest", '{"predawn": {"budget": {"tier": "hardest"}}}'])
async def test_message_text_never_controls_the_budget(text):
    assert decision(await run(ask(text)))["tier"] != "hardest"


async def test_a_knob_that_is_refused_is_taken_out_and_soon_not_tried_again():
    def choose(received):
        if "reasoning_effort" in received.json:
            return Answer(status=400, body={"error": {"message": "Unknown parameter"}})
        return "fine"

    upstream = ScriptedUpstream(choose=choose)
    async with workbench(BudgetPlugin, upstream=upstream, config=CONFIG) as bench:
        first = await bench.run(ask(HARD))
        sent = len(upstream.requests)
        for _ in range(BELIEVED - 1):
            await bench.run(ask(HARD))
        last = await bench.run(ask(HARD))

    assert (first.status, last.status) == (200, 200)
    assert sent == 2
    assert decision(first, "taken out")["status"] == 400
    assert (first.exchange.budget.effort, last.exchange.budget.effort) == ("high", "medium")


async def test_requests_that_are_refused_for_what_their_client_wrote_cost_others_no_effort():
    def choose(received):
        is_odd = "odd" in received.text and "reasoning_effort" in received.json
        return Answer(status=400) if is_odd else "fine"

    async with workbench(BudgetPlugin, upstream=ScriptedUpstream(choose=choose), config=CONFIG) as bench:
        await bench.run(ask(HARD))
        for _ in range(2 * BELIEVED):
            await bench.run(ask(f"odd {HARD}"))
        after = await bench.run(ask(HARD))

    assert after.sent.json["reasoning_effort"] == "high"


async def test_a_request_beyond_the_ceiling_is_refused_before_anything_is_sent():
    settings = {"ceilings": {"tokens_per_day": 40}}
    async with workbench(BudgetPlugin, upstream="word " * 30, settings=settings, config=CONFIG) as bench:
        first = await bench.run(ask(max_tokens=40))
        second = await bench.run(ask(max_tokens=40))

        assert first.status == 200
        assert (second.status, second.error["code"]) == (429, "budget_exceeded")
        assert int(second.headers["retry-after"]) > 0
        assert len(bench.upstream.requests) == 1
        assert decision(second, "refused")["ceiling"] == "tokens_per_day"


async def test_a_ceiling_limits_answers_whose_client_set_no_limit():
    result = await run(ask(model="plain"), {"ceilings": {"request_tokens": 77}})

    assert result.sent.json["max_tokens"] == 77


async def test_under_marginal_the_record_tells_price_target_and_mean():
    result = await run(ask(HARD), {"policy": "marginal", "target_tokens": 700, "probe": "off"})
    allocated = decision(result)

    assert allocated["price"] > 0
    assert allocated["target_tokens"] == 700
    assert "mean_tokens" in allocated


async def test_failed_requests_do_not_count_for_the_mean():
    async with workbench(
        BudgetPlugin,
        upstream=ScriptedUpstream(choose=lambda _: Answer(status=404)),
        settings={"policy": "marginal", "target_tokens": 700, "probe": "off"},
        config=CONFIG,
    ) as bench:
        for _ in range(5):
            result = await bench.run(ask(HARD))

        assert result.exchange.budget is not None
        assert decision(result)["mean_tokens"] == 700


class Verifying(Plugin):
    """Finds every second answer wrong."""

    @hookimpl
    async def around_completion(self, exchange, call_next):
        wrong = "wrong" in exchange.body.decode()
        exchange.verdicts.append(Verdict("violation" if wrong else "pass"))
        return await call_next(exchange)


async def test_verdicts_teach_what_is_hard():
    plugins = [BudgetPlugin(BudgetPlugin.settings_type()), Verifying(Plugin.settings_type())]
    async with workbench(*plugins, config=CONFIG) as bench:
        before = await bench.run(ask("Please tell me of the wrong kind of rhubarb pie with cream"))
        for at in range(8):
            await bench.run(ask(f"Please tell me of the wrong kind of rhubarb pie with cream {at}"))
        after = await bench.run(ask("Please tell me of the wrong kind of rhubarb pie with cream"))

    assert after.exchange.difficulty.score > before.exchange.difficulty.score + 0.2
    assert after.exchange.difficulty.estimator == "neighbours"


class Oracle(Plugin):
    """Brings an estimator that knows, and one that is broken."""

    told: list

    @hookimpl
    def register_estimators(self, register):
        self.told = []
        oracle = self

        class Knows:
            name = "oracle"

            async def estimate(self, exchange):
                return Difficulty(0.97, 0.99, "oracle")

            def learn(self, exchange, evidence):
                oracle.told.append(evidence)
                raise KeyError("learnt too much")

        class Broken:
            name = "broken"

            async def estimate(self, exchange):
                raise ValueError("broken")

        register(Knows())
        register(Broken())


async def test_register_estimators_brings_views_that_are_weighed_and_failures_that_harm_nobody():
    oracle = Oracle(Plugin.settings_type())
    settings = BudgetPlugin.settings_type(estimators=("features", "oracle", "broken"))
    async with workbench(BudgetPlugin(settings), oracle, Verifying(Plugin.settings_type()), config=CONFIG) as bench:
        result = await bench.run(ask(EASY))

    assert result.exchange.difficulty.estimator == "oracle"
    assert result.exchange.difficulty.score > 0.9
    assert set(decision(result, "assessed")["views"]) == {"features", "oracle"}
    assert [one.source for one in oracle.told] == ["verdict"]


async def test_an_estimator_that_nobody_registered_stops_the_start():
    with pytest.raises(HookError) as raised:
        await run(ask(), {"estimators": ["feature"]})

    assert "did you mean 'features'" in str(raised.value.__cause__)


async def test_routes_without_an_answer_to_budget_pass_untouched():
    request = json.dumps({"model": "thinker", "input": HARD}).encode()
    result = await run(request, route="embeddings")

    assert result.sent.body == request
    assert result.exchange.budget is None


@pytest.mark.parametrize("route", ["responses", "messages", "completions"])
async def test_other_routes_are_judged_too(route):
    body = {"responses": {"input": HARD}, "completions": {"prompt": HARD}}.get(
        route, {"messages": [{"role": "user", "content": HARD}], "max_tokens": 100}
    )
    result = await run({"model": "thinker", **body}, route=route)

    assert result.status == 200
    assert result.exchange.difficulty.score > 0.6


async def test_deciding_takes_little_time():
    plugin = BudgetPlugin(BudgetPlugin.settings_type(policy="marginal", target_tokens=500))
    async with workbench(plugin, config=CONFIG) as bench:
        for _ in range(30):
            result = await bench.run(ask(HARD))
        exchange = result.exchange
        best = 1.0
        for _ in range(200):
            exchange.state.clear()
            exchange.decisions.clear()
            began = time.perf_counter()
            exchange.difficulty = await plugin.assess(exchange)
            await plugin.allocate(exchange)
            best = min(best, time.perf_counter() - began)

    assert best < 300e-6


async def test_where_a_curve_is_flat_the_cheapest_tier_is_given_and_the_record_says_so():
    plugin = BudgetPlugin(BudgetPlugin.settings_type(learning={"explore": 0}))
    async with workbench(plugin, config=CONFIG) as bench:
        state = plugin.memory.of("default", "thinker")
        for at in range(200):
            tier = ("easy", "usual", "hard", "hardest")[at % 4]
            quality = 0.5 + 0.1 * (at // 4 % 2)
            state.learn(
                outcome(str(at), tier=tier, tokens=100.0 * 4 ** (at % 4), quality=quality, source="verdict", sketch=())
            )
        flat, other = await bench.run(ask(HARD)), await bench.run(ask(f"{HARD} ```code```"))

    assert decision(flat)["tier"] == "easy"
    assert decision(flat)["why"].startswith("flat: more tokens do not help with math, ")
    assert decision(other)["tier"] == "hardest"


async def test_a_flat_curve_falls_back_to_no_tier_that_nobody_has_judged():
    plugin = BudgetPlugin(BudgetPlugin.settings_type(learning={"explore": 0}))
    async with workbench(plugin, config=CONFIG) as bench:
        state = plugin.memory.of("default", "thinker")
        for at in range(200):
            tier = ("hard", "hardest")[at % 2]
            quality = 0.5 + 0.1 * (at // 2 % 2)
            state.learn(
                outcome(str(at), tier=tier, tokens=100.0 * 8 ** (at % 2), quality=quality, source="verdict", sketch=())
            )
        flat = decision(await bench.run(ask(HARD)))

    assert flat["why"].startswith("flat")
    assert flat["tier"] == "hard"


async def test_now_and_then_a_neighbouring_tier_is_tried():
    plugin = BudgetPlugin(BudgetPlugin.settings_type(learning={"explore": 0.5}))
    async with workbench(plugin, config=CONFIG) as bench:
        tiers = {decision(await bench.run(ask(EASY)))["tier"] for _ in range(20)}
        later = [decision(await bench.run(ask(EASY))) for _ in range(30)]

    assert tiers == {"easy"}
    assert {one["tier"] for one in later} == {"easy", "hard"}
    assert any(one["why"] == "explores, instead of easy" for one in later)


async def test_samples_and_checks_are_granted_only_where_a_plugin_draws_and_makes_them():
    config = {**CONFIG, "plugins": ["sampling", "verify"]}
    tiers = [{"name": "wide", "samples": 4, "rounds": 2, "verify": True}]
    plugin = BudgetPlugin(BudgetPlugin.settings_type(tiers=tiers, shape=False))
    async with workbench(plugin, config=config) as bench:
        granted = (await bench.run(ask())).exchange.budget
        alone = (await bench.run(ask(n=2))).exchange.budget
    bare = (await run(ask(), {"tiers": tiers})).exchange.budget

    assert (granted.samples, granted.rounds, granted.verify) == (8, 1, True)
    assert (alone.samples, alone.rounds) == (1, 1)
    assert (bare.samples, bare.rounds, bare.verify) == (1, 1, False)


@pytest.mark.parametrize(
    ("text", "model", "expected"),
    [
        (HARD, "thinker", ("high", 4, 1)),
        (HARD, "plain", (None, 8, 1)),
        ("What is 3 + 4 times 2?", "thinker", ("medium", 8, 1)),
    ],
)
async def test_chains_get_depth_and_short_tasks_width(text, model, expected):
    tiers = [{"name": "only", "effort": "medium", "samples": 4, "rounds": 2}]
    plugin = BudgetPlugin(BudgetPlugin.settings_type(tiers=tiers))
    async with workbench(plugin, config={**CONFIG, "plugins": ["sampling"]}) as bench:
        budget = (await bench.run(ask(text, model))).exchange.budget

    assert (budget.effort, budget.samples, budget.rounds) == expected


@pytest.mark.parametrize("ceiling", ["request_tokens", "tokens_per_day"])
async def test_a_ceiling_leaves_a_client_that_asks_for_samples_as_many_as_it_has_room_for(ceiling):
    sampling = SamplingPlugin(SamplingSettings(epsilon=1e-6))
    plugin = BudgetPlugin(BudgetPlugin.settings_type(ceilings={ceiling: 4000}))
    wish = {"predawn": {"sampling": {"strategy": "vote", "samples": 5, "min_samples": 5}}}
    async with workbench(plugin, sampling, upstream="It is 42.", config=CONFIG) as bench:
        open_ended = await bench.run(ask(model="plain", **wish))
    async with workbench(plugin, sampling, upstream="It is 42.", config=CONFIG) as bench:
        limited = await bench.run(ask(model="plain", max_tokens=1000, **wish))

    assert (open_ended.status, open_ended.text, len(open_ended.requests)) == (200, "It is 42.", 1)
    assert open_ended.sent.json["max_tokens"] == 4000
    assert (limited.status, len(limited.requests)) == (200, 3)


class Noting(Plugin):
    """Stands for sleep: says that notes were put in."""

    is_fresh = True

    @hookimpl
    async def on_request(self, exchange):
        exchange.notes.append({"plugin": "sleep", "fresh": self.is_fresh})


class NotingStale(Noting):
    is_fresh = False


async def test_fresh_notes_make_a_request_easier_and_stale_ones_do_not():
    plain, fresh, stale = [
        (await run_plugin([*before, BudgetPlugin], ask(HARD), config=CONFIG)).exchange.difficulty.score
        for before in ([], [Noting], [NotingStale])
    ]

    assert fresh < plain == stale
