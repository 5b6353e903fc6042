"""What operators do: start, check, reload, drain, kill."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from time import perf_counter
from typing import Any

import aiohttp
import pytest
from tests.acceptance.bare import Bare, ask, bare, chat, post
from tests.acceptance.house import until, upstream_settings
from tests.acceptance.process import predawn, serving, write_settings

from predawn.proxy.upstreams.scripted.server import ScriptedServer, scripted_server

SLOW = "x-script: interval_ms=20, chunks=40"
STALLS = "x-script: stall_mid_stream, after=3"


@pytest.fixture
async def provider() -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as running:
        yield running


def settings(provider: ScriptedServer, folder: Path, **over: Any) -> dict[str, Any]:
    server = {"port": 0, "admin_port": 0, "drain_grace_s": 0.3, "drain_timeout_s": 10, **over.pop("server", {})}
    return {
        "server": server,
        "state": str(folder / "state.db"),
        "upstreams": [upstream_settings(provider.base_url)],
        "models": [{"name": "m", "upstream": "up"}],
        **over,
    }


async def get(port: int, path: str) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as reply:
        return reply.status, await reply.json()


async def open_stream(client: Bare, script: str = SLOW, ident: str = "stream") -> None:
    await client.send(post(chat(stream=True), "/v1/chat/completions", script, f"x-request-id: {ident}"))
    status, _ = await client.head()
    assert status == 200


async def rest_of(client: Bare) -> tuple[bytes, bool]:
    """What is left of a stream, and whether it ended as it should."""
    received = b""
    try:
        async with asyncio.timeout(20):
            while (piece := await client.chunk()) is not None:
                received += piece
    except (asyncio.IncompleteReadError, ConnectionError):
        return received, False
    return received, True


async def test_a_server_is_light_and_soon_ready(provider: ScriptedServer, tmp_path: Path) -> None:
    began = perf_counter()
    async with serving(tmp_path, settings(provider, tmp_path)) as server:
        ready_s = perf_counter() - began
        answers = [await ask(server.port, chat(stream=number % 2 > 0)) for number in range(20)]
        resident_mb = server.resident_mb

        print(f"ready after {ready_s:.2f} s, {resident_mb:.1f} MB resident after 20 requests")
        assert {answer.status for answer in answers} == {200}
        assert ready_s < 5
        assert resident_mb < 80


async def test_a_drain_finishes_streams_and_refuses_new_requests(provider: ScriptedServer, tmp_path: Path) -> None:
    async with serving(tmp_path, settings(provider, tmp_path)) as server:
        async with bare(server.port) as running, bare(server.port) as kept, bare(server.port) as stream:
            assert (await kept.ask(chat())).status == 200
            await open_stream(stream, "x-script: interval_ms=40, chunks=50")
            server.signal(signal.SIGTERM)
            await server.says("shutting down")
            not_ready = await get(server.port, "/ready")
            still_served = await running.ask(chat())
            while (refused := await kept.ask(chat())).status == 200:
                await asyncio.sleep(0.02)
            received, whole = await rest_of(stream)
        status = await server.ended()

        assert not_ready[0] == 503
        assert still_served.status == 200
        assert (refused.status, refused.error["code"]) == (503, "shutting_down")
        assert refused.headers["Connection"].lower() == "close"
        assert whole
        assert received.endswith(b"data: [DONE]\n\n")
        assert status == 0


async def test_a_drain_ends_what_takes_too_long(provider: ScriptedServer, tmp_path: Path) -> None:
    quick = {"drain_timeout_s": 0.3, "drain_grace_s": 0}
    async with serving(tmp_path, settings(provider, tmp_path, server=quick)) as server:
        async with bare(server.port) as stream:
            await open_stream(stream, STALLS)
            server.signal(signal.SIGTERM)
            received, whole = await rest_of(stream)
        status = await server.ended()
        await until(lambda: provider.counts.in_flight == 0)

        assert not whole
        assert b"shutting_down" in received
        assert status == 0


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_at_once(second: signal.Signals, provider: ScriptedServer, tmp_path: Path) -> None:
    patient = {"drain_timeout_s": 300, "drain_grace_s": 300}
    async with serving(tmp_path, settings(provider, tmp_path, server=patient)) as server:
        async with bare(server.port) as stream:
            await open_stream(stream, STALLS)
            server.signal(signal.SIGTERM)
            await server.says("shutting down")
            began = perf_counter()
            server.signal(second)
            await server.ended()

        assert perf_counter() - began < 8


async def test_an_interrupt_without_requests_ends_at_once(provider: ScriptedServer, tmp_path: Path) -> None:
    async with serving(tmp_path, settings(provider, tmp_path, server={"drain_grace_s": 60})) as server:
        began = perf_counter()
        server.signal(signal.SIGINT)
        status = await server.ended()

        assert status == 0
        assert perf_counter() - began < 8


async def test_a_reload_serves_new_aliases_and_leaves_streams_alone(provider: ScriptedServer, tmp_path: Path) -> None:
    old = settings(provider, tmp_path)
    async with serving(tmp_path, old) as server, bare(server.port) as stream:
        await open_stream(stream)
        models = [*old["models"], {"name": "new", "upstream": "second", "model": "real"}]
        upstreams = [*old["upstreams"], upstream_settings(provider.base_url, "second")]
        config = write_settings(tmp_path / "predawn.yaml", {**old, "models": models, "upstreams": upstreams})
        before = await ask(server.port, chat(model="new"))
        server.signal(signal.SIGHUP)
        await server.says("reloaded")
        after = await ask(server.port, chat(model="new"))

        config.write_text("upstreams: [{name: up, kind: opanai}]\nmodells: []\n")
        server.signal(signal.SIGHUP)
        await server.says("reload failed")
        kept = await ask(server.port, chat(model="new"))

        write_settings(config, {**old, "upstreams": upstreams[1:], "models": [{"name": "m", "upstream": "second"}]})
        server.signal(signal.SIGHUP)
        await server.says("reloaded", times=2)
        gone = await ask(server.port, chat(model="new"))
        moved = await ask(server.port, chat())
        received, whole = await rest_of(stream)

        assert (before.status, after.status, kept.status, gone.status) == (404, 200, 200, 404)
        assert moved.headers["x-predawn-upstream"] == "second"
        assert "modells" in server.log
        assert "did you mean 'openai'" in server.log
        assert whole
        assert received.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("text", ["", "{", "upstreams: 5", "a: &a [*a]", "\x00", "server: {port: 99999999}"], ids=repr)
async def test_a_file_that_cannot_be_read_changes_nothing(text: str, provider: ScriptedServer, tmp_path: Path) -> None:
    async with serving(tmp_path, settings(provider, tmp_path)) as server:
        (tmp_path / "predawn.yaml").write_text(text)
        server.signal(signal.SIGHUP)
        if text:
            await server.says("reload failed")
            answer = await ask(server.port, chat())

            assert answer.status == 200
        else:
            await server.says("reload")


async def test_reloads_under_traffic_lose_no_request(provider: ScriptedServer, tmp_path: Path) -> None:
    async with serving(tmp_path, settings(provider, tmp_path, plugins=["record"])) as server:
        answers = []

        async def talk() -> None:
            async with bare(server.port) as client:
                for number in range(40):
                    answers.append(await client.ask(chat(stream=number % 2 > 0)))

        async def reload() -> None:
            for number in range(6):
                kind = [{"record": {"flush_s": 0.1 + number / 100}}]
                write_settings(tmp_path / "predawn.yaml", settings(provider, tmp_path, plugins=kind))
                server.signal(signal.SIGHUP)
                await server.says("reloaded", times=number + 1)

        await asyncio.gather(reload(), *(talk() for _ in range(5)))

        assert {answer.status for answer in answers} == {200}
        assert all(answer.whole for answer in answers)


async def test_a_killed_server_leaves_a_readable_store(provider: ScriptedServer, tmp_path: Path) -> None:
    told = settings(provider, tmp_path, plugins=[{"record": {"flush_s": 0.02, "record_content": True}}])
    answered: set[str] = set()

    async def talk(port: int, name: str) -> None:
        try:
            async with bare(port) as client:
                for number in range(10_000):
                    ident = f"{name}-{number}"
                    answer = await client.ask(chat(stream=True), "/v1/chat/completions", f"x-request-id: {ident}")
                    if answer.whole:
                        answered.add(ident)
        except (ConnectionError, asyncio.IncompleteReadError):
            return

    async with serving(tmp_path, told) as server:
        async with bare(server.port) as half_way:
            await open_stream(half_way, STALLS, "half-way")
            async with asyncio.TaskGroup() as group:
                for name in "abcd":
                    group.create_task(talk(server.port, name))
                await until(lambda: len(answered) > 200 and rows_in(tmp_path / "state.db") > 50, seconds=30)
                server.signal(signal.SIGKILL)
        await server.ended()

    with sqlite3.connect(tmp_path / "state.db") as store:
        assert store.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        rows = store.execute("SELECT id, outcome, status, record, content FROM exchanges").fetchall()
    store.close()
    recorded = {row[0] for row in rows}

    assert len(recorded) > 50
    assert "half-way" not in recorded
    assert all((outcome, status) in {("ok", 200), ("client_closed", 499)} for _, outcome, status, _, _ in rows)
    assert all(json.loads(record)["ledger"]["chunks"] > 0 for _, outcome, _, record, _ in rows if outcome == "ok")
    assert (
        len({ident for ident, outcome, *_ in rows if outcome == "ok"} - answered) <= 4
    )  # one on its way to each client

    async with serving(tmp_path, told) as again:
        assert (await get(again.port, f"/v1/exchanges/{sorted(recorded)[0]}"))[0] == 200
        assert (await get(again.port, "/v1/exchanges/half-way"))[0] == 404
        assert (await ask(again.port, chat())).status == 200


def rows_in(path: Path) -> int:
    """Exchanges that are recorded by now."""
    try:
        store = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    except sqlite3.OperationalError:
        return 0
    try:
        return int(store.execute("SELECT count(*) FROM exchanges").fetchone()[0])
    except sqlite3.OperationalError:
        return 0
    finally:
        store.close()


async def test_check_shows_every_error_at_once(tmp_path: Path) -> None:
    config = tmp_path / "predawn.yaml"
    config.write_text(
        "upstreams:\n"
        "  - {name: up, base_url: http://localhost:1/v1, api_kee: x}\n"
        "models:\n"
        "  - {name: m, upstream: upp}\n"
        "plugins:\n"
        "  - recrd\n"
        "  - record: {retention_dayz: 1}\n"
    )
    async with predawn(tmp_path, "check", config) as command:
        status = await command.ended()

        assert status == 1
        for word in ("api_kee", "api_key", "upp", "recrd", "record", "retention_dayz", "retention_days", "4 problems"):
            assert word in command.log, command.log
        for line in (2, 4, 6, 7):
            assert re.search(rf"(predawn.yaml:|line ){line}\b", command.log), command.log


CULPRITS = {
    "no file": (None, "predawn.yaml"),
    "no upstream": ({}, "no upstream"),
    "an unknown plugin": ({"plugins": ["recrod"]}, "record"),
    "a state that is a folder": ({"state": "/", "plugins": ["record"]}, "/"),
    "a plugin's settings": ({"plugins": [{"record": {"flush_s": -1}}]}, "flush_s"),
    "a model that is not there": (
        {"upstreams": [{"name": "tiny", "kind": "local", "path": "no-such-model"}], "models": []},
        "no-such-model",
    ),
    "a bad script": (
        {"upstreams": [{"name": "fake", "kind": "scripted", "script": {"txet": "x"}}], "models": []},
        "txet",
    ),
}


@pytest.mark.parametrize(("over", "culprit"), CULPRITS.values(), ids=CULPRITS)
async def test_what_keeps_a_server_from_starting_is_named(
    over: dict[str, Any] | None, culprit: str, provider: ScriptedServer, tmp_path: Path
) -> None:
    config = tmp_path / "predawn.yaml"
    if over is not None:
        write_settings(config, {**settings(provider, tmp_path), **over} if over else {})
    async with predawn(tmp_path, "serve", "--config", config) as command:
        status = await command.ended()

        assert status == 1
        assert culprit in command.log
        assert "Traceback" not in command.log


async def test_a_taken_port_is_named(provider: ScriptedServer, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        config = write_settings(tmp_path / "predawn.yaml", settings(provider, tmp_path, server={"port": taken}))
        async with predawn(tmp_path, "serve", "--config", config) as command:
            status = await command.ended()

        assert status == 1
        assert f"127.0.0.1:{taken}" in command.log
        assert "Traceback" not in command.log


async def test_a_drain_waits_for_streams_of_before_a_reload_too(provider: ScriptedServer, tmp_path: Path) -> None:
    told = settings(provider, tmp_path, server={"drain_grace_s": 0})
    async with serving(tmp_path, told) as server, bare(server.port) as client:
        await open_stream(client, "x-script: interval_ms=60, chunks=40")
        server.signal(signal.SIGHUP)
        await server.says("reloaded: ")
        server.signal(signal.SIGTERM)
        received, whole = await rest_of(client)
        status = await server.ended()

        assert (b"[DONE]" in received, whole, status) == (True, True, 0)


async def test_a_drain_waits_for_what_is_only_passed_on(provider: ScriptedServer, tmp_path: Path) -> None:
    told = settings(provider, tmp_path, server={"drain_grace_s": 0})
    told["upstreams"][0]["relay"] = True
    async with serving(tmp_path, told) as server, bare(server.port) as client:
        await client.send(post(b"a" * 5, "/v1/files", "Content-Length: 10", "Expect: 100-continue"))
        asked_for_more, _ = await client.head()
        server.signal(signal.SIGTERM)
        await server.says("shutting down")
        await client.send(b"b" * 5)
        answer = await client.answer()
        status = await server.ended()

        assert (asked_for_more, answer.status, answer.body, status) == (100, 200, b"aaaaabbbbb", 0)


async def test_a_reload_reaches_the_log(provider: ScriptedServer, tmp_path: Path) -> None:
    """Not least the secrets of the new settings, which are blotted out from then on."""
    told = settings(provider, tmp_path, server={"drain_grace_s": 0})
    async with serving(tmp_path, told) as server:
        told["server"]["log"] = {"format": "text"}
        write_settings(tmp_path / "predawn.yaml", told)
        server.signal(signal.SIGHUP)
        await server.says("reloaded: ")
        server.signal(signal.SIGTERM)
        await server.ended()
        (last,) = [line for line in server.log.splitlines() if "shutting down" in line]

        assert not last.startswith("{")
