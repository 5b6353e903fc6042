"""Reads texts with a verifier, as tests want it."""

import json

from tests.benchmarks.verify.reading import steps_of

from predawn.plugins import Exchange


async def read(verifier, text, *, chunks=None, request=None, where="content", exchange=None):
    """The verdicts on a text, step by step."""
    exchange = exchange or Exchange(json.dumps(request or {}).encode())
    return [await verifier.verify(step, exchange) for step in steps_of(verifier.boundary, chunks or [text], where)]


async def violations(verifier, text, **how):
    return [verdict for verdict in await read(verifier, text, **how) if verdict.outcome == "violation"]


def asking_for(schema):
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}}
