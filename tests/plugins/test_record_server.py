"""`record`, `cache` and `redact` in a running server, with the client that users bring."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import asynccontextmanager

import aiohttp
import httpx
import openai
import pytest
import yaml

from predawn.plugins.testing import predawn_server
from predawn.proxy import history
from predawn.proxy.cli import main
from predawn.proxy.store import open_store

SECRET = "bob@example.com"
CHAT = {"model": "m", "messages": [{"role": "user", "content": "who is it?"}]}


def settings(tmp_path, *plugins, **script):
    return {
        "state": str(tmp_path / "state.db"),
        "upstreams": [{"name": "up", "kind": "scripted", "script": {"text": f"mail {SECRET} today", **script}}],
        "models": [{"name": "m", "upstream": "up"}],
        "plugins": list(plugins),
    }


@asynccontextmanager
async def served(given):
    async with predawn_server(given) as server, openai.AsyncOpenAI(base_url=server.base_url, api_key="-") as client:
        yield server, client


async def get(server, path):
    async with aiohttp.ClientSession() as session, session.get(server.base_url + path) as response:
        return response.status, await response.json()


async def exchange(server, ident):
    """The record of an exchange, as soon as observers were told of it."""
    async with asyncio.timeout(10):
        while True:
            status, body = await get(server, f"/exchanges/{ident}")
            if status == 200:
                return body
            await asyncio.sleep(0.005)


async def test_each_exchange_can_be_looked_up_by_its_request_id(tmp_path):
    async with served(settings(tmp_path, "record")) as (server, client):
        raw = await client.chat.completions.with_raw_response.create(**CHAT)
        found = await exchange(server, raw.headers["x-request-id"])
        stream = await client.chat.completions.create(**CHAT, stream=True, extra_headers={"x-request-id": "mine"})
        chunks = [chunk async for chunk in stream]
        streamed = await exchange(server, "mine")
        _, listed = await get(server, "/exchanges")
        status, error = await get(server, "/exchanges/unknown")

    assert (200, "ok", "up") == (found["status"], found["outcome"], found["upstream"])
    assert found["ledger"]["output"] == raw.parse().usage.completion_tokens == streamed["ledger"]["output"]
    assert not streamed["ledger"]["estimated"]
    assert all(chunk.usage is None for chunk in chunks)
    assert ["mine", found["id"]] == [item["id"] for item in listed["data"]]
    assert (404, "exchange_not_found") == (status, error["error"]["code"])


async def test_cached_answers_come_in_either_shape_and_cost_nothing(tmp_path):
    given = settings(tmp_path, "cache", "record")
    async with served(given) as (server, client):
        first = await client.chat.completions.with_raw_response.create(**CHAT, temperature=0)
        again = await client.chat.completions.with_raw_response.create(
            **CHAT, temperature=0, extra_headers={"x-request-id": "hit"}
        )
        stream = await client.chat.completions.with_raw_response.create(**CHAT, temperature=0, stream=True)
        parts = [chunk async for chunk in stream.parse()]
        found = await exchange(server, "hit")

    assert ["miss", "hit", "hit"] == [reply.headers["x-predawn-cache"] for reply in (first, again, stream)]
    assert first.content == again.content
    assert f"mail {SECRET} today" == "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
    assert all(part.usage is None for part in parts)
    assert (0, []) == (found["ledger"]["output"], found["calls"])
    assert "hit" == found["decisions"][0]["what"]


@pytest.mark.parametrize("streams", [True, False])
async def test_a_stream_fills_the_cache_for_both_shapes(tmp_path, streams):
    async with served(settings(tmp_path, "cache")) as (_, client):
        stream = await client.chat.completions.create(**CHAT, seed=1, stream=True)
        first = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
        options = {"stream": True, "stream_options": {"include_usage": True}} if streams else {}
        raw = await client.chat.completions.with_raw_response.create(**CHAT, seed=1, **options)
        reply = raw.parse()
        chunks = [chunk async for chunk in reply] if streams else []

    assert "hit" == raw.headers["x-predawn-cache"]
    if streams:
        assert first == "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert chunks[-1].usage.completion_tokens > 0
    else:
        assert first == reply.choices[0].message.content
        assert reply.usage.completion_tokens > 0


@pytest.mark.parametrize("shape", ["stream", "whole"])
@pytest.mark.parametrize("route", ["chat", "completions", "responses"])
async def test_secrets_are_masked_on_every_route(tmp_path, route, shape):
    given = settings(tmp_path, "redact", pieces=["mail bob", "@exam", "ple.com to", "day"])
    streams = shape == "stream"
    async with served(given) as (_, client):
        if route == "chat":
            reply = await client.chat.completions.create(**CHAT, stream=streams)
            read = lambda item: item.choices[0].delta.content or "" if item.choices else ""
            whole = lambda item: item.choices[0].message.content
        elif route == "completions":
            reply = await client.completions.create(model="m", prompt="x", stream=streams)
            read = lambda item: item.choices[0].text if item.choices else ""
            whole = lambda item: item.choices[0].text
        else:
            reply = await client.responses.create(model="m", input="x", stream=streams)
            read = lambda item: item.delta if item.type == "response.output_text.delta" else ""
            whole = lambda item: item.output_text
        text = "".join([read(item) async for item in reply]) if streams else whole(reply)

    assert "mail [email] today" == text


async def test_content_is_recorded_as_the_client_got_it(tmp_path):
    given = settings(tmp_path, {"redact": {"requests": True}}, {"record": {"record_content": True}})
    async with served(given) as (server, client):
        await client.chat.completions.create(
            model="m",
            messages=[{"role": "user", "content": f"I am {SECRET}"}],
            extra_headers={"x-request-id": "x"},
        )
        found = await exchange(server, "x")

    assert "I am [email]" == found["content"]["request"]["messages"][0]["content"]
    assert "mail [email] today" == found["content"]["reply"][0]["text"]
    assert {"masked request", "masked answer"} == {decision["what"] for decision in found["decisions"]}


async def command(*arguments):
    """A command in a thread of its own, as it starts an event loop of its own."""
    return await asyncio.to_thread(main, [*arguments])


async def test_recorded_exchanges_are_listed_shown_and_replayed(tmp_path, capsys):
    given = settings(tmp_path, {"cache": {"mode": "all"}}, {"record": {"record_content": True, "flush_s": 0.001}})
    given["upstreams"][0]["script"] = {"answers": [{"text": "one two"}, {"text": "one two"}, {"text": "one three"}]}
    file = tmp_path / "predawn.yaml"
    file.write_text(yaml.safe_dump(given))
    config = ("--config", str(file))
    async with served(given) as (server, client):
        stream = await client.chat.completions.create(**CHAT, stream=True, extra_headers={"x-request-id": "x"})
        async for _ in stream:
            pass
        async with asyncio.timeout(10):
            while await command("exchanges", "show", "x", *config):
                await asyncio.sleep(0.02)
        shown = json.loads(capsys.readouterr().out)
        listed = await command("exchanges", *config), capsys.readouterr().out
        base = ("--base-url", server.base_url)
        same = await command("replay", "x", *config, *base), capsys.readouterr().out
        changed = await command("replay", "x", *config, *base), capsys.readouterr().out
        lost = await command("replay", "unknown", *config, *base), capsys.readouterr().err

    assert "one two" == shown["content"]["reply"][0]["text"]
    assert listed[0] == 0
    assert "scripted" in listed[1] or " up " in listed[1]
    assert 0 == same[0]
    assert "the text is the same" in same[1]
    assert 1 == changed[0]
    assert "-one two\n+one three" in changed[1]
    assert 2 == lost[0]
    assert "has no exchange unknown" in lost[1]


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (("exchanges", "show"), 2, "which one?"),
        (("exchanges", "list", "x"), 2, "did you mean"),
        (("exchanges",), 0, "nothing is recorded yet"),
        (("exchanges", "show", "x"), 1, "nothing is recorded yet"),
        (("replay", "x"), 2, "nothing is recorded yet"),
    ],
)
def test_commands_say_what_is_missing(tmp_path, monkeypatch, capsys, arguments, status, told):
    monkeypatch.setenv("PREDAWN_STATE", str(tmp_path / "none.db"))
    monkeypatch.chdir(tmp_path)

    assert status == main([*arguments])
    assert told in capsys.readouterr().err


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_ready(url):
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"{url}/ready") as response:
                if response.status == 200:
                    return
        except OSError:
            time.sleep(0.02)
    raise TimeoutError(url)


async def traffic(base_url):
    """Keep asking, streamed and whole, until the server is gone."""
    async with openai.AsyncOpenAI(base_url=base_url, api_key="-", max_retries=0) as client:
        while True:
            try:
                stream = await client.chat.completions.create(**CHAT, stream=True)
                async for _ in stream:
                    pass
                await client.chat.completions.create(**CHAT)
            except (openai.APIError, httpx.HTTPError):
                return


async def test_a_server_killed_in_mid_traffic_leaves_only_whole_exchanges(tmp_path):
    port = free_port()
    given = settings(tmp_path, {"record": {"flush_s": 0.02}}, interval_ms=1)
    given["server"] = {"port": port, "admin_port": 0}
    file = tmp_path / "predawn.yaml"
    file.write_text(yaml.safe_dump(given))
    store = await open_store(given["state"])
    process = subprocess.Popen([sys.executable, "-m", "predawn.proxy.cli", "serve", "--config", str(file)])

    async def kill():
        async with asyncio.timeout(60):
            while len(await history.page(store, "default", limit=999)) < 50:
                await asyncio.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)

    try:
        await asyncio.to_thread(wait_until_ready, f"http://127.0.0.1:{port}")
        await asyncio.gather(kill(), *(traffic(f"http://127.0.0.1:{port}/v1") for _ in range(4)))
    finally:
        process.kill()
        process.wait()
    rows = [await history.find(store, "default", row["id"]) for row in await history.page(store, "default", limit=999)]
    await store.aclose()

    assert len(rows) >= 50
    for row in rows:
        (call,) = row["record"]["calls"]

        assert ("ok", 200, "ok") == (row["outcome"], row["status"], call["outcome"])
        assert row["output"] == call["output_tokens"] > 0
        assert row["total_s"] > 0
