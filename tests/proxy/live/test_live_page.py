"""The live page's server side, through the admin port of a whole server."""

from __future__ import annotations

import asyncio
import io
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from predawn.plugins.testing import predawn_server, scripted_server
from predawn.plugins.testing.server import RunningServer
from predawn.proxy.keys import Digester, Key, create_key
from predawn.proxy.live import viewers
from predawn.proxy.live.assets import POLICY, assets
from predawn.proxy.secret import find_or_make_secret

OWN = {"x-predawn-live": "1"}
KEY = "an-admin-key-of-some-length"
SCRIPTED = [{"name": "scripted", "kind": "scripted", "script": {"text": "it is Tuesday"}}]
MODELS = [{"name": "m", "upstream": "scripted"}]


@asynccontextmanager
async def served(**settings: Any) -> AsyncIterator[tuple[RunningServer, aiohttp.ClientSession]]:
    given = {"upstreams": SCRIPTED, "models": MODELS, **settings}
    async with predawn_server(given) as server, aiohttp.ClientSession(server.admin_url, headers=OWN) as session:
        yield server, session


async def events(reply: aiohttp.ClientResponse, name: str) -> AsyncIterator[dict[str, Any]]:
    """What the feed tells under this name."""
    now = ""
    async for line in reply.content:
        text = line.decode().rstrip("\n")
        if text.startswith("event: "):
            now = text[7:]
        elif text.startswith("data: ") and now == name:
            yield json.loads(text[6:])


async def ask(server: RunningServer, content: str = "hi", **body: Any) -> Mapping[str, str]:
    asked = {"model": "m", "messages": [{"role": "user", "content": content}], **body}
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{server.base_url}/chat/completions", json=asked) as reply:
            await reply.read()
            return reply.headers


async def until_watched(server: RunningServer) -> None:
    async with asyncio.timeout(5):
        while not server.server.app.generation.service.tools.feed.is_watched:
            await asyncio.sleep(0)


# -- the page


async def test_the_page_is_served_with_all_that_it_names_and_nothing_else_is_needed():
    async with served() as (_, session):
        async with session.get("/") as reply:
            page = await reply.text()
        named = set(re.findall(r'(?:src|href)="(/live/[^"]+)"', page))
        for path in named:
            async with session.get(path) as file:
                text = await file.text()
                assert file.status == 200
                named_inside = {f"/live/{name}" for name in re.findall(r'from "\./([\w.]+)"', text)}
                assert named_inside <= named, "not preloaded"

    assert reply.content_type == "text/html"
    assert named == assets().keys() - {"/"}
    outside = re.sub(r'xmlns="[^"]+"', "", "".join(one.body.decode() for one in assets().values()))
    assert re.findall(r"https?://", outside) == []


async def test_nothing_in_the_page_is_inline():
    page = assets()["/"].body.decode()

    assert re.findall(r"<script(?![^>]*\bsrc=)", page) == []
    assert re.findall(r"\s(style|on\w+)=", page) == []
    assert "<style" not in page


@pytest.mark.parametrize("path", ["/", "/live/main.js", "/live/live.css"])
async def test_a_browser_is_told_what_the_page_may_do(path: str):
    async with served() as (_, session), session.get(path) as reply:
        headers = reply.headers

    assert headers["Content-Security-Policy"] == POLICY
    assert "unsafe" not in POLICY
    assert "frame-ancestors 'none'" in POLICY
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-cache"


async def test_an_unchanged_file_is_not_sent_again():
    async with served() as (_, session):
        async with session.get("/live/main.js") as first:
            tag = first.headers["ETag"]
        async with session.get("/live/main.js", headers={"If-None-Match": tag}) as again:
            body = await again.read()

    assert (again.status, body) == (304, b"")


@pytest.mark.parametrize("path", ["/live/../endpoints.py", "/live/%2e%2e/endpoints.py", "/live/nothing.js", "/live/"])
async def test_nothing_but_the_page_s_own_files_is_given(path: str):
    async with served() as (server, _):
        host, port = "127.0.0.1", server.server.admin_port
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nx-predawn-live: 1\r\nConnection: close\r\n\r\n".encode()
        )
        head = await reader.readline()
        writer.close()

    assert b" 404 " in head


# -- who may look


