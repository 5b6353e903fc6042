"""`Index`: the longest known beginning of a request, found in memory, of the right tenant, and not when it is over."""

import asyncio
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predawn.plugins.sleep import prefix
from predawn.plugins.sleep.contexts import Notes
from predawn.plugins.sleep.drafts import Draft
from predawn.plugins.sleep.index import Index
from predawn.plugins.sleep.shelf import GRAVESTONE_S, Shelf
from predawn.plugins.sleep.shelf_contexts import Change, KnownVersion
from predawn.plugins.testing.clock import ManualClock, settle
from predawn.proxy.store import open_store
from predawn.proxy.store_errors import StoreError

MANY = 1000


def said(*texts):
    return [{"role": "user", "content": text} for text in texts]


@dataclass
class Bare:
    """A shelf that only tells changes."""

    told: list[Change] = field(default_factory=list)
    texts: dict[tuple[str, str], Notes] = field(default_factory=dict)
    reads: int = 0
    gone: int = 0

    def put(self, ident, messages, *, tenant="t", model="m", noted=True, source="registered", expires_at=None, **more):
        change = len(self.told) + 1
        links = tuple(prefix.chain(tenant, "", model, messages))
        notes_id = f"n-{ident}" if noted else None
        version = KnownVersion(1, model, "", links, 10, None, notes_id)
        self.told.append(Change(change, tenant, ident, source, False, 1, expires_at, (version,)))
        if noted:
            text = more.get("text", "noted")
            self.texts[tenant, notes_id] = Notes(notes_id, ident, 1, "accepted", text, 1, 1, 1.0, 1, "m")

    async def latest_change(self):
        return len(self.told), self.gone

    async def changes(self, since, limit):
        return [change for change in self.told if change.change > since][:limit]

    async def note(self, tenant, notes_id):
        self.reads += 1
        return self.texts.get((tenant, notes_id))


async def indexed(bare, **more):
    index = Index(bare, ManualClock(), **more)
    await index.refresh()
    return index


pieces = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=5)
known = st.lists(st.tuples(pieces, st.sampled_from(["t", "u"]), st.sampled_from(["m", ""]), st.booleans()), max_size=8)


@given(known, pieces, st.sampled_from(["t", "u", "v"]))
def test_matching_equals_a_naive_oracle(contexts, request, tenant):
    bare = Bare()
    for number, (texts, of, model, noted) in enumerate(contexts):
        bare.put(f"c{number}", said(*texts), tenant=of, model=model, noted=noted)
    index = asyncio.run(indexed(bare))

    found = index.match(tenant, "", "m", said(*request))

    fitting = [
        (len(texts), noted, f"c{number}")
        for number, (texts, of, _, noted) in enumerate(contexts)
        if of == tenant and len(texts) < len(request) and request[: len(texts)] == texts
    ]
    longest = max((length for length, _, _ in fitting), default=None)
    assert (found and found.at) == longest
    if found:
        assert (longest, found.context_id) in {(length, ident) for length, _, ident in fitting}


@given(known, st.lists(st.integers(0, 7), max_size=8), pieces)
def test_what_is_forgotten_leaves_no_trace_in_memory(contexts, gone, request):
    bare = Bare()
    for number, (texts, of, model, noted) in enumerate(contexts):
        bare.put(f"c{number}", said(*texts), tenant=of, model=model, noted=noted)
    for number in gone:
        if number < len(contexts):
            tenant = contexts[number][1]
            bare.told.append(Change(len(bare.told) + 1, tenant, f"c{number}", "registered", True, 1, None, ()))
    index = asyncio.run(indexed(bare))
    left = [context for number, context in enumerate(contexts) if number not in gone]
    fresh = Bare()
    for texts, of, model, noted in left:
        fresh.put(f"{texts}{of}{model}{noted}", said(*texts), tenant=of, model=model, noted=noted)
    other = asyncio.run(indexed(fresh))

    for tenant in ("t", "u"):
        found, expected = index.match(tenant, "", "m", said(*request)), other.match(tenant, "", "m", said(*request))
        assert (found and found.at) == (expected and expected.at)
    if not left:
        assert (index._trees, index._known.links, len(index)) == ({}, 0, 0)


async def test_the_question_is_never_a_part_of_the_context():
    bare = Bare()
    bare.put("c", said("a", "b"))
    index = await indexed(bare)

    assert index.match("t", "", "m", said("a", "b")) is None
    assert index.match("t", "", "m", said("a", "b", "q")).at == 2
    assert index.lookups == {"hit": 1, "stale": 0, "miss": 1, "expired": 0}


