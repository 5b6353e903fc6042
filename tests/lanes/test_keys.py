"""Keys, their limits and what is booked to them: the same in both lanes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, cast

import pytest
import pytest_asyncio
from tests.acceptance.bare import chat, post
from tests.lanes.client import Client
from tests.lanes.lane import Lane, Lanes, lanes
from tests.lanes.seen import Seen

pytestmark = pytest.mark.asyncio(loop_scope="module")
CHAT = "/v1/chat/completions"
KEYS: dict[str, dict[str, Any]] = {
    "free": {},
    "acme": {"tenant": "acme"},
    "expired": {"expires_at": 1_699_999_999.0},
    "only-m": {"models": frozenset({"m", "counting"})},
    "few": {"requests_per_minute": 3},
    "small": {"tokens_per_minute": 60},
    "single": {"concurrency": 1},
    "alone": {"concurrency": 1, "nano_usd_per_day": 10**15},
    "poor": {"nano_usd_per_day": 1},
    "modest": {"nano_usd_per_day": 400_000_000},
    "broke": {
        "requests_per_minute": 1000,
        "tokens_per_minute": 1_000_000,
        "concurrency": 5,
        "nano_usd_per_day": 10**15,
    },
}


class Wall:
    """The system's clock, which the windows of limits are counted by; it stands still."""

    def __init__(self) -> None:
        self.at = 1_700_000_010.0

    def __call__(self) -> float:
        return self.at

    def next_window(self) -> None:
        """Let so much time pass that nothing counts any more that came before."""
        self.at += 180


@pytest.fixture(scope="module")
def wall() -> Iterator[Wall]:
    with pytest.MonkeyPatch.context() as patch:
        standing = Wall()
        patch.setattr(time, "time", standing)
        yield standing


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def keyed(wall: Wall) -> AsyncIterator[Lanes]:
    async with lanes(access={"tenant_classes": {"gold": ["acme"]}}) as running:
        for lane in running.each:
            for name, limits in KEYS.items():
                await lane.add_key(f"sk-{name}", **limits)
        yield running


def ask(key: str, play: str = "whole", *, headers: Sequence[str] = (), path: str = CHAT, **members: Any) -> bytes:
    return post(chat(**members), path, f"Authorization: Bearer sk-{key}", f"x-play: {play}", *headers)


def limits_of(seen: Seen) -> list[dict[str, str]]:
    return [
        {name: value for name, value in answer.headers if "ratelimit" in name or name == "retry-after"}
        for answer in seen.answers
    ]


@pytest.mark.parametrize(
    "lines",
    [
        ["Authorization: Bearer sk-free"], ["authorization: bearer sk-free"], ["AUTHORIZATION: BEARER   sk-free  "], ["x-api-key: sk-free"],
        ["api-key: sk-free"], ["X-API-Key: sk-free", "anthropic-version: 2023-06-01"], ["Authorization: Bearer sk-wrong"], ["Authorization: Bearer"],
        ["Authorization: Bearer "], ["Authorization: Basic c2stZnJlZQ=="], ["Authorization: sk-free"], ["Authorization: Token sk-free", "api-key: sk-free"],
        ["Authorization: Bearer sk-wrong", "x-api-key: sk-free"], ["x-api-key: sk-wrong", "api-key: sk-free"], ["x-api-key:", "api-key: sk-free"],
        ["Authorization: Bearer sk-free", "Authorization: Bearer sk-acme"], ["Authorization: Bearer sk-wrong", "Authorization: Bearer sk-free"],
        ["Authorization: Bearer sk-free,sk-acme"], ["Authorization: Bearer sk-expired"], ["Authorization: Bearer sk-free\xe4"], ["api-key: \xe4"], [],
        ["Authorization: Bearer " + "s" * 7000], ["Proxy-Authorization: Bearer sk-free"], ["Cookie: key=sk-free"], ["Authorization:Bearer sk-free"],
        ["Authorization:\tBearer sk-free"], ["Authorization: Bearer\tsk-free"],
    ],
    ids=lambda lines: str(lines)[:60],
)  # fmt: skip
async def test_a_key_is_presented_alike(lines: list[str], keyed: Lanes) -> None:
    for path in (CHAT, "/v1/models", "/v1/messages"):
        for stream in (False, True):
            seen = await keyed.say(
                post(chat(stream=stream), path, *lines, "x-play: stream" if stream else "x-play: whole")
            )

            assert seen.statuses in ([200], [401], [405])
            for asked in seen.received:
                assert asked.values("authorization") == ["Bearer sk-upstream"]
                assert not {"x-api-key", "api-key", "cookie"} & {name for name, _ in asked.headers}


