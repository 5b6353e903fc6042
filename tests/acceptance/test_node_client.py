"""The official Node client, where Node and the package are there: `npm install --prefix tests/acceptance/node`."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.house import house

HERE = Path(__file__).parent / "node"
FOLDER = Path(os.environ.get("PREDAWN_TEST_NODE", HERE))
"""The folder that holds `node_modules`."""
NODE = shutil.which("node")

pytestmark = pytest.mark.skipif(
    NODE is None or not (FOLDER / "node_modules" / "openai").is_dir(),
    reason="node or its package openai is missing",
)


async def play(base_url: str) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        str(NODE),
        str(HERE / "client.mjs"),
        str(FOLDER),
        base_url,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, errors.decode()
    seen: dict[str, Any] = json.loads(output)
    return seen


async def test_the_node_client_sees_what_the_provider_said() -> None:
    over = {"timeouts": {"idle_s": 1}, "retries": {"attempts": 2, "base_s": 0.001}}
    async with house("hello there", upstream=over) as running:
        seen = await play(running.base_url)
        await running.idle()

        assert (seen["whole"], seen["stream"], seen["response"]) == ("hello there", "hello there", "hello there")
        assert seen["withResponse"][0] == 1
        assert seen["withResponse"][1].startswith("req_")
        assert seen["tools"] == ["lookup", "clock"]
        assert seen["usage"] == [2]
        assert seen["embedding"] == 8
        assert seen["models"] == ["m"]
        assert seen["badRequest"] == {"name": "BadRequestError", "status": 400, "code": None}
        assert seen["unknownModel"] == {"name": "NotFoundError", "status": 404, "code": "model_not_found"}
        assert seen["rateLimit"]["name"] == "RateLimitError"
        assert seen["broken"]["status"] == 502
        for cut in ("dies", "endsEarly", "stalls"):
            assert seen[cut] is not None, f"a stream that {cut} was taken for a whole one"
        scripts = [received.headers.get("x-script") for received in running.upstream.requests]
        assert scripts.count("status=429") == 2  # our own tries, and none of the client's
        assert scripts.count("refuse") == 2
        assert running.upstream.counts.opened == running.upstream.counts.closed