@pytest.mark.parametrize(
    ("tenant", "namespace", "model"), [("u", "", "m"), ("t", "n", "m"), ("t", "", "other"), ("t", "", "")]
)
async def test_another_scope_matches_nothing(tenant, namespace, model):
    bare = Bare()
    bare.put("c", said("a"))
    index = await indexed(bare)

    assert index.match(tenant, namespace, model, said("a", "q")) is None
    assert index.named(tenant, namespace, model, "c", said("a", "q")) is None


async def test_a_context_for_any_model_serves_every_model():
    bare = Bare()
    bare.put("c", said("a"), model="")
    index = await indexed(bare)

    assert index.match("t", "", "whatever", said("a", "q")).context_id == "c"
    assert index.named("t", "", "whatever", "c", said("a", "q")).at == 1


async def test_a_corrupted_tree_serves_no_other_tenant(caplog):
    bare = Bare()
    bare.put("c", said("a"))
    index = await indexed(bare)
    index._trees["u", "", "m"] = index._trees["t", "", "m"]

    assert index.match("u", "", "m", said("a", "q")) is None
    assert "another tenant" in caplog.text


async def test_an_expired_context_is_not_matched():
    bare = Bare()
    index = Index(bare, clock := ManualClock())
    bare.put("c", said("a"), expires_at=clock.now() + 10)
    await index.refresh()

    assert index.match("t", "", "m", said("a", "q"))
    await clock.advance(10)
    assert index.match("t", "", "m", said("a", "q")) is None
    assert index.named("t", "", "m", "c", said("a", "q")) is None
    assert index.lookups["expired"] == 1


async def test_notes_of_a_shorter_context_are_used_as_stale_ones():
    bare = Bare()
    bare.put("short", said("a"))
    bare.put("long", said("a", "b"), noted=False)
    index = await indexed(bare)
    found = index.match("t", "", "m", said("a", "b", "q"))

    assert (found.context_id, found.at, found.notes_context_id, found.notes_at) == ("long", 2, "short", 1)
    assert found.stale
    assert index.lookups["stale"] == 1


async def test_notes_never_stand_between_a_call_and_its_result():
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    result = {"role": "tool", "content": "42", "tool_call_id": "1"}
    bare = Bare()
    bare.put("c", [*said("a"), call])
    bare.put("s", said("a"))
    index = await indexed(bare)

    assert index.match("t", "", "m", [*said("a"), call, result, *said("q")]).context_id == "s"


@pytest.mark.parametrize("live", [0, -3, [0, 1]])
async def test_live_messages_are_never_reached(live):
    bare = Bare()
    bare.put("c", said("a", "b"))
    index = await indexed(bare)

    assert index.match("t", "", "m", said("a", "b", "q"), live=live) is None


async def test_context_and_question_in_one_message_are_matched_on_request():
    bare = Bare()
    bare.put("c", said("Ann has 3.5. Bob has 4."))
    index = await indexed(bare)
    request = said("Ann has 3.5. Bob has 4. How many has Bob?")
    found = index.match("t", "", "m", request, "last_sentence")

    assert index.match("t", "", "m", request) is None
    assert (found.at, found.notes_at) == (1, 1)
    assert found.split.question["content"] == "How many has Bob?"
    assert index.named("t", "", "m", "c", request, rule="last_sentence").split == found.split


async def test_a_named_context_need_not_be_sent():
    bare = Bare()
    bare.put("c", said("a"))
    index = await indexed(bare)

    assert (found := index.named("t", "", "m", "c", said("q"))).notes_id == "n-c"
    assert (found.at, found.notes_at) == (0, 0)
    assert index.named("t", "", "m", "c", said("a", "q")).at == 1
    assert index.named("t", "", "m", "unknown", said("a", "q")) is None


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [1, 2],
        [None, {}],
        ["ab", "cd"],
        [{"role": 1, "content": 2}] * 2,
        [{"role": "user", "content": "\ud800"}] * 2,
    ],
)
async def test_nonsense_matches_nothing(messages):
    bare = Bare()
    bare.put("c", said("a"))
    index = await indexed(bare)

    assert index.match("t", "", "m", messages, "last_sentence") is None


async def test_notes_are_read_once():
    bare = Bare()
    bare.put("c", said("a"), text="what I found")
    index = await indexed(bare)
    first = await index.with_notes(index.match("t", "", "m", said("a", "q")))
    second = await index.with_notes(index.match("t", "", "m", said("a", "q")))

    assert first.notes.text == second.notes.text == "what I found"
    assert bare.reads == 1


