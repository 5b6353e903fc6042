"""What matching costs: `python tests/benchmarks/sleep/matching.py`; writes results/bench-sleep-matching.json.

A request of 100 messages against 10,000 known prefixes, misses shallow and deep, and 100,000 contexts in SQLite, where
the statements that a hit sends are counted. One process, one core, no server. Exit code 1 means a bar is broken.
"""

import argparse
import asyncio
import gc
import random
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter, perf_counter_ns, thread_time_ns
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests.benchmarks.evidence import CHECKOUT, Bar, Evidence, versions_of

from predawn.plugins.sleep.contexts import Notes
from predawn.plugins.sleep.discovery import Discovery
from predawn.plugins.sleep.drafts import Draft, encode_parts
from predawn.plugins.sleep.index import Index
from predawn.plugins.sleep.shelf import Shelf
from predawn.proxy.clock import SystemClock
from predawn.proxy.store import Store, open_store

SEED = 7
MESSAGES = 100
CHARACTERS = 300
REPEATS = 25


def conversation(name: str, messages: int = MESSAGES) -> list[dict[str, str]]:
    """Turns of a dialogue as long as they are in public chat logs."""
    draw = random.Random(f"{SEED}/{name}")
    words = [
        "predawn",
        "thinks",
        "of",
        "every",
        "question",
        "before",
        "it",
        "is",
        "asked",
        "and",
        "keeps",
        "3.5",
        "notes",
    ]
    roles = ("user", "assistant")
    return [
        {"role": roles[at % 2], "content": " ".join(draw.choices(words, k=CHARACTERS // 6))[:CHARACTERS]}
        for at in range(messages)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prefixes", type=int, default=10_000)
    parser.add_argument("--stored", type=int, default=100_000)
    parser.add_argument("--out", type=Path, default=CHECKOUT / "results" / "bench-sleep-matching.json")
    options = parser.parse_args()
    evidence = Evidence(
        "bench-sleep-matching",
        seeds={"texts": SEED},
        versions=versions_of("predawn", "msgspec", "sqlalchemy"),
        settings={
            "messages": MESSAGES,
            "characters per message": CHARACTERS,
            "prefixes": options.prefixes,
            "contexts in SQLite": options.stored,
        },
    )
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_measure(evidence, options.prefixes, options.stored, Path(folder)))
    evidence.save(options.out)
    for name, value in evidence.figures.items():
        print(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")
    print(evidence.summary())
    return 0 if evidence.all_hold else 1


async def _measure(evidence: Evidence, prefixes: int, stored: int, folder: Path) -> None:
    figures = evidence.figures
    await _in_sqlite(figures, stored, folder / "many.db")
    await _in_memory(figures, prefixes, folder / "few.db")
    evidence.bars = {
        "hit of 99 messages": Bar(figures["hit of 99 messages, µs"], 200, "µs"),
        "hit of a growing conversation": Bar(figures["hit of 50 messages, µs"], 200, "µs"),
        "miss": Bar(figures["miss at the first message, µs"], 100, "µs"),
        "miss without any context": Bar(figures["miss of a tenant without contexts, µs"], 100, "µs"),
        "miss of a picture": Bar(figures["miss of a picture of 20 MB where one of 3 MB is known, µs"], 100, "µs"),
        f"hit among {stored} against among 1,000": Bar(figures["hit among all stored / among 1,000"], 1.5, "×"),
        "statements of a hit after the first use": Bar(figures["statements after the first use"], 0),
    }


async def _in_memory(figures: dict[str, Any], prefixes: int, path: Path) -> None:
    """So many prefixes of one tenant: conversations of 1 to 99 messages, each known up to several boundaries."""
    store = await open_store(str(path))
    index = Index(Shelf(store, SystemClock()), SystemClock(), max_links=5_000_000)
    families = max(1, prefixes // 99)
    drafts = []
    for family in range(families):
        turns = conversation(f"family {family}")
        drafts += [_draft(f"{family}-{length}", turns[:length]) for length in range(1, 100)]
    for number in range(prefixes - len(drafts)):
        drafts.append(_draft(f"single-{number}", conversation(f"single {number}", 3)))
    await _store(store, drafts)
    begun = perf_counter()
    await index.refresh()
    figures["reading them at start, s"] = perf_counter() - begun
    figures["known prefixes"] = len(index)
    whole, half, other = conversation("family 0"), conversation("family 1", 51), conversation("unknown")
    deep = [*conversation("family 2")[:98], {"role": "user", "content": "something else"}, whole[-1]]
    found = index.match("t", "", "m", whole)
    assert found is not None and found.at == 99, found
    await index.with_notes(found)
    figures["hit of 99 messages, µs"] = _us(lambda: index.match("t", "", "m", whole))
    figures["hit of 50 messages, µs"] = _us(lambda: index.match("t", "", "m", half))
    figures["hit of 98 of 100 messages, µs"] = _us(lambda: index.match("t", "", "m", deep))
    figures["miss at the first message, µs"] = _us(lambda: index.match("t", "", "m", other))
    figures["miss of a tenant without contexts, µs"] = _us(lambda: index.match("u", "", "m", other))
    story = [{"role": "user", "content": " ".join(turn["content"] for turn in other) + ". How many has Bob?"}]
    figures["miss of a split message of 30,000 characters, µs"] = _us(
        lambda: index.match("t", "", "m", story, "last_sentence")
    )
    for megabytes in (4, 20):
        large = [_picture(megabytes, "unknown"), *other]
        figures[f"miss of a picture of {megabytes} MB as the first message, µs"] = _us(
            partial(index.match, "t", "", "m", large)
        )
    await _store(store, [_draft("picture", [_picture(3, "known")])])
    await index.refresh()
    known, alike = [[_picture(3, name), *other] for name in ("known", "alike")]
    found = index.match("t", "", "m", known)
    assert found is not None and found.context_id == "picture", found
    figures["hit of a picture of 3 MB, µs"] = _us(lambda: index.match("t", "", "m", known), calls=5)
    figures["miss of another picture of 3 MB, µs"] = _us(lambda: index.match("t", "", "m", alike), calls=5)
    figures["miss of a picture of 20 MB where one of 3 MB is known, µs"] = _us(lambda: index.match("t", "", "m", large))
    discovery = Discovery()
    figures["counting the prefixes of 100 messages (off the critical path), µs"] = _us(
        lambda: discovery.saw("t", "", "m", other, now=0.0), calls=20
    )
    await store.aclose()


def _picture(megabytes: int, name: str) -> dict[str, Any]:
    """A message with an image in it, as clients send them."""
    url = f"data:image/png;base64,{name.ljust(16, 'A')}" + "A" * (megabytes << 20)
    return {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}


async def _in_sqlite(figures: dict[str, Any], stored: int, path: Path) -> None:
    """Contexts of one document each, as many as a large deployment has."""
    store = await open_store(str(path))
    statements = _count_statements(store)
    times: dict[int, float] = {}
    request = [*conversation("document 0", 3), {"role": "user", "content": "What is it about?"}]
    index = Index(Shelf(store, SystemClock()), SystemClock())
    before = _memory_mb()
    begun = perf_counter()
    for known in sorted({1000, stored}):
        done = len(index)
        for first in range(done, known, 1000):
            last = min(first + 1000, known)
            await _store(store, [_draft(f"d{at}", conversation(f"document {at}", 3)) for at in range(first, last)])
        begun = perf_counter()
        await index.refresh()
        gc.collect()
        times[known] = _us(lambda: index.match("t", "", "m", request))
    figures["learning all stored, s"] = perf_counter() - begun
    figures["memory for all stored, MB"] = _memory_mb() - before
    figures["hit among 1,000, µs"] = times[1000]
    figures["hit among all stored, µs"] = times[stored]
    figures["hit among all stored / among 1,000"] = times[stored] / times[1000]
    statements.clear()
    match = index.match("t", "", "m", request)
    assert match is not None
    await index.with_notes(match)
    figures["statements at the first use"] = len(statements)
    statements.clear()
    for _ in range(1000):
        again = index.match("t", "", "m", request)
        assert again is not None and again.notes is not None
        await index.with_notes(again)
    figures["statements after the first use"] = len(statements)
    figures["asking whether anything changed, µs"] = await _refresh_us(index)
    await store.aclose()


def _draft(name: str, messages: list[dict[str, str]]) -> Draft:
    return Draft.of("t", messages, id=name, model="m")


async def _store(store: Store, drafts: list[Draft]) -> None:
    """Contexts with accepted notes, written in bulk as `Shelf.put` and `Shelf.accept` write them one by one."""
    from predawn.proxy import tables

    shelf = Shelf(store, SystemClock())
    first = (await shelf.latest_change())[0]
    by_table: dict[Any, list[dict[str, Any]]] = {tables.contexts: [], tables.context_versions: [], tables.notes: []}
    for number, draft in enumerate(drafts, 1):
        for table, row in _rows(draft, first + number):
            by_table[tables.metadata.tables[table]].append(row)
    async with store.begin() as connection:
        for table, rows in by_table.items():
            await connection.execute(table.insert(), rows)
        await connection.execute(tables.context_changes.update().values(value=first + len(drafts)))


def _rows(draft: Draft, change: int) -> Iterator[tuple[str, dict[str, Any]]]:
    place = {"tenant": "t", "model": "m", "namespace": "", "tokens": draft.tokens, "created_at": 1.0}
    yield (
        "contexts",
        place
        | {"id": draft.id, "source": "registered", "version": 1, "state": "asleep", "digest": draft.digest}
        | {"options": {}, "progress": {}, "uses": 0, "changed_at": 1.0, "change": change},
    )
    yield (
        "context_versions",
        place
        | {"context_id": draft.id, "version": 1, "links": b"".join(draft.links), "parts": encode_parts(draft.parts)}
        | {"messages": draft.encoded, "notes_id": f"n{change}"},
    )
    notes = Notes(f"n{change}", draft.id, 1, "accepted", f"What {draft.id} says.", 9, 1, 1.0, 90, "m")
    yield "notes", {"tenant": "t", **{name: getattr(notes, name) for name in Notes.__slots__}}


def _us(call: Callable[[], object], calls: int = 200) -> float:
    """Microseconds of this thread's own time, the median of several repeats: what others do on the core costs none."""
    call()
    took = []
    for _ in range(REPEATS):
        begun = thread_time_ns()
        for _ in range(calls):
            call()
        took.append((thread_time_ns() - begun) / calls / 1000)
    return median(took)


async def _refresh_us(index: Index) -> float:
    took = []
    for _ in range(200):
        begun = perf_counter_ns()
        await index.refresh()
        took.append((perf_counter_ns() - begun) / 1000)
    return median(took)


def _memory_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _count_statements(store: Store) -> list[str]:
    from sqlalchemy import event

    seen: list[str] = []

    @event.listens_for(store._engine.sync_engine, "before_cursor_execute")
    def saw(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        seen.append(statement)

    return seen


if __name__ == "__main__":
    sys.exit(main())
