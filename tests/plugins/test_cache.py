"""`cache`: complete answers again, in either shape, for the tenant that got them and nobody else."""

import asyncio
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predawn.plugins import Budget, Chunk, Exchange, Reply, RequestError
from predawn.plugins.cache import CachePlugin, CacheSettings
from predawn.plugins.cache.answers import Answer, Answers, Piece
from predawn.plugins.cache.key import joined, key_of
from predawn.plugins.testing.clock import ManualClock
from predawn.proxy.relay import fold_chunks
from predawn.proxy.upstreams.base import UpstreamError
from predawn.proxy.wire.fold import BodyChunk, events_of


def events(*data, done=True):
    chunks = [Chunk(b"data: " + json.dumps(item).encode() + b"\n\n") for item in data]
    return [*chunks, Chunk(b"data: [DONE]\n\n", is_last=True)] if done else chunks


def delta(text, finish=None, index=0):
    return {"id": "c1", "choices": [{"index": index, "delta": {"content": text}, "finish_reason": finish}]}


USAGE = {"id": "c1", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
STREAM = events(delta("Hel"), delta("lo"), delta("", "stop"), USAGE)
BODY = BodyChunk(
    b'{"id":"c1","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"Hello"},'
    b'"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2}}'
)


class Upstream:
    """Answers with the same chunks each time, and counts."""

    def __init__(self, chunks=STREAM, *, status=200, fails=False):
        self.chunks = chunks
        self.status = status
        self.fails = fails
        self.calls = 0

    async def __call__(self, exchange):
        self.calls += 1
        exchange.upstream = "u"
        await asyncio.sleep(0)
        streamed = not (self.chunks and isinstance(self.chunks[0], BodyChunk))
        headers = {"Content-Type": "text/event-stream" if streamed else "application/json", "x-other": "1"}
        return Reply.of_chunks(self._iterate(), status=self.status, headers=headers)

    async def _iterate(self):
        for chunk in self.chunks:
            yield chunk
        if self.fails:
            raise UpstreamError("u", "truncated", "lost", sent_nothing=False)


def asked(*, tenant="t", route="chat", control=None, model="m", **request):
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "temperature": 0, **request}
    exchange = Exchange(json.dumps(body).encode(), route=route, tenant=tenant, control=control, model=model)
    exchange.stream = bool(request.get("stream"))
    return exchange


async def ask(plugin, upstream, exchange=None, *, until=None):
    """What the client gets: the header, and the chunks as (raw, event, is_last)."""
    reply = await plugin.around_completion(exchange or asked(), upstream)
    got = []
    async for chunk in reply.chunks:
        got.append((chunk.raw, chunk.event, chunk.is_last))
        if until is not None and len(got) == until:
            break
    return reply.headers.get("x-predawn-cache"), got


async def headers_of(plugin, upstream, *exchanges):
    return [(await ask(plugin, upstream, exchange))[0] for exchange in exchanges]


async def test_an_equal_request_is_answered_without_the_upstream():
    plugin, upstream = CachePlugin(CacheSettings()), Upstream()
    first, second = await ask(plugin, upstream), await ask(plugin, upstream)

    assert ("miss", "hit") == (first[0], second[0])
    assert first[1] == second[1]
    assert 1 == upstream.calls


async def test_a_hit_notes_its_decision_and_books_no_call():
    plugin, upstream = CachePlugin(CacheSettings()), Upstream()
    await ask(plugin, upstream)
    exchange = asked()
    await ask(plugin, upstream, exchange)

    assert ["hit"] == [decision.what for decision in exchange.decisions]
    assert [] == exchange.ledger.calls
    assert 0 == exchange.ledger.output


async def test_a_stream_serves_a_client_that_does_not_stream():
    plugin, upstream = CachePlugin(CacheSettings()), Upstream()
    await ask(plugin, upstream, asked(stream=True))
    reply = await plugin.around_completion(asked(), upstream)
    body = json.loads(await fold_chunks(reply, (), "chat", "u"))

    assert "hit" == reply.headers["x-predawn-cache"]
    assert "Hello" == body["choices"][0]["message"]["content"]
    assert {"prompt_tokens": 3, "completion_tokens": 2} == body["usage"]


@pytest.mark.parametrize("wanted", [True, False])
async def test_a_whole_body_serves_a_client_that_streams_with_the_usage_it_asked_for(wanted):
    plugin, upstream = CachePlugin(CacheSettings()), Upstream([BODY])
    await ask(plugin, upstream)
    exchange = asked(stream=True, **({"stream_options": {"include_usage": True}} if wanted else {}))
    reply = await plugin.around_completion(exchange, upstream)
    (chunk,) = [chunk async for chunk in reply.chunks]
    sent = b"".join(events_of(chunk, "chat", include_usage=not exchange.hides_usage))

    assert "hit" == reply.headers["x-predawn-cache"]
    assert b'"content":"Hello"' in sent
    assert wanted == (b"prompt_tokens" in sent)


