import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predawn.plugins.testing.clock import ManualClock
from predawn.proxy.access import Access
from predawn.proxy.fastlane.heads import LARGEST_BODY, MOST_KEPT, Heads, Plan
from predawn.proxy.keys import Digester, Key, create_key, revoke_key
from predawn.proxy.networks import Networks
from predawn.proxy.secret import find_or_make_secret
from predawn.proxy.settings import Settings
from predawn.proxy.store import Store, open_store
from predawn.proxy.tasks import Tasks

HERE, ELSEWHERE = "127.0.0.1", "203.0.113.9"
PLAIN = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer secret\r\nX-Stainless-Lang: python\r\n"
    b"Content-Type: application/json\r\nContent-Length: 12\r\n"
)


async def no_store() -> Store:
    raise AssertionError("nothing is to be stored")


@pytest.fixture
async def heads(clock: ManualClock, tasks: Tasks) -> Heads:
    settings = Settings.model_validate({"access": {"keys": "off"}})
    return Heads(await Access.open(settings, no_store, clock, tasks), Networks(()), clock)


def look(heads: Heads, head: bytes, peer: str = HERE) -> tuple[Plan, int] | None:
    """The plan for a head that a body follows."""
    found = heads.find(head + b"\r\n{}", peer)
    return found and found[:2]


def found(heads: Heads, head: bytes, peer: str = HERE) -> tuple[Plan, int]:
    plan = look(heads, head, peer)
    assert plan is not None
    return plan


async def test_a_plain_head_has_a_plan_and_credentials_stay_here(heads: Heads) -> None:
    plan, length = found(heads, PLAIN)

    assert ("chat", 12) == (plan.route.name, length)
    assert {"X-Stainless-Lang": "python", "Content-Type": "application/json"} == dict(plan.headers)


async def test_a_head_is_read_once_whatever_the_length_of_the_body(heads: Heads) -> None:
    first, _ = found(heads, PLAIN)
    second, length = found(heads, PLAIN.replace(b"12", b"4711"))

    assert second is first
    assert length == 4711


async def test_another_peer_is_somebody_else(heads: Heads) -> None:
    assert found(heads, PLAIN, HERE)[0] is not found(heads, PLAIN, ELSEWHERE)[0]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"POST", b"GET"),
        (b"POST", b"post"),
        (b"HTTP/1.1", b"HTTP/1.0"),
        (b"/v1/chat/completions", b"/v1/models"),
        (b"/v1/chat/completions", b"/v1/chat/completions?x=1"),
        (b"/v1/chat/completions", b"//v1/chat/completions"),
        (b"/v1/chat/completions", b"http://h/v1/chat/completions"),
        (b"Host: h\r\n", b"Host: h\r\nContent-Length: 12\r\n"),
        (b"Host: h\r\n", b"Host: h\r\ncontent-length: 13\r\n"),
        (b"Host: h\r\n", b"Host: h\r\nTransfer-Encoding: chunked\r\n"),
        (b"Host: h\r\n", b"Host: h\r\ntransfer-encoding : chunked\r\n"),
        (b"Host: h\r\n", b"Host: h\r\nExpect: 100-continue\r\n"),
        (b"Host: h\r\n", b"Host: h\r\nConnection: close\r\n"),
        (b"Host: h\r\n", b"Host: h\r\nConnection: keep-alive, X-Stainless-Lang\r\n"),
        (b"Host: h\r\n", b"Host: h\r\nUpgrade: websocket\r\n"),
        (b"Host: h\r\n", b"Host: h\r\nTE: trailers\r\n"),
        (b"Host: h\r\n", b"Host: h\r\nx-predawn-upstream: other\r\n"),
        (b"Host: h\r\n", b"Host: h\r\nHost: i\r\n"),
        (b"Host: h\r\n", b""),
        (b"Host: h\r\n", b"Host: h\r\n folded\r\n"),
        (b"Host: h\r\n", b"Host: h\nX: y\r\n"),
        (b"Host: h\r\n", b"Host: h\rX: y\r\n"),
        (b"Host: h\r\n", b"Host: h\x00\r\n"),
        (b"Host: h\r\n", b"Host : h\r\n"),
        (b"Host: h\r\n", b": h\r\n"),
        (b"Content-Length: 12", b"Content-Length: +12"),
        (b"Content-Length: 12", b"Content-Length: 012"),
        (b"Content-Length: 12", b"Content-Length: 12, 12"),
        (b"Content-Length: 12", b"Content-Length: 0"),
        (b"Content-Length: 12", b"Content-Length: -12"),
        (b"Content-Length: 12", b"Content-Length: 12 "),
        (b"Content-Length: 12", b"Content-Length: %d" % (LARGEST_BODY + 1)),
        (b"Content-Length: 12", b"X-Content-Length: 12"),
    ],
)
async def test_whatever_is_unusual_is_for_the_full_lane(heads: Heads, old: bytes, new: bytes) -> None:
    assert old in PLAIN

    assert look(heads, PLAIN.replace(old, new)) is None


