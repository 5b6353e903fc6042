"""Calls asleep: what is sent, what is heard, and what is booked whatever happens."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from predawn.plugins.sleep.asking import Throttled, estimated_tokens
from predawn.plugins.sleep.contexts import AskOptions
from predawn.plugins.sleep.places import Places
from predawn.plugins.sleep.sending import Sending
from predawn.plugins.testing import Answer, ManualClock, settle
from predawn.proxy.breaker import Breaker
from predawn.proxy.dispatch import Hooks
from predawn.proxy.lifespan import App
from predawn.proxy.loading import register
from predawn.proxy.metrics import Metrics
from predawn.proxy.models import Models
from predawn.proxy.resilience import Station
from predawn.proxy.settings import Settings
from predawn.proxy.tasks import Tasks
from predawn.proxy.upstreams.base import UpstreamError
from predawn.proxy.upstreams.scripted import ScriptedUpstream

QUESTION = [{"role": "user", "content": "why?"}]
FALLBACK = {"name": "n", "upstream": "other"}
PRICE = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 10.0}


class Bench:
    """The proxy's own way to an upstream, without a server."""

    def __init__(self, said=None, **model):
        self.clock = ManualClock()
        self.up, self.other = ScriptedUpstream(said, name="up"), ScriptedUpstream("another", name="other")
        described = [
            {"name": one.name, "kind": "scripted", "retries": {"attempts": 1}} for one in (self.up, self.other)
        ]
        models = [{"name": "m", "upstream": "up", "model": "there", "price": PRICE, **model}, FALLBACK]
        settings = Settings.model_validate({"upstreams": described, "models": models})
        metrics = Metrics(CollectorRegistry())
        stations = {}
        for upstream, told in zip((self.up, self.other), settings.upstreams, strict=True):
            upstream.adopt(told.timeouts, self.clock)
            breaker = Breaker(told.name, told.breaker, self.clock, lambda _: None)
            stations[told.name] = Station(upstream, told, breaker)
        sender = Models(settings, stations, Hooks(register([])), self.clock, metrics)
        self.booked = []
        app = App(settings, self.clock, metrics, Tasks(), None, sender.send, self.booked.append, None)
        self.send = Sending(app, Places(settings), self.booked.append)

    @property
    def sent(self):
        return self.up.requests[-1].json


def options(**given):
    return AskOptions(model="m", tenant="acme", context_id="ctx", **given)


async def test_an_answer_is_heard_with_its_reasoning_and_cost():
    bench = Bench(Answer(text="Because of that.", reasoning="hm hm"))
    asked = await bench.send(QUESTION, options(max_tokens=50, temperature=0.5, seed=3))
    (exchange,) = bench.booked

    assert (asked.text, asked.reasoning) == ("Because of that.", "hm hm")
    assert asked.output_tokens == exchange.ledger.output > 3
    assert asked.prompt_tokens == exchange.ledger.prompt > 0
    assert {**bench.sent, "stream_options": None} == {
        "model": "there",
        "messages": QUESTION,
        "stream": True,
        "max_tokens": 50,
        "temperature": 0.5,
        "seed": 3,
        "stream_options": None,
    }


async def test_it_is_booked_as_a_call_asleep_of_its_tenant():
    bench = Bench("Because.")
    await bench.send(QUESTION, options(purpose="check"))
    (exchange,) = bench.booked
    (call,) = exchange.ledger.calls

    assert (exchange.tenant, exchange.call_purpose, call.purpose, call.outcome) == ("acme", "sleep", "sleep", "ok")
    assert exchange.decisions[0].what == "check"
    assert exchange.ledger.spend_usd == pytest.approx((exchange.ledger.prompt + 10 * exchange.ledger.output) / 1e6)


@pytest.mark.parametrize(
    ("knob", "member"),
    [
        ("none", {}),
        ("enable_thinking", {"chat_template_kwargs": {"enable_thinking": False}}),
        ("thinking_token_budget", {"thinking_token_budget": 0}),
    ],
)
async def test_a_model_is_asked_not_to_think_by_its_own_knob(knob, member):
    bench = Bench("7", reasoning=knob)
    await bench.send(QUESTION, options(thinks=False))
    given = {"model", "messages", "stream", "stream_options"}

    assert {name: value for name, value in bench.sent.items() if name not in given} == member


