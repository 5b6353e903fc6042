"""What requests need of the questions that were expected and of the words in notes, in memory after their first use."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from predawn.plugins.sleep.anticipation import normalised
from predawn.plugins.sleep.predictability import Guesses, words_of_all

if TYPE_CHECKING:
    from predawn.plugins.sleep.contexts import Anticipated, Notes
    from predawn.plugins.sleep.index import Match
    from predawn.plugins.sleep.shelf import Shelf

MOST_ENTRIES = 2_000
MOST_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class Recalled:
    """About one version of a context."""

    version: int
    answers: Mapping[str, Anticipated]
    """By normalised question; verified ones only."""
    guesses: Guesses
    notes_id: str
    words: frozenset[str]
    """Of the notes."""
    size: int

    def answer_to(self, question: str) -> Anticipated | None:
        return self.answers.get(normalised(question)) if self.answers else None


class Recall:
    """Bounded; what was used last stays. Told by the index when something changed."""

    def __init__(self, shelf: Shelf, most: int = MOST_ENTRIES, most_bytes: int = MOST_BYTES) -> None:
        self._shelf = shelf
        self._most = most
        self._most_bytes = most_bytes
        self._kept: OrderedDict[tuple[str, str], Recalled] = OrderedDict()
        self._changes = 0
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    async def of(self, match: Match, notes: Notes | None) -> Recalled:
        """What is known beside the notes that a match has. Asks the store the first time; raises `StoreError`."""
        key = (match.tenant, match.context_id)
        kept = self._kept.get(key)
        notes_id = notes.id if notes is not None else ""
        if kept is not None and (kept.version, kept.notes_id) == (match.version, notes_id):
            self._kept.move_to_end(key)
            return kept
        changes = self._changes
        found = await self._shelf.anticipated(match.tenant, match.context_id, match.version)
        text = notes.text if notes is not None else ""
        recalled = Recalled(
            version=match.version,
            answers={one.normalised: one for one in found if one.verified},
            guesses=Guesses(one.question for one in found),
            notes_id=notes_id,
            words=words_of_all(text),
            size=1000 + 20 * len(text) + sum(400 + 10 * len(one.question) + len(one.answer) for one in found),
        )
        if changes == self._changes:  # else it may have been forgotten meanwhile
            self._keep(key, recalled)
        return recalled

    def _keep(self, key: tuple[str, str], recalled: Recalled) -> None:
        self._remove(key)
        self._kept[key] = recalled
        self.bytes += recalled.size
        while len(self._kept) > self._most or (self.bytes > self._most_bytes and len(self._kept) > 1):
            self._remove(next(iter(self._kept)))

    def drop(self, tenant: str, context_id: str) -> None:
        """Forget what is known of a context."""
        self._changes += 1
        self._remove((tenant, context_id))

    def _remove(self, key: tuple[str, str]) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self.bytes -= kept.size
