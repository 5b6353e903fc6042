"""What the feed notes; conversations are real ones in `test_live_page.py`, here only what it looks at is there."""

from __future__ import annotations

import msgspec
import pytest

from predawn.proxy.accounting import Account
from predawn.proxy.exchange import Budget, Call, Difficulty, Exchange, Verdict
from predawn.proxy.live.feed import MOST_NOTABLE, MOST_PLAIN, MOST_RUNNING, MOST_TROUBLED, Feed
from predawn.proxy.live.glance import LONGEST_ID, MOST_CALLS, MOST_DECISIONS, MOST_MARKS


class Talk:
    """Stands for a conversation."""

    def __init__(self, feed: Feed, number: int = 0, model: str = "m") -> None:
        self.exchange = Exchange(b"{}", id=f"req_{number}", model=model, started=feed.origin + number)
        self.account = Account()
        self.feed = feed

    @property
    def seen(self):
        return self.exchange, self.account

    def end(self) -> None:
        self.feed.ended(self, self.exchange, self.account)


@pytest.fixture
def feed() -> Feed:
    made = Feed()
    made.is_watched = True
    return made


def test_one_on_its_way_is_shown_until_it_ends_and_its_end_once(feed: Feed) -> None:
    talk = Talk(feed)

    assert [row["id"] for row in feed.turn([{talk}])["running"]] == ["req_0"]
    talk.end()
    turn = feed.turn([set()])
    assert (turn["running"], [row["id"] for row in turn["ended"]], turn["ended_count"]) == ([], ["req_0"], 1)
    assert feed.turn([set()])["ended"] == []


def test_the_same_ones_stay_while_they_run_whatever_comes(feed: Feed) -> None:
    talks = {Talk(feed, number) for number in range(100)}
    first = {row["id"] for row in feed.turn([talks])["running"]}
    talks |= {Talk(feed, number) for number in range(100, 5000)}

    again = feed.turn([talks])

    assert len(first) == MOST_RUNNING
    assert {row["id"] for row in again["running"]} == first
    assert again["in_flight"] == 5000


def test_of_many_that_end_few_are_looked_into_and_all_are_counted(feed: Feed) -> None:
    for number in range(1000):
        Talk(feed, number).end()

    turn = feed.turn([])

    assert turn["ended_count"] == 1000
    assert len(turn["ended"]) == MOST_PLAIN


def test_failures_and_deeds_of_plugins_are_not_lost_among_the_others(feed: Feed) -> None:
    for number in range(300):
        Talk(feed, number).end()
    failed, decided, injected, sampled = (Talk(feed, 1000 + number) for number in range(4))
    failed.exchange.outcome = "upstream_error"
    decided.exchange.decide("budget", "allocated")
    injected.exchange.notes.append({"kind": "notes"})
    sampled.exchange.ledger.calls += [Call("u", "m"), Call("u", "m")]
    for talk in (failed, decided, injected, sampled):
        talk.end()

    shown = {row["id"] for row in feed.turn([])["ended"]}

    assert {"req_1000", "req_1001", "req_1002", "req_1003"} <= shown
    assert MOST_NOTABLE >= 3


def test_failures_and_interventions_are_not_lost_where_plugins_act_on_everything(feed: Feed) -> None:
    for number in range(300):
        talk = Talk(feed, number)
        talk.exchange.decide("budget", "allocated")
        talk.end()
    failed, stopped = Talk(feed, 1000), Talk(feed, 1001)
    failed.exchange.decide("budget", "allocated")
    failed.exchange.outcome = "upstream_error"
    stopped.exchange.decide("verify", "violation", action="stop")
    failed.end()
    stopped.end()

    shown = [row["id"] for row in feed.turn([])["ended"]]

    assert {"req_1000", "req_1001"} <= set(shown)
    assert len(shown) == MOST_NOTABLE + 2
    assert MOST_TROUBLED >= 2


def test_what_ends_although_it_was_shown_running_is_always_shown(feed: Feed) -> None:
    talks = {Talk(feed, number) for number in range(MOST_RUNNING)}
    feed.turn([talks])
    for number in range(100, 300):
        Talk(feed, number).end()
    for talk in talks:
        talk.end()

    ended = {row["id"] for row in feed.turn([])["ended"]}

    assert {talk.exchange.id for talk in talks} <= ended


def test_one_that_is_answered_is_shown_until_all_is_found_out_about_it(feed: Feed) -> None:
    late = Talk(feed)
    feed.turn([{late}])
    late.account.answered_at = late.exchange.started + 1

    (row,) = feed.turn([set()])["running"]
    assert row["answered"] - row["start"] == 1000
    late.end()
    turn = feed.turn([set()])
    assert (turn["running"], [row["id"] for row in turn["ended"]]) == ([], ["req_0"])


async def test_one_whose_end_is_told_by_nobody_keeps_no_place(feed: Feed) -> None:
    talk = Talk(feed)
    feed.turn([{talk}])
    await talk.exchange.close()
    assert [row["id"] for row in feed.turn([{talk}])["running"]] == ["req_0"]

    assert feed.turn([set()])["running"] == []


