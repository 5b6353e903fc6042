from __future__ import annotations

import subprocess
import sys
from typing import Any

import aiohttp
import openai
import pytest

from predawn.plugins.testing import Script, predawn_server, scripted_server
from predawn.proxy.dispatch import PluginError


async def test_a_whole_server_answers_the_official_client() -> None:
    async with (
        scripted_server(Script(text="over two sockets")) as provider,
        predawn_server(
            {
                "upstreams": [{"name": "fake", "base_url": provider.base_url}],
                "models": [{"name": "m", "upstream": "fake"}],
            }
        ) as server,
        openai.AsyncOpenAI(base_url=server.base_url, api_key="any") as client,
    ):
        answer = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])

    assert answer.choices[0].message.content == "over two sockets"
    assert provider.counts.finished == 1


async def test_without_an_upstream_the_scripted_one_answers(predawn_server: Any) -> None:
    async with predawn_server({}) as server, aiohttp.ClientSession() as http:
        async with http.post(f"{server.base_url}/chat/completions", json={"model": "any", "messages": []}) as reply:
            answer = await reply.json()
        async with http.get(f"{server.admin_url}/health") as reply:
            health = reply.status

    assert answer["model"] == "any"
    assert health == 200


async def test_an_unknown_plugin_keeps_the_server_from_starting() -> None:
    with pytest.raises(PluginError, match="there is no plugin 'shoud'"):
        async with predawn_server({"plugins": ["shoud"]}):
            pass


def test_importing_it_at_every_start_of_pytest_is_cheap() -> None:
    heavy = ("aiohttp", "sqlalchemy", "alembic", "litellm", "prometheus_client", "yaml", "limits")
    code = f"import predawn.plugins.testing, sys; print([name for name in {heavy!r} if name in sys.modules])"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