@pytest.mark.parametrize("path", ["/live/feed", "/live/v1/exchanges/req_1", "/status"])
async def test_data_is_for_those_who_have_the_key(path: str):
    async with served(server={"admin_key": KEY}) as (_, session):
        async with session.get(path) as without:
            told = await without.json()
        async with session.get(path, headers={"x-predawn-admin-key": KEY}) as having:
            status = having.status

    assert (without.status, told["error"]["code"]) == (401, "admin_key_required")
    assert status != 401
    assert KEY not in json.dumps(told)


async def test_the_page_itself_needs_no_key_and_tells_nothing():
    async with served(server={"admin_key": KEY}) as (_, session), session.get("/") as reply:
        page = await reply.text()

    assert reply.status == 200
    assert "scripted" not in page


FOREIGN = (
    {"Host": "evil.example"},
    {"Origin": "https://evil.example"},
    {"Sec-Fetch-Site": "cross-site"},
    {"x-predawn-live": "0"},
)


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/live/feed"), ("POST", "/live/try"), ("GET", "/live/v1/contexts/a")]
)
async def test_pages_from_elsewhere_get_nothing(method: str, path: str):
    async with served() as (_, session):
        for headers in FOREIGN:
            async with session.request(method, path, headers=headers) as reply:
                assert reply.status == 403, headers
                assert "Access-Control-Allow-Origin" not in reply.headers


async def test_an_admin_key_is_long_and_stays_secret():
    from predawn.proxy.settings import Settings

    with pytest.raises(ValueError, match="at least 16"):
        Settings.model_validate({"server": {"admin_key": "short"}})
    for unsendable in ("schlüssel-von-einiger-länge", "an-admin-key-of-two\nlines", f"{KEY} "):
        with pytest.raises(ValueError, match="as a header can carry"):
            Settings.model_validate({"server": {"admin_key": unsendable}})
    settings = Settings.model_validate({"server": {"admin_key": KEY}})

    assert KEY not in repr(settings)


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/"), ("PUT", "/live/feed"), ("HEAD", "/live/feed"), ("GET", "/live/try")]
)
async def test_other_methods_are_refused(method: str, path: str):
    async with served() as (_, session), session.request(method, path) as reply:
        assert reply.status == 405
        assert reply.headers["Allow"]


@pytest.mark.parametrize("path", ["/status", "/live/v1/exchanges/{id}"])
async def test_data_is_neither_kept_by_browsers_nor_framed(path: str):
    async with served(plugins=["record"]) as (server, session):
        sent = await ask(server)
        async with session.get(path.format(id=sent["x-request-id"])) as reply:
            headers = reply.headers

    assert reply.status == 200
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff"


async def test_what_goes_wrong_here_is_found_in_the_log(caplog: pytest.LogCaptureFixture):
    async with served(plugins=["record"]) as (server, session):
        server.server.app.generation.routes = (None,)
        async with session.get("/live/v1/exchanges/a") as reply:
            told = await reply.json()

    assert (reply.status, told["error"]["code"]) == (500, "internal_error")
    assert "Traceback" in caplog.text


# -- the feed


async def test_an_exchange_appears_with_its_times_and_its_cost():
    async with served(plugins=["record"]) as (server, session), session.get("/live/feed") as feed:
        await until_watched(server)
        sent = await ask(server, stream=True)
        async for turn in events(feed, "turn"):
            if turn["ended"]:
                break
        (row,) = turn["ended"]

    assert feed.headers["Cache-Control"] == "no-store"
    assert row["id"] == sent["x-request-id"]
    assert (row["model"], row["upstream"], row["status"], row["outcome"]) == ("m", "scripted", 200, "ok")
    assert row["start"] <= row["asked"] <= row["first"] <= row["answered"] <= row["closed"] <= turn["now"]
    assert row["tokens"][1] > 0


async def test_a_page_can_tell_a_server_from_the_one_before_it():
    told = []
    for _ in range(2):
        async with served() as (_, session), session.get("/live/feed") as feed:
            turn, state = await anext(events(feed, "turn")), await anext(events(feed, "state"))
            told.append((turn["process"], state["process"]))

    assert [turn == state for turn, state in told] == [True, True]
    assert told[0] != told[1]


async def test_the_state_tells_what_runs_and_what_was_counted():
    async with served(plugins=["record"]) as (server, session):
        await ask(server)
        async with session.get("/live/feed") as feed:
            state = await anext(events(feed, "state"))

    assert (state["models"], state["plugins"], state["records"], state["keys"]) == (["m"], ["record"], True, False)
    assert state["upstreams"] == [{"name": "scripted", "kind": "scripted", "in_flight": 0, "state": "closed"}]
    assert state["totals"]["requests"] == {"ok": 1, "client": 0, "server": 0}
    assert (state["worker"], state["workers"], state["first_port"]) == (0, 1, server.server.admin_port)


