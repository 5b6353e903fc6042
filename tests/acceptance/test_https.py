"""HTTPS on the API's port, in both lanes, and certificates that are renewed while streams go on."""

from __future__ import annotations

import asyncio
import signal
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
from tests.acceptance.bare import chat
from tests.acceptance.house import upstream_settings
from tests.acceptance.process import Predawn, predawn, serving, write_settings

from predawn.proxy.upstreams.scripted.server import ScriptedServer, scripted_server

AUTHORITY = trustme.CA()
SLOW = {"x-script": "interval_ms=20, chunks=60"}


@pytest.fixture
async def provider() -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as running:
        yield running


def issue(folder: Path, key_type: trustme.KeyType = trustme.KeyType.ECDSA) -> dict[str, str]:
    """A new certificate and key, in place of the old ones."""
    made = AUTHORITY.issue_cert("127.0.0.1", key_type=key_type)
    cert, key = folder / "server.crt", folder / "server.key"
    cert.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
    key.write_bytes(made.private_key_pem.bytes())
    return {"cert_file": str(cert), "key_file": str(key)}


def settings(provider: ScriptedServer, folder: Path) -> dict[str, Any]:
    return {
        "server": {"port": 0, "admin_port": 0, "drain_grace_s": 0, "tls": issue(folder)},
        "state": str(folder / "state.db"),
        "upstreams": [upstream_settings(provider.base_url)],
        "models": [{"name": "m", "upstream": "up"}],
    }


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    """One connection for all requests."""
    connector = aiohttp.TCPConnector(ssl=trusting(), limit=1)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield session


async def serial(server: Predawn) -> int:
    """The number of the certificate that is shown now."""
    _, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=trusting())
    number = int(writer.get_extra_info("ssl_object").getpeercert()["serialNumber"], 16)
    writer.close()
    await writer.wait_closed()
    return number


async def post(client: aiohttp.ClientSession, server: Predawn, body: bytes, **headers: str) -> aiohttp.ClientResponse:
    url = f"https://127.0.0.1:{server.port}/v1/chat/completions"
    return await client.post(url, data=body, headers={"Content-Type": "application/json", **headers})


async def test_one_connection_serves_every_kind_of_request(
    provider: ScriptedServer, client: aiohttp.ClientSession, tmp_path: Path
) -> None:
    async with serving(tmp_path, settings(provider, tmp_path)) as server:
        plain = await (await post(client, server, chat())).json()
        stream = await (await post(client, server, chat(stream=True))).read()
        large = await post(client, server, chat(user="u" * 200_000))
        await large.read()
        async with client.get(f"https://127.0.0.1:{server.port}/v1/models") as reply:
            models = await reply.json()
        again = await post(client, server, chat())
        await again.read()
        async with client.get(f"http://127.0.0.1:{server.ports[1]}/ready") as reply:
            ready = reply.status

        assert plain["choices"]
        assert stream.endswith(b"data: [DONE]\n\n")
        assert (large.status, again.status, ready) == (200, 200, 200)
        assert [model["id"] for model in models["data"]] == ["m"]
        assert f"serving on https://127.0.0.1:{server.port}/v1" in server.log


async def test_a_reload_shows_the_new_certificate_and_a_broken_one_changes_nothing(
    provider: ScriptedServer, client: aiohttp.ClientSession, tmp_path: Path
) -> None:
    async with serving(tmp_path, settings(provider, tmp_path)) as server:
        stream = await post(client, server, chat(stream=True), **SLOW)
        first = await serial(server)
        issue(tmp_path, trustme.KeyType.RSA)
        server.signal(signal.SIGHUP)
        await server.says("reloaded: ")
        second = await serial(server)
        (tmp_path / "server.key").write_text("no key\n")
        server.signal(signal.SIGHUP)
        await server.says("reload failed")
        third = await serial(server)
        received = await stream.read()

        assert first != second
        assert second == third
        assert "server.key holds no private key" in server.log
        assert received.endswith(b"data: [DONE]\n\n")


async def test_what_keeps_https_from_starting_is_named(provider: ScriptedServer, tmp_path: Path) -> None:
    told = settings(provider, tmp_path)
    told["server"]["workers"] = 2  # the supervisor says it, and says it once
    (tmp_path / "server.crt").unlink()
    config = write_settings(tmp_path / "predawn.yaml", told)
    async with predawn(tmp_path, "serve", "--config", config) as started:
        status = await started.ended()
    async with predawn(tmp_path, "check", config, log_name="check") as checked:
        refused = await checked.ended()

    assert (status, refused) == (1, 1)
    assert started.log.count("server.tls.cert_file: ") == 1
    assert checked.log.count("server.crt: No such file") == 1
    assert "Traceback" not in started.log + checked.log
