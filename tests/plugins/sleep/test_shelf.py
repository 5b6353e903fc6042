"""`Shelf`: what one tenant keeps no other sees, and what is forgotten is gone."""

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import select

from predawn.plugins.sleep.contexts import SLEEPABLE, Anticipated, Notes, Progress, SleepOptions, Spent, Use
from predawn.plugins.sleep.drafts import Draft
from predawn.plugins.sleep.shelf import GRAVESTONE_S, ContextLimit, Shelf
from predawn.proxy import tables
from predawn.proxy.store import open_store

MANY = 100


def said(*texts):
    return [{"role": "user", "content": text} for text in texts]


def draft(*texts, tenant="t", **more):
    return Draft.of(tenant, said(*texts), **{"model": "m", "id": "c", **more})


def notes(ident="n", *, context_id="c", version=1, **more):
    given = {"status": "candidate", "text": "what I think", "tokens": 3, "passes": 1, "made_at": 1.0, "sleep_tokens": 9}
    return Notes(id=ident, context_id=context_id, version=version, **{**given, "model": "m", **more})


async def accept(shelf, ident):
    made = await shelf.note("t", ident)
    return made is not None and await shelf.judge("t", replace(made, status="accepted"))


def use(exchange_id="x", **more):
    given = {"context_id": "c", "version": 1, "notes_id": "n", "at": 5.0, "model": "m", "age_s": 1, "tokens_saved": 7}
    return Use(exchange_id=exchange_id, **{**given, **more})


@pytest.fixture
def shelf(store, clock):
    return Shelf(store, clock)


async def test_those_under_way_come_first_then_the_latest_of_all_tenants_and_never_what_is_forgotten(shelf, clock):
    for tenant, ident in (("t", "old"), ("u", "under-way"), ("t", "new"), ("t", "gone")):
        await shelf.put(tenant, draft("a", tenant=tenant, id=ident), most=MANY)
        await clock.advance(1)
    await shelf.claim("u", "under-way", 1, "sleeping", of={"new"})
    await shelf.forget("t", "gone")

    assert [(one.tenant, one.id) for one in await shelf.recent(9)] == [("u", "under-way"), ("t", "new"), ("t", "old")]
    assert len(await shelf.recent(1)) == 1


async def test_a_context_comes_back_as_it_was_put(shelf, clock):
    options = SleepOptions(policy="always", max_passes=3)
    put, came = await shelf.put("t", draft("a", "b", options=options, expires_at=clock.now() + 9, live=1), most=MANY)
    got = await shelf.get("t", "c")

    assert came == "created"
    assert got == put
    assert (got.version, got.state, got.model, got.options) == (1, "new", "m", options)
    assert got.messages == ({"role": "user", "content": "a"},)
    assert [part.live for part in got.parts] == [False, True]


async def test_the_same_content_is_the_same_version(shelf):
    await shelf.put("t", draft("a"), most=MANY)
    await shelf.claim("t", "c", 1, "asleep", of=["new"])
    context, came = await shelf.put("t", draft("a", options=SleepOptions(warm=True)), most=MANY)

    assert (came, context.version, context.state, context.options.warm) == ("same", 1, "asleep", True)


async def test_another_content_is_a_new_version_that_nobody_has_slept_on(shelf):
    await shelf.put("t", draft("a"), most=MANY)
    await shelf.report("t", "c", 1, Progress("sleeping", "consolidate", 1, 4, 100, 1000))
    context, came = await shelf.put("t", draft("b"), most=MANY)

    assert (came, context.version, context.state, context.progress) == ("changed", 2, "new", Progress())
    assert context.messages == tuple(said("b"))
    assert context.base_version is None


