"""What was learnt survives restarts, reaches the store in batches, and is corrected by feedback."""

from __future__ import annotations

import dataclasses
import datetime
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.plugins.budget.cases import CONFIG, outcome
from tests.plugins.budget.test_budget_plugin import Verifying, ask, decision

from predawn.plugins import Plugin, RequestError
from predawn.plugins.budget import BudgetPlugin
from predawn.plugins.budget.books import CLEAR_S
from predawn.plugins.budget.ceilings import Place
from predawn.plugins.budget.feedback import read_score
from predawn.plugins.budget.prices import Prices, Standing
from predawn.plugins.budget.shelf import Shelf
from predawn.plugins.testing import workbench
from predawn.proxy.store import open_store


@pytest.fixture
async def shelf(tmp_path):
    store = await open_store(str(tmp_path / "state.db"))
    yield Shelf(store)
    await store.aclose()


async def test_outcomes_come_back_as_they_were_written_oldest_first(shelf):
    written = [outcome(str(at), at=float(at), quality=0.5, hardness=0.25, source="verdict") for at in range(5)]
    await shelf.write(written, [], {})

    assert await shelf.outcomes("t", "m", 3) == written[2:]
    assert await shelf.outcomes("t", "other", 3) == []


async def test_an_outcome_that_is_written_again_is_corrected(shelf):
    await shelf.write([outcome("a")], [], {})
    await shelf.write([outcome("a", quality=0.0, hardness=1.0, source="feedback")], [], {})
    found = await shelf.outcome("t", "a")

    assert (found.quality, found.source) == (0.0, "feedback")


async def test_a_tenant_finds_no_outcome_of_another(shelf):
    await shelf.write([outcome("a", tenant="one"), outcome("a", tenant="two", tokens=7.0)], [], {})

    assert (await shelf.outcome("two", "a")).tokens == 7.0
    assert await shelf.outcome("three", "a") is None
    assert [one.tenant for one in await shelf.outcomes("one", "m", 9)] == ["one"]


async def test_days_are_added_up_and_prices_replaced(shelf):
    day = datetime.date(2026, 1, 1)
    for _ in range(2):
        await shelf.write([], [Standing("t", "m", 1.0, -1.0, 2.0, 3.0, 4, 5.0)], {Place(day, "t", "k"): 10})

    assert await shelf.spent(day) == [("t", "k", 20)]
    assert len(await shelf.prices()) == 1


async def test_only_the_newest_outcomes_are_kept(shelf):
    await shelf.write([outcome(str(at), at=float(at)) for at in range(10)], [], {})
    await shelf.write([outcome(str(at), tenant="other", at=float(at)) for at in range(10)], [], {})
    await shelf.trim("t", "m", 4)

    assert [one.exchange_id for one in await shelf.outcomes("t", "m", 99)] == ["6", "7", "8", "9"]
    assert len(await shelf.outcomes("other", "m", 99)) == 10


async def test_prices_that_nobody_asks_for_are_deleted(shelf):
    rows = [Standing(tenant, "m", 1.0, -1.0, 2.0, 3.0, 4, at) for tenant, at in (("old", 5.0), ("new", 50.0))]
    await shelf.write([], rows, {})
    await shelf.clear(10.0, datetime.date(2026, 1, 1))

    assert [row["tenant"] for row in await shelf.prices()] == ["new"]


async def test_rows_that_cannot_be_read_are_passed_over(shelf):
    await shelf.write([outcome("a"), outcome("b", kind="astrology")], [], {})

    assert [one.exchange_id for one in await shelf.outcomes("t", "m", 9)] == ["a"]


def plugins(**settings):
    return [BudgetPlugin(BudgetPlugin.settings_type(**settings)), Verifying(Plugin.settings_type())]


async def test_learning_survives_a_restart(tmp_path):
    pie = "Please tell me of the wrong kind of rhubarb pie with cream"
    store = await open_store(str(tmp_path / "state.db"))

    marginal = {"policy": "marginal", "target_tokens": 300.0, "probe": "off"}
    async with shared(store, plugins(**marginal)) as bench:
        for at in range(8):
            last = await bench.run(ask(f"{pie} {at}"))
    async with shared(store, plugins(**marginal)) as bench:
        after = await bench.run(ask(pie))
    await store.aclose()

    assert after.exchange.difficulty.estimator == "neighbours"
    assert after.exchange.difficulty.score > 0.5
    assert decision(after)["mean_tokens"] == pytest.approx(decision(last)["mean_tokens"], rel=0.1)
    assert decision(after)["mean_tokens"] != 300.0


