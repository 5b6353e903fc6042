"""What the index keeps within bounds: which contexts it knows, and the texts of notes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from predawn.plugins.sleep.contexts import Notes
from predawn.plugins.sleep.matches import Known, Name


class Roster:
    """Which contexts are known, tenant by tenant, those used last at the end, and how many links they take."""

    def __init__(self) -> None:
        self._tenants: dict[str, OrderedDict[str, Known]] = {}
        self._links: dict[str, int] = {}
        self.links = 0

    def __len__(self) -> int:
        return sum(map(len, self._tenants.values()))

    def __iter__(self) -> Iterator[Name]:
        return ((tenant, context_id) for tenant, own in self._tenants.items() for context_id in own)

    def get(self, name: Name) -> Known | None:
        own = self._tenants.get(name[0])
        return own.get(name[1]) if own is not None else None

    def add(self, name: Name, known: Known) -> None:
        tenant, context_id = name
        self._tenants.setdefault(tenant, OrderedDict())[context_id] = known
        self._links[tenant] = self._links.get(tenant, 0) + known.links
        self.links += known.links

    def pop(self, name: Name) -> Known | None:
        tenant, context_id = name
        own = self._tenants.get(tenant)
        known = own.pop(context_id, None) if own is not None else None
        if known is None:
            return None
        self.links -= known.links
        self._links[tenant] -= known.links
        if not own:
            del self._tenants[tenant], self._links[tenant]
        return known

    def used(self, name: Name) -> None:
        self._tenants[name[0]].move_to_end(name[1])

    def stalest(self) -> Name:
        """What to leave out first: of the tenant that takes most, the context unused for longest."""
        tenant = max(self._links, key=self._links.__getitem__)
        return tenant, next(iter(self._tenants[tenant]))

    def clear(self) -> None:
        self._tenants.clear()
        self._links.clear()
        self.links = 0


class NotesCache:
    """Texts of notes by tenant and id, those used last; never more than so many bytes."""

    def __init__(self, max_bytes: int) -> None:
        self._notes: OrderedDict[tuple[str, str], tuple[Notes, int]] = OrderedDict()
        self._max_bytes = max_bytes
        self.size = 0

    def get(self, key: tuple[str, str]) -> Notes | None:
        found = self._notes.get(key)
        if found is None:
            return None
        self._notes.move_to_end(key)
        return found[0]

    def put(self, key: tuple[str, str], notes: Notes) -> None:
        self.drop(key)
        size = len(notes.text.encode("utf-8", "replace")) + 1000
        self._notes[key] = (notes, size)
        self.size += size
        while self.size > self._max_bytes and self._notes:
            self.drop(next(iter(self._notes)))

    def drop(self, key: tuple[str, str]) -> None:
        found = self._notes.pop(key, None)
        if found is not None:
            self.size -= found[1]

    def clear(self) -> None:
        self._notes.clear()
        self.size = 0