async def test_nothing_is_noted_before_somebody_looks_nor_after():
    async with served() as (server, session):
        feed = server.server.app.generation.service.tools.feed
        await ask(server)
        assert (feed.is_watched, feed._ended, feed._running) == (False, [], {})
        async with session.get("/live/feed"):
            await until_watched(server)
        async with asyncio.timeout(5):
            while feed.is_watched:
                await asyncio.sleep(0)
        await ask(server)

        assert (feed._ended, feed._running, server.server.app.live.viewers._works) == ([], {}, [])


async def test_what_was_said_never_reaches_the_feed():
    secret = "the-secret-word"
    settings = {
        "upstreams": [
            {"name": "echo", "kind": "scripted", "script": {"status": 400, "body": {"error": {"message": secret}}}}
        ],
        "models": [{"name": "m", "upstream": "echo"}],
        "plugins": ["cache", {"sleep": {}}, {"budget": {}}, {"verify": {"verifiers": ["arithmetic"]}}, "record"],
    }
    async with served(**settings) as (server, session), session.get("/live/feed") as feed:
        await until_watched(server)
        sent = await ask(server, f"{secret} 2+2=5")
        heard = ""
        async for turn in events(feed, "turn"):
            heard += json.dumps(turn)
            if turn["ended"]:
                break
        heard += json.dumps(await anext(events(feed, "state")))
        async with session.get(f"/live/v1/exchanges/{sent['x-request-id']}") as reply:
            heard += await reply.text()

    assert sent["x-request-id"] in heard
    assert secret not in heard


async def test_there_are_never_more_viewers_than_allowed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(viewers, "MOST_VIEWERS", 2)
    async with served() as (server, session):
        async with session.get("/live/feed"), session.get("/live/feed"):
            async with session.get("/live/feed") as third:
                told = await third.json()
            count = len(server.server.app.live.viewers)

    assert (third.status, told["error"]["code"], count) == (503, "too_many_viewers", 2)


