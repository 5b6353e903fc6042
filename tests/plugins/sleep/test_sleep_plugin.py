"""The plugin as a whole, in the proxy, without a socket: what requests get and what is known of them afterwards."""

import asyncio
import json
import re
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from docs.generate import DOCS
from prometheus_client import CollectorRegistry

from predawn.plugins import Plugin, PluginSettings, Verdict, hookimpl, sleep
from predawn.plugins.sleep import SleepPlugin, SleepSettings
from predawn.plugins.sleep.contexts import Anticipated, AskOptions, Notes
from predawn.plugins.sleep.drafts import Draft
from predawn.plugins.sleep.serving import NO_CONDITIONS
from predawn.plugins.testing import Answer, ScriptedUpstream, ToolCall, settle, workbench
from predawn.proxy.metrics import Metrics, families

TEXT = {"role": "user", "content": "Ann's shop sells 12 apples a day for 3 dollars each. Come by." * 5}
NOTES = "- 12 * 3 = 36 dollars are earned by Ann's shop"
IDENT = "0" * 32
FINDING = {"put": False, "policy": "always", "idle_s": 3600, "min_tokens": 20, "min_uses": 1}
"""Contexts are discovered at once, and wait."""


def asking(question="How much does it earn?", *before, **more):
    return {"messages": [*(before or [TEXT]), {"role": "user", "content": question}], **more}


class Bench:
    """A proxy with the plugin in it, and a context with accepted notes."""

    def __init__(self, bench, plugin):
        self.proxy = bench
        self.run = bench.run
        self.plugin = plugin
        self.running = plugin.running

    async def put(self, *messages, name="shop", version=1, notes=NOTES, tenant="default"):
        """Put a version of a context onto the shelf, and notes about it unless there are to be none."""
        await self.running.shelf.put(tenant, Draft.of(tenant, messages or [TEXT], id=name, model="test"), most=9)
        if notes:
            made = Notes(
                IDENT[:-1] + str(version), name, version, "accepted", notes, 10, 2, 1_700_000_000.0, 900, "test"
            )
            await self.running.shelf.judge(tenant, made)
        await self.running.index.refresh()

    async def expect(self, question, normalised, answer):
        await self.running.shelf.add_anticipated(
            "default", [Anticipated("a" * 32, "shop", 1, question, normalised, answer, verified=True, model="test")]
        )

    def meter(self, name):
        self.running.meters.look(self.running.index, self.running.night.status())
        (family,) = [one for one in families(self.running._app.metrics) if one.name == f"predawn_{name}"]
        return {labels: meter.value for labels, meter in family.children.items()}


@asynccontextmanager
async def sleeping(*, upstream="It earns 36 dollars.", put=True, beside=(), **settings):
    """The plugin without any sleep of its own, so that only requests happen."""
    plugin = SleepPlugin(SleepSettings(**{"policy": "off", **settings}))
    scripted = upstream if isinstance(upstream, ScriptedUpstream) else ScriptedUpstream(upstream)
    async with workbench(plugin, *beside, upstream=scripted) as proxy:
        bench = Bench(proxy, plugin)
        if put:
            await bench.put()
        yield bench


def notes_in(result):
    return [message for message in result.sent.json["messages"] if "<notes id=" in str(message["content"])]


def test_the_package_tells_what_each_of_its_files_is_for():
    named = set(re.findall(r"`(\w+\.py)`", sleep.__doc__))
    files = {path.name for path in Path(sleep.__file__).parent.glob("*.py")} - {"__init__.py"}

    assert named == files


async def test_on_request_puts_notes_in_and_says_so_on_the_record():
    async with sleeping() as bench:
        result = await bench.run(asking())

    (note,) = result.exchange.notes
    assert len(notes_in(result)) == 1
    assert NOTES in notes_in(result)[0]["content"]
    assert note == {
        "by": "sleep",
        "kind": "notes",
        "fresh": True,
        "context": "shop",
        "version": 1,
        "age_s": note["age_s"],
        "id": IDENT[:-1] + "1",
        "notes_version": 1,
        "tokens": 10,
        "model": "test",
    }


async def test_on_request_of_what_begins_with_nothing_known_stays_byte_for_byte():
    body = json.dumps({"model": "test", "messages": [{"role": "user", "content": "Hello?"}]}, indent=3).encode()
    async with sleeping() as bench:
        result = await bench.run(body)

    assert result.sent.body == body


