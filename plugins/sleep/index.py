"""All known contexts in memory, and the longest one that a request begins with.

Each tenant, namespace and model has a tree of its own: the links of its contexts' chains, and what ends there. A match
walks down the request's messages and stops at the first boundary that no context has, so that a request which begins
with nothing known costs one digest, and any other as many as it has messages in common. Nothing here asks the store
while a request waits but for the text of notes at their first use.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING

from predawn.plugins.sleep import prefix
from predawn.plugins.sleep.contexts import Message, SplitRule
from predawn.plugins.sleep.matches import Entry, Known, Match, Name, Scope, entry_of, match_of, preference, rank
from predawn.plugins.sleep.memory import NotesCache, Roster
from predawn.plugins.sleep.outage import Outage
from predawn.plugins.sleep.prefix import Split

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

    from predawn.plugins.sleep.shelf import Shelf
    from predawn.plugins.sleep.shelf_contexts import Change, KnownVersion
    from predawn.proxy.clock import Clock

__all__ = ["Entry", "Index", "Match"]

log = logging.getLogger("predawn.sleep")
LARGE_BYTES = 32 << 10
"""Smaller messages are hashed at once: 20 µs for one of this size."""
_NONE: Counter[int] = Counter({0: 1})
PAGE = 200
"""Contexts read from the store at a time; other tasks run in between."""
_UNREADABLE = (RecursionError, UnicodeEncodeError, TypeError, AttributeError)
"""What a message raises that no context can begin with."""


@dataclass(slots=True)
class _Tree:
    """The contexts of one tenant, namespace and model."""

    seed: Hash
    through: dict[bytes, int] = field(default_factory=dict[bytes, int])
    """How many versions have this link."""
    ends: dict[bytes, tuple[Entry, ...]] = field(default_factory=dict[bytes, tuple[Entry, ...]])
    """What ends at a link, best first."""
    large: dict[bytes, Counter[int]] = field(default_factory=dict[bytes, "Counter[int]"])
    """Most bytes that a message from `LARGE_BYTES` on has after a link, and how many versions say so."""

    def may_go_on(self, link: bytes, message: Message) -> bool:
        """False if no context goes on after a link with a message of this size: then it need not be hashed.

        Pictures have megabytes. What is large here is hashed only where a context has something as large in this place.
        """
        content = message.get("content")
        if type(content) is str and len(content) < LARGE_BYTES and len(message) == 2:
            return True  # most are like that: 0.1 µs
        least = prefix.least_bytes(message)
        return least < LARGE_BYTES or least <= max(self.large.get(link, _NONE))


class Index:
    """Matches requests to contexts. Bounded: beyond `max_links` boundaries, the tenant that takes most of the memory
    goes without those of its contexts that were unused for longest.

    `lookups` counts what came of `match`: hit, stale, miss, expired.
    """

    def __init__(
        self,
        shelf: Shelf,
        clock: Clock,
        *,
        max_links: int = 500_000,
        max_notes_bytes: int = 64 << 20,
        on_dropped: Callable[[str, str], None] = lambda _tenant, _context_id: None,
        on_forgotten: Callable[[str, str], None] = lambda _tenant, _context_id: None,
    ) -> None:
        """`on_dropped` is told of each context that changed or is gone: what else is known of it counts no more.
        `on_forgotten` is told of those that somebody forgot, on any machine."""
        self._shelf = shelf
        self._clock = clock
        self._max_links = max_links
        self._on_dropped = on_dropped
        self._on_forgotten = on_forgotten
        self._trees: dict[Scope, _Tree] = {}
        self._known = Roster()
        self._change = -1
        self._refreshing = asyncio.Lock()
        self._notes = NotesCache(max_notes_bytes)
        self.lookups = {"hit": 0, "stale": 0, "miss": 0, "expired": 0}
        self.left_out = 0
        """Contexts that did not fit into memory."""

    def __len__(self) -> int:
        """How many contexts are known."""
        return len(self._known)

    @property
    def notes_bytes(self) -> int:
        """Memory taken by the texts of notes."""
        return self._notes.size

    def has(self, tenant: str, namespace: str, model: str) -> bool:
        """False if a request for this model can match nothing, whatever it says: 0.2 µs, and no need to read it."""
        return (tenant, namespace, model) in self._trees or (tenant, namespace, "") in self._trees

    def match(
        self,
        tenant: str,
        namespace: str,
        model: str,
        messages: Sequence[Message],
        rule: SplitRule = "off",
        *,
        live: object = None,
    ) -> Match | None:
        """The longest known context of this tenant that the messages begin with and do not end with.

        `live` marks messages as in `prefix.first_live`: no context reaches them. Pure memory; microseconds.
        """
        found: Match | None = None
        for scope in ((tenant, namespace, model), (tenant, namespace, "")) if model else ((tenant, namespace, ""),):
            tree = self._trees.get(scope)
            if tree is not None:
                other = self._walk(tree, tenant, messages, rule, live)
                if other is not None and (found is None or rank(other) > rank(found)):
                    found = other
        if found is None:
            self.lookups["miss"] += 1
            return None
        self.lookups["stale" if found.stale else "hit"] += 1
        self._known.used((tenant, found.context_id))
        if found.notes_id is not None and (notes := self._notes.get((tenant, found.notes_id))) is not None:
            return replace(found, notes=notes)
        return found

    def named(
        self,
        tenant: str,
        namespace: str,
        model: str,
        context_id: str,
        messages: Sequence[Message],
        *,
        rule: SplitRule = "off",
    ) -> Match | None:
        """The present version of a context that the client named, or `None` if there is none for this model.

        If the messages do not begin with its content, `at` and `notes_at` are 0: the notes go where the caller thinks.
        """
        known = self._known.get((tenant, context_id))
        if known is None:
            return None
        for scope, version, entry in known.versions:
            is_for_model = scope[1] == namespace and scope[2] in ("", model)
            if entry.tenant != tenant or not entry.is_present or not is_for_model or self._is_over(entry):
                continue
            split = prefix.split_question(messages, rule)
            sent = prefix.apart(messages, split) if split else messages
            at = entry.depth if _begins(self._trees[scope], sent, version.links) else 0
            found = match_of(entry, entry, at, split if split and at == len(sent) - 1 else None)
            if at == 0:
                found = replace(found, notes_at=0)
            notes = self._notes.get((tenant, entry.notes_id)) if entry.notes_id else None
            return replace(found, notes=notes)
        return None

    async def with_notes(self, match: Match) -> Match:
        """The match with its notes: from memory, or from the store at their first use. Raises `StoreError`.

        Without any if they were purged or rejected in the meantime.
        """
        if match.notes is not None or match.notes_id is None:
            return match
        notes = await self._shelf.note(match.tenant, match.notes_id)
        is_usable = notes is not None and notes.status in ("accepted", "stale")
        if notes is None or not is_usable or notes.context_id != match.notes_context_id:
            return replace(match, notes_id=None)
        if self._known.get((match.tenant, match.notes_context_id)) is not None:
            self._notes.put((match.tenant, match.notes_id), notes)
        return replace(match, notes=notes)

    async def refresh(self) -> int:
        """Learn what changed in the store since last time; returns how many contexts. Raises `StoreError`."""
        async with self._refreshing:
            latest, gone = await self._shelf.latest_change()
            if gone > self._change >= 0:
                self._clear()  # contexts were forgotten so long ago that nothing tells of it any more
            count = 0
            while self._change < latest:
                changes = await self._shelf.changes(max(self._change, 0), PAGE)
                for change in changes:
                    self._learn(change)
                count += len(changes)
                if len(changes) < PAGE:
                    self._change = max([latest, *(change.change for change in changes)])
                else:
                    self._change = changes[-1].change
                await asyncio.sleep(0)
            return count

    async def keep_fresh(self, every_s: float = 1.0) -> None:
        """Refresh for ever; while the store cannot be read, what is known stays in use."""
        outage = Outage("contexts cannot be refreshed, those known stay in use")
        while True:
            with outage.survived():
                await self.refresh()
            await self._clock.sleep(every_s)

    def _walk(
        self, tree: _Tree, tenant: str, messages: Sequence[Message], rule: SplitRule, live: object
    ) -> Match | None:
        stable = len(messages) if live is None else prefix.first_live(messages, live)
        last = max(0, min(stable, len(messages) - 1))
        through, ends = tree.through, tree.ends
        marks: list[tuple[int, bytes]] = []
        split: Split | None = None
        state = tree.seed.copy()
        link = b""
        try:
            for at, message in enumerate(islice(messages, last), 1):
                if not tree.may_go_on(link, message):
                    break
                state.update(prefix.canonical(message))
                link = state.digest()
                if link not in through:
                    break
                if link in ends:
                    marks.append((at, link))
            else:
                if rule != "off" and stable == len(messages):
                    split = prefix.split_question(messages, rule)
                if split is not None and tree.may_go_on(link, split.context):
                    state.update(prefix.canonical(split.context))
                    marks.append((split.index + 1, state.digest()))
            return self._best(tree, tenant, messages, marks, split)
        except _UNREADABLE:
            return None

    def _best(
        self, tree: _Tree, tenant: str, messages: Sequence[Message], marks: list[tuple[int, bytes]], split: Split | None
    ) -> Match | None:
        """Of the boundaries where contexts end, the last: with its notes, or those of the last one that has any."""
        deepest: Entry | None = None
        for at, link in reversed(marks):
            entry = self._usable(tree.ends.get(link, ()), tenant)
            is_split = split is not None and at == split.index + 1
            if entry is None or not (is_split or prefix.may_stand_at(messages, at)):
                continue
            if deepest is None:
                deepest = entry
                split = split if is_split else None
            if entry.notes_id is not None:
                found = match_of(deepest, entry, deepest.depth, split)
                if prefix.may_stand_at(messages, found.notes_at):
                    return found
                return replace(found, notes_at=entry.depth)
        return match_of(deepest, None, deepest.depth, split) if deepest is not None else None

    def _usable(self, entries: tuple[Entry, ...], tenant: str) -> Entry | None:
        """The best of the versions that end at a boundary: of this tenant, and not expired."""
        for entry in entries:
            if entry.tenant != tenant:
                log.error("the index holds a context of another tenant; it is not used")
            elif self._is_over(entry):
                self.lookups["expired"] += 1
            else:
                return entry
        return None

    def _is_over(self, entry: Entry) -> bool:
        return entry.expires_at is not None and entry.expires_at <= self._clock.now()

    def _clear(self) -> None:
        for name in self._known:
            self._on_dropped(*name)
        self._trees.clear()
        self._known.clear()
        self._notes.clear()
        self._change = -1

    def _learn(self, change: Change) -> None:
        name = (change.tenant, change.context_id)
        self._drop(name)
        if change.is_forgotten:
            self._on_forgotten(*name)
        if change.is_forgotten or not change.versions:
            return
        placed: list[tuple[Scope, KnownVersion, Entry]] = []
        by_version = {version.version: version for version in change.versions}
        for version in change.versions:
            if version.version != change.version and version.notes_id is None:
                continue  # nothing was written about what nobody should send any more
            scope = (change.tenant, version.namespace, version.model)
            entry = entry_of(change, version, by_version)
            self._place(scope, version, entry)
            placed.append((scope, version, entry))
        links = sum(len(version.links) for _, version, _ in placed)
        self._known.add(name, Known(tuple(placed), links))
        while self._known.links > self._max_links and len(self._known) > 1:
            self._drop(self._known.stalest())
            if not self.left_out:
                log.warning("more contexts than fit into memory: those unused for longest are not matched any more")
            self.left_out += 1

    def _place(self, scope: Scope, version: KnownVersion, entry: Entry) -> None:
        links = version.links
        tree = self._trees.get(scope)
        if tree is None:
            tree = self._trees[scope] = _Tree(prefix.seed(*scope))
        for link in links:
            tree.through[link] = tree.through.get(link, 0) + 1
        for link, size in _large(version):
            tree.large.setdefault(link, Counter())[size] += 1
        there = (*tree.ends.get(links[-1], ()), entry)
        tree.ends[links[-1]] = tuple(sorted(there, key=preference)) if len(there) > 1 else there

    def _drop(self, name: Name) -> None:
        known = self._known.pop(name)
        if known is None:
            return
        self._on_dropped(*name)
        for scope, version, entry in known.versions:
            links = version.links
            self._notes.drop((name[0], entry.notes_id or ""))
            tree = self._trees[scope]
            for link, size in _large(version):
                sizes = tree.large[link]
                sizes[size] -= 1
                if not sizes[size]:
                    del sizes[size]
                if not sizes:
                    del tree.large[link]
            for link in links:
                tree.through[link] -= 1
                if not tree.through[link]:
                    del tree.through[link]
            left = tuple(other for other in tree.ends[links[-1]] if other != entry)
            if left:
                tree.ends[links[-1]] = left
            else:
                del tree.ends[links[-1]]
            if not tree.through:
                del self._trees[scope]


def _large(version: KnownVersion) -> Iterator[tuple[bytes, int]]:
    """After which links of a version a large message follows, and how many bytes it may have at most."""
    for place, tokens in version.large:
        yield version.links[place - 1] if place else b"", 4 * tokens + 3


def _begins(tree: _Tree, messages: Sequence[Message], links: Sequence[bytes]) -> bool:
    """True if the messages go on after a context."""
    if len(messages) <= len(links) or not prefix.may_stand_at(messages, len(links)):
        return False
    try:
        before = zip((b"", *links[:-1]), messages, strict=False)
        if not all(tree.may_go_on(link, message) for link, message in before):
            return False
        return all(link == known for link, known in zip(prefix.links(tree.seed, messages), links, strict=False))
    except _UNREADABLE:
        return False