async def test_a_whole_body_is_given_again_byte_for_byte():
    plugin, upstream = CachePlugin(CacheSettings()), Upstream([BODY])
    await ask(plugin, upstream)
    reply = await plugin.around_completion(asked(), upstream)

    assert BODY.raw == await fold_chunks(reply, (), "chat", "u")


@pytest.mark.parametrize(
    "upstream",
    [
        Upstream(status=500),
        Upstream(status=201),
        Upstream(events(delta("a"))),
        Upstream(events(delta("a", "stop"), done=False)),
        Upstream(events(delta("a", "stop"), delta("b", index=1))),
        Upstream(events(delta("a", "stop"), {"error": {"message": "no"}})),
        Upstream([BodyChunk(b'{"error":{"message":"no"}}')]),
        Upstream([BodyChunk(b"<html>")]),
        Upstream([]),
        Upstream([BodyChunk(b'{"choices":[{"index":0,"message":{},"finish_reason":null}]}')]),
    ],
)
async def test_an_answer_that_is_not_whole_is_not_kept(upstream):
    plugin = CachePlugin(CacheSettings())
    await ask(plugin, upstream)

    assert 0 == len(plugin.answers)


async def test_a_stream_that_is_lost_on_the_way_is_not_kept():
    plugin, upstream = CachePlugin(CacheSettings()), Upstream(STREAM[:-1], fails=True)
    with pytest.raises(UpstreamError):
        await ask(plugin, upstream)

    assert 0 == len(plugin.answers)


@pytest.mark.parametrize("until", range(1, len(STREAM)))
async def test_a_client_that_leaves_early_leaves_nothing_behind(until):
    plugin = CachePlugin(CacheSettings())
    await ask(plugin, Upstream(), until=until)

    assert 0 == len(plugin.answers)


@pytest.mark.parametrize(
    ("change", "is_kept"),
    [
        ({}, True),
        ({"temperature": 0.0}, True),
        ({"temperature": 1}, False),
        ({"temperature": False}, False),
        ({"temperature": None}, False),
        ({"temperature": 1, "seed": 0}, True),
        ({"store": True}, False),
        ({"background": True}, False),
    ],
)
async def test_only_deterministic_requests_without_effects_are_kept(change, is_kept):
    plugin = CachePlugin(CacheSettings())
    await ask(plugin, Upstream(), asked(**change))

    assert is_kept == bool(len(plugin.answers))


async def test_mode_all_keeps_any_answer():
    plugin, upstream = CachePlugin(CacheSettings(mode="all")), Upstream()

    assert ["miss", "hit"] == await headers_of(plugin, upstream, asked(temperature=1), asked(temperature=1))


async def test_a_request_may_say_what_it_wants():
    plugin, upstream = CachePlugin(CacheSettings()), Upstream()
    hot = {"temperature": 1}
    wishes = [None, True, "true", False, "refresh", True]
    headers = [
        (await ask(plugin, upstream, asked(control={"cache": wish} if wish is not None else None, **hot)))[0]
        for wish in wishes
    ]

    assert [None, "miss", "hit", None, "miss", "hit"] == headers
    assert 4 == upstream.calls


@pytest.mark.parametrize("wish", ["maybe", 7, [], {"ttl": 1}, None])
async def test_a_wish_that_is_none_is_refused(wish):
    plugin = CachePlugin(CacheSettings())
    if wish is None:
        assert "miss" == (await ask(plugin, Upstream(), asked(control={"cache": None})))[0]
        return
    with pytest.raises(RequestError) as refused:
        await ask(plugin, Upstream(), asked(control={"cache": wish}))

    assert 400 == refused.value.status


async def test_a_request_that_is_not_cached_keeps_its_raw_reply():
    plugin = CachePlugin(CacheSettings())
    raw = Reply(200, {}, source=None)

    async def call_next(_exchange):
        return raw

    assert raw is await plugin.around_completion(asked(temperature=1), call_next)
    assert raw is await plugin.around_completion(asked(route="raw"), call_next)


async def test_a_request_with_a_member_named_twice_poisons_nothing():
    plugin, upstream = CachePlugin(CacheSettings(mode="all")), Upstream()
    body = b'{"model":"m","messages":[{"role":"user","content":"evil"}],"messages":[{"role":"user","content":"hi"}]}'
    await ask(plugin, upstream, Exchange(body, tenant="t", model="m"))

    assert 0 == len(plugin.answers)


async def test_an_answer_is_given_until_its_time_is_over():
    plugin, upstream, clock = CachePlugin(CacheSettings(ttl_s=10)), Upstream(), ManualClock()
    plugin._clock = clock
    await ask(plugin, upstream)
    await clock.advance(9.9)
    late = (await ask(plugin, upstream))[0]
    await clock.advance(0.1)

    assert ("hit", "miss") == (late, (await ask(plugin, upstream))[0])


