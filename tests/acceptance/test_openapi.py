"""Our own OpenAPI document describes what is served, and no request made from it breaks the server."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import aiohttp
from tests.acceptance.house import House, house

from predawn.proxy.service import ROUTES
from predawn.proxy.wire.errors import ANTHROPIC_TYPES

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
)


async def document(running: House) -> Any:
    async with aiohttp.ClientSession() as session, session.get(f"{running.url}/openapi.json") as reply:
        return await reply.json()


async def test_every_endpoint_is_documented(served: House) -> None:
    told = await document(served)
    contexts = {"/v1/contexts", "/v1/contexts/{id}", "/v1/contexts/{id}/notes", "/v1/contexts/{id}/sleep"}
    exchanges = {"/v1/exchanges", "/v1/exchanges/{id}", "/v1/exchanges/{id}/regret", "/v1/exchanges/{id}/feedback"}
    plugins = {*exchanges, *contexts}
    ours = {f"/v1{route.path}" for route in ROUTES} | {"/v1/models", "/v1/models/{id}", *plugins}

    assert set(told["paths"]) == ours | {"/health", "/ready", "/version", "/openapi.json"}


async def test_documented_requests_take_unknown_members(served: House) -> None:
    told = await document(served)
    requests = {name: schema for name, schema in told["components"]["schemas"].items() if name.endswith("Request")}

    assert len(requests) == len(ROUTES)
    assert all(schema["additionalProperties"] is True for schema in requests.values())
    assert 400 in ANTHROPIC_TYPES


async def test_generated_requests_find_no_fault(tmp_path: Path) -> None:
    models = [{"name": "*", "upstream": "up"}]
    async with house("hello there", models=models, plugins=["sleep", "budget", "record"]) as running:
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{running.url}/openapi.json"),
            *("--url", running.url, "--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing"),
            *("--max-examples", "12", "--seed", "1", "--generation-deterministic", "--no-shrink", "--workers", "1"),
            *("--warnings", "off", "--no-color", "--max-time", "15"),
            *("--request-timeout", "10"),
        ]
        process = await asyncio.create_subprocess_exec(
            *command,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": ""},
        )
        try:
            output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        await running.idle()

        assert process.returncode == 0, output.decode()
        assert running.upstream.counts.requests > 50
        assert await running.answers()


async def test_health_may_be_asked_for_by_head(served: House) -> None:
    async with aiohttp.ClientSession() as session:
        for path in ("/health", "/ready", "/version"):
            async with session.head(f"{served.url}{path}") as head, session.put(f"{served.url}{path}") as put:
                assert (head.status, await head.read()) == (200, b"")
                assert (put.status, put.headers["Allow"]) == (405, "GET, HEAD")
