"""Beginnings that requests have in common, found without asking: counted by digest, never kept as text.

Memory is bounded twice: so many digests per tenant, so that one tenant cannot push out another's, and so many in all.
Whoever has not come back for longest is forgotten first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeAlias

from predawn.plugins.sleep import prefix
from predawn.plugins.sleep.contexts import Message, SplitRule
from predawn.plugins.sleep.drafts import Draft

_UNREADABLE = (RecursionError, UnicodeEncodeError, TypeError, AttributeError)


@dataclass(slots=True)
class _Seen:
    count: int
    at: float


_Counts: TypeAlias = "OrderedDict[bytes, _Seen]"


@dataclass(slots=True)
class Discovery:
    """Finds prefixes of at least `min_tokens` that came `min_uses` times within `window_s`."""

    min_tokens: int = 1024
    min_uses: int = 3
    window_s: float = 7 * 86_400.0
    max_per_tenant: int = 20_000
    max_prefixes: int = 200_000
    max_bytes: int = 1 << 20
    """No prefix goes on beyond; what comes after is not even hashed."""
    max_messages: int = 1000
    _tenants: OrderedDict[str, _Counts] = field(default_factory=OrderedDict[str, "_Counts"])
    _size: int = 0

    def __len__(self) -> int:
        """How many prefixes are counted."""
        return self._size

    def saw(
        self,
        tenant: str,
        namespace: str,
        model: str,
        messages: Sequence[Message],
        *,
        now: float,
        rule: SplitRule = "off",
        live: object = None,
        known_at: int = 0,
    ) -> Draft | None:
        """Count a request's prefixes; returns the longest that has come often enough, at most one per request.

        `known_at` says how much of the request a context covers already (`Match.at`): what goes on from there must have
        `min_tokens` of its own, so that a growing conversation does not become a context with every turn. What is live
        is never looked at. Takes as long as hashing `max_bytes` of the request does: call it off the critical path.
        """
        try:
            stable = _stable(messages, rule, live)
            return self._saw(tenant, namespace, model, stable, now=now, known_at=known_at)
        except _UNREADABLE:
            return None

    def _saw(
        self, tenant: str, namespace: str, model: str, messages: Sequence[Message], *, now: float, known_at: int
    ) -> Draft | None:
        counts = self._of(tenant)
        tokens = known_tokens = size = 0
        came: list[tuple[int, bytes]] = []
        found: int | None = None
        state = prefix.seed(tenant, namespace, model)
        for at, message in enumerate(islice(messages, min(self.max_messages, max(0, len(messages) - 1))), 1):
            if size + prefix.least_bytes(message) > self.max_bytes:
                break
            encoded = prefix.canonical(message)
            size += len(encoded)
            if size > self.max_bytes:
                break
            state.update(encoded)
            tokens += max(1, len(encoded) // 4)
            if at <= known_at:
                known_tokens = tokens
            elif tokens - known_tokens >= self.min_tokens and prefix.may_stand_at(messages, at):
                link = state.digest()
                came.append((at, link))
                if self._count(counts, link, now) >= self.min_uses:
                    found = at
        self._keep_bounds(counts)
        if found is None:
            return None
        for at, link in came:
            if at <= found and counts.pop(link, None) is not None:
                self._size -= 1  # it is told of once, and what it begins with is part of it; all have to come again
        return Draft.of(tenant, messages[:found], source="discovered", model=model, namespace=namespace)

    def _of(self, tenant: str) -> _Counts:
        counts = self._tenants.get(tenant)
        if counts is None:
            counts = self._tenants[tenant] = OrderedDict()
        self._tenants.move_to_end(tenant)
        return counts

    def _count(self, counts: _Counts, link: bytes, now: float) -> int:
        seen = counts.get(link)
        if seen is None:
            counts[link] = _Seen(1, now)
            self._size += 1
            return 1
        counts.move_to_end(link)
        seen.count = seen.count + 1 if now - seen.at <= self.window_s else 1
        seen.at = now
        return seen.count

    def _keep_bounds(self, counts: _Counts) -> None:
        while len(counts) > self.max_per_tenant:
            counts.popitem(last=False)
            self._size -= 1
        while self._size > self.max_prefixes:
            tenant, oldest = next(iter(self._tenants.items()))
            if oldest:
                oldest.popitem(last=False)
                self._size -= 1
            if not oldest:
                del self._tenants[tenant]


def _stable(messages: Sequence[Message], rule: SplitRule, live: object) -> Sequence[Message]:
    """What may be looked at, and one message more: the question, or what is live."""
    stable = len(messages) if live is None else prefix.first_live(messages, live)
    if stable < len(messages):
        return messages[: stable + 1]
    split = prefix.split_question(messages, rule)
    return prefix.apart(messages, split) if split is not None else messages