async def test_what_is_used_is_booked_to_the_key(keyed: Lanes) -> None:
    for play, stream, model, used in (
        ("whole", False, "m", (7, 3, 2)),
        ("stream with usage", True, "m", (7, 3, 2)),
        ("stream with usage", True, "counting", (7, 3, 2)),
        ("whole", False, "priced", (7, 3, 2)),
    ):
        seen = await keyed.say(ask("acme", play, stream=stream, model=model))

        booked = {name.rpartition(" ")[2]: value for name, value in seen.booked.items()}
        assert all(name.startswith("acme key_sk-acme ") for name in seen.booked)
        assert (booked["prompt_tokens"], booked["output_tokens"], booked["cached_prompt_tokens"]) == used
        assert booked["requests"] == 1
        assert booked.get("spend_nano_usd", 0) == (22_000_000 if model == "priced" else 0)
        assert seen.count("predawn_tenant_requests_total", tenant_class="gold", code="200") == 1


@pytest.mark.parametrize("play", ["no usage", "stream", "status 400", "status 500", "closed in the body", "stream closed in an event", "stream without done", "204", "once 503", "stream of an error"])  # fmt: skip
async def test_what_ends_otherwise_is_booked_alike(play: str, keyed: Lanes) -> None:
    for model in ("m", "priced", "thrice", "counting"):
        for key in ("free", "broke"):
            seen = await keyed.say(ask(key, play, stream="stream" in play, model=model))

            assert len(seen.answers) == 1
            assert seen.booked[f"default key_sk-{key} requests"] == 1


async def test_a_key_for_certain_models_is_for_those(keyed: Lanes) -> None:
    statuses = {}
    for name in ("m", "alias", "counting", "nobody", ""):
        statuses[name] = (await keyed.say(ask("only-m", model=name))).statuses
    twice = [
        (await keyed.say(post(body, CHAT, "api-key: sk-only-m"))).statuses
        for body in (
            b'{"model":"m","model":"alias","messages":[]}',
            b'{"model":"alias","model":"m","messages":[]}',
            b'{"model":"m","\\u006dodel":"alias","messages":[]}',
            b'{"\\u006dodel":"alias","model":"m","messages":[]}',
        )
    ]
    relayed = await keyed.say(b"GET /v1/files HTTP/1.1\r\nHost: x\r\napi-key: sk-only-m\r\n\r\n")

    assert statuses == {"m": [200], "alias": [403], "counting": [200], "nobody": [403], "": [403]}
    assert twice == [[400]] * 4
    assert relayed.statuses == [403]


async def test_requests_per_minute_are_counted(keyed: Lanes, wall: Wall) -> None:
    wall.next_window()
    for stream in (False, True, False):
        one = ask("few", "stream" if stream else "whole", stream=stream)
        seen = await keyed.say(one)

        assert seen.statuses == [200]
        assert seen.answer.value("x-ratelimit-limit-requests") == "3"
    refused = await keyed.say(one, one + one)
    streamed = await keyed.say(ask("few", "stream", stream=True))

    assert refused.statuses == [429] * 3
    assert refused.received == []
    assert streamed.answer.value("retry-after") is not None
    assert [value["x-ratelimit-remaining-requests"] for value in limits_of(refused)] == ["0"] * 3

    wall.next_window()
    later = await keyed.say(one + one + one + one)

    assert later.statuses == [200, 200, 200, 429]
    assert [value["x-ratelimit-remaining-requests"] for value in limits_of(later)] == ["2", "1", "0", "0"]


async def test_tokens_per_minute_are_counted(keyed: Lanes, wall: Wall) -> None:
    wall.next_window()
    first = await keyed.say(ask("small", "stream with usage", stream=True))
    too_much = await keyed.say(ask("small", max_tokens=1000))
    many = await keyed.say(*[ask("small", "stream with usage", stream=True, max_tokens=5, n=n) for n in (1, 1, 1, 3)])

    assert first.statuses == [200]
    assert b"usage" not in first.answer.body
    assert too_much.statuses == [429]
    assert 429 in many.statuses


async def test_one_at_a_time_is_one_at_a_time(keyed: Lanes) -> None:
    for play, stream in (("held", False), ("stream held", True), ("stream held at its end", True)):

        async def story(lane: Lane, client: Client, play: str = play, stream: bool = stream) -> None:
            from tests.lanes.client import connected

            await client.send(ask("single", play, stream=stream))
            await lane.held(client)
            async with connected(lane.port) as other:
                await other.send(ask("single"))
                await other.gets(b" 429 ")
            lane.provider.go()
            await lane.quiet(client)
            await client.send(ask("single"))

        seen = await keyed.tell(story)

        assert seen.statuses == [200, 200]
        assert seen.count("predawn_requests_total", code="429") == 1


