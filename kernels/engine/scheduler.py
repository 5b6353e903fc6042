"""Which sequences hold pages, and which of them go next.

A sequence either waits and holds nothing, or is active and holds pages for all its tokens. Pages are taken as tokens
come, not for the longest possible answer; when they run out, the youngest active sequence gives all of its own back and
waits to be computed anew. Nothing can get stuck: whatever fits into the pool alone was admitted (`Engine.submit`
refuses the rest), the oldest sequence is never the one to give way while another is active, and so it always finishes.
Computing anew repeats the same arithmetic (the prompt in the same chunks, its own tokens as decode rows), so the answer
has the same bits.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import groupby, islice

from predawn.kernels.engine.kv import PAGE
from predawn.kernels.engine.pages import PagePool, pages_for
from predawn.kernels.engine.prefix import PrefixCache
from predawn.kernels.engine.sequence import Request, Sequence


class Scheduler:
    """Sequences by age, and their pages. `copy_page(source, target)` copies keys and values of one page."""

    def __init__(
        self,
        pool: PagePool,
        prefixes: PrefixCache,
        copy_page: Callable[[int, int], None],
        *,
        max_batch: int,
    ) -> None:
        self.waiting: list[Sequence] = []
        self.active: list[Sequence] = []
        self.preemptions = 0
        self._pool = pool
        self._prefixes = prefixes
        self._copy_page = copy_page
        self._max_batch = max_batch

    def __repr__(self) -> str:
        return f"<Scheduler {len(self.active)} active, {len(self.waiting)} waiting, {self._pool.free} pages free>"

    @property
    def waiting_requests(self) -> int:
        """Requests of which no choice is active."""
        return len({sequence.request.number for sequence in self.waiting} - self._active_requests())

    def queued_requests(self, more: int = 0) -> int:
        """Requests that wait longer than to the next step, even if there are pages for all; `more` if so many came."""
        return max(0, self.waiting_requests + more - (self._max_batch - len(self._active_requests())))

    def add(self, request: Request) -> None:
        """Its choices wait."""
        for sequence in request.choices:
            insort(self.waiting, sequence, key=_age)

    def remove(self, sequence: Sequence) -> None:
        """The sequence is done or no longer wanted; its pages are free at once, unless a sibling reads them too."""
        if sequence.pages:
            self.active.remove(sequence)
            self._release(sequence)
        else:
            self.waiting.remove(sequence)
        sequence.request.choices.remove(sequence)

    def admit(self) -> None:
        """Makes waiting sequences active, oldest request first, up to the first without room: none overtakes for ever.

        At most `max_batch` requests are active, so that each of them has a row in every step. A choice whose siblings
        are active delays no other request: its own goes on, and when they are done it is the oldest.
        """
        for request, choices in groupby(tuple(self.waiting), key=lambda sequence: sequence.request):
            siblings = [choice for choice in request.choices if choice.pages]
            if siblings:
                self._join(choices, siblings)
            elif len(self._active_requests()) >= self._max_batch or not self._begin(next(choices)):
                return

    def _join(self, choices: Iterator[Sequence], siblings: list[Sequence]) -> None:
        """Makes choices active beside their siblings, while there is use and room for them."""
        sibling = next((sibling for sibling in siblings if sibling.prompted), None)
        if sibling is None:
            return  # one of them is computing the prompt for all
        # One more than can decode: should all others finish in the same step, it has the prompt for those that wait.
        for choice in islice(choices, self._max_batch + 1 - len(siblings)):
            if not self._fork(choice, sibling):
                return

    def prompting(self) -> list[Sequence]:
        """Active sequences whose prompt is not computed yet, oldest first."""
        return [sequence for sequence in self.active if not sequence.prompted]

    def batch(self) -> list[Sequence]:
        """The sequences that decode now, each with a page for its next row; at most `max_batch`.

        The first choice of each request comes before the second of any, so a request of many choices starves none.
        """
        turns: Counter[int] = Counter()
        queue: list[tuple[int, tuple[int, int], Sequence]] = []
        for sequence in self.active:
            if sequence.prompted:
                queue.append((turns[sequence.request.number], sequence.age, sequence))
                turns[sequence.request.number] += 1
        chosen = [sequence for _, _, sequence in sorted(queue, key=lambda entry: entry[:2])[: self._max_batch]]
        for sequence in sorted(chosen, key=_age):
            if sequence.pages:  # an older one may have taken them
                self._grow(sequence, sequence.computed + 1)
        chosen = [sequence for sequence in chosen if sequence.pages]
        assert not any(self._pool.shared(sequence.pages[sequence.computed // PAGE]) for sequence in chosen)
        return chosen

    def stretch(self, sequence: Sequence, rows: int) -> int:
        """How many of `rows` uncomputed tokens it can have pages for, if each active sequence is to be left one."""
        while len(sequence.pages) * PAGE < sequence.computed + rows and self._pool.free > len(self.active):
            sequence.pages.append(self._pool.take())
        return min(rows, len(sequence.pages) * PAGE - sequence.computed)

    def prompt_computed(self, sequence: Sequence) -> None:
        """Lets later requests use the prompt's pages, if the request shares any."""
        self._prefixes.keep(sequence.request.chunks, sequence.pages)

    def check(self) -> None:
        """Asserts what holds between any two calls; for tests."""
        assert self.waiting == sorted(self.waiting, key=_age)
        assert self.active == sorted(self.active, key=_age)
        assert not any(sequence.pages or sequence.computed for sequence in self.waiting)
        readers = Counter(page for sequence in self.active for page in sequence.pages)
        readers.update(self._prefixes.pages())
        assert self._pool.readers() == readers
        for sequence in self.active:
            assert pages_for(max(sequence.computed, 1)) <= len(sequence.pages)
            assert not any(self._pool.shared(page) for page in sequence.pages[sequence.computed // PAGE :])

    def _active_requests(self) -> set[int]:
        return {sequence.request.number for sequence in self.active}

    def _begin(self, sequence: Sequence) -> bool:
        """Activates the first choice of a request, on pages of earlier prompts if it may; False if there is no room."""
        request = sequence.request
        known = self._prefixes.match(request.chunks)
        if not self._activate(sequence, known):
            return False
        sequence.computed = len(known) * PAGE
        if not sequence.begun:
            request.cached = sequence.computed
        return True

    def _fork(self, sequence: Sequence, sibling: Sequence) -> bool:
        """Activates a choice with the prompt of another; False if there is no room.

        Whole pages are shared. The last, partly filled one is copied at once: both write into it next.
        """
        prompt = len(sequence.request.prompt)
        whole = sibling.pages[: prompt // PAGE]
        for page in whole:
            self._pool.share(page)
        if not self._activate(sequence, whole):
            return False
        if prompt % PAGE:
            self._copy_page(sibling.pages[len(whole)], sequence.pages[len(whole)])
        sequence.computed = prompt
        return True

    def _activate(self, sequence: Sequence, known: list[int]) -> bool:
        """Takes the pages beyond the `known` ones, or drops these too. Each active sequence is left one to grow."""
        assert not sequence.pages, "active already"
        missing = pages_for(len(sequence.tokens)) - len(known)
        if not self._room(missing + len(self.active)):
            for page in known:
                self._pool.drop(page)
            return False
        sequence.pages = known + [self._pool.take() for _ in range(missing)]
        self.waiting.remove(sequence)
        insort(self.active, sequence, key=_age)
        return True

    def _grow(self, sequence: Sequence, tokens: int) -> None:
        """Pages for so many tokens. The youngest active sequences make room, which may be `sequence` itself."""
        while sequence.pages and len(sequence.pages) * PAGE < tokens:
            if self._room(1):
                sequence.pages.append(self._pool.take())
            else:
                self._preempt(self.active[-1])

    def _room(self, pages: int) -> bool:
        """Whether so many pages are free, after forgetting old prompts if need be."""
        while self._pool.free < pages:
            if not self._prefixes.evict():
                return False
        return True

    def _preempt(self, sequence: Sequence) -> None:
        self.active.remove(sequence)
        self._release(sequence)
        insort(self.waiting, sequence, key=_age)
        self.preemptions += 1

    def _release(self, sequence: Sequence) -> None:
        for page in sequence.pages:
            self._pool.drop(page)
        sequence.pages = []
        sequence.computed = 0


def _age(sequence: Sequence) -> tuple[int, int]:
    return sequence.age
