"""Drafts from what was said before: text that repeats itself is decoded several tokens at a time.

The last few tokens are looked up among all earlier places of prompt and answer; what followed there is the draft
(prompt lookup decoding). A draft is verified as further rows of the sequence's next decode step, so a wrong one costs
time and never changes a token.
"""

from __future__ import annotations

from collections.abc import Iterable

LONGEST, SHORTEST = 4, 2
"""Lengths of the n-grams, longest tried first. Single tokens are not worth a row: most of their drafts are wrong."""
MOST_DRAFT = 15
"""With its own token a lone sequence then fills a batch of 16."""


class Lookup:
    """The n-grams of one sequence, and how far its drafts have been right lately.

    Grows by `push`, a few dictionary writes per token; `draft` is a few reads.
    """

    def __init__(self, tokens: Iterable[int] = ()) -> None:
        self._tokens: list[int] = []
        self._follower: dict[tuple[int, ...], int] = {}
        """Where the text went on after the latest place of an n-gram that is not the end."""
        self._length = 4
        for token in tokens:
            self.push(token)

    def push(self, token: int) -> None:
        """The sequence goes on with `token`."""
        place = len(self._tokens)
        for size in range(SHORTEST, min(LONGEST, place) + 1):
            self._follower[tuple(self._tokens[-size:])] = place
        self._tokens.append(token)

    def draft(self, most: int) -> list[int]:
        """At most `most` tokens that may come next."""
        most = min(most, self._length)
        for size in range(min(LONGEST, len(self._tokens)), SHORTEST - 1, -1):
            place = self._follower.get(tuple(self._tokens[-size:]))
            if place is not None and most > 0:
                return self._copy(place, most)
        return []

    def _copy(self, place: int, count: int) -> list[int]:
        """The tokens from `place` on; where they run into the end, the draft repeats itself, as a loop would."""
        period = len(self._tokens) - place
        return [self._tokens[place + step % period] for step in range(count)]

    def judge(self, drafted: int, accepted: int) -> None:
        """Drafts grow while they are right and shrink to what was right when they are not."""
        if accepted == drafted:
            self._length = min(MOST_DRAFT, max(self._length, 2 * drafted))
        else:
            self._length = max(2, accepted + 1)