def shared(store, bench_plugins):
    """A workbench whose plugins write to this store."""
    for plugin in bench_plugins:
        if isinstance(plugin, BudgetPlugin):
            start = plugin._start

            def with_store(app, start=start):
                async def opened():
                    return store

                return start(dataclasses.replace(app, store=opened))

            plugin._start = with_store
    return workbench(*bench_plugins, config=CONFIG)


async def tell(bench, ident, body):
    answered = await bench.http("POST", f"/v1/exchanges/{ident}/feedback", json.dumps(body).encode())
    return answered.status, json.loads(answered.body)


async def test_feedback_is_taken_and_learnt_from():
    plugin = BudgetPlugin(BudgetPlugin.settings_type())
    async with workbench(plugin, config=CONFIG) as bench:
        result = await bench.run(ask("What is the capital of rhubarb?"))
        status, told = await tell(bench, result.exchange.id, {"correct": False})
        again = await tell(bench, result.exchange.id, {"score": 0})
        after = await bench.run(ask("What is the capital of rhubarb?"))

    assert (status, told) == (200, {"id": result.exchange.id, "object": "exchange.feedback", "score": 0.0})
    assert again[0] == 200
    assert len(plugin.memory.of("default", "thinker")) == 2
    assert after.exchange.difficulty.score > result.exchange.difficulty.score


async def test_feedback_about_an_exchange_that_is_in_the_store_only_is_taken():
    plugin = BudgetPlugin(BudgetPlugin.settings_type())
    async with workbench(plugin, config=CONFIG) as bench:
        result = await bench.run(ask())
        await bench.clock.advance(10)
        plugin.memory._states.clear()
        plugin._running.books._waiting.clear()
        status, _ = await tell(bench, result.exchange.id, {"correct": True})

    assert status == 200
    assert [one.source for one in plugin.memory.of("default", "thinker")] == ["feedback"]


@pytest.mark.parametrize("ident", ["nobody", "%00"])
async def test_feedback_about_nothing_is_not_found(ident):
    async with workbench(BudgetPlugin, config=CONFIG) as bench:
        status, told = await tell(bench, ident, {"correct": True})

    assert (status, told["error"]["code"]) == (404, "exchange_not_found")


@pytest.mark.parametrize(
    "body", [{}, {"score": 2}, {"score": True}, {"score": "1"}, {"correct": 1}, {"other": 1}, [1], 7]
)
async def test_feedback_that_says_nothing_is_refused(body):
    async with workbench(BudgetPlugin, config=CONFIG) as bench:
        status, _ = await tell(bench, "any", body)

    assert status == 400


@settings(max_examples=200)
@given(st.binary(max_size=80))
def test_any_bytes_are_a_score_or_refused(body):
    try:
        score = read_score(body)
    except RequestError as exc:
        assert exc.status == 400
    else:
        assert 0 <= score <= 1


async def test_the_store_is_written_in_batches_behind_the_requests():
    plugin = BudgetPlugin(BudgetPlugin.settings_type())
    async with workbench(plugin, config=CONFIG) as bench:
        for _ in range(20):
            await bench.run(ask())
        waiting = len(plugin._running.books._waiting)
        await bench.clock.advance(5)
        left = len(plugin._running.books._waiting)

    assert waiting > 0
    assert left == 0


async def test_tenants_that_ask_little_keep_no_more_outcomes_than_may_be(tmp_path):
    store = await open_store(str(tmp_path / "state.db"))
    plugin = BudgetPlugin(BudgetPlugin.settings_type(learning={"outcomes": 16, "flush_s": 60}))
    async with shared(store, [plugin]) as bench:
        books = plugin._running.books
        for _ in range(3):
            for _ in range(10):
                await bench.run(ask())
                await bench.clock.advance(1)
            await books.flush()
            books._cleared_at -= CLEAR_S
            await books._clear()
        kept = await Shelf(store).outcomes("default", "thinker", 99)
    await store.aclose()

    assert len(kept) == 16


@pytest.mark.parametrize(("target", "debt"), [(100.0, 4.0), (200.0, 0.0)])
def test_a_price_goes_on_where_it_was_and_owes_nothing_to_another_target(target, debt):
    before, after = [
        Prices(BudgetPlugin.settings_type(policy="marginal", target_tokens=tokens)) for tokens in (100.0, target)
    ]
    price = before.of("t", "m")
    price.expect(500)
    after.load([one._asdict() for one in before.take_changed(1.0)])

    assert after.of("t", "m").debt == debt
    assert after.of("t", "m").base == price.base
    assert after.of("other", "m").debt == 0
