"""Retries, fallbacks and the choice among targets, against upstreams that answer from a list."""

import pytest

from predawn.plugins.testing import ManualClock
from predawn.proxy.breaker import Breaker
from predawn.proxy.exchange import Exchange, Reply, RequestError
from predawn.proxy.resilience import Sender, Station, Target, Tier, retry_after_s
from predawn.proxy.settings import UpstreamSettings
from predawn.proxy.upstreams.base import UpstreamError

BODY = b'{"model":"m","messages":[]}'


class Listed:
    """Answers with the next item of a list, again and again with the last one."""

    routes = frozenset({"chat"})

    def __init__(self, name, *answers):
        self.name = name
        self.answers = list(answers) or [200]
        self.calls = []

    async def send(self, request):
        self.calls.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, UpstreamError):
            raise answer
        status, headers = answer if isinstance(answer, tuple) else (answer, {})
        return Reply(status, headers, source=Source())


class Source:
    def __init__(self):
        self.closed = 0

    async def __aiter__(self):
        yield b"{}"

    async def aclose(self):
        self.closed += 1


class Counts:
    def __init__(self):
        self.errors, self.retries, self.fallbacks = [], 0, []

    def upstream_error(self, upstream, reason):
        self.errors.append((upstream, reason))

    def upstream_retry(self, _upstream):
        self.retries += 1

    def upstream_fallback(self, upstream):
        self.fallbacks.append(upstream)


class ImpatientClock(ManualClock):
    """Sleeps take no time but are remembered."""

    def __init__(self):
        super().__init__()
        self.slept = []

    async def sleep(self, seconds):
        self.slept.append(seconds)


@pytest.fixture
def clock():
    return ImpatientClock()


def station(upstream, clock, **settings):
    given = UpstreamSettings(name=upstream.name, base_url="http://x", **settings)
    return Station(upstream, given, Breaker(upstream.name, given.breaker, clock))


def sender(clock, *tiers, meters=None, **settings):
    """Each tier is a list of upstreams, or of (upstream, weight)."""
    made = []
    for number, tier in enumerate(tiers):
        pairs = [item if isinstance(item, tuple) else (item, 1) for item in tier]
        made.append(Tier(f"a{number}", tuple(Target(station(u, clock, **settings), None, w) for u, w in pairs), None))
    return Sender(tuple(made), clock, meters or Counts())


def ask():
    return Exchange(BODY, model="m")


async def test_a_good_answer_is_returned_at_once(clock):
    upstream = Listed("u")

    reply = await sender(clock, [upstream]).send(ask())

    assert (200, 1) == (reply.status, len(upstream.calls))


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504])
async def test_what_may_pass_is_tried_again(clock, status):
    upstream = Listed("u", status, 200)
    exchange = ask()

    reply = await sender(clock, [upstream]).send(exchange)

    assert (200, 2) == (reply.status, len(upstream.calls))
    assert [status, 200] == [call.status for call in exchange.ledger.calls]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
async def test_what_will_not_pass_is_relayed_at_once(clock, status):
    upstream = Listed("u", status, 200)

    reply = await sender(clock, [upstream]).send(ask())

    assert (status, 1) == (reply.status, len(upstream.calls))
    assert "x-should-retry" not in reply.headers


async def test_after_our_own_retries_the_client_is_told_not_to_add_its_own(clock):
    reply = await sender(clock, [Listed("u", (503, {"x": "kept"}))]).send(ask())

    assert {"x": "kept", "x-should-retry": "false"} == reply.headers


async def test_a_short_retry_after_is_waited_for(clock):
    await sender(clock, [Listed("u", (429, {"retry-after": "1.5"}), 200)]).send(ask())

    assert [1.5] == clock.slept


async def test_a_long_retry_after_is_handed_to_the_client_at_once(clock):
    upstream = Listed("u", (429, {"retry-after": "14"}), 200)

    reply = await sender(clock, [upstream]).send(ask())

    assert (429, 1, []) == (reply.status, len(upstream.calls), clock.slept)
    assert "14" == reply.headers["retry-after"]
    assert "x-should-retry" not in reply.headers


async def test_connect_errors_are_tried_again_and_then_raised(clock):
    upstream = Listed("u", UpstreamError("u", "connect", "refused"))

    with pytest.raises(UpstreamError) as caught:
        await sender(clock, [upstream]).send(ask())

    assert (2, True) == (len(upstream.calls), caught.value.retried)


@pytest.mark.parametrize("reason", ["timeout_ttft", "protocol", "crashed"])
async def test_a_timeout_a_crash_or_nonsense_is_left_to_the_fallback(clock, reason):
    slow, other = Listed("slow", UpstreamError("slow", reason, "late")), Listed("other")
    counts = Counts()

    reply = await sender(clock, [slow], [other], meters=counts).send(ask())

    assert (200, 1, ["other"]) == (reply.status, len(slow.calls), counts.fallbacks)