async def test_the_context_is_no_context_where_it_is_all_there_is():
    async with sleeping() as bench:
        result = await bench.run({"messages": [TEXT]})

    assert notes_in(result) == []


@pytest.mark.parametrize("stream", [True, False])
async def test_on_done_books_what_was_saved_and_what_it_had_cost(stream):
    async with sleeping() as bench:
        await bench.run(asking(), headers={"x-predawn-sleep": "off"})
        await bench.running.books.observe("default", "shop", "test", "plain", 105)
        result = await bench.run(asking(), stream=stream)
        await bench.running.books.flush()
        (use,) = await bench.running.shelf.uses("default", "shop")
        saved, ages = bench.meter("context_tokens_saved_total"), bench.meter("context_uses_total")

    assert result.ledger.slept == 90
    assert (use.exchange_id, use.tokens_saved) == (result.exchange.id, 105 - result.ledger.output)
    assert saved[()] == use.tokens_saved
    assert ages["notes",] == 1


async def test_answers_without_notes_are_what_those_with_notes_are_measured_against():
    async with sleeping(inject="never") as bench:
        result = await bench.run(asking())
        await bench.running.books.flush()
        estimate = await bench.running.shelf.estimate("default", "shop", "test", "plain")

    assert notes_in(result) == []
    assert (estimate.count, estimate.mean) == (1, result.ledger.output)


@pytest.mark.parametrize(("rule", "count"), [("covered", 0), ("always", 1)])
async def test_notes_that_know_nothing_of_the_question_are_left_out(rule, count):
    async with sleeping(inject=rule) as bench:
        result = await bench.run(asking("What did Zacharias pay Wilhelmina in Timbuktu?"))

    assert len(notes_in(result)) == count
    assert (result.exchange.decisions[0].what == "left out") == (count == 0)


async def test_notes_of_an_earlier_version_are_marked_stale_and_can_be_refused():
    more = {"role": "user", "content": "Since today there are pears as well."}
    for usable, count in ((True, 1), (False, 0)):
        async with sleeping(use_stale=usable) as bench:
            await bench.put(TEXT, more, notes="", version=2)
            result = await bench.run(asking("How much does it earn?", TEXT, more))
            lookups = bench.meter("context_lookups_total")

        assert len(notes_in(result)) == count
        assert [note["fresh"] for note in result.exchange.notes] == [False] * count
        assert lookups["stale",] == 1


async def test_a_foreseen_question_brings_its_answer_as_a_hint():
    async with sleeping() as bench:
        await bench.expect("How much does it earn?", "how much does it earn", "36 dollars a day.")
        await bench.running.index.refresh()
        result = await bench.run(asking("how much does it EARN"))

    assert "- Q: How much does it earn? A: 36 dollars a day.\n</notes>" in notes_in(result)[0]["content"]
    assert result.exchange.notes[0]["kind"] == "hint"


async def test_how_well_questions_were_foreseen_is_learnt():
    async with sleeping() as bench:
        await bench.expect("How much does it earn?", "how much does it earn", "36 dollars a day.")
        await bench.running.index.refresh()
        await bench.run(asking())
        await bench.running.books.flush()
        estimate = await bench.running.shelf.estimate("default", "shop", "test", "predictability")

    assert (estimate.count, estimate.mean) == (1, 1.0)


async def test_notes_are_cut_to_size():
    async with sleeping(max_notes_chars=200, put=False) as bench:
        await bench.put(notes="- 36 dollars\n" * 1000)
        result = await bench.run(asking())

    assert len(notes_in(result)[0]["content"]) < 500


async def test_what_the_second_request_needs_is_in_memory(monkeypatch):
    async with sleeping() as bench:
        await bench.run(asking())

        def refuses(*_):
            raise AssertionError("the store was asked on the path of a request")

        with monkeypatch.context() as watched:
            for name in ("note", "anticipated", "get"):
                watched.setattr(bench.running.shelf, name, refuses)
            result = await bench.run(asking())

    assert len(notes_in(result)) == 1


async def test_a_forgotten_context_leaves_nothing_in_memory():
    async with sleeping() as bench:
        await bench.run(asking())
        await bench.proxy.http("DELETE", "/v1/contexts/shop")
        result = await bench.run(asking())
        running = bench.running

        assert notes_in(result) == []
        assert (len(running.index), running.index.notes_bytes, len(running.recall)) == (0, 0, 0)


