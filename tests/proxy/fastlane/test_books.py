"""The short account of a request says what the long one says."""

from pathlib import Path
from typing import Any

import pytest
from tests.lanes.seen import counted
from tests.proxy.fastlane.sides import ANSWER, DONE, EVENT, EVENTS_HEAD, JSON_HEAD, LAST, USAGE, asking, chunk, sides

from predawn.proxy.exchange import Exchange
from predawn.proxy.fastlane import transit

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
