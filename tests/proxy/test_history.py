"""Recorded exchanges in the store: whole rows, one tenant at a time, and none that are too old."""

import pytest

from predawn.proxy import history
from predawn.proxy.store import Store
from predawn.proxy.tables import exchanges


def row(ident: str, *, tenant: str = "a", arrived_at: float = 1.0, content: str | None = None):
    counts = dict.fromkeys(("prompt", "cached_prompt", "output", "reasoning", "discarded", "verify"), 0)
    named = {
        "id": ident,
        "tenant": tenant,
        "key_id": None,
        "route": "chat",
        "model": "m",
        "upstream": "u",
        "upstream_model": "um",
        "stream": True,
        "status": 200,
        "outcome": "ok",
        "arrived_at": arrived_at,
        "total_s": 0.5,
        **counts,
        "slept": 0.0,
        "estimated": False,
        "spend_usd": 0.0,
        "record": '{"calls": [], "ledger": {"chunks": 3}, "error": null}',
        "content": content,
    }
    return [named[column.name] for column in exchanges.c]


async def test_a_row_is_found_by_its_tenant_alone(store: Store):
    await history.write(store, [row("x", tenant="a"), row("y", tenant="b")])

    assert await history.find(store, "a", "y") is None
    assert await history.find(store, "a", "z") is None
    found = await history.find(store, "b", "y")

    assert found is not None
    assert {"chunks": 3, "prompt": 0} == {key: history.detail(found)["ledger"][key] for key in ("chunks", "prompt")}


async def test_the_same_id_may_stand_once_per_tenant_and_the_first_stays(store: Store):
    await history.write(store, [row("x", tenant="a", arrived_at=1)])
    await history.write(store, [row("x", tenant="a", arrived_at=2), row("x", tenant="b", arrived_at=3)])
    first, other = await history.find(store, "a", "x"), await history.find(store, "b", "x")

    assert first is not None
    assert other is not None
    assert (1, 3) == (first["arrived_at"], other["arrived_at"])


async def test_pages_go_back_in_time_and_break_ties_by_id(store: Store):
    rows = [row(f"e{number}", arrived_at=number // 2) for number in range(7)]
    await history.write(store, [*rows, row("other", tenant="b", arrived_at=99)])
    seen, before = [], None
    while found := await history.page(store, "a", limit=2, before=before):
        seen += [item["id"] for item in found]
        before = (found[-1]["arrived_at"], found[-1]["id"])

    assert ["e6", "e5", "e4", "e3", "e2", "e1", "e0"] == seen


async def test_purging_takes_old_rows_in_small_batches(store: Store):
    await history.write(store, [row(f"e{number}", arrived_at=number) for number in range(5)])
    counts = [await history.purge(store, 3, limit=2) for _ in range(3)]

    assert [2, 1, 0] == counts
    assert ["e4", "e3"] == [item["id"] for item in await history.page(store, "a", limit=9)]


@pytest.mark.parametrize("content", [None, '{"request":{"model":"m"},"reply":[]}'])
async def test_content_is_shown_only_where_it_was_recorded(store: Store, content: str | None):
    await history.write(store, [row("x", content=content)])
    found = await history.find(store, "a", "x")

    assert found is not None
    assert (content is not None) == ("content" in history.detail(found))