@pytest.mark.parametrize("route", ["completions", "embeddings"])
async def test_other_routes_are_not_touched_but_close_the_gate(route):
    async with sleeping() as bench:
        result = await bench.run("Hello", route=route)
        closed = bench.running.night.gate.closed("scripted")

    assert result.status == 200
    assert result.exchange.notes == []
    assert closed.why in ("busy", "quiet")


@pytest.mark.parametrize("disconnect_after", [None, 0, 2])
async def test_the_gate_counts_each_request_out_however_it_ends(disconnect_after):
    said = Answer(text="a b c d e f", interval_ms=10)
    async with sleeping(upstream=ScriptedUpstream(said)) as bench:
        await bench.run(asking(), stream=True, disconnect_after=disconnect_after)
        await settle()

        assert bench.running.night.gate.busy == []


async def test_a_429_keeps_sleep_away_for_longer():
    async with sleeping(upstream=ScriptedUpstream(Answer(status=429)), idle_s=0) as bench:
        await bench.run(asking())
        closed = bench.running.night.gate.closed("scripted")

    assert closed.why == "throttled"


async def test_a_429_keeps_sleep_away_for_as_long_as_it_asks():
    said = Answer(status=429, headers={"retry-after": "77"})
    async with sleeping(upstream=ScriptedUpstream(said), idle_s=0) as bench:
        await bench.run(asking())
        closed = bench.running.night.gate.closed("scripted")

    assert closed.why == "throttled"
    assert 60 < closed.wait_s <= 77


async def test_what_is_discovered_makes_room_for_itself_and_is_counted():
    async with sleeping(**FINDING, max_contexts=2, max_tenant_bytes=2000) as bench:
        for number in range(4):
            await bench.run(asking("Why?", {"role": "user", "content": f"{number}. {TEXT['content']}"}))
        await bench.run(asking("Why?", {"role": "user", "content": "word " * 600}))
        found = await bench.running.shelf.page("default", limit=9)
        counts = bench.meter("context_discoveries_total")

    assert len(found) == 2
    assert counts == {("kept",): 4, ("evicted",): 2, ("refused",): 1}


async def test_where_sleep_is_off_no_text_of_a_request_is_kept():
    async with sleeping(**{**FINDING, "policy": "off"}) as bench:
        await bench.run(asking())

        assert await bench.running.shelf.page("default", limit=9) == []


async def test_a_discovered_context_has_a_size():
    beginning = [TEXT, {"role": "user", "content": "word " * 600}]
    async with sleeping(**FINDING, max_discovered_bytes=1000) as bench:
        await bench.run(asking("Why?", *beginning))
        (found,) = await bench.running.shelf.page("default", limit=9)
        context = await bench.running.shelf.get("default", found.id)

    assert context.messages == (TEXT,)


async def test_chunk_filter_sees_tool_calls_where_a_context_has_no_notes_yet():
    said = Answer(tool_calls=(ToolCall(name="look_up"),))
    tool = {"type": "function", "function": {"name": "look_up"}}
    async with sleeping(upstream=ScriptedUpstream(said), put=False) as bench:
        await bench.put(notes="")
        await bench.run(asking(tools=[tool]), stream=True)

        assert [one.trigger for one in bench.running.night.candidates.in_order()] == ["tool_calls"]


async def test_a_conversation_near_its_window_is_a_reason_to_sleep():
    async with sleeping(window_tokens=10) as bench:
        await bench.run(asking())

        assert [one.trigger for one in bench.running.night.candidates.in_order()] == ["truncation"]


async def test_an_unknown_context_is_said_to_be_so_and_the_request_is_matched_as_any_other():
    async with sleeping() as bench:
        result = await bench.run(asking(), headers={"x-predawn-context": "nowhere"})

    assert [decision.what for decision in result.exchange.decisions][0] == "unknown context"
    assert len(notes_in(result)) == 1


async def test_a_wish_that_cannot_be_meant_is_refused():
    async with sleeping() as bench:
        result = await bench.run(asking(), headers={"x-predawn-sleep": "perhaps"})

    assert (result.status, result.error["param"]) == (400, "predawn.sleep")


async def test_a_split_message_is_matched_where_the_request_or_the_settings_say_so():
    told = {"role": "user", "content": f"{TEXT['content']} How much does it earn?"}
    async with sleeping() as bench:
        plain = await bench.run({"messages": [told]})
        split = await bench.run({"messages": [told]}, headers={"x-predawn-split": "last_sentence"})

    assert plain.exchange.notes == []
    assert notes_in(split)[0]["content"].endswith("</notes>\n\nHow much does it earn?")
    assert len(split.sent.json["messages"]) == 1