async def test_notes_of_another_context_or_status_are_not_used():
    bare = Bare()
    bare.put("c", said("a"))
    index = await indexed(bare)
    match = index.match("t", "", "m", said("a", "q"))
    for wrong in ({"context_id": "other"}, {"status": "rejected"}):
        bare.texts["t", "n-c"] = Notes(**{**NOTE, **wrong})

        assert (await index.with_notes(match)).notes is None


NOTE = {"id": "n-c", "context_id": "c", "version": 1, "status": "accepted", "text": "", "tokens": 1, "passes": 1}
NOTE |= {"made_at": 1.0, "sleep_tokens": 1, "model": "m"}


async def test_memory_for_notes_is_bounded():
    bare = Bare()
    for number in range(20):
        bare.put(f"c{number}", said(str(number)), text="x" * 1000)
    index = await indexed(bare, max_notes_bytes=10_000)
    for number in range(20):
        await index.with_notes(index.match("t", "", "m", said(str(number), "q")))

    assert 8000 < index.notes_bytes <= 10_000
    assert index.match("t", "", "m", said("19", "q")).notes
    assert not index.match("t", "", "m", said("0", "q")).notes


async def test_memory_for_contexts_is_bounded_and_those_in_use_stay():
    bare = Bare()
    bare.put("used", said("used"))
    index = Index(bare, ManualClock(), max_links=10)
    for number in range(30):
        bare.put(f"c{number}", said(str(number)))
        await index.refresh()
        assert index.match("t", "", "m", said("used", "q"))

    assert len(index) == 10
    assert index.left_out == 21


async def test_a_tenant_with_many_contexts_pushes_out_its_own():
    bare = Bare()
    for number in range(4):
        bare.put(f"c{number}", said(str(number)), tenant="small")
    for number in range(50):
        bare.put(f"c{number}", said(*map(str, range(number, number + 5))), tenant="large")
    index = await indexed(bare, max_links=40)

    assert all(index.match("small", "", "m", said(str(number), "q")) for number in range(4))
    assert index.match("large", "", "m", said("49", "50", "51", "52", "53", "q"))
    assert not index.match("large", "", "m", said("0", "1", "2", "3", "4", "q"))
    assert len(index) == 4 + 7


