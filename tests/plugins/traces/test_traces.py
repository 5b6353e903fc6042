"""A trace of each exchange: whose it is, what it holds, and what upstreams are told."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict
from tests.plugins.traces.collector import MemoryCollector, traced

from predawn.plugins import Budget, Chunk, Exchange, Plugin, PluginSettings, Verdict, hookimpl
from predawn.plugins.calls import SideCall
from predawn.plugins.testing import Answer, Script
from predawn.plugins.traces.content import Content
from predawn.plugins.traces.context import Context, parent_of
from predawn.plugins.traces.places import Place
from predawn.plugins.verify import VerifyPlugin, VerifySettings
from predawn.proxy.settings import UpstreamSettings

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
CLIENT = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1"}


async def trace_of(*others, headers=None, stream=False, upstream=None, config=None, request="Hello", **settings):
    """The collector, and the headers that the upstream got."""
    collector = MemoryCollector()
    async with traced(*others, collector=collector, upstream=upstream, config=config, **settings) as bench:
        await bench.run(request, headers=headers, stream=stream)
        received = [one.headers for one in bench.upstream.requests]
    return collector, received


async def test_a_request_is_a_span_with_one_inside_for_each_phase():
    collector, _ = await trace_of(request={"max_tokens": 50, "messages": [{"role": "user", "content": "Hello"}]})

    root = collector.root
    inner = [span for span in collector.spans if span is not root]
    assert {span.trace for span in collector.spans} == {root.trace}
    assert (root.name, root.parent) == ("POST /v1/chat/completions", "")
    assert [span.parent for span in inner] == [root.id] * 3
    assert [(span.name, span.kind, span.phase) for span in inner] == [
        ("before", "internal", "before"),
        ("chat test", "client", "during"),
        ("after", "internal", "after"),
    ]
    assert root.began <= inner[0].began <= inner[1].began <= inner[1].ended <= root.ended <= inner[2].ended
    assert root.attributes["predawn.exchange.id"] == "test-1"
    assert root.attributes["http.response.status_code"] == 200


async def test_a_call_has_the_attributes_of_the_conventions():
    asked = {"max_tokens": 50, "n": 2, "messages": [{"role": "user", "content": "Hello"}]}
    collector, _ = await trace_of(request=asked, upstream="fine, thanks")

    told = collector.one("chat test").attributes
    assert told["gen_ai.operation.name"] == "chat"
    assert told["gen_ai.request.model"] == "test"
    assert told["gen_ai.provider.name"] == "openai"
    assert told["gen_ai.request.max_tokens"] == 50
    assert told["gen_ai.request.choice.count"] == 2
    assert told["gen_ai.request.stream"] is False
    assert told["gen_ai.usage.input_tokens"] > 0
    assert told["gen_ai.usage.output_tokens"] > 0
    assert not any(name.startswith("gen_ai.usage") for name in collector.root.attributes)
    assert collector.root.attributes["predawn.tokens.output"] == told["gen_ai.usage.output_tokens"]


async def test_a_stream_tells_when_it_began():
    collector, _ = await trace_of(stream=True)

    told = collector.one("chat test").attributes
    assert told["gen_ai.request.stream"] is True
    assert 0 <= told["gen_ai.response.time_to_first_chunk"] < 10


async def test_the_clients_trace_goes_on_with_the_call_as_the_upstreams_parent():
    collector, (sent,) = await trace_of(headers=CLIENT)

    call = collector.one("chat test")
    assert (collector.root.trace, collector.root.parent) == (TRACE, PARENT)
    assert sent["traceparent"] == f"00-{TRACE}-{call.id}-01"
    assert sent["tracestate"] == "vendor=1"
    assert collector.root.message.trace_state == "vendor=1"


async def test_without_a_client_s_trace_one_begins_and_the_upstream_is_told():
    collector, (sent,) = await trace_of(headers={"tracestate": "vendor=1"})

    call = collector.one("chat test")
    assert sent["traceparent"] == f"00-{call.trace}-{call.id}-01"
    assert "tracestate" not in sent


async def test_each_try_is_a_span_and_a_parent_of_its_own():
    script = Script(answers=(Answer(status=500), Answer(text="fine")))
    retries = {"attempts": 2, "base_s": 0.01}
    up = {"name": "scripted", "kind": "scripted", "retries": retries}
    config = {"upstreams": [up], "models": [{"name": "*", "upstream": "scripted"}]}
    collector, sent = await trace_of(upstream=script, config=config)

    calls = collector.named("chat test")
    assert [headers["traceparent"].split("-")[2] for headers in sent] == [call.id for call in calls]
    assert [(call.is_error, call.attributes.get("error.type")) for call in calls] == [(True, "500"), (False, None)]
    assert not collector.root.is_error


async def test_a_call_that_was_refused_failed():
    collector, _ = await trace_of(upstream=Script(answers=(Answer(status=401),)))

    call = collector.one("chat test")
    assert (call.is_error, call.attributes["error.type"]) == (True, "401")
    assert not collector.root.is_error


class Drawer(Plugin[PluginSettings]):
    """Draws a short answer of its own first, which it does not give out."""

    @hookimpl
    async def around_completion(self, exchange, call_next):
        async with SideCall(exchange, call_next, changes={"max_tokens": 7}, purpose="sample") as side:
            await side.whole()
        return await call_next(exchange)


async def test_what_the_client_asked_for_is_not_said_of_a_plugin_s_own_calls():
    asked = {"max_tokens": 50, "n": 2, "messages": [{"role": "user", "content": "Hello"}]}
    collector, _ = await trace_of(Drawer, request=asked)

    told = {call.attributes["predawn.purpose"]: call.attributes for call in collector.named("chat test")}
    of_request = {"gen_ai.request.max_tokens", "gen_ai.request.choice.count", "gen_ai.request.stream"}
    assert of_request & told["sample"].keys() == set()
    assert of_request & told["serve"].keys() == of_request


@pytest.mark.parametrize(("allowed", "told"), [(20, 20), (80, 50)])
async def test_a_budget_below_what_was_asked_for_is_what_is_told(allowed, told):
    class Miser(Plugin[PluginSettings]):
        @hookimpl
        async def allocate(self, exchange):
            return Budget(max_output_tokens=allowed)

    asked = {"max_tokens": 50, "messages": [{"role": "user", "content": "Hello"}]}
    collector, _ = await trace_of(Miser, request=asked)

    assert collector.one("chat test").attributes["gen_ai.request.max_tokens"] == told


async def test_a_client_that_keeps_no_trace_is_obeyed_and_the_upstream_is_told_so():
    collector, (sent,) = await trace_of(headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})

    assert collector.spans == []
    assert sent["traceparent"].startswith(f"00-{TRACE}-")
    assert sent["traceparent"].endswith("-00")


async def test_clients_need_not_be_followed():
    collector, (sent,) = await trace_of(headers=CLIENT, follow_clients=False)

    assert collector.root.trace != TRACE
    assert collector.root.parent == ""
    assert collector.root.links == [(TRACE, PARENT, {})]
    assert "tracestate" not in sent


@pytest.mark.parametrize(("ratio", "count"), [(0, 0), (1, 20)])
async def test_a_share_of_the_traces_is_kept(ratio, count):
    collector = MemoryCollector()
    async with traced(collector=collector, ratio=ratio) as bench:
        for _ in range(20):
            await bench.run()

    assert len(collector.named("POST /v1/chat/completions")) == count


@pytest.mark.parametrize(
    "told",
    [
        "",
        "nonsense",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{PARENT}-01-more",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-1",
        f"00-{TRACE}-{PARENT}-01\n-",
        f"00-{TRACE}x-{PARENT}-01",
    ],
)
def test_what_is_no_traceparent_is_none(told):
    assert parent_of(CIMultiDict(traceparent=told)) is None


def test_two_traceparents_are_none():
    headers = CIMultiDict([("traceparent", CLIENT["traceparent"]), ("Traceparent", f"00-{TRACE}-{PARENT}-00")])

    assert parent_of(headers) is None


def test_a_later_version_may_say_more():
    parent = parent_of(CIMultiDict(traceparent=f"cc-{TRACE}-{PARENT}-09-what-comes"))

    assert (f"{parent.trace:032x}", f"{parent.span:016x}", parent.flags) == (TRACE, PARENT, 9)


def test_states_in_several_headers_are_one():
    headers = CIMultiDict([*CLIENT.items(), ("tracestate", "other=2")])

    assert parent_of(headers).state == "vendor=1,other=2"


@given(st.text(max_size=80))
def test_no_traceparent_is_too_odd_to_be_read(told):
    parent = parent_of({"traceparent": told})

    assert parent is None or (0 < parent.trace < 2**128 and 0 < parent.span < 2**64)


class Sleeper(Plugin[PluginSettings]):
    """Puts notes into requests, as `sleep` does."""

    @hookimpl
    async def on_request(self, exchange):
        told = {"by": "sleep", "context": "ctx_1", "kind": "notes", "fresh": True, "age_s": 3.5, "id": "note_1"}
        exchange.notes.append(told)


async def test_what_was_thought_before_is_linked_and_not_inside():
    collector, _ = await trace_of(Sleeper)
    context = Context.of("default", "ctx_1")

    ((trace, span, told),) = collector.one("before").links
    assert (int(trace, 16), int(span, 16)) == context
    assert trace != collector.root.trace
    assert told == {
        "predawn.context": "ctx_1",
        "predawn.notes.kind": "notes",
        "predawn.notes.fresh": True,
        "predawn.notes.age_s": 3.5,
    }
    assert [span for span in collector.spans if span.phase == "before"] == [collector.one("before")]


def test_contexts_of_two_tenants_have_nothing_in_common():
    mine, theirs = Context.of("a", "ctx"), Context.of("b", "ctx")

    assert mine.trace != theirs.trace
    assert mine.span != theirs.span


class Thinker(Plugin[PluginSettings]):
    """Asks the upstream something that nobody waits for, once per request, as `sleep` does."""

    @hookimpl
    async def lifespan(self, app):
        self.app = app
        yield

    @hookimpl
    async def on_done(self, exchange):
        if exchange.call_purpose == "sleep":
            return
        thought = exchange.child(purpose="sleep")
        thought.id, thought.parent = f"sleep_{exchange.id}", None
        thought.trace = None
        thought.decide("sleep", "think", context="ctx_1")
        reply = await self.app.send(thought)
        async for _ in reply.chunks:
            pass
        await thought.close()
        thought.ledger.total_s = 0.5
        self.app.done(thought)


async def test_thoughts_about_a_context_hang_on_the_span_that_requests_link_to():
    collector = MemoryCollector()
    async with traced(Thinker, collector=collector) as bench:
        for _ in range(3):
            await bench.run()
    context = Context.of("default", "ctx_1")

    beginning = collector.one("context")
    thoughts = collector.named("sleep")
    assert (int(beginning.trace, 16), int(beginning.id, 16)) == context
    assert [(thought.trace, thought.parent) for thought in thoughts] == [(beginning.trace, beginning.id)] * 3
    assert {call.parent for call in collector.spans if call.trace == beginning.trace and call.kind == "client"} == {
        thought.id for thought in thoughts
    }


async def test_a_request_that_is_refused_has_a_trace_too():
    collector, sent = await trace_of(upstream=Script(answers=(Answer(status=503),) * 9), headers=CLIENT)

    assert collector.root.attributes["http.response.status_code"] == 503
    assert collector.root.attributes["error.type"] == "503"
    assert collector.root.is_error
    assert sent


class Doubter(Plugin[PluginSettings]):
    """Brings a verifier that finds every second sentence wrong."""

    @hookimpl
    def register_verifiers(self, register):
        register(Doubts())


class Doubts:
    name = "doubts"
    boundary = "sentence"
    reads = ("content",)

    async def verify(self, step, exchange):
        return Verdict("violation" if step.index % 2 else "pass", feedback=SECRET)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_verifier_is_a_span_alongside(stream):
    verify = VerifyPlugin(VerifySettings(verifiers=("doubts",), mode="observe"))
    collector, _ = await trace_of(Doubter, verify, upstream="One. Two. Three. Four. Five.", stream=stream)

    looked = collector.one("verify doubts")
    assert (looked.phase, looked.parent) == ("alongside", collector.root.id)
    assert collector.root.began <= looked.began <= looked.ended
    assert looked.attributes["gen_ai.evaluation.name"] == "doubts"
    assert looked.attributes["gen_ai.evaluation.score.label"] == "violation"
    assert looked.attributes["predawn.verifier.checks"] == 5
    assert looked.attributes["predawn.verifier.violations"] == 2
    assert not any(SECRET.encode() in body for body in collector.bodies)


@pytest.mark.parametrize("stream", [False, True])
async def test_each_answer_that_was_verified_has_a_span_alongside_though_it_was_not_given_out(stream):
    verify = VerifyPlugin(VerifySettings(verifiers=("doubts",), mode="observe"))
    script = Script(answers=(Answer(text="One."), Answer(text="One. Two.")))
    collector, _ = await trace_of(Drawer, Doubter, verify, upstream=script, stream=stream)

    of_sample, of_answer = sorted(collector.named("verify doubts"), key=lambda span: span.began)
    for looked, checks, worst in ((of_sample, 1, "pass"), (of_answer, 2, "violation")):
        assert looked.parent == collector.root.id
        assert collector.root.began <= looked.began <= looked.ended
        assert looked.attributes["predawn.verifier.checks"] == checks
        assert looked.attributes["gen_ai.evaluation.score.label"] == worst


async def test_a_verifier_that_looks_often_is_told_whole():
    class Patient(Doubts):
        async def verify(self, step, exchange):
            return Verdict("unsure" if step.index == 150 else "pass")

    class Brings(Plugin[PluginSettings]):
        @hookimpl
        def register_verifiers(self, register):
            register(Patient())

    verify = VerifyPlugin(VerifySettings(verifiers=("doubts",), mode="gate"))
    collector, _ = await trace_of(Brings, verify, upstream="Well." + " Well." * 199)

    told = collector.one("verify doubts").attributes
    assert told["predawn.verifier.checks"] == 200
    assert told["gen_ai.evaluation.score.label"] == "unsure"


async def test_seconds_of_verifiers_and_observers_are_counted_by_when_they_were_spent():
    verify = VerifyPlugin(VerifySettings(verifiers=("doubts",), mode="observe"))
    async with traced(Doubter, verify, collector=MemoryCollector(), upstream="One. Two. Three.") as bench:
        await bench.run(stream=True)
        metrics = bench._app.metrics
        spent = {when: meter.value for when, meter in metrics.spent.items()}
        during = metrics.registry.get_sample_value(
            "predawn_tenant_request_duration_seconds_sum", {"tenant_class": "default"}
        )

    assert spent["during"] == pytest.approx(during)
    assert 0 < spent["alongside"] < spent["during"]
    assert spent["after"] > 0
    assert spent["before"] == 0


SECRET = "the moon is made of cheese"


@pytest.mark.parametrize("stream", [False, True])
async def test_nothing_that_was_said_is_told(stream):
    collector, _ = await trace_of(Sleeper, request=SECRET, upstream=f"no: {SECRET}", stream=stream)

    assert not any(SECRET.encode() in body for body in collector.bodies)


@pytest.mark.parametrize("stream", [False, True])
async def test_what_was_said_is_told_where_the_settings_say_so(stream):
    collector, _ = await trace_of(request=SECRET, upstream="no", stream=stream, record_content=True)

    told = collector.one("chat test").attributes
    assert told["gen_ai.input.messages"] == f'[{{"role":"user","parts":[{{"type":"text","content":"{SECRET}"}}]}}]'
    assert (
        told["gen_ai.output.messages"]
        == '[{"role":"assistant","parts":[{"type":"text","content":"no"}],"finish_reason":"stop"}]'
    )


def said(route, request, *chunks):
    content = Content(route, 10_000)
    for chunk in chunks:
        content(Chunk.of(chunk))
    told = content.attributes(Exchange(msgspec.json.encode(request), route=route))
    return {name: msgspec.json.decode(value) for name, value in told.items()}


def test_each_choice_is_a_message_and_a_call_s_arguments_are_no_speech():
    call = {"index": 0, "function": {"name": "add", "arguments": "{}"}}
    told = said(
        "chat",
        {"messages": []},
        {"choices": [{"index": 1, "delta": {"content": "b"}}]},
        {"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}]},
        {"choices": [{"index": 0, "delta": {"content": "a", "tool_calls": [call]}, "finish_reason": "tool_calls"}]},
    )

    assert told["gen_ai.output.messages"] == [
        {
            "role": "assistant",
            "parts": [
                {"type": "reasoning", "content": "hm"},
                {"type": "text", "content": "a"},
                {"type": "arguments", "content": "{}"},
            ],
            "finish_reason": "tool_call",
        },
        {"role": "assistant", "parts": [{"type": "text", "content": "b"}], "finish_reason": "error"},
    ]


@pytest.mark.parametrize(
    ("route", "request_", "chunk", "end"),
    [
        (
            "messages",
            {"system": "Be brief.", "messages": [{"role": "user", "content": "Hi"}]},
            {"type": "content_block_delta", "index": 3, "delta": {"type": "text_delta", "text": "a"}},
            {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}},
        ),
        (
            "responses",
            {"instructions": "Be brief.", "input": "Hi"},
            {"type": "response.output_text.delta", "output_index": 3, "content_index": 0, "delta": "a"},
            {"type": "response.incomplete", "response": {"status": "incomplete"}},
        ),
    ],
)
def test_other_dialects_are_told_in_the_same_words(route, request_, chunk, end):
    assert said(route, request_, chunk, end) == {
        "gen_ai.input.messages": [{"role": "user", "parts": [{"type": "text", "content": "Hi"}]}],
        "gen_ai.system_instructions": [{"type": "text", "content": "Be brief."}],
        "gen_ai.output.messages": [
            {"role": "assistant", "parts": [{"type": "text", "content": "a"}], "finish_reason": "length"}
        ],
    }


ENDS = st.sampled_from(["finish_reason", "index", "status", "stop_reason"])
ODD = st.recursive(
    st.none() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ENDS, inner, max_size=3),
    max_leaves=5,
)


@given(ODD)
def test_no_end_is_too_odd_to_be_read(odd):
    for route in ("chat", "messages", "responses"):
        content = Content(route, 1000)
        content(Chunk.of({"choices": odd, "delta": odd, "response": odd, "status": odd, "stop_reason": odd}))
        content(Chunk.of({"choices": [{"index": odd, "finish_reason": odd, "delta": odd}]}))

        assert content.attributes(Exchange(b"", route=route)) == {}


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","messages":[{"role":7,"content":{"a":[]},"tool_calls":[1,{"function":2}]},3,null]}',
        b'{"model":"m","messages":{"a":1}}',
    ],
)
async def test_an_odd_request_is_traced_all_the_same(body):
    collector, _ = await trace_of(request=body, record_content=True)

    assert collector.root.attributes["http.response.status_code"] == 200


@pytest.mark.parametrize("body", [b"", b"[]", b'{"model":"\xff"}', b'{"model":"\\ud800"}', b"[" * 500])
def test_a_request_that_cannot_be_read_is_not_told(body):
    assert Content("chat", 1000).attributes(Exchange(body)) == {}


async def test_a_model_may_call_itself_anything():
    collector, _ = await trace_of(request={"model": "m" * 100_000, "messages": [{"role": "user", "content": "Hi"}]})

    assert len(collector.bodies[0]) < 10_000


async def test_a_long_request_is_left_out():
    collector, _ = await trace_of(request=SECRET * 10, record_content=True, max_content_bytes=100)

    assert "gen_ai.input.messages" not in collector.one("chat test").attributes


async def test_what_is_only_relayed_is_traced_under_a_fixed_name():
    collector = MemoryCollector()
    async with traced(collector=collector) as bench:
        await bench.http("GET", "/v1/files/secret-name", headers={"x-request-id": "a", **CLIENT})
        sent = bench.upstream.requests[-1].headers

    assert collector.root.name == "/v1/*"
    assert collector.root.parent == PARENT
    assert not any(b"secret-name" in body for body in collector.bodies)
    assert sent["traceparent"] == CLIENT["traceparent"]


@pytest.mark.parametrize(
    ("model", "provider"),
    [
        ("anthropic/claude-sonnet", "anthropic"),
        ("azure_ai/x", "azure.ai.inference"),
        ("gpt-4o", "litellm"),
        (None, "litellm"),
    ],
)
def test_litellm_s_prefix_says_who_answers(model, provider):
    told = Place.of(UpstreamSettings(name="u", kind="litellm", model=model)).encoded

    assert f"\x12{chr(len(provider) + 2)}\n{chr(len(provider))}{provider}".encode() in told
