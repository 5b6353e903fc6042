"""Whatever a client sends, deciding about it neither fails nor costs more than it may."""

from __future__ import annotations

import asyncio
import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.plugins.budget.cases import CONFIG
from tests.plugins.budget.test_budget_plugin import ask

from predawn.plugins.budget import BudgetPlugin
from predawn.plugins.budget.control import Wish, read_wish
from predawn.plugins.sampling import SamplingPlugin
from predawn.plugins.testing import ScriptedUpstream, workbench
from predawn.proxy.exchange import RequestError

ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 10**12)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
MEMBERS = (
    *("max_tokens", "max_completion_tokens", "n", "best_of", "tools", "tool_choice", "response_format", "stop"),
    *("reasoning_effort", "chat_template_kwargs", "thinking", "messages", "logprobs", "seed"),
)


@settings(max_examples=25)
@given(st.lists(st.dictionaries(st.sampled_from(MEMBERS), ODD, max_size=5), min_size=1, max_size=4))
def test_odd_members_never_break_a_request(bodies):
    async def run():
        plugin = BudgetPlugin(
            BudgetPlugin.settings_type(
                policy="marginal",
                target_tokens=100,
                probe="off",
                ceilings={"request_tokens": 500, "tokens_per_day": 10_000},
            )
        )
        async with workbench(plugin, config=CONFIG, upstream="fine", strict=False) as bench:
            for body in bodies:
                result = await bench.run(json.dumps({**ask(), **body}).encode())

                assert result.status < 500
                assert result.status != 200 or result.exchange.budget is not None

    asyncio.run(run())


@given(ODD)
def test_any_wish_is_read_or_refused(asked):
    try:
        wish = read_wish({"budget": asked}, ("easy", "hard"))
    except RequestError as exc:
        assert exc.status == 400
    else:
        assert isinstance(wish, Wish)


@pytest.mark.parametrize("member", [{"n": 8}, {"n": 8.0}, {"n": 8, "max_tokens": 100_000}])
async def test_choices_of_the_clients_own_count_against_a_ceiling(member):
    plugin = BudgetPlugin(BudgetPlugin.settings_type(ceilings={"request_tokens": 800}))
    async with workbench(plugin, config=CONFIG) as bench:
        result = await bench.run(ask(model="plain", **member))

    assert result.sent.json["max_tokens"] == 100
    assert result.exchange.budget.samples == 1


@pytest.mark.parametrize("asked", [{"headers": {"x-predawn-budget": "off"}}, {"body": {"predawn": {"budget": "off"}}}])
async def test_leaving_budget_out_is_no_way_around_a_ceiling(asked):
    plugin = BudgetPlugin(BudgetPlugin.settings_type(ceilings={"tokens_per_day": 50}))
    async with workbench(plugin, upstream="word " * 40, config=CONFIG) as bench:
        first, second = [
            await bench.run(ask(model="plain", **asked.get("body", {})), headers=asked.get("headers")) for _ in range(2)
        ]

    assert first.sent.json["max_tokens"] == 50
    assert first.exchange.budget is None
    assert (second.status, second.error["code"]) == (429, "budget_exceeded")


async def test_under_a_ceiling_a_body_that_cannot_be_read_is_refused():
    plugin = BudgetPlugin(BudgetPlugin.settings_type(ceilings={"tokens_per_day": 50}))
    body = b'{"model": "plain", "messages": [{"role": "user", "content": "\xff\xfe"}]}'
    async with workbench(plugin, config=CONFIG, strict=False) as bench:
        result = await bench.run(body)

        assert result.status == 400
        assert bench.upstream.requests == []


async def test_samples_that_a_client_asks_of_sampling_are_held_under_the_ceiling():
    ceilings = {"request_tokens": 300, "answer_tokens": 100}
    plugins = [
        BudgetPlugin(BudgetPlugin.settings_type(ceilings=ceilings)),
        SamplingPlugin(SamplingPlugin.settings_type()),
    ]
    numbers = itertools.count()
    scripted = ScriptedUpstream(choose=lambda _: f"The answer is {next(numbers)}.")
    async with workbench(*plugins, upstream=scripted, config={**CONFIG, "plugins": ["budget", "sampling"]}) as bench:
        result = await bench.run(ask(model="plain", predawn={"sampling": {"strategy": "vote", "samples": 8}}))

    assert result.status == 200
    assert [received.json["max_tokens"] for received in scripted.requests] == [100] * 3


async def test_a_limit_of_minus_one_is_no_way_around_a_ceiling():
    plugin = BudgetPlugin(BudgetPlugin.settings_type(ceilings={"request_tokens": 300}))
    async with workbench(plugin, config=CONFIG) as bench:
        result = await bench.run(ask(model="plain", max_tokens=-1))

    assert result.sent.json["max_tokens"] == 300


async def test_a_body_that_cannot_be_read_is_for_the_upstream_to_judge():
    body = b'{"model": "plain", "messages": [{"role": "user", "content": "\xff\xfe"}]}'
    plugin = BudgetPlugin(BudgetPlugin.settings_type())
    async with workbench(plugin, config=CONFIG, strict=False) as bench:
        result = await bench.run(body)

    assert result.status in {200, 400}
    assert not plugin.memory.of("default", "plain")._ring