class TestWithAStore:
    """Changes made by anybody arrive, on this machine and on others."""

    @pytest.fixture
    def shelf(self, store, clock):
        return Shelf(store, clock)

    async def put(self, shelf, *texts, ident="c"):
        return (await shelf.put("t", Draft.of("t", said(*texts), id=ident, model="m"), most=MANY))[0]

    async def note(self, shelf, ident, version, text="noted"):
        assert await shelf.judge("t", Notes(ident, "c", version, "accepted", text, 1, 1, 1.0, 1, "m"))

    async def test_a_life_of_versions(self, shelf, clock):
        index = Index(shelf, clock)

        async def match(*texts):
            await index.refresh()
            found = index.match("t", "", "m", said(*texts))
            return found and (found.version, found.at, found.notes_id, found.notes_at, found.stale)

        await self.put(shelf, "a")
        assert await match("a", "q") == (1, 1, None, 0, False)
        await self.note(shelf, "n1", 1)
        assert await match("a", "q") == (1, 1, "n1", 1, False)
        await self.put(shelf, "a", "b")
        assert await match("a", "b", "q") == (2, 2, "n1", 1, True)
        assert await match("a", "q") == (1, 1, "n1", 1, False)
        await self.note(shelf, "n2", 2)
        assert await match("a", "b", "q") == (2, 2, "n2", 2, False)
        await self.put(shelf, "x")
        assert await match("x", "q") == (3, 1, None, 0, False)
        await shelf.forget("t", "c")
        assert await match("a", "q") is None
        assert (index._trees, index._known.links) == ({}, 0)

    async def test_a_text_that_grew_keeps_its_notes(self, shelf, clock):
        index = Index(shelf, clock)
        await self.put(shelf, "Ann has 3.")
        await self.note(shelf, "n1", 1)
        await self.put(shelf, "Ann has 3. Bob has 4.")
        await index.refresh()
        found = index.match("t", "", "m", said("Ann has 3. Bob has 4.", "q"))

        assert (found.version, found.notes_id, found.notes_version, found.notes_at) == (2, "n1", 1, 1)
        assert found.stale

    async def test_machines_share_what_they_know(self, state, clock):
        one, other = await open_store(state), await open_store(state)
        shelf, far = Shelf(one, clock), Index(Shelf(other, clock), clock)
        await far.refresh()
        await self.put(shelf, "a")
        await self.note(shelf, "n1", 1, "from afar")
        assert await far.refresh() == 1
        found = await far.with_notes(far.match("t", "", "m", said("a", "q")))
        await shelf.forget("t", "c")
        await far.refresh()

        assert found.notes.text == "from afar"
        assert far.match("t", "", "m", said("a", "q")) is None
        assert far.notes_bytes == 0
        await one.aclose()
        await other.aclose()

    async def test_changes_made_at_once_are_all_seen(self, state, clock):
        stores = [await open_store(state) for _ in range(3)]
        index = Index(Shelf(stores[0], clock), clock)

        async def write(shelf, name):
            for number in range(8):
                await self.put(shelf, "a", ident=f"{name}{number}")

        async def read():
            while len(index) < 24:
                await index.refresh()

        async with asyncio.timeout(60):
            await asyncio.gather(*(write(Shelf(store, clock), name) for store, name in zip(stores, "xyz")), read())

        assert len(index) == 24
        for store in stores:
            await store.aclose()

    async def test_who_slept_longer_than_gravestones_stand_starts_anew(self, shelf, clock):
        index = Index(shelf, clock)
        await self.put(shelf, "a")
        await self.put(shelf, "b", ident="d")
        await index.refresh()
        await shelf.forget("t", "c")
        await clock.advance(GRAVESTONE_S + 1)
        await shelf.clear(keep_uses_s=1)
        await index.refresh()

        assert index.match("t", "", "m", said("a", "q")) is None
        assert index.match("t", "", "m", said("b", "q")).context_id == "d"
        assert await index.refresh() == 0

    async def test_a_lost_store_leaves_what_is_known_in_use(self, shelf, clock, tasks, monkeypatch, caplog):
        index = Index(shelf, clock)
        await self.put(shelf, "a")
        await index.refresh()

        async def lost():
            raise StoreError("gone")

        monkeypatch.setattr(shelf, "latest_change", lost)
        tasks.spawn(index.keep_fresh(), "fresh")
        await settle()
        await clock.advance(3)

        assert index.match("t", "", "m", said("a", "q"))
        assert caplog.text.count("cannot be refreshed") == 1


def picture(size, name="A"):
    return {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:," + name * size}}]}


async def test_a_picture_is_hashed_only_where_a_context_has_one_as_large(store, clock, monkeypatch):
    shelf = Shelf(store, clock)
    index = Index(shelf, clock)
    await shelf.put("t", Draft.of("t", [picture(100_000)], id="c", model="m"), most=MANY)
    await shelf.put("t", Draft.of("t", said("text"), id="d", model="m"), most=MANY)
    await index.refresh()
    hashed = []
    whole = prefix.canonical
    monkeypatch.setattr(prefix, "canonical", lambda message: hashed.append(message) or whole(message))
    found = index.match("t", "", "m", [picture(100_000), *said("q")])
    other = index.match("t", "", "m", [picture(99_000, "B"), *said("q")])
    few = len(hashed)
    larger = index.match("t", "", "m", [picture(5_000_000), *said("q")])
    later = index.match("t", "", "m", [*said("text"), picture(100_000), *said("q")])
    named = index.named("t", "", "m", "d", [picture(5_000_000), *said("q")])

    assert (found.context_id, found.at) == ("c", 1)
    assert (other, larger) == (None, None)
    assert few == 2
    assert (later.context_id, later.at) == ("d", 1)
    assert named.at == 0
    assert len(hashed) == 3  # of the last three requests only the text


async def test_what_is_forgotten_is_not_remembered_as_large(store, clock):
    shelf = Shelf(store, clock)
    index = Index(shelf, clock)
    for ident in ("c", "d"):
        await shelf.put("t", Draft.of("t", [picture(100_000)], id=ident, model="m"), most=MANY)
    await shelf.put("t", Draft.of("t", said("text"), id="e", model="m"), most=MANY)
    await index.refresh()
    both = [dict(tree.large) for tree in index._trees.values()]
    for ident in ("c", "d"):
        await shelf.forget("t", ident)
    await index.refresh()

    assert [list(large) for large in both] == [[b""]]
    assert [tree.large for tree in index._trees.values()] == [{}]