async def test_logprobs_are_heard_where_they_are_asked_for():
    event = b'data: {"choices":[{"index":0,"delta":{"content":"so"},"logprobs":{"content":[{"logprob":-0.5}]}}]}\n\n'
    bench = Bench(Answer(raw=(event, event, b"data: [DONE]\n\n")))
    asked = await bench.send(QUESTION, options(logprobs=True))

    assert bench.sent["logprobs"] is True
    assert (asked.text, asked.logprobs) == ("soso", (-0.5, -0.5))
    assert asked.output_tokens == 2
    assert bench.booked[0].ledger.estimated


@pytest.mark.parametrize(
    "told",
    [
        b"[1]",
        b"5",
        b'{"choices": 7}',
        b'{"choices": [5]}',
        b'{"choices": [{"delta": "x", "logprobs": {"content": 1}}]}',
    ],
)
async def test_an_answer_of_any_shape_is_an_answer(told):
    bench = Bench(Answer(raw=(b"data: " + told + b"\n\n", b"data: [DONE]\n\n")))
    asked = await bench.send(QUESTION, options(logprobs=True))

    assert (asked.text, asked.output_tokens) == ("", 0)


@pytest.mark.parametrize("usage", ["", ',"usage":{}', ',"usage":{"prompt_tokens":-9}'])
async def test_a_prompt_costs_its_estimate_where_the_upstream_does_not_tell(usage):
    event = b'data: {"choices":[{"index":0,"delta":{"content":"so"}}]%s}\n\n' % usage.encode()
    bench = Bench(Answer(raw=(event, b"data: [DONE]\n\n")))
    asked = await bench.send(QUESTION, options())
    (exchange,) = bench.booked

    assert asked.prompt_tokens == exchange.ledger.prompt == estimated_tokens(QUESTION)
    assert asked.output_tokens == 1


async def test_a_refusal_tells_how_long_to_stay_away():
    bench = Bench(Answer(status=429, headers={"retry-after": "77"}))
    with pytest.raises(Throttled) as refused:
        await bench.send(QUESTION, options())

    assert refused.value.retry_after_s == 77


async def test_a_cancelled_call_is_cut_upstream_and_what_it_said_is_booked():
    bench = Bench(Answer(text="word " * 100, interval_ms=1000))
    given = options()
    tasks = Tasks()
    task = tasks.spawn(bench.send(QUESTION, given), "ask")
    for _ in range(5):
        await settle()
        await bench.clock.jump()
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (exchange,) = bench.booked

    assert 0 < given.used.output_tokens == exchange.ledger.output < 100
    assert exchange.ledger.calls[0].outcome == "cancelled"
    assert (exchange.outcome, bench.up.counts.in_flight, bench.up.counts.cut) == ("client_closed", 0, 1)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (Answer(status=429), "429"),
        (Answer(status=503), "5xx"),
        (Answer(status=400), "protocol"),
        (Answer(fault="refuse"), "connect"),
        (Answer(text="a b c d", fault="die_mid_event", after=2), "truncated"),
        (Answer(text="a b c d", fault="error_event", after=2), "protocol"),
    ],
)
async def test_what_goes_wrong_is_said_and_booked(said, reason):
    bench = Bench(said)
    with pytest.raises(UpstreamError) as failed:
        await bench.send(QUESTION, options())

    assert failed.value.reason == reason
    assert [exchange.outcome for exchange in bench.booked] == ["upstream_error"]


async def test_a_model_that_is_gone_is_an_error_of_its_own():
    bench = Bench("7")
    with pytest.raises(UpstreamError) as failed:
        await bench.send(QUESTION, AskOptions(model="gone", tenant="acme"))

    assert failed.value.reason == "protocol"


async def test_sleep_has_no_fallback():
    bench = Bench(Answer(status=503), fallbacks=["n"])
    with pytest.raises(UpstreamError):
        await bench.send(QUESTION, options())

    assert bench.other.counts.requests == 0


async def test_what_an_upstream_says_is_kept_without_secrets_and_not_on_the_record():
    said = {
        "error": {"message": "Incorrect API key provided: sk-abcdefgh1234. " + "The context was: secret plans. " * 99}
    }
    bench = Bench(Answer(status=401, body=said))
    with pytest.raises(UpstreamError) as raised:
        await bench.send(QUESTION, options())
    (exchange,) = bench.booked

    assert "abcdefgh" not in raised.value.message
    assert "Incorrect API key" in raised.value.message
    assert len(raised.value.message) <= 300
    assert exchange.error == "the upstream answered 401"
