import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from predawn.proxy import tables
from predawn.proxy.keys import Digester, Key, KeyCounts, count_keys, create_key, keys_by_digest, list_keys, revoke_key
from predawn.proxy.store import Store

SECRET = b"a secret of the tests"
presentable = st.text(
    st.characters(min_codepoint=1, exclude_categories=["Cs"]), max_size=80
)  # headers decode to no others


@given(presentable, presentable)
def test_two_keys_never_share_a_digest(one: str, other: str):
    digester = Digester(SECRET)

    assert (digester(one) == digester(other)) == (one == other)


@given(st.binary(min_size=16, max_size=100), st.binary(min_size=16, max_size=100))
def test_two_secrets_never_share_a_digest(one: bytes, other: bytes):
    digests = Digester(one)("pd-key"), Digester(other)("pd-key")

    # HMAC fills short secrets up with zeros.
    same = one.ljust(64, b"\0") == other.ljust(64, b"\0") if max(len(one), len(other)) <= 64 else one == other
    assert (digests[0] == digests[1]) == same


@given(presentable)
def test_the_digest_is_hmac_sha256(presented: str):
    expected = hmac.new(SECRET, presented.encode("utf-8", "surrogateescape"), hashlib.sha256).digest()

    assert Digester(SECRET)(presented) == expected


def test_bytes_that_are_no_text_have_a_digest_too():
    assert Digester(SECRET)("pd-\udcff") == hmac.digest(SECRET, b"pd-\xff", "sha256")


def test_a_digester_does_not_tell_its_secret():
    assert SECRET.decode() not in repr(Digester(SECRET))
    assert SECRET.hex() not in repr(Digester(SECRET))


FULL = Key(
    id="",
    name="Ann",
    tenant="acme",
    models=frozenset({"a", "b"}),
    requests_per_minute=1,
    tokens_per_minute=1 << 40,
    concurrency=3,
    nano_usd_per_day=1 << 50,
    expires_at=2_000_000_000.5,
    created_at=1_700_000_000.25,
)


async def test_a_key_comes_back_as_it_was_made(store: Store):
    digester = Digester(SECRET)
    full, presented = await create_key(store, digester, FULL)
    bare, other = await create_key(store, digester, Key(id="", name="Bob", created_at=1_800_000_000.0))

    async with store.read() as connection:
        found = await connection.run_sync(keys_by_digest, digester.secret_id)
    assert found == {digester(presented): full, digester(other): bare}
    assert await list_keys(store) == [full, bare]
    assert bare.models is None


async def test_a_key_for_no_model_is_not_one_for_all(store: Store):
    await create_key(store, Digester(SECRET), Key(id="", name="none", models=frozenset()))

    assert [key.models for key in await list_keys(store)] == [frozenset()]


async def test_the_key_itself_is_nowhere_in_the_store(store: Store):
    _, presented = await create_key(store, Digester(SECRET), FULL)

    async with store.read() as connection:
        row = (await connection.execute(select(tables.keys))).one()
    assert presented.startswith("pd-")
    assert len(presented) == 46
    assert presented.removeprefix("pd-") not in repr(row)


async def test_keys_of_another_secret_are_not_found(store: Store):
    await create_key(store, Digester(SECRET), FULL)

    async with store.read() as connection:
        assert await connection.run_sync(keys_by_digest, Digester(b"another secret of the tests").secret_id) == {}


async def test_a_key_is_revoked_once(store: Store):
    key, _ = await create_key(store, Digester(SECRET), FULL)

    assert await revoke_key(store, key.id, 5.0)
    assert not await revoke_key(store, key.id, 6.0)
    assert not await revoke_key(store, "key_0", 6.0)
    assert [key.revoked_at for key in await list_keys(store)] == [5.0]


async def test_making_and_revoking_change_the_counts(store: Store):
    seen: list[KeyCounts] = []

    async def look() -> None:
        async with store.read() as connection:
            seen.append(await connection.run_sync(count_keys))

    await look()
    key, _ = await create_key(store, Digester(SECRET), FULL)
    await look()
    await revoke_key(store, key.id, 5.0)
    await look()

    assert seen == [(0, 0), (1, 0), (1, 1)]


@pytest.mark.parametrize(
    ("expires_at", "revoked_at", "ends_at"),
    [(None, None, None), (5.0, None, 5.0), (None, 3.0, 3.0), (5.0, 3.0, 3.0), (5.0, 7.0, 5.0)],
)
def test_a_key_ends_when_it_expires_or_is_revoked(
    expires_at: float | None, revoked_at: float | None, ends_at: float | None
):
    assert Key(id="k", name="n", expires_at=expires_at, revoked_at=revoked_at).ends_at == ends_at


@pytest.mark.parametrize("limit", ["requests_per_minute", "tokens_per_minute", "concurrency", "nano_usd_per_day"])
def test_each_limit_makes_a_key_limited(limit: str):
    assert Key(id="k", name="n", **{limit: 1}).is_limited
    assert not Key(id="k", name="n", models=frozenset(), expires_at=1.0).is_limited