async def test_a_viewer_that_does_not_read_is_dropped_and_others_go_on(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(viewers, "TURN_S", 0.0005)
    monkeypatch.setattr(viewers, "MOST_WAITING", 16 << 10)
    async with served() as (server, session):
        live = server.server.app.live.viewers
        monkeypatch.setattr(live, "_turn", lambda: {"now": 0, "long": "x" * 50_000})
        reader, writer = await asyncio.open_connection("127.0.0.1", server.server.admin_port, limit=1 << 10)
        writer.write(b"GET /live/feed HTTP/1.1\r\nHost: localhost\r\nx-predawn-live: 1\r\n\r\n")
        await reader.readline()
        async with session.get("/live/feed") as other:
            turns = events(other, "turn")
            async with asyncio.timeout(20):
                while len(live) < 2:
                    await asyncio.sleep(0)
                while len(live) == 2:
                    await anext(turns)
            await anext(turns)
            left = len(live)
        writer.transport.abort()

    assert left == 1


async def test_open_pages_do_not_hold_up_the_end():
    async with aiohttp.ClientSession(headers=OWN) as session:
        async with served() as (server, _):
            feed = await session.get(f"{server.admin_url}/live/feed")
            await until_watched(server)
            began = asyncio.get_running_loop().time()
        took = asyncio.get_running_loop().time() - began
        rest = await feed.read()  # raises if it was cut off

    assert rest
    assert took < 0.9, "cut off by force, after a second"


async def test_a_page_that_comes_after_the_news_have_failed_gets_news(monkeypatch: pytest.MonkeyPatch):
    async with served() as (server, session):
        live, turn = server.server.app.live.viewers, server.server.app.live._turn
        async with session.get("/live/feed") as feed:
            await anext(events(feed, "turn"))

            def fails() -> dict[str, Any]:
                monkeypatch.setattr(live, "_turn", turn)
                raise RuntimeError("a turn that cannot be told")

            monkeypatch.setattr(live, "_turn", fails)
            (viewer,) = live._viewers
            live._viewers.add(other := viewers.Viewer(viewer.request, viewer.sink, asyncio.Future()))
            await feed.read()  # it is ended, while another has not gone yet
            async with session.get("/live/feed") as later, asyncio.timeout(5):
                await anext(events(later, "turn"))
                await anext(events(later, "turn"))
            live._viewers.discard(other)

    assert other.gone.done()


async def test_a_reload_goes_on_with_the_same_pages():
    async with served() as (server, session), session.get("/live/feed") as feed:
        await until_watched(server)
        settings = server.server.settings.model_copy(
            update={
                "models": (
                    *server.server.settings.models,
                    server.server.settings.models[0].model_copy(update={"name": "n"}),
                )
            }
        )
        assert await server.server.reload(lambda: settings)
        sent = await ask(server, model="n")
        async for turn in events(feed, "turn"):
            if turn["ended"]:
                break

    assert [row["id"] for row in turn["ended"]] == [sent["x-request-id"]]


# -- one exchange


async def test_a_record_is_one_request_away_for_any_tenant():
    async with served(plugins=["record"]) as (server, session):
        sent = await ask(server)
        async with session.get(f"/live/v1/exchanges/{sent['x-request-id']}", params={"tenant": "default"}) as reply:
            record = await reply.json()
            cache = reply.headers["Cache-Control"]
        async with session.get(f"/live/v1/exchanges/{sent['x-request-id']}", params={"tenant": "other"}) as other:
            status = other.status

    assert (record["id"], record["outcome"], cache) == (sent["x-request-id"], "ok", "no-store")
    assert "content" not in record
    assert status == 404


async def test_without_a_tenant_a_record_is_asked_for_in_the_name_of_the_client_s_key():
    async with served(plugins=["record"], access={"keys": "required"}) as (server, session):
        async with session.get("/live/v1/exchanges/req_1") as without:
            told = await without.json()
        async with session.get("/live/v1/exchanges/req_1", params={"tenant": "acme"}) as named:
            status = named.status

    assert (without.status, told["error"]["type"]) == (401, "authentication_error")
    assert status == 404


async def test_content_is_shown_where_it_is_recorded():
    async with served(plugins=[{"record": {"record_content": True}}]) as (server, session):
        sent = await ask(server, "what day is it?")
        async with session.get(f"/live/v1/exchanges/{sent['x-request-id']}") as reply:
            record = await reply.json()

    assert record["content"]["request"]["messages"][0]["content"] == "what day is it?"


async def test_without_a_plugin_that_records_the_page_says_so():
    async with served() as (_, session), session.get("/live/v1/exchanges/req_1") as reply:
        told = await reply.json()

    assert (reply.status, told["error"]["code"]) == (404, "not_kept")
    assert "record" in told["error"]["message"]


async def test_other_endpoints_are_not_opened():
    async with served(plugins=["record", {"sleep": {}}]) as (_, session):
        for path in ("contexts", "exchanges", "contexts/a/notes", "models", "exchanges/a/regret"):
            async with session.get(f"/live/v1/{path}") as reply:
                assert reply.status == 404, path


async def test_contexts_appear_with_their_state_and_not_with_their_text():
    async with served(plugins=[{"sleep": {}}]) as (server, session):
        made = {"id": "book-1", "messages": [{"role": "system", "content": "the tram costs three crowns " * 40}]}
        async with session.post(f"{server.base_url}/contexts", json=made) as reply:
            assert reply.status == 201
        async with session.get("/live/feed") as feed:
            state = await anext(events(feed, "state"))
        async with session.get("/live/v1/contexts/book-1") as reply:
            detail = await reply.json()
        (row,) = state["boards"]["contexts"]

    assert (row["id"], row["tenant"], row["source"]) == ("book-1", "default", "registered")
    assert row["tokens"] > 0
    assert detail["id"] == "book-1"
    assert "tram" not in json.dumps([state, detail])
    assert set(state["boards"]["night"][0]) >= {"active", "candidates", "gates"}


# -- trying


async def tried(session: aiohttp.ClientSession, plugins: str, **headers: str) -> tuple[int, str, Mapping[str, str]]:
    body = {"model": "m", "messages": [{"role": "user", "content": "same"}], "stream": True, "temperature": 0}
    async with session.post(f"/live/try?plugins={plugins}", json=body, headers=headers) as reply:
        return reply.status, await reply.text(), reply.headers


async def test_a_prompt_is_tried_with_plugins_and_without():
    async with served(plugins=["cache", "record"]) as (server, session):
        first = await tried(session, "on")
        again = await tried(session, "on")
        bare = await tried(session, "off")
        ids = [reply[2]["x-request-id"] for reply in (first, again, bare)]
        records = []
        for ident in ids:
            async with session.get(f"/live/v1/exchanges/{ident}") as reply:
                records.append(await reply.json())

    assert [reply[0] for reply in (first, again, bare)] == [200, 200, 200]
    assert all("Tuesday" in reply[1] and reply[1].rstrip().endswith("[DONE]") for reply in (first, again, bare))
    assert [[one["what"] for one in record["decisions"]] for record in records] == [["miss"], ["hit"], []]
    assert [[call["purpose"] for call in record["calls"]] for record in records] == [["serve"], [], ["probe"]]


async def test_a_try_tells_nobody_the_admin_key_nor_what_only_browsers_say():
    said = {"x-predawn-admin-key": KEY, "Accept-Language": "de", "x-predawn-cache": "refresh"}
    async with scripted_server("hello") as provider:
        settings = {"upstreams": [{"name": "u", "base_url": provider.base_url}], "server": {"admin_key": KEY}}
        async with served(**settings, models=[{"name": "m", "upstream": "u"}], plugins=["cache"]) as (server, session):
            origin = {"Origin": server.admin_url, "Referer": f"{server.admin_url}/", "Sec-Fetch-Site": "same-origin"}
            seen = []
            pipeline = server.server.app.generation.service.models.find("m").pipeline
            complete = pipeline.complete

            async def looks(exchange: Any) -> Any:
                seen.append((dict(exchange.control), dict(exchange.headers)))
                return await complete(exchange)

            pipeline.complete = looks
            status = [(await tried(session, plugins, **said, **origin))[0] for plugins in ("on", "off")]

    assert status == [200, 200]
    assert [control for control, _ in seen] == [{}]
    assert KEY not in str(seen)
    sent = [{name.lower() for name in request.headers} for request in provider.requests]
    assert len(sent) == 2
    assert not any(names & {"origin", "referer", "sec-fetch-site", "accept-language"} for names in sent)


async def test_a_prompt_may_be_as_long_as_a_client_s():
    asked = {"model": "m", "messages": [{"role": "user", "content": "x" * (2 << 20)}]}
    async with served() as (_, session):
        async with session.post("/live/try", data=io.BytesIO(json.dumps(asked).encode())) as reply:
            status = reply.status

    assert status == 200


async def test_trying_needs_a_client_s_key_where_clients_do():
    async with served(access={"keys": "required"}) as (_, session):
        status, text, _ = await tried(session, "on")
        bare, _, _ = await tried(session, "off")

    assert (status, bare) == (401, 401)
    assert "API key" in text


async def test_the_key_s_tenant_pays_for_a_try_and_its_limits_hold_without_plugins_too():
    draft = Key(id="", name="solo", tenant="solo", requests_per_minute=2)
    async with served(plugins=["cache", "record"], access={"keys": "required"}) as (server, session):
        access = server.server.app.generation.service.access
        digester = Digester(find_or_make_secret(server.server.settings))
        _, key = await create_key(await server.server._shared.open_store(), digester, draft)
        await access.reload()
        client = {"Authorization": f"Bearer {key}"}
        replies = [await tried(session, plugins, **client) for plugins in ("on", "off", "off")]
        path, found = f"/live/v1/exchanges/{replies[1][2]['x-request-id']}", []
        for headers, named in ((client, {}), ({}, {"tenant": "solo"}), ({}, {"tenant": "default"})):
            async with session.get(path, headers=headers, params=named) as reply:
                found.append(reply.status)

    assert [status for status, _, _ in replies] == [200, 200, 429]
    assert found == [200, 200, 404]


@pytest.mark.parametrize("plugins", ["maybe", "", "ON"])
async def test_nothing_else_than_on_and_off_can_be_tried(plugins: str):
    async with served() as (_, session):
        status, _, _ = await tried(session, plugins)

    assert status == 400


async def test_clients_of_the_api_cannot_leave_plugins_out():
    async with served(plugins=["cache", "record"]) as (server, session):
        async with session.post(f"{server.url}/live/try?plugins=off", json={"model": "m"}) as reply:
            assert reply.status == 404
        sent = await ask(server, temperature=0, predawn={"plugins": "off", "bare": True})
        async with session.get(f"/live/v1/exchanges/{sent['x-request-id']}") as reply:
            record = await reply.json()

    assert [one["by"] for one in record["decisions"]] == ["cache"]