@pytest.mark.parametrize(
    ("before", "after", "base"),
    [
        (["a"], ["a", "b"], 1),
        (["Ann has 3."], ["Ann has 3. Bob has 4."], 1),
        (["x", "Ann has 3\n"], ["x", "Ann has 3\nBob"], 1),
        (["Ann has 3"], ["Ann has 30"], None),
        (["Ann has 3."], ["Ann has 3.5"], None),
        (["Ann has 3"], ["Ann has 3 and more"], None),
        (["a", "b"], ["a"], None),
        (["a", "b"], ["b", "a"], None),
        (["a.", "b"], ["a. c", "b"], None),
    ],
)
async def test_a_version_knows_what_it_continues(shelf, before, after, base):
    await shelf.put("t", draft(*before), most=MANY)
    context, _ = await shelf.put("t", draft(*after), most=MANY)

    assert context.base_version == base


async def test_another_model_continues_nothing(shelf):
    await shelf.put("t", draft("a"), most=MANY)
    context, came = await shelf.put("t", draft("a", "b", model="other"), most=MANY)

    assert (came, context.base_version) == ("changed", None)


async def test_tenants_share_neither_ids_nor_contents(shelf):
    await shelf.put("t", draft("mine"), most=MANY)
    await shelf.put("other", draft("theirs", tenant="other"), most=MANY)
    await shelf.add_notes("t", notes())

    assert (await shelf.get("other", "c")).messages == tuple(said("theirs"))
    assert await shelf.note("other", "n") is None
    assert await shelf.notes("other", "c") == []
    assert [context.tenant for context in await shelf.page("t", limit=9)] == ["t"]
    assert await shelf.forget("other", "c") == []
    assert (await shelf.get("t", "c")).messages == tuple(said("mine"))


async def test_a_tenant_has_so_many_contexts_and_no_more(shelf):
    for number in range(3):
        await shelf.put("t", draft("a", id=f"c{number}"), most=3)

    with pytest.raises(ContextLimit, match="3 contexts"):
        await shelf.put("t", draft("a", id="c3"), most=3)
    await shelf.put("t", draft("changed", id="c0"), most=3)
    await shelf.put("other", draft("a", tenant="other"), most=3)
    await shelf.put("t", draft("a", id="d", source="discovered"), most=3)
    await shelf.forget("t", "c1")
    await shelf.put("t", draft("a", id="c3"), most=3)

    assert len(await shelf.page("t", limit=9, source="registered")) == 3


async def test_pages_follow_one_another_without_gap_or_overlap(shelf, clock):
    for number in range(7):
        await clock.advance(number % 2)
        await shelf.put("t", draft("a", id=f"c{number}"), most=MANY)
    seen, before = [], None
    while page := await shelf.page("t", limit=3, before=before):
        seen += [context.id for context in page]
        before = (page[-1].created_at, page[-1].id)

    assert seen == [f"c{number}" for number in reversed(range(7))]


async def test_one_of_many_gets_the_claim(shelf):
    await shelf.put("t", draft("a"), most=MANY)
    claims = [shelf.claim("t", "c", 1, "queued", of=SLEEPABLE, job_ids=[f"j{number}"]) for number in range(5)]
    got = await asyncio.gather(*claims)

    assert sorted(got) == [False] * 4 + [True]
    assert await shelf.jobs("t", "c") == [f"j{got.index(True)}"]


async def test_what_is_outdated_is_not_claimed_nor_reported(shelf):
    await shelf.put("t", draft("a"), most=MANY)
    await shelf.put("t", draft("b"), most=MANY)

    assert not await shelf.claim("t", "c", 1, "queued", of=SLEEPABLE)
    assert not await shelf.report("t", "c", 1, Progress("asleep"))
    assert await shelf.report("t", "c", 2, Progress("checking", "check", 2, 4, 50, 100))
    assert (await shelf.get("t", "c")).progress == Progress("checking", "check", 2, 4, 50, 100)