async def test_an_upstream_that_went_down_with_a_request_inside_does_not_get_it_again_by_another_name(clock):
    down, other = Listed("u", UpstreamError("u", "crashed", "the engine's process ended")), Listed("other", 500)
    with pytest.raises(UpstreamError):
        await sender(clock, [down], [down]).send(ask())
    reply = await sender(clock, [down], [other], [down]).send(ask())

    assert (500, 2, 2) == (reply.status, len(down.calls), len(other.calls))


async def test_an_answer_lost_on_its_way_is_not_asked_for_again(clock):
    lost, other = Listed("lost", UpstreamError("lost", "truncated", "cut", sent_nothing=False)), Listed("other")

    with pytest.raises(UpstreamError):
        await sender(clock, [lost], [other]).send(ask())

    assert (1, 0) == (len(lost.calls), len(other.calls))


async def test_fallbacks_are_tried_in_order_and_sent_their_own_name(clock):
    first, second, third = Listed("1", 500), Listed("2", 500), Listed("3", 200)

    reply = await sender(clock, [first], [second], [third]).send(ask())

    assert 200 == reply.status
    assert [2, 2, 1] == [len(u.calls) for u in (first, second, third)]
    assert b'{"model":"a2","messages":[]}' == third.calls[0].body


async def test_the_last_bad_answer_is_what_the_client_gets(clock):
    reply = await sender(clock, [Listed("1", 500)], [Listed("2", 429)]).send(ask())

    assert 429 == reply.status


async def test_another_target_takes_over_without_a_pause(clock):
    bad, good = Listed("bad", 503), Listed("good")

    for _ in range(20):
        assert 200 == (await sender(clock, [bad, good]).send(ask())).status

    assert [] == clock.slept


async def test_an_open_breaker_keeps_requests_away(clock):
    upstream = Listed("u", 500)
    sending = sender(clock, [upstream], breaker={"failures": 2, "cool_s": 10}, retries={"attempts": 1})
    for _ in range(2):
        await sending.send(ask())

    with pytest.raises(UpstreamError, match="out of service"):
        await sending.send(ask())

    assert 2 == len(upstream.calls)


async def test_kept_connections_that_prove_closed_do_not_open_the_breaker(clock):
    stale = UpstreamError("u", "connect", "cannot connect (it closed the connection)")
    stale.is_stale = True
    upstream = Listed("u", *[stale] * 8, 200)
    sending = sender(clock, [upstream], breaker={"failures": 2}, retries={"attempts": 10})

    assert 200 == (await sending.send(ask())).status


async def test_the_target_with_the_fewest_requests_for_its_weight_is_chosen(clock):
    light, heavy = Listed("light"), Listed("heavy")
    sending = sender(clock, [(light, 1), (heavy, 3)])
    open_exchanges = [ask() for _ in range(40)]

    for exchange in open_exchanges:
        await sending.send(exchange)

    assert (10, 30) == (len(light.calls), len(heavy.calls))


async def test_in_flight_and_the_source_are_given_back_when_the_exchange_closes(clock):
    upstream = Listed("u")
    sending = sender(clock, [upstream])
    exchange = ask()
    reply = await sending.send(exchange)
    counted = sending.tiers[0].targets[0].station
    assert 1 == counted.in_flight

    await exchange.close()

    assert (0, 1) == (counted.in_flight, reply.source.closed)


async def test_a_route_nobody_speaks_is_a_client_error(clock):
    exchange = Exchange(BODY, route="messages", path="/messages", model="m")

    with pytest.raises(RequestError, match="does not speak /messages"):
        await sender(clock, [Listed("u")]).send(exchange)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "-1"}, 0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Tue, 14 Nov 2023 22:13:30 GMT"}, 10),
    ],
)
def test_retry_after_is_read_in_all_its_forms(headers, expected):
    assert expected == retry_after_s(headers, ManualClock(1_700_000_000.0))


@pytest.mark.parametrize("failure", [RequestError(400, "cannot be translated"), RuntimeError("not open")])
async def test_a_call_that_could_not_be_sent_is_over_and_says_nothing_of_the_upstream(clock, failure):
    class Unable(Listed):
        async def send(self, request):
            raise failure

    asking = sender(clock, [Unable("u")], breaker={"failures": 1})
    upstream = asking.tiers[0].targets[0].station
    upstream.breaker.failed()
    await clock.advance(upstream.settings.breaker.cool_s)
    exchange = ask()

    with pytest.raises(type(failure)):
        await asking.send(exchange)

    assert (0, True) == (upstream.in_flight, upstream.breaker.available)
    assert ["cancelled"] == [call.outcome for call in exchange.ledger.calls]