@pytest.mark.parametrize(
    "play",
    [
        "status 500",
        "status 429",
        "closed before the head",
        "204",
        "redirect 307",
        "stream closed behind the head",
        "gzip",
    ],
)
async def test_a_failed_try_gives_its_place_back(play: str, keyed: Lanes) -> None:
    """What the full lane takes over is one request of the key, not two."""
    seen = await keyed.say(ask("single", play, stream="stream" in play))
    again = await keyed.say(ask("single"), ask("single"))

    assert seen.booked["default key_sk-single requests"] == 1
    assert seen.statuses[0] in (200, 204, 429, 500, 502)
    assert again.statuses == [200, 200]


async def test_what_fails_before_it_begins_takes_no_place(keyed: Lanes, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object, **__: object) -> bytes:
        raise MemoryError

    request = ask("alone", stream=True)
    for lane in keyed.each:
        fast = lane.server.app.generation.lane
        if fast is None:
            continue
        found = fast.heads.find(request, "127.0.0.1")
        assert found is not None
        with monkeypatch.context() as patch, pytest.raises(MemoryError):
            patch.setattr("predawn.proxy.fastlane.lane.upstream_body", failing)
            fast.admit(cast("Any", None), found[0], request[found[2] :], 0.0)
    seen = await keyed.say(ask("alone"))

    assert seen.statuses == [200]
    assert [lane.name for lane in keyed.each if lane.server.app.generation.lane is not None] == ["fast"]


async def test_a_client_that_leaves_gives_its_place_back(keyed: Lanes) -> None:
    for play, stream in (
        ("held", False),
        ("held in the body", False),
        ("stream held", True),
        ("stream held before the head", True),
    ):

        async def story(lane: Lane, client: Client, play: str = play, stream: bool = stream) -> None:
            await client.send(ask("single", play, stream=stream, model="priced"))
            await lane.held(client)
            client.abort()
            await lane.quiet(client)

        gone = await keyed.tell(story)
        seen = await keyed.say(ask("single"))

        assert gone.booked["default key_sk-single requests"] == 1
        assert gone.count("predawn_requests_total", code="499") == 1
        assert seen.statuses == [200]


async def test_a_budget_is_kept(keyed: Lanes) -> None:
    refused = await keyed.say(ask("poor", model="priced"))
    without_price = await keyed.say(ask("poor", model="m"))
    one = ask("modest", model="priced", max_tokens=10)
    seen = await keyed.say(*[one] * 22)

    assert refused.statuses == [429]
    assert without_price.statuses == [200]
    assert seen.statuses[0] == 200
    assert seen.statuses[-1] == 429
    assert 0 < seen.booked["default key_sk-modest spend_nano_usd"] <= 400_000_000


async def test_every_limit_tells_where_it_stands(keyed: Lanes) -> None:
    for play, stream in (
        ("whole", False),
        ("stream", True),
        ("status 400", False),
        ("status 500", False),
        ("closed before the head", False),
    ):
        seen = await keyed.say(ask("broke", play, stream=stream))

        assert "x-ratelimit-limit-requests" in dict(seen.answer.headers) or seen.statuses == [502]


async def test_a_key_revoked_between_two_requests_is_refused(keyed: Lanes) -> None:
    for lane in keyed.each:
        await lane.add_key("sk-gone")

    async def story(lane: Lane, client: Client) -> None:
        await client.send(ask("gone"))
        await lane.quiet(client)
        await lane.revoke("sk-gone") if "sk-gone" not in revoked[lane.name] else None
        revoked[lane.name].add("sk-gone")
        await client.send(ask("gone"))
        await client.gets(b" 401 ")

    revoked: dict[str, set[str]] = {"fast": set(), "full": set()}
    seen = await keyed.tell(story)

    assert seen.statuses == [200, 401]


async def test_a_key_that_expires_between_two_requests_is_refused(keyed: Lanes) -> None:
    for lane in keyed.each:
        await lane.add_key("sk-short", expires_at=lane.clock.now() + 100)

    first = await keyed.say(ask("short"))
    for lane in keyed.each:
        await lane.clock.advance(100)
    seen = await keyed.say(ask("short"))

    assert first.statuses == [200]
    assert seen.statuses == [401]


async def test_a_revoked_key_ends_no_stream(keyed: Lanes) -> None:
    for lane in keyed.each:
        await lane.add_key("sk-leaving")

    async def story(lane: Lane, client: Client) -> None:
        await client.send(ask("leaving", "stream held", stream=True))
        await client.gets(b"hel")
        await lane.revoke("sk-leaving")
        lane.provider.go()
        await client.gets(b"\r\n0\r\n\r\n")

    seen = await keyed.tell(story)

    assert seen.statuses == [200]
    assert seen.answer.whole
