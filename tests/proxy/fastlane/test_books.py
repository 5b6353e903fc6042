"""The short account of a request says what the long one says."""

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.lanes.seen import counted
from tests.proxy.fastlane.sides import (
    ANSWER,
    DONE,
    EVENT,
    EVENTS_HEAD,
    JSON_HEAD,
    LAST,
    USAGE,
    Sides,
    asking,
    chunk,
    sides,
)

from predawn.plugins.testing.clock import settle
from predawn.proxy.exchange import Exchange
from predawn.proxy.fastlane import transit
from predawn.proxy.keys import Digester, Key, create_key
from predawn.proxy.secret import find_or_make_secret
from predawn.proxy.spend import read_usage
from predawn.proxy.store import open_store

OPENING = b'event: response.created\ndata: {"type":"response.created"}\n\n'
COMPLETED = (
    b'event: response.completed\ndata: {"type":"response.completed","response":{"usage":{"input_tokens":7,'
    b'"output_tokens":4,"input_tokens_details":{"cached_tokens":5},"output_tokens_details":{"reasoning_tokens":2}}}}\n\n'
)
USED = b'data: {"choices":[],' + USAGE + b"}\n\n"
NO_USAGE = JSON_HEAD % 2 + b"{}"
EMBEDDED = b'{"data":[],"usage":{"prompt_tokens":9,"total_tokens":9}}'
DETAILED = (
    b'{"usage":{"prompt_tokens":30,"completion_tokens":20,"prompt_tokens_details":{"cached_tokens":10},'
    b'"completion_tokens_details":{"reasoning_tokens":6}}}'
)
CREATED = ANSWER.replace(b"200 OK", b"201 Created")
CREATED_EVENTS = EVENTS_HEAD.replace(b"200 OK", b"201 Created")
MESSAGE = b'{"usage":{"input_tokens":3,"output_tokens":2,"cache_read_input_tokens":4,"cache_creation_input_tokens":1}}'

STORIES: dict[str, tuple[str, bool, list[bytes]]] = {
    "whole": ("chat/completions", False, [ANSWER]),
    "details": ("chat/completions", False, [JSON_HEAD % len(DETAILED) + DETAILED]),
    "no usage": ("chat/completions", False, [NO_USAGE]),
    "created": ("chat/completions", False, [CREATED]),
    "empty": ("chat/completions", False, [JSON_HEAD % 0]),
    "whole to a stream": ("chat/completions", True, [ANSWER]),
    "stream": ("chat/completions", True, [EVENTS_HEAD + chunk(EVENT), chunk(EVENT), chunk(USED), chunk(DONE) + LAST]),
    "stream without usage": ("chat/completions", True, [EVENTS_HEAD + chunk(EVENT), chunk(EVENT + DONE) + LAST]),
    "stream of one event": ("chat/completions", True, [EVENTS_HEAD + chunk(DONE) + LAST]),
    "stream of nothing": ("embeddings", True, [EVENTS_HEAD + LAST]),
    "stream with details in pieces": (
        "chat/completions",
        True,
        [
            EVENTS_HEAD,
            *(chunk((b"data: " + DETAILED + b"\n\n" + DONE)[at : at + 40]) for at in range(0, 180, 40)),
            LAST,
        ],
    ),
    "created stream": ("chat/completions", True, [CREATED_EVENTS + chunk(EVENT), chunk(DONE) + LAST]),
    "completions": ("completions", False, [ANSWER]),
    "stream of completions": ("completions", True, [EVENTS_HEAD + chunk(EVENT), chunk(USED + DONE) + LAST]),
    "responses": ("responses", True, [EVENTS_HEAD + chunk(OPENING), chunk(COMPLETED) + LAST]),
    "embeddings": ("embeddings", False, [JSON_HEAD % len(EMBEDDED) + EMBEDDED]),
    "messages": ("messages", False, [JSON_HEAD % len(MESSAGE) + MESSAGE]),
}


def told(exchange: Exchange) -> dict[str, Any]:
    """What observers may read of it, but for how long things took."""
    ledger = exchange.ledger
    own = ("route", "path", "tenant", "key_id", "model", "alias", "stream", "status", "outcome", "error", "is_closed")
    spent = ("prompt", "output", "cached_prompt", "reasoning", "spend_usd", "estimated", "chunks", "plugin_s")
    timed = ("total_s", "upstream_s", "first_token_s", "last_token_s", "max_gap_s")
    (call,) = ledger.calls
    counted = ("upstream", "model", "purpose", "phase", "status", "outcome", "estimated", "booked")
    of_call = (*counted, "prompt_tokens", "output_tokens", "cached_tokens")
    return {
        **{name: getattr(exchange, name) for name in (*own, "upstream", "upstream_model", "hides_usage", "price")},
        **{name: getattr(ledger, name) for name in spent},
        **{name: bool(getattr(ledger, name)) for name in timed},
        **{f"call {name}": getattr(call, name) for name in of_call},
        "call seconds": call.seconds > 0,
    }