@pytest.mark.parametrize(
    ("said", "regrets"),
    [("violation", True), ("pass violation unsure", True), ("violation pass", False), ("unsure", False), ("", False)],
)
async def test_what_a_verifier_leaves_wrong_is_regretted(said, regrets):
    class Critic(Plugin[PluginSettings]):
        """Says what it thinks of every answer."""

        @hookimpl
        async def on_request(self, exchange):
            exchange.verdicts += [Verdict(outcome) for outcome in said.split()]

    async with sleeping(beside=[Critic(PluginSettings())]) as bench:
        await bench.run(asking())
        await bench.running.books.flush()
        (use,) = await bench.running.shelf.uses("default", "shop")
        counted = bench.meter("context_regrets_total")

    assert (use.regret, counted[()]) == (regrets, int(regrets))


async def test_regret_is_noted_once():
    async with sleeping() as bench:
        result = await bench.run(asking())
        counts = [await bench.plugin.regret("default", result.exchange.id) for _ in range(2)]
        other = await bench.plugin.regret("another", result.exchange.id)
        (use,) = await bench.running.shelf.uses("default", "shop")
        counted = bench.meter("context_regrets_total")

    assert (counts, other, use.regret, counted[()]) == ([1, 0], 0, True, 1)


async def test_a_client_says_that_an_answer_was_wrong():
    async with sleeping() as bench:
        result = await bench.run(asking())
        told = await bench.proxy.http("POST", f"/v1/exchanges/{result.exchange.id}/regret", b"")
        unknown = await bench.proxy.http("POST", "/v1/exchanges/%00/regret", b"")
        (use,) = await bench.running.shelf.uses("default", "shop")

    assert (told.status, json.loads(told.body)["uses"], use.regret) == (200, 1, True)
    assert (unknown.status, json.loads(unknown.body)["uses"]) == (200, 0)


@pytest.mark.parametrize("choices", ["7", "[5]", '[{"finish_reason": {}}]'])
async def test_chunks_of_any_shape_pass_while_a_context_has_no_notes(choices):
    event = f'data: {{"choices": {choices}}}\n\n'.encode()
    said = Answer(raw=(event, b"data: [DONE]\n\n"))
    async with sleeping(upstream=ScriptedUpstream(said), put=False) as bench:
        await bench.put(notes="")
        result = await bench.run(asking(), stream=True)

    assert result.raw == event + b"data: [DONE]\n\n"


async def test_around_completion_answers_what_was_answered_asleep():
    async with sleeping(serve="exact") as bench:
        known = Anticipated(
            "a" * 32, "shop", 1, "Why?", "why", "Because.", verified=True, model="test", conditions=NO_CONDITIONS
        )
        await bench.running.shelf.add_anticipated("default", [known])
        await bench.running.index.refresh()
        whole = await bench.run(asking("Why?"))
        stream = await bench.run(asking("why"), stream=True)
        other = await bench.run(asking("Why?", temperature=0))
        requests = len(bench.proxy.upstream.requests)

    assert (whole.text, stream.text, other.text) == ("Because.", "Because.", "It earns 36 dollars.")
    assert requests == 1
    assert (whole.headers["x-predawn-sleep"], whole.exchange.notes[0]["kind"]) == ("exact", "served")
    assert (whole.ledger.output, whole.ledger.calls, whole.usage["total_tokens"]) == (0, [], 0)


@pytest.mark.parametrize("status", [400, 422])
async def test_a_request_that_is_refused_with_notes_is_asked_without_them(status):
    def refuses(received):
        return Answer(status=status) if "<notes" in received.text else "It earns 36 dollars."

    apart = {"role": "system", "content": "Be brief."}
    async with sleeping(upstream=ScriptedUpstream(None, choose=refuses), put=False) as bench:
        await bench.put(apart)
        result = await bench.run(asking("Why?", apart))
        sent = [received.json["messages"] for received in result.requests]

    assert (result.status, result.text) == (200, "It earns 36 dollars.")
    assert ["<notes" in str(messages) for messages in sent] == [True, False]
    assert sent[1] == asking("Why?", apart)["messages"]
    assert result.exchange.notes == []
    assert [decision.what for decision in result.exchange.decisions][-1] == "taken out"