async def test_accepted_notes_replace_those_before_them(shelf):
    await shelf.put("t", draft("a"), most=MANY)
    await shelf.add_notes("t", notes("n1"))
    await shelf.add_notes("t", notes("n2", made_at=2.0))

    assert await accept(shelf, "n1")
    assert await shelf.judge("t", replace(notes("n2"), status="accepted", provenance={"by": "check"}))

    assert (await shelf.get("t", "c")).notes_id == "n2"
    assert {one.id: one.status for one in await shelf.notes("t", "c")} == {"n1": "stale", "n2": "accepted"}
    assert (await shelf.note("t", "n2")).provenance == {"by": "check"}
    assert await shelf.verdicts("t", "m") == (2, 0)


async def test_notes_that_were_judged_are_not_written_over(shelf):
    await shelf.put("t", draft("a"), most=MANY)
    await shelf.add_notes("t", notes())
    await shelf.add_notes("t", notes(text="rewritten"))
    await accept(shelf, "n")
    await shelf.add_notes("t", notes(text="too late"))
    await shelf.drop_candidates("t", ["n"])

    assert (await shelf.note("t", "n")).text == "rewritten"


async def test_notes_that_come_too_late_are_rejected(shelf):
    await shelf.put("t", draft("a"), most=MANY)
    await shelf.add_notes("t", notes())
    await shelf.put("t", draft("b"), most=MANY)

    assert not await accept(shelf, "n")
    assert (await shelf.note("t", "n")).status == "rejected"
    assert (await shelf.get("t", "c")).notes_id is None


async def test_texts_that_databases_refuse_are_made_storable(shelf):
    await shelf.put("t", draft("a\0b"), most=MANY)
    await shelf.add_notes("t", notes(text="a\0b\ud800"))

    assert (await shelf.note("t", "n")).text == "ab?"
    assert (await shelf.get("t", "c")).messages == tuple(said("a\0b"))


async def test_anticipated_answers_are_kept_in_order(shelf):
    await shelf.put("t", draft("a"), most=MANY)
    found = [Anticipated(f"q{at}", "c", 1, f"q{at}?", f"q{at}", "42", verified=True, made_at=at) for at in range(3)]
    await shelf.add_anticipated("t", found[::-1])
    await shelf.add_anticipated("t", [replace(found[0], context_id="gone", id="x")])

    assert await shelf.anticipated("t", "c", 1) == found
    assert await shelf.anticipated("other", "c") == []


async def test_a_use_counts_once(shelf):
    await shelf.put("t", draft("a"), most=MANY)
    await shelf.book("t", [use("x1"), use("x2", at=6.0), use("x1"), use("x3", context_id="gone")])
    context = await shelf.get("t", "c")

    assert (context.uses, context.last_used_at) == (2, 6.0)
    assert [one.exchange_id for one in await shelf.uses("t", "c")] == ["x2", "x1"]
    assert await shelf.regret("t", "x1") == 1
    assert await shelf.regret("t", "x1") == 0
    assert [one.regret for one in await shelf.uses("t", "c")] == [False, True]


async def test_estimates_are_running_means(shelf):
    await shelf.put("t", draft("a"), most=MANY)
    for tokens in (10, 20, 60):
        await shelf.observe("t", "c", "m", "plain", tokens)
    estimate = await shelf.estimate("t", "c", "m", "plain")

    assert (estimate.count, estimate.mean) == (3, pytest.approx(30))
    assert await shelf.estimate("t", "c", "m", "noted") is None
    assert await shelf.estimate("other", "c", "m", "plain") is None


async def test_spend_adds_up_by_tenant_and_day(shelf):
    await shelf.spend("t", Spent(10, 5, 1))
    total = await shelf.spend("t", Spent(7, 1, 1))
    await shelf.spend("other", Spent(100, 0, 1))
    await shelf.spend("t", Spent(1000, 0, 1), at=0.0)

    assert total == await shelf.spent("t") == Spent(17, 6, 2)