async def books_of(story: str, state: Path, monkeypatch: pytest.MonkeyPatch, **server: Any) -> Any:
    path, stream, said = STORIES[story]
    async with sides(str(state / "state.db"), **server) as both:
        seen: list[Exchange] = []
        observers = both.service.tools.observers
        monkeypatch.setattr(type(observers), "serving", lambda *_: True)
        monkeypatch.setattr(type(observers), "done", lambda _, exchange: seen.append(exchange))
        provider = both.provider()
        _, client = both.client()
        before = counted(both.server)
        client.brings(asking(f"/v1/{path}", stream=stream))
        provider.brings(*said)
        after = counted(both.server)
        (exchange,) = seen

        assert (1, (0, 0, 0)) == (both.answered, both.left)
        return {name: value for name, value in after.items() if value != before.get(name)}, told(exchange)


@pytest.mark.parametrize("story", STORIES)
async def test_both_accounts_say_the_same(story: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = await books_of(story, tmp_path, monkeypatch)
    long = await books_of(story, tmp_path, monkeypatch, log={"requests": True})

    assert long == short


async def test_a_plain_request_takes_the_short_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def close_account(*_: Any) -> None:
        raise AssertionError("the long account was taken")

    monkeypatch.setattr(transit, "close_account", close_account)
    _, exchange = await books_of("whole", tmp_path, monkeypatch)

    assert (3, 2) == (exchange["prompt"], exchange["output"])


def streamed(both: Sides, lines: bytes = b"") -> None:
    provider = both.provider()
    _, client = both.client()
    client.brings(asking(stream=True, lines=lines))
    provider.brings(EVENTS_HEAD + chunk(EVENT), *[chunk(EVENT)] * 40, chunk(USED), chunk(DONE) + LAST)


async def page(both: Sides) -> str:
    url = f"http://127.0.0.1:{both.server.admin_port}/metrics"
    async with aiohttp.ClientSession() as session, session.get(url) as reply:
        return await reply.text()


async def totals(both: Sides) -> str:
    return f"ok {both.server.app.live._totals.read()['requests']['ok']:g}"


@pytest.mark.parametrize(("read", "found"), [(page, r'requests_total{.*code="200".*} 1\.0'), (totals, "ok 1")])
async def test_whoever_looks_finds_a_stream_counted(
    read: Callable[[Sides], Awaitable[str]], found: str, both: Sides
) -> None:
    streamed(both)
    before = raw_requests(both)

    assert re.search(found, await read(both))
    assert (0, 1) == (before, raw_requests(both))


def raw_requests(both: Sides) -> float:
    """As many as are counted, without a look at those that wait."""
    return sum(counter.value for counter in both.server.app.metrics.requests.children.values())


async def test_a_stream_is_counted_within_a_second_though_nobody_looks(both: Sides) -> None:
    clock = both.service.tools.clock
    await settle()
    streamed(both)
    before = raw_requests(both)
    await clock.advance(1.0)
    await settle()

    assert (0, 1) == (before, raw_requests(both))


async def test_a_stream_that_waits_is_booked_when_the_server_ends(tmp_path: Path) -> None:
    state = str(tmp_path / "state.db")
    async with sides(state, access={"keys": "required", "secret": "a secret of the tests"}) as both:
        access = both.service.access
        store, settings = await access._open_store(), both.server.settings
        key, presented = await create_key(
            store, Digester(find_or_make_secret(settings)), Key(id="", name="n", created_at=0.0)
        )
        await access.reload()
        streamed(both, b"Authorization: Bearer %b\r\n" % presented.encode())
        before = (both.answered, raw_requests(both))
    store = await open_store(state)
    (row,) = await read_usage(store)
    await store.aclose()

    assert (1, 0) == before
    assert (key.id, 1, 3, 2) == (row.key_id, row.usage.requests, row.usage.prompt_tokens, row.usage.output_tokens)


async def test_a_stream_of_forty_chunks_is_measured_to_its_last(both: Sides) -> None:
    streamed(both)
    metrics = both.metrics
    (gaps,) = [child for child in metrics.max_token_gap.children.values() if sum(child.counts)]
    (first,) = [child for child in metrics.time_to_first_token.children.values() if sum(child.counts)]
    (took,) = [child for child in metrics.request_duration.children.values() if sum(child.counts)]

    assert 0 < gaps.total < took.total
    assert 0 < first.total < took.total
