"""What the index knows of a context, and what it finds for a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from predawn.plugins.sleep.contexts import Notes
from predawn.plugins.sleep.prefix import Split

if TYPE_CHECKING:
    from predawn.plugins.sleep.shelf_contexts import Change, KnownVersion

Scope: TypeAlias = tuple[str, str, str]
"""Tenant, namespace and model."""
Name: TypeAlias = tuple[str, str]
"""Tenant and id."""


class Entry(NamedTuple):
    """One version of a context, at the boundary where it ends."""

    tenant: str
    context_id: str
    version: int
    depth: int
    """How many messages it has."""
    tokens: int
    notes_id: str | None
    """Its own notes, or those of an earlier version that it continues."""
    notes_version: int
    notes_depth: int
    """How many messages those notes are about."""
    expires_at: float | None
    is_present: bool
    """False for an earlier version, which clients may still send."""


@dataclass(frozen=True, slots=True)
class Match:
    """The longest known context that a request begins with, and the best notes there are for it.

    Positions count messages; where `split` is set, in `prefix.apart(messages, split)`, which has one more.
    """

    tenant: str
    context_id: str
    version: int
    at: int
    """How many messages the context covers; 0 if the client named a context whose content it did not send."""
    tokens: int
    notes_id: str | None = None
    """Notes that may be used; of this context, or of a shorter one that it continues."""
    notes_context_id: str = ""
    notes_version: int = 0
    notes_at: int = 0
    """After how many messages the notes belong."""
    stale: bool = False
    """True if the notes were made before the context was what it is now."""
    split: Split | None = None
    """Set where the last covered part is only the beginning of the request's last message."""
    notes: Notes | None = None
    """The notes themselves, if they are in memory; `Index.with_notes` gets them in any case."""


class Known(NamedTuple):
    """What is in the trees of one context, to be taken out again."""

    versions: tuple[tuple[Scope, KnownVersion, Entry], ...]
    links: int


def entry_of(change: Change, version: KnownVersion, by_version: Mapping[int, KnownVersion]) -> Entry:
    """The version, with its own notes or those of the latest version that it continues."""
    noted: KnownVersion | None = version
    while noted is not None and noted.notes_id is None:
        noted = by_version.get(noted.base_version or 0)
    return Entry(
        tenant=change.tenant,
        context_id=change.context_id,
        version=version.version,
        depth=len(version.links),
        tokens=version.tokens,
        notes_id=noted.notes_id if noted is not None else None,
        notes_version=noted.version if noted is not None else 0,
        notes_depth=len(noted.links) if noted is not None else 0,
        expires_at=change.expires_at if change.source == "registered" else None,
        is_present=version.version == change.version,
    )


def preference(entry: Entry) -> tuple[bool, bool, bool, str]:
    """Of contexts with one content: those with notes, notes of their own, the present version; then by name."""
    return entry.notes_id is None, entry.notes_version != entry.version, not entry.is_present, entry.context_id


def rank(match: Match) -> tuple[int, bool, int]:
    return match.at, match.notes_id is not None, match.notes_at


def match_of(deepest: Entry, noted: Entry | None, at: int, split: Split | None) -> Match:
    if noted is None:
        return Match(deepest.tenant, deepest.context_id, deepest.version, at, deepest.tokens, split=split)
    is_own = noted is deepest and noted.notes_version == deepest.version
    return Match(
        tenant=deepest.tenant,
        context_id=deepest.context_id,
        version=deepest.version,
        at=at,
        tokens=deepest.tokens,
        notes_id=noted.notes_id,
        notes_context_id=noted.context_id,
        notes_version=noted.notes_version,
        notes_at=noted.notes_depth,
        stale=noted.notes_id is not None and not is_own,
        split=split,
    )