async def test_the_latest_decision_is_kept_with_its_numbers(shelf, clock):
    await shelf.put("t", draft("a"), most=MANY)
    await shelf.decide("t", "c", 1, {"sleep": False, "gain": 1})
    await shelf.decide("t", "c", 1, {"sleep": True, "gain": 5})

    assert await shelf.decision("t", "c") == {"sleep": True, "gain": 5, "at": clock.now(), "version": 1}
    assert await shelf.decision("other", "c") is None


async def fill(shelf, text):
    """A context with everything that can be derived from one."""
    await shelf.put("t", draft(f"old {text}"), most=MANY)
    await shelf.put("t", draft(text), most=MANY)
    await shelf.add_notes("t", notes(version=2, text=text))
    await accept(shelf, "n")
    await shelf.add_anticipated("t", [Anticipated("q", "c", 2, text, text, text, verified=True)])
    await shelf.book("t", [use(version=2)])
    await shelf.observe("t", "c", "m", "plain", 3)
    await shelf.decide("t", "c", 2, {"why": text})
    await shelf.add_job("t", "c", 2, "job-1")


def of_contexts():
    """Every table that speaks of contexts: those of the future are tested, too."""
    return [table for table in tables.metadata.sorted_tables if "context_id" in table.c]


async def test_forgetting_leaves_nothing_derived(shelf, store):
    await fill(shelf, "secret")
    jobs = await shelf.forget("t", "c")
    await shelf.purged("t", "c", jobs)

    async with store.read() as connection:
        left = {table.name: (await connection.execute(select(table))).all() for table in of_contexts()}
        stone = (await connection.execute(select(tables.contexts))).mappings().one()
    assert jobs == ["job-1"]
    assert {name: rows for name, rows in left.items() if rows} == {}
    assert (stone["state"], stone["digest"], stone["options"], stone["model"]) == ("forgotten", b"", {}, "")
    assert await shelf.get("t", "c") is None
    assert await shelf.forget("t", "c") is None


async def test_every_table_of_contexts_is_filled_by_that_test(shelf, store):
    await fill(shelf, "secret")

    async with store.read() as connection:
        empty = [table.name for table in of_contexts() if not (await connection.execute(select(table))).all()]
    assert empty == []


async def test_the_file_does_not_hold_what_was_forgotten(tmp_path, clock):
    store = await open_store(str(tmp_path / "state.db"))
    shelf = Shelf(store, clock)
    await fill(shelf, "a very secret text " * 300)
    await shelf.forget("t", "c")

    left = [path.name for path in tmp_path.iterdir() if b"very secret" in path.read_bytes()]
    await store.aclose()

    assert left == []


async def test_nothing_is_added_to_what_was_forgotten(shelf, store):
    await fill(shelf, "secret")
    await shelf.purged("t", "c", await shelf.forget("t", "c"))

    assert not await shelf.add_notes("t", notes(version=2))
    assert not await shelf.judge("t", notes(version=2, status="accepted"))
    assert not await shelf.add_job("t", "c", 2, "late")
    assert not await shelf.claim("t", "c", 2, "queued", of=[*SLEEPABLE, "forgotten"])
    await shelf.add_anticipated("t", [Anticipated("q", "c", 2, "?", "?", "!", verified=True)])
    await shelf.book("t", [use(version=2)])
    await shelf.observe("t", "c", "m", "plain", 3)
    await shelf.decide("t", "c", 2, {})
    async with store.read() as connection:
        left = {table.name: (await connection.execute(select(table))).all() for table in of_contexts()}

    assert {name: rows for name, rows in left.items() if rows} == {}


async def test_writers_and_a_forgetting_at_once_leave_nothing(shelf, store):
    for turn in range(4):
        await fill(shelf, "secret")
        version = (await shelf.get("t", "c")).version
        await asyncio.gather(
            shelf.add_notes("t", notes(f"n{turn}", version=version)),
            shelf.book("t", [use(f"x{turn}", version=version)]),
            shelf.forget("t", "c"),
            shelf.observe("t", "c", "m", "noted", 3),
            shelf.decide("t", "c", version, {}),
            shelf.judge("t", notes("n", version=version, status="accepted")),
        )
        async with store.read() as connection:
            left = {table.name: len((await connection.execute(select(table))).all()) for table in of_contexts()}

        assert {name: rows for name, rows in left.items() if rows and name != "context_jobs"} == {}