async def test_long_answers_are_relayed_and_not_kept():
    plugin, upstream = CachePlugin(CacheSettings(max_answer_bytes=50)), Upstream()
    _, got = await ask(plugin, upstream)

    assert [(chunk.raw, chunk.event, chunk.is_last) for chunk in STREAM] == got
    assert 0 == len(plugin.answers)


async def test_equal_requests_at_once_each_ask_the_upstream():
    plugin, upstream = CachePlugin(CacheSettings()), Upstream()
    answers = await asyncio.gather(*(ask(plugin, upstream) for _ in range(3)))

    assert 3 == upstream.calls
    assert 1 == len({str(chunks) for _, chunks in answers})


texts = st.text('ab\x00"\\{}:,0', max_size=4)
requests = st.fixed_dictionaries({"content": texts, "tenant": texts, "model": texts, "namespace": texts})


@given(st.lists(requests, min_size=2, max_size=8), st.lists(texts, min_size=2, max_size=2, unique=True))
@settings(max_examples=100)
def test_two_tenants_never_share_an_answer(asks, tenants):
    async def run():
        plugin = CachePlugin(CacheSettings())
        owners = {}
        for tenant in tenants:
            upstream = Upstream(events({**delta(repr(tenant), "stop")}))
            for item in asks:
                exchange = asked(tenant=tenant, messages=item["content"])
                for _, event, _ in (await ask(plugin, upstream, exchange))[1]:
                    assert event is None
                seen = (await ask(plugin, upstream, asked(tenant=tenant, messages=item["content"])))[1]
                owners[tenant, item["content"]] = seen[0][0]
        return owners

    for (tenant, _), raw in asyncio.run(run()).items():
        assert repr(tenant) == json.loads(raw[5:])["choices"][0]["delta"]["content"]


@given(requests, requests)
@settings(max_examples=300)
def test_keys_are_equal_only_for_equal_requests(one, other):
    def key(item):
        return key_of(asked(tenant=item["tenant"], model=item["model"], messages=item["content"]), item["namespace"])

    assert (one == other) == (key(one) == key(other))


@given(st.lists(st.binary(max_size=9), max_size=5), st.lists(st.binary(max_size=9), max_size=5))
@settings(max_examples=300)
def test_joined_parts_are_equal_only_for_equal_parts(one, other):
    assert (one == other) == (joined(one) == joined(other))


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"stream": True}, True),
        ({"stream_options": {"include_usage": True}}, True),
        ({"metadata": {"run": "1"}}, True),
        ({"user": "u1"}, False),
        ({"seed": 1}, False),
        ({"temperature": 0.0}, False),
        ({"tools": []}, False),
    ],
)
def test_what_does_not_change_an_answer_is_not_part_of_its_key(change, same):
    assert same == (key_of(asked(), "") == key_of(asked(**change), ""))


def test_the_order_of_members_does_not_matter():
    body, other = b'{"model":"m","seed":1}', b'{"seed":1,"model":"m"}'

    assert key_of(Exchange(body), "") == key_of(Exchange(other), "")


def test_budgets_other_controls_and_api_versions_are_part_of_the_key():
    plain, frugal = asked(), asked()
    frugal.budget = Budget(effort="low")
    beta = Exchange(plain.body, tenant="t", model="m", headers={"OpenAI-Beta": "x"})

    assert 4 == len({key_of(x, "") for x in (plain, frugal, beta, asked(control={"samples": 3}))})
    assert key_of(plain, "") == key_of(asked(control={"cache": "refresh"}), "")


def test_streams_of_other_dialects_are_kept_apart_from_bodies():
    one, other = asked(route="messages"), asked(route="messages", stream=True)

    assert key_of(one, "") != key_of(other, "")


def answer(tenant="t", size=100, made_at=0.0):
    return Answer(tenant, (Piece(b"x" * size, None, True),), True, "text/event-stream", "u", "m", made_at)


def test_the_least_recently_used_answer_goes_first():
    answers = Answers(max_entries=2, max_bytes=1 << 20, ttl_s=10)
    for key in (b"a", b"b"):
        answers.put(key, answer())
    answers.get(b"a", "t", 0)
    answers.put(b"c", answer())

    assert [True, False, True] == [answers.get(key, "t", 0) is not None for key in (b"a", b"b", b"c")]


def test_a_stored_tenant_is_checked_again():
    answers = Answers(max_entries=2, max_bytes=1 << 20, ttl_s=10)
    answers.put(b"a", answer("one"))

    assert answers.get(b"a", "two", 0) is None


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=1), st.integers(0, 3000)), max_size=40))
def test_memory_stays_within_its_bounds(puts):
    answers = Answers(max_entries=5, max_bytes=6000, ttl_s=10)
    for key, size in puts:
        answers.put(key, answer(size=size))

        assert len(answers) <= 5
        assert answers.bytes == sum(kept.size for kept in answers._answers.values()) <= 6000
