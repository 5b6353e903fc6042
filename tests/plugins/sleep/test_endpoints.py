"""`/v1/contexts`: what a tenant registers, sees and deletes, and how mistakes are told."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from tests.plugins.sleep.desk_clerk import DeskClerk

from predawn.plugins.sleep.contexts import Anticipated, Notes, Progress
from predawn.plugins.sleep.forgetting import clear_up
from predawn.plugins.sleep.wishes import Limits
from predawn.plugins.testing import workbench
from predawn.proxy.keyring import Identity
from predawn.proxy.keys import Key


@asynccontextmanager
async def desk(**more):
    clerk = DeskClerk(**more)
    async with workbench(clerk) as bench:
        yield Desk(bench, clerk)


class Desk:
    def __init__(self, bench, clerk):
        self.bench, self.clerk = bench, clerk
        self.tenant = "default"
        self.models = None
        bench._app.generation.service.access.identify = lambda *_: self.identity

    @property
    def identity(self):
        if self.models is None:
            return Identity(self.tenant)
        key = Key(id="k", name="n", tenant=self.tenant, models=self.models, created_at=1.0)
        return Identity.of(key)

    async def ask(self, method, path="", body=None):
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        answer = await self.bench.http(method, f"/v1/contexts{path}", raw)
        decoded = json.loads(answer.body)
        return answer.status, decoded.get("error", decoded)


async def test_a_text_is_registered_shown_and_deleted():
    async with desk() as at:
        status, made = await at.ask(
            "POST", body={"text": "Ann has 3. \n", "id": "story", "ttl_s": 60, "sleep": {"max_passes": 2}}
        )
        shown = await at.ask("GET", "/story")
        listed = await at.ask("GET")
        deleted = await at.ask("DELETE", "/story")
        gone = await at.ask("GET", "/story")

    assert (status, made["id"], made["version"], made["state"], made["came"]) == (201, "story", 1, "new", "created")
    assert made["expires_at"] == made["created_at"] + 60
    assert made["sleep"] == {"max_passes": 2}
    assert shown == (200, {name: value for name, value in made.items() if name != "came"})
    assert [context["id"] for context in listed[1]["data"]] == ["story"]
    assert deleted == (200, {"id": "story", "object": "context.deleted", "deleted": True})
    assert (gone[0], gone[1]["code"], gone[1]["param"]) == (404, "context_not_found", "id")
    assert at.clerk.seen == [("came", "default", "story", "created"), ("purge", "default", "story")]


async def test_registering_again_tells_what_came_of_it():
    async with desk() as at:
        first = await at.ask("POST", body={"text": "one"})
        again = await at.ask("POST", body={"text": "one"})
        named = await at.ask("POST", body={"text": "two", "id": first[1]["id"]})

    assert (first[0], again[0], named[0]) == (201, 200, 200)
    assert (first[1]["came"], again[1]["came"], named[1]["came"]) == ("created", "same", "changed")
    assert first[1]["id"].startswith("ctx_")
    assert named[1]["version"] == 2


async def test_messages_may_have_live_parts_which_are_not_kept():
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "secret price", "live": True},
        {"role": "user", "content": "after it"},
    ]
    async with desk() as at:
        _, made = await at.ask("POST", body={"messages": messages, "id": "c"})
        context = await at.clerk.shelf.get("default", "c")

    assert (made["messages"], made["live_messages"]) == (1, 2)
    assert context.messages == ({"role": "system", "content": "Be brief."},)


MISTAKES = [
    (b"{", 400, None, "not valid JSON"),
    (b"[]", 400, None, "Expected `object`"),
    ({}, 400, "text", "either text or messages"),
    ({"text": "a", "messages": []}, 400, "text", "either"),
    ({"text": " \n"}, 400, "text", "empty"),
    ({"text": 3}, 400, "text", "Expected `str | null`"),
    ({"text": "a", "txet": 1}, 400, "txet", "unknown field"),
    ({"text": "a", "sleep": {"passes": 1}}, 400, "sleep", "unknown field"),
    ({"text": "a", "sleep": {"max_passes": 0}}, 400, "sleep.max_passes", ">= 1"),
    ({"text": "a", "sleep": "sometimes"}, 400, "sleep", "Invalid"),
    ({"text": "a", "ttl_s": 0}, 400, "ttl_s", "> 0"),
    ({"text": "a", "id": "a/b"}, 400, "id", "regex"),
    ({"text": "a", "id": ""}, 400, "id", "regex"),
    ({"text": "a", "model": "a\0"}, 400, "model", "regex"),
    ({"messages": []}, 400, "messages", "1 to 4"),
    ({"messages": [{"role": "user", "content": "x"}] * 5}, 400, "messages", "1 to 4"),
    ({"messages": ["x"]}, 400, "messages[0]", "object"),
    ({"messages": [{"content": "x"}]}, 400, "messages[0].role", "no role"),
    ({"messages": [{"role": "user"}]}, 400, "messages[0].content", "no content"),
    ({"messages": [{"role": "user", "content": "x", "live": 1}]}, 400, "messages[0].live", "true or false"),
    ({"messages": [{"role": "user", "content": "x"}], "live": 0}, 400, "live", "All of it is live"),
    ({"messages": [{"role": "user", "content": "x"}], "live": [5]}, 400, "live", "not there"),
    ({"text": "x" * 2000}, 413, "text", "max_context_bytes"),
    ({"text": "a", "model": "unheard"}, 404, "model", "there is no model"),
]


@pytest.mark.parametrize(("body", "status", "param", "words"), MISTAKES)
async def test_mistakes_are_named_with_their_place(body, status, param, words):
    async with desk(limits=Limits(max_bytes=1000, max_messages=4), models=frozenset({"known"})) as at:
        got, error = await at.ask("POST", body=body)

    assert (got, error["param"]) == (status, param)
    assert words in error["message"]
    assert error["type"] == "invalid_request_error"
    assert at.clerk.seen == []


async def test_a_tool_call_is_not_torn_from_its_live_result():
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    async with desk() as at:
        status, error = await at.ask("POST", body={"messages": [call, {"role": "tool", "content": "42"}], "live": 1})

    assert (status, error["param"]) == (400, "live")


async def test_a_tenant_has_so_many_contexts_and_no_more():
    async with desk(limits=Limits(max_contexts=2)) as at:
        for number in range(2):
            await at.ask("POST", body={"text": f"{number}"})
        status, error = await at.ask("POST", body={"text": "3"})
        at.tenant = "other"
        elsewhere = await at.ask("POST", body={"text": "3"})

    assert (status, error["code"]) == (400, "context_limit")
    assert elsewhere[0] == 201


async def test_tenants_see_nothing_of_each_other():
    async with desk() as at:
        await at.ask("POST", body={"text": "mine", "id": "c"})
        at.tenant = "other"
        for method, path in (
            ("GET", "/c"),
            ("DELETE", "/c"),
            ("POST", "/c/sleep"),
            ("GET", "/c/notes"),
            ("GET", "?before=c"),
        ):
            assert (await at.ask(method, path))[0] == 404
        assert (await at.ask("GET"))[1]["data"] == []
        assert (await at.ask("POST", body={"text": "theirs", "id": "c"}))[1]["came"] == "created"


async def test_a_key_for_some_models_registers_for_those_only():
    async with desk() as at:
        at.models = frozenset({"small"})
        small = await at.ask("POST", body={"text": "a", "model": "small"})
        large = await at.ask("POST", body={"text": "a", "model": "large"})
        every = await at.ask("POST", body={"text": "a"})

    assert small[0] == 201
    assert [(status, error["code"]) for status, error in (large, every)] == [(403, "model_not_allowed")] * 2


async def test_lists_come_in_pages():
    async with desk() as at:
        for number in range(5):
            await at.bench.clock.advance(1)
            await at.ask("POST", body={"text": "x", "id": f"c{number}"})
        first = (await at.ask("GET", "?limit=3"))[1]
        second = (await at.ask("GET", f"?limit=3&before={first['last_id']}"))[1]
        wrong = [(await at.ask("GET", query))[0] for query in ("?limit=0", "?limit=101", "?limit=x", "?source=x")]
        none = (await at.ask("GET", "?source=discovered"))[1]

    assert [context["id"] for context in first["data"]] == ["c4", "c3", "c2"]
    assert (first["has_more"], first["first_id"], first["last_id"]) == (True, "c4", "c2")
    assert ([context["id"] for context in second["data"]], second["has_more"]) == (["c1", "c0"], False)
    assert wrong == [400] * 4
    assert (none["data"], none["first_id"]) == ([], None)


async def test_sleep_is_asked_for_once():
    async with desk() as at:
        await at.ask("POST", body={"text": "x", "id": "c"})
        at.clerk.will_be = [Progress("sleeping", "consolidate", 1, 4, 100, 1000)]
        first = await at.ask("POST", "/c/sleep", {"max_passes": 4})
        again = await at.ask("POST", "/c/sleep")
        wrong = await at.ask("POST", "/c/sleep", {"max_passes": "many"})

    assert (first[0], again[0], wrong[0]) == (202, 202, 400)
    assert first[1]["state"] == again[1]["state"] == "sleeping"
    assert first[1]["progress"] == {
        "state": "sleeping", "stage": "consolidate", "pass_no": 1, "max_passes": 4, "tokens": 100,
        "budget_tokens": 1000, "decision": None, "waits": None,
    }  # fmt: skip
    assert at.clerk.seen[1:] == [("asked", "c", "4")]


async def test_notes_and_decisions_are_shown():
    async with desk() as at:
        await at.ask("POST", body={"text": "x", "id": "c"})
        shelf = at.clerk.shelf
        await shelf.add_notes("default", Notes("n", "c", 1, "candidate", "what I think", 3, 1, 1.0, 9, "m"))
        await shelf.add_anticipated("default", [Anticipated("q", "c", 1, "Why?", "why", "42", verified=True)])
        await shelf.decide("default", "c", 1, {"sleep": True, "gain": 5})
        shown = (await at.ask("GET", "/c"))[1]
        written = (await at.ask("GET", "/c/notes"))[1]

    assert shown["progress"]["decision"]["gain"] == 5
    assert "what I think" not in json.dumps(shown)
    assert [(one["id"], one["text"], one["status"]) for one in written["notes"]] == [("n", "what I think", "candidate")]
    assert [(one["question"], one["answer"]) for one in written["anticipated"]] == [("Why?", "42")]


async def test_an_expired_context_is_gone_and_is_cleared_up():
    async with desk() as at:
        await at.ask("POST", body={"text": "x", "id": "c", "ttl_s": 10})
        await at.clerk.shelf.add_job("default", "c", 1, "j")
        await at.bench.clock.advance(10)
        status = (await at.ask("GET", "/c"))[0]
        count = await clear_up(at.clerk.shelf, at.clerk)

    assert (status, count) == (404, 1)
    assert at.clerk.seen[-1] == ("purge", "default", "c", "j")


async def test_jobs_that_could_not_be_purged_are_purged_later():
    async with desk() as at:
        await at.ask("POST", body={"text": "x", "id": "c"})
        await at.clerk.shelf.add_job("default", "c", 1, "j")
        at.clerk.fails_to_purge = True
        status = (await at.ask("DELETE", "/c"))[0]
        waiting = await at.clerk.shelf.unpurged()
        at.clerk.fails_to_purge = False
        await clear_up(at.clerk.shelf, at.clerk)

    assert status == 200
    assert [grave.job_ids for grave in waiting] == [("j",)]
    assert at.clerk.seen[-1] == ("purge", "default", "c", "j")


async def test_a_lost_store_is_told_in_our_own_words():
    async with desk() as at:
        at.clerk.fails_to_open = True
        answers = [
            await at.ask(*one) for one in (("GET",), ("POST", "", {"text": "x"}), ("DELETE", "/c"), ("GET", "/c"))
        ]

    assert [(status, error["code"]) for status, error in answers] == [(503, "store_unavailable")] * 4


async def test_the_index_knows_at_once():
    async with desk() as at:
        await at.ask("POST", body={"text": "x", "id": "c", "model": "m"})
        known = at.clerk.endpoints.index.match("default", "", "m", [{"role": "user", "content": t} for t in "xq"])
        await at.ask("DELETE", "/c")

        assert known.context_id == "c"
        assert len(at.clerk.endpoints.index) == 0


async def test_many_clients_at_once_make_one_context():
    async with desk() as at:
        answers = await asyncio.gather(*(at.ask("POST", body={"text": "x", "id": "c"}) for _ in range(8)))

    assert sorted(status for status, _ in answers) == [200] * 7 + [201]


@pytest.mark.parametrize(("method", "path"), [("GET", "/%00"), ("DELETE", "/a%00b"), ("POST", "/%00/sleep")])
async def test_a_name_with_a_nul_names_nothing(method, path):
    async with desk() as at:
        status, error = await at.ask(method, path)

    assert (status, error["code"]) == (404, "context_not_found")


async def test_a_name_does_not_end_in_a_line_break():
    async with desk() as at:
        status, error = await at.ask("POST", body={"text": "one", "id": "story\n"})

    assert (status, error["param"]) == (400, "id")


async def test_what_a_context_waits_for_is_shown():
    async with desk() as at:
        at.clerk.waits["default", "story"] = {"why": "busy"}
        _, made = await at.ask("POST", body={"text": "one", "id": "story"})
        _, other = await at.ask("POST", body={"text": "two", "id": "other"})

    assert (made["progress"]["waits"], other["progress"]["waits"]) == ({"why": "busy"}, None)


async def test_where_nothing_will_be_done_that_is_said():
    async with desk() as at:
        await at.ask("POST", body={"text": "x", "id": "c"})
        at.clerk.why_not = "the server's settings have `policy: off` for the plugin sleep."
        status, error = await at.ask("POST", "/c/sleep")

    assert (status, error["code"]) == (409, "sleep_is_off")
    assert error["message"].startswith("Nothing will be done: the server's settings have `policy: off`")


async def test_a_tenant_s_contexts_have_so_many_bytes_in_all():
    async with desk(limits=Limits(max_tenant_bytes=1000)) as at:
        await at.ask("POST", body={"text": "x" * 800})
        status, error = await at.ask("POST", body={"text": "y" * 800})

    assert (status, error["code"]) == (400, "context_limit")
    assert "max_tenant_bytes" in error["message"]