def test_two_with_the_same_id_are_told_apart(feed: Feed) -> None:
    one, other = Talk(feed, 1), Talk(feed, 1)
    other.exchange.started += 1e-6
    rows = feed.turn([{one, other}])["running"]
    one.end()
    (ended,) = feed.turn([{other}])["ended"]

    assert [row["id"] for row in rows] == ["req_1", "req_1"]
    assert len({row["key"] for row in rows}) == 2
    assert ended["key"] in {row["key"] for row in rows}


def test_an_id_is_told_whole_for_its_record_to_be_found(feed: Feed) -> None:
    talk = Talk(feed)
    talk.exchange.id = "r" * LONGEST_ID
    (row,) = feed.turn([{talk}])["running"]

    assert row["id"] == talk.exchange.id


def test_samples_on_their_way_are_shown_before_they_are_booked(feed: Feed) -> None:
    talk = Talk(feed)
    for _ in range(3):
        child = talk.exchange.child(b"{}")
        child.ledger.calls.append(Call("u", "m", "sample", started_s=0.5))

    (row,) = feed.turn([{talk}])["running"]

    assert row["calls"] == [[500, None, "sample", "serve", "pending"]] * 3
    assert talk.exchange.children


async def test_an_exchange_that_is_over_holds_no_children() -> None:
    exchange = Exchange(b"{}")
    exchange.child(b"{}")

    await exchange.close()

    assert exchange.children == ()


def test_each_verdict_is_read_once(feed: Feed) -> None:
    talk = Talk(feed)
    talk.exchange.verdicts += [Verdict("pass"), Verdict("violation"), Verdict("unsure")]
    (first,) = feed.turn([{talk}])["running"]
    talk.exchange.verdicts.append(Verdict("violation"))

    (again,) = feed.turn([{talk}])["running"]

    assert (first["checks"], again["checks"]) == ([1, 1, 1], [1, 2, 1])
    assert (len(first["marks"]), len(again["marks"])) == (1, 2)


def test_an_objection_is_marked_however_many_checks_passed_before(feed: Feed) -> None:
    talk = Talk(feed)
    talk.exchange.verdicts += [Verdict("pass")] * 10 * MOST_MARKS + [Verdict("violation", at_s=0.25)]

    (row,) = feed.turn([{talk}])["running"]

    assert row["checks"] == [10 * MOST_MARKS, 1, 0]
    assert row["marks"] == [row["start"] + 250]


def test_whatever_an_exchange_holds_the_page_gets_little_that_it_can_read(feed: Feed) -> None:
    talk = Talk(feed, model="\udcff\u202e\n" + "x" * 100_000)
    exchange = talk.exchange
    exchange.upstream = exchange.id = exchange.tenant = "y" * 100_000
    exchange.ledger.prompt = 1 << 80
    exchange.ledger.output = -(1 << 80)
    exchange.ledger.slept = float("nan")
    exchange.difficulty = Difficulty(float("inf"))
    exchange.budget = Budget(effort="high")
    exchange.verdicts += [Verdict("violation", at_s=float("nan"))] * 5000
    exchange.ledger.calls += [Call("u", "m", outcome="z" * 1000)] * 1000
    for _ in range(1000):
        exchange.decide("a" * 1000, "b" * 1000, prompt="never shown")
    talk.end()

    told = msgspec.json.encode(feed.turn([]))
    (row,) = msgspec.json.decode(told)["ended"]

    assert len(told) < 8_000
    assert b"never shown" not in told
    assert row["model"].startswith("\ufffd\ufffd\ufffdxxx")
    assert row["tokens"] == [0, 0, 0, 0]
    assert (len(row["calls"]), row["more_calls"]) == (MOST_CALLS, True)
    assert (len(row["marks"]), len(row["decisions"])) == (MOST_MARKS, MOST_DECISIONS)


def test_what_was_said_is_not_told(feed: Feed) -> None:
    talk = Talk(feed)
    talk.exchange.body = b'{"messages": "a secret"}'
    talk.exchange.error = "a secret"
    talk.exchange.notes.append({"text": "a secret"})
    talk.exchange.verdicts.append(Verdict("violation", "a secret", "a secret", "a secret"))
    talk.exchange.decide("p", "w", text="a secret")
    running = feed.turn([{talk}])
    talk.end()

    assert b"a secret" not in msgspec.json.encode([running, feed.turn([])])


def test_decisions_know_when_they_were_made(feed: Feed) -> None:
    talk = Talk(feed)
    talk.exchange.started -= 2
    talk.exchange.decide("verify", "violation", action="stop", text="not told")

    (row,) = feed.turn([{talk}])["running"]

    ((by, what, at, action),) = row["decisions"]
    assert (by, what, action) == ("verify", "violation", "stop")
    assert 2000 <= at - row["start"] < 60_000


def test_nothing_is_kept_once_nobody_watches(feed: Feed) -> None:
    talk = Talk(feed)
    feed.turn([{talk}])
    talk.end()

    feed.forget()

    assert feed.is_watched is False
    assert feed.turn([]) | {"now": 0} == {"now": 0, "running": [], "in_flight": 0, "ended": [], "ended_count": 0}