async def test_a_name_used_again_counts_its_versions_on(shelf):
    await shelf.put("t", draft("a"), most=MANY)
    await shelf.add_job("t", "c", 1, "j1")
    await shelf.forget("t", "c")
    context, came = await shelf.put("t", draft("a"), most=MANY)

    assert (came, context.version, context.state, context.uses) == ("created", 2, "new", 0)
    assert [grave.job_ids for grave in await shelf.unpurged()] == [("j1",)]
    assert await shelf.jobs("t", "c") == []


async def test_old_versions_and_their_notes_are_thrown_away(shelf, store):
    for number in range(12):
        context, _ = await shelf.put("t", draft(f"text {number}"), most=MANY)
        await shelf.add_notes("t", notes(f"n{number}", version=context.version))

    async with store.read() as connection:
        versions = (await connection.execute(select(tables.context_versions))).mappings().all()
    assert [row["version"] for row in versions] == list(range(5, 13))
    assert [row["messages"] for row in versions[:-1]] == ["[]"] * 7
    assert {one.version for one in await shelf.notes("t", "c")} == set(range(5, 13))


async def test_what_is_over_is_told_of_and_gravestones_go_in_time(shelf, clock, store):
    await shelf.put("t", draft("a", expires_at=clock.now() + 10), most=MANY)
    before = await shelf.expired()
    await clock.advance(10)
    over = await shelf.expired()
    await shelf.forget("t", "c")
    await clock.advance(GRAVESTONE_S + 1)
    await shelf.clear(keep_uses_s=1)
    latest, gone = await shelf.latest_change()

    assert (before, over, await shelf.expired()) == ([], [("t", "c")], [])
    assert latest == gone == 2
    async with store.read() as connection:
        assert (await connection.execute(select(tables.contexts))).all() == []


async def test_what_is_forgotten_while_somebody_reads_leaves_the_log_later(tmp_path, clock):
    store = await open_store(str(tmp_path / "state.db"))
    shelf = Shelf(store, clock)
    await shelf.put("t", draft("a-word-found-nowhere-else"), most=MANY)

    def left():
        return [file.name for file in tmp_path.iterdir() if b"a-word-found-nowhere-else" in file.read_bytes()]

    async with store.read() as connection:
        await connection.execute(select(tables.contexts))
        await shelf.forget("t", "c")
        meanwhile = left()
    await shelf.clear(keep_uses_s=1)
    after = left()
    await store.aclose()

    assert meanwhile != []
    assert after == []


async def test_a_discovered_context_lives_on_while_it_is_used(shelf, clock):
    await shelf.put("t", draft("a", source="discovered", expires_at=clock.now() + 10), most=MANY)
    await shelf.put("t", draft("b", id="r", expires_at=clock.now() + 10), most=MANY)
    for ident in ("c", "r"):
        await shelf.prolong("t", ident, clock.now() + 99)
    await clock.advance(10)

    assert await shelf.expired() == [("t", "r")]


async def test_changes_are_told_in_order_and_once(shelf):
    for number in range(5):
        await shelf.put("t", draft("a", id=f"c{number}"), most=MANY)
    await shelf.put("t", draft("b", id="c0"), most=MANY)
    await shelf.forget("t", "c1")
    told = await shelf.changes(0, 100)

    assert [(one.context_id, one.is_forgotten) for one in told] == [
        ("c2", False),
        ("c3", False),
        ("c4", False),
        ("c0", False),
        ("c1", True),
    ]
    assert [version.version for version in told[3].versions] == [1, 2]
    assert await shelf.changes(told[-1].change, 100) == []