async def test_a_head_that_looks_plain_where_the_length_was_cut_out_is_judged_whole(heads: Heads) -> None:
    found(heads, PLAIN)

    assert look(heads, PLAIN.replace(b"Host: h\r\n", b"Host: h\r\nContent-Length: \r\n")) is None


async def test_what_is_remembered_is_bounded(heads: Heads) -> None:
    for number in range(MOST_KEPT + 10):
        found(heads, PLAIN.replace(b"python", b"%d" % number))

    assert len(heads) == 10


@given(st.binary(max_size=300))
def test_no_head_is_too_odd_to_be_looked_at(noise: bytes) -> None:
    async def seen() -> tuple[Plan, int] | None:
        clock, tasks = ManualClock(), Tasks()
        access = await Access.open(Settings.model_validate({"access": {"keys": "off"}}), no_store, clock, tasks)
        return look(Heads(access, Networks(()), clock), PLAIN.replace(b"python", noise))

    plan = asyncio.run(seen())
    values = "".join(plan[0].headers.values()) if plan is not None else ""

    assert not set(values) & set("\r\n\0")


class Keyed:
    """Heads of a server with one key."""

    def __init__(self, state: str, clock: ManualClock, tasks: Tasks) -> None:
        self.settings = Settings.model_validate({"state": state, "access": {"secret": "a secret of the tests"}})
        self.clock = clock
        self.tasks = tasks

    async def open(self, **limits: Any) -> None:
        self.store = await open_store(self.settings.state)
        draft = Key(id="", **{"name": "n", "created_at": self.clock.now(), **limits})
        digester = Digester(find_or_make_secret(self.settings))
        self.key, presented = await create_key(self.store, digester, draft)

        async def the_store() -> Store:
            return self.store

        self.access = await Access.open(self.settings, the_store, self.clock, self.tasks)
        self.heads = Heads(self.access, Networks(()), self.clock)
        self.head = PLAIN.replace(b"Bearer secret", f"Bearer {presented}".encode())


async def test_a_key_is_known_until_it_is_revoked(state: str, clock: ManualClock, tasks: Tasks) -> None:
    keyed = Keyed(state, clock, tasks)
    await keyed.open()
    plan, _ = found(keyed.heads, keyed.head, ELSEWHERE)
    key_id = plan.identity.key_id
    await revoke_key(keyed.store, keyed.key.id, clock.now())
    await keyed.access.reload()
    after = look(keyed.heads, keyed.head, ELSEWHERE)
    await keyed.access.aclose()
    await keyed.store.aclose()

    assert keyed.key.id == key_id
    assert after is None


async def test_a_key_ends_when_its_time_is_over(state: str, clock: ManualClock, tasks: Tasks) -> None:
    keyed = Keyed(state, clock, tasks)
    await keyed.open(expires_at=clock.now() + 60)
    found(keyed.heads, keyed.head, ELSEWHERE)
    await clock.advance(61)
    after = look(keyed.heads, keyed.head, ELSEWHERE)
    await keyed.access.aclose()
    await keyed.store.aclose()

    assert after is None


async def test_what_is_another_in_each_request_does_not_make_another_head(heads: Heads) -> None:
    def traced(number: int) -> bytes:
        lines = b"x-request-id: req-%d\r\nTraceparent: 00-%032x-%016x-01\r\nHost: h\r\n" % (number, number, number)
        return PLAIN.replace(b"Host: h\r\n", lines)

    first, _ = found(heads, traced(1))
    second, length = found(heads, traced(2))

    assert ("req-1", "req-2", 12, 1) == (first.offered_id, second.offered_id, length, len(heads))
    assert second.legs is first.legs
    assert f"00-{2:032x}-{2:016x}-01" == second.all_headers["traceparent"]
    assert "x-request-id" not in second.all_headers
    assert b"\r\nTraceparent: 00-%032x-%016x-01" % (2, 2) == second.varying_lines


@pytest.mark.parametrize(
    "lines",
    [
        b"traceparent: 1\r\nTraceParent: 2\r\n",
        b"x-request-id: 1\r\nX-Request-ID: 2\r\n",
        b"traceparent : 1\r\n",
        b"traceparent: 1\x00\r\n",
        b"traceparent: 1\n\r\n",
        b"traceparent: 1\r\n folded\r\n",
    ],
)
async def test_what_varies_is_judged_like_all_the_rest(heads: Heads, lines: bytes) -> None:
    assert look(heads, PLAIN.replace(b"Host: h\r\n", lines + b"Host: h\r\n")) is None