async def test_a_request_that_is_refused_anyway_says_what_the_upstream_said():
    async with sleeping(upstream=ScriptedUpstream(Answer(status=400))) as bench:
        noted = await bench.run(asking())
        plain = await bench.run("Hello")

    assert (noted.status, len(noted.requests)) == (400, 3)
    assert plain.status == 400


async def test_notes_that_might_not_fit_are_left_out():
    async with sleeping(window_tokens=80) as bench:
        result = await bench.run(asking())

    assert notes_in(result) == []
    assert result.exchange.decisions[0].detail["why"] == "window"


async def test_a_served_stream_tells_its_usage_only_if_asked():
    async with sleeping(serve="exact") as bench:
        known = Anticipated(
            "a" * 32, "shop", 1, "Why?", "why", "So.", verified=True, model="test", conditions=NO_CONDITIONS
        )
        await bench.running.shelf.add_anticipated("default", [known])
        await bench.running.index.refresh()
        silent = await bench.run(asking("Why?"), stream=True)
        told = await bench.run(asking("Why?", stream_options={"include_usage": True}), stream=True)

    assert [chunk.data["choices"] != [] for chunk in silent.chunks if chunk.data] == [True, True]
    assert (silent.usage, told.usage["total_tokens"]) == ({}, 0)


async def test_on_request_does_nothing_before_the_server_runs():
    plugin = SleepPlugin(SleepSettings())

    assert await plugin.regret("default", "x") == 0
    assert plugin.running is None


async def test_lifespan_creates_every_meter_at_zero():
    async with sleeping(put=False) as bench:
        metrics = bench.running._app.metrics
        made = {one.name for one in families(metrics) if one.children}

    assert {name for name in made if name.startswith(("predawn_sleep", "predawn_context"))} == {
        one.name for one in families(metrics) if one.name.startswith(("predawn_sleep", "predawn_context"))
    }


@pytest.mark.parametrize("wrong", [{"hours": ["25:00-26:00"]}, {"timezone": "Moon"}, {"schedule": ["noon"]}, {"x": 1}])
def test_settings_that_cannot_be_meant_are_refused_at_the_start(wrong):
    with pytest.raises(ValueError, match=r"25:00|Moon|noon|x"):
        SleepSettings.model_validate(wrong)


def test_the_metrics_that_the_page_names_exist():
    page = (DOCS / "sleep.md").read_text(encoding="utf-8")
    declared = {one.name for one in families(Metrics(CollectorRegistry()))}
    named = set(re.findall(r"predawn_\w+", page))

    assert named <= declared
    assert {name for name in declared if name.startswith(("predawn_sleep", "predawn_context"))} <= named


async def test_a_call_asleep_has_hung_up_before_the_request_that_ends_it_goes_upstream():
    """The local engine, above all, would go on with sleep's answer while it reads the person's prompt."""
    order = []

    class Watched(ScriptedUpstream):
        async def send(self, request):
            order.append("asked")
            reply = await super().send(request)
            hang_up = reply.source.aclose

            async def closes():
                order.append("hung up")
                await hang_up()

            reply.source.aclose = closes
            return reply

    said = Answer(text="word " * 100, interval_ms=1000)
    async with sleeping(
        upstream=Watched(None, choose=lambda received: said if "asleep" in received.text else "Yes.")
    ) as bench:
        running = bench.running
        options = AskOptions(model="test", tenant="default", context_id="shop")
        call = running._app.tasks.spawn(running.night.asking([{"role": "user", "content": "asleep?"}], options), "call")
        while not running.night.gate.calls("scripted") or order != ["asked"]:
            await settle()
        await settle()
        booked = []
        running.night.asking._send._booked = lambda exchange: booked.append(len(order))
        await bench.run("Hello?", stream=True)
        ended = (await asyncio.gather(call, return_exceptions=True))[0]

    assert order[:3] == ["asked", "hung up", "asked"]
    assert booked[0] >= 3
    assert type(ended).__name__ == "Postponed"


async def test_a_new_context_inherits_nothing_from_a_forgotten_one_of_its_name():
    async with sleeping() as bench:
        await bench.run(asking(), headers={"x-predawn-sleep": "off"})
        await bench.run(asking())
        await bench.running.books.observe("default", "shop", "test", "plain", 1000)
        await bench.proxy.http("DELETE", "/v1/contexts/shop")
        await bench.put()
        await bench.running.books.flush()
        uses = await bench.running.shelf.uses("default", "shop")
        known = await bench.running.shelf.estimate("default", "shop", "test", "plain")

    assert uses == []
    assert known is None
