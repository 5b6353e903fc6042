"""The machine of verification, without any waiting: chunks and verdicts go in, what is to be done about them comes out.

One `Flow` for an answer, one `_Choice` in it for each of its choices: what was said, what was sent, which checks are
open, and a rule for what a violation does.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from predawn.plugins import Chunk
from predawn.plugins.verify.cutting import LONGEST_STEP
from predawn.plugins.verify.mending import Mending, mend
from predawn.plugins.verify.modes.holding import Held, HeldText, Holding, Span
from predawn.plugins.verify.reading import (
    REASONING,
    Key,
    Part,
    Piece,
    chunk_of,
    finish_of,
    head_of,
    one_by_one,
)
from predawn.plugins.verify.trace import EVERYTHING, Check, Trace, is_behind

if TYPE_CHECKING:
    from predawn.plugins.verify.modes.rules import Deed, Rule
    from predawn.proxy.exchange import RouteName
    from predawn.proxy.extensions import RegisteredVerifier


class Send(NamedTuple):
    """Give a chunk to the client."""

    chunk: Chunk


class Ask(NamedTuple):
    """Have a step looked at."""

    check: Check


class Drop(NamedTuple):
    """A check is of no use any more: its text is gone."""

    check: Check


class Noted(NamedTuple):
    """A violation, and what is done about it."""

    check: Check
    deed: Deed


class Kept(NamedTuple):
    """What of a call stays in the answer."""

    tokens: int = 0
    """Output tokens."""
    thoughts: int = 0
    """Those of them that are thoughts."""


class Continue(NamedTuple):
    """End the call that makes this choice, and have another one go on as `mending` says."""

    choice: int
    mending: Mending
    kept: tuple[Kept, ...]
    """Of each call that has made the choice so far: a cut may reach into the text of one that ended long ago."""


class End(NamedTuple):
    """Nothing more is wanted of this choice."""

    choice: int
    kept: tuple[Kept, ...]
    """What the client gets of each call that has made it."""


Action: TypeAlias = Send | Ask | Drop | Noted | Continue | End


class _Choice:
    """One choice on its way."""

    __slots__ = ("call", "checks", "holding", "index", "is_finished", "is_over", "marks", "members", "rule", "trace")

    def __init__(self, index: int, trace: Trace, rule: Rule, is_free: Callable[[Key], bool]) -> None:
        self.index = index
        self.trace = trace
        self.rule = rule
        self.holding = Holding(trace, is_free)
        self.checks: set[Check] = set()
        self.members: dict[str, str] = {}
        """What its upstream calls each text."""
        self.call = 0
        """Number of the call that makes it."""
        self.marks: dict[tuple[int, Key], array[int]] = {}
        """By call and text: where each chunk ended, in their order, as far as they are not cut off; a chunk is a token.
        Numbers alone, which the garbage collector need not go through."""
        self.is_finished = False
        """True once the upstream has said that it ends."""
        self.is_over = False
        """True once nothing more will be sent."""

    @property
    def has_sent(self) -> bool:
        """Whether the client has seen any text of it."""
        return any(end > 0 or key.where == "tool_call" for key, end in self.holding.sent.items())

    @property
    def called(self) -> bool:
        return any(key.where == "tool_call" for key in self.holding.sent)

    def mark(self, key: Key, *new: int) -> None:
        """Chunks of the running call have ended there."""
        ends = self.marks.get((self.call, key))
        if ends is None:
            ends = self.marks[self.call, key] = array("q")
        ends.extend(new)

    def keep(self, until: Callable[[Key], int]) -> tuple[Kept, ...]:
        """Forget the chunks that end behind `until` in their text; what is left of each call."""
        tokens, thoughts = [0] * (self.call + 1), [0] * (self.call + 1)
        for (call, key), ends in self.marks.items():
            del ends[bisect_right(ends, until(key)) :]
            tokens[call] += len(ends)
            thoughts[call] += len(ends) if key == REASONING else 0
        return tuple(map(Kept, tokens, thoughts))


class Flow:
    """Feed it `said`, `settled` and `ended`, and do what it returns, in that order."""

    def __init__(
        self,
        verifiers: Sequence[RegisteredVerifier],
        route: RouteName,
        rule: Callable[[], Rule],
        *,
        longest_step: int = LONGEST_STEP,
        holds_thoughts: bool = True,
        is_sent_early: bool = True,
        most_choices: int = 128,
        mends: Callable[[Check, Trace, int], Mending] = mend,
    ) -> None:
        self._verifiers = tuple(verifiers)
        self._route: RouteName = route
        self._rule = rule
        self._longest = longest_step
        self._mends = mends
        self._is_sent_early = is_sent_early
        """False where the client gets all at the end anyway, so that nothing of it has been sent before."""
        self._is_free: Callable[[Key], bool] = (lambda _: False) if holds_thoughts else (lambda key: key == REASONING)
        self._choices: dict[int, _Choice] = {}
        self._most_choices = most_choices
        self._open: deque[int] = deque()
        """Those that were not over when somebody last looked, and some that are."""
        self._by_check: dict[Check, _Choice] = {}
        self.head: dict[str, Any] = {}
        """What stands around the choices of the answer's first chunk: its id, model and time."""

    # -- what comes

    def said(self, part: Part) -> list[Action]:
        """A chunk of one choice came from the call that makes it. Raises `ValueError` for one too many."""
        choice = self._choice(part.choice)
        if choice.is_over or choice.is_finished:
            return []
        if len(part.pieces) + (part.finish is not None) > 1:
            return [action for one in one_by_one(part) for action in self._said(choice, one)]
        return self._said(choice, part)

    def added(self, index: int, key: Key, member: str, text: str, chunk: Chunk) -> list[Action]:
        """`said` of a chunk that only adds to one text, as nearly all do, at a third of the cost."""
        choice = self._choices.get(index)
        if choice is None or not self.head or key.where not in choice.members:
            return self.said(Part(index, (Piece(key, text, None, member),), None, chunk, True))
        if choice.is_over or choice.is_finished:
            return []
        checks, end = choice.trace.add(key, text)
        choice.mark(key, end)
        actions = self._ask(choice, checks) if checks else []
        holding = choice.holding
        if not choice.rule.holds:
            holding.sent[key] = end
            actions.append(Send(chunk))
            return actions
        if holding.add(HeldText(chunk.raw, index, key, member, text, end)):
            return actions  # what it stands behind waits for a verdict
        return actions + self._release(choice)

    def added_run(self, index: int, key: Key, member: str, texts: Sequence[str], raws: Sequence[bytes]) -> list[Action]:
        """`added` of several chunks, which came together: their text is cut into steps once."""
        choice = self._choices.get(index)
        if choice is None or not self.head or key.where not in choice.members or not choice.rule.holds:
            each = zip(texts, raws, strict=True)
            return [action for text, raw in each for action in self.added(index, key, member, text, Chunk(raw))]
        if choice.is_over or choice.is_finished:
            return []
        ends = list(accumulate(map(len, texts), initial=choice.trace.length(key)))[1:]
        checks, _ = choice.trace.add(key, "".join(texts))
        choice.mark(key, *ends)
        actions = self._ask(choice, checks) if checks else []
        holding = choice.holding
        is_behind = len(holding) > 0
        for raw, text, end in zip(raws, texts, ends, strict=True):
            holding.add(HeldText(raw, index, key, member, text, end))
        return actions if is_behind else actions + self._release(choice)  # else what it stands behind waits

    def goes_on(self, index: int, key: Key) -> bool:
        """Whether more of a text may be sent before it is read. `came` must be told of it before anything else is."""
        choice = self._choices.get(index)
        if choice is None or choice.rule.holds or choice.is_over or choice.is_finished:
            return False
        return key in choice.holding.sent

    def came(self, index: int, key: Key, texts: Sequence[str]) -> list[Action]:
        """Chunks that only add to one text came, and were sent because it `goes_on`."""
        choice = self._choices[index]
        ends = list(accumulate(map(len, texts), initial=choice.trace.length(key)))[1:]
        checks, end = choice.trace.add(key, "".join(texts))
        choice.mark(key, *ends)
        choice.holding.sent[key] = end
        return self._ask(choice, checks)

    def _said(self, choice: _Choice, part: Part) -> list[Action]:
        """One piece of a text, or the end."""
        if not self.head:
            self.head = head_of(part.chunk)
        spans: list[Span] = []
        checks: list[Check] = []
        for piece in part.pieces:
            start = choice.trace.length(piece.key)
            checks += choice.trace.feed(piece)
            end = start + len(piece.text)
            spans.append(Span(piece.key, start, end))
            if piece.member:  # else it is a gap that nobody wrote
                choice.mark(piece.key, end)
                choice.members[piece.key.where] = piece.member
        if part.finish is not None:
            choice.is_finished = True
            checks += choice.trace.close()
        actions = self._ask(choice, checks)
        if not choice.rule.holds:
            for span in spans:
                choice.holding.sent[span.key] = span.end
            if part.finish is not None and choice.checks:
                choice.holding.add(Held(part, ()))  # how it ends depends on what is still being looked at
                return actions
            actions.append(Send(part.chunk))
            choice.is_over = choice.is_finished and not choice.checks
            return actions
        choice.holding.add(Held(part, tuple(spans)))
        if len(choice.holding) > 1 and not choice.is_finished:
            return actions  # what it stands behind waits for a verdict
        return actions + self._release(choice)

    def settled(self, check: Check) -> list[Action]:
        """A verdict has come."""
        choice = self._by_check.pop(check, None)
        if choice is None or check.is_stale or check.verdict is None:
            return []
        choice.checks.discard(check)
        if choice.is_over:
            return []
        if check.verdict.outcome != "violation":
            check.group.settled(check.cut.index)
            return self._release(choice)
        deed = choice.rule.violated(is_sent=choice.has_sent)
        actions: list[Action] = [Noted(check, deed)]
        if deed == "flag":
            check.group.settled(check.cut.index)
            return actions + self._release(choice)
        if deed == "stop":
            return actions + self._stop(choice, check)
        return actions + (self._rewrite(choice, check) if deed == "rewrite" else self._retry(choice, check))

    def ended(self, index: int) -> list[Action]:
        """The call that makes a choice is over; where it did not say so itself, its last steps are cut now."""
        choice = self._choices.get(index)
        if choice is None or choice.is_finished or choice.is_over:
            return []
        choice.is_finished = True
        actions = self._ask(choice, choice.trace.close())
        return actions + self._release(choice)

    # -- what is known

    @property
    def choices(self) -> list[int]:
        return list(self._choices)

    @property
    def is_over(self) -> bool:
        """True once everything that came was sent or given up, and no verdict is missing."""
        while self._open and self._choices[self._open[0]].is_over:
            self._open.popleft()
        return not self._open

    def is_open(self, index: int) -> bool:
        """Whether a call that makes this choice should go on."""
        choice = self._choices.get(index)
        return choice is None or not (choice.is_over or choice.is_finished)

    def thoughts_of(self, index: int) -> int:
        """Tokens of thoughts that the running call has brought to a choice."""
        choice = self._choices.get(index)
        if choice is None:
            return 0
        return len(choice.marks.get((choice.call, REASONING), ()))

    def trace_of(self, index: int) -> Trace | None:
        """What was said in a choice."""
        choice = self._choices.get(index)
        return choice.trace if choice is not None else None

    # -- what is done

    def _choice(self, index: int) -> _Choice:
        choice = self._choices.get(index)
        if choice is None:
            if len(self._choices) >= self._most_choices:
                raise ValueError("it gave more choices than it was asked for")
            trace = Trace(self._verifiers, index, longest_step=self._longest)
            choice = self._choices[index] = _Choice(index, trace, self._rule(), self._is_free)
            self._open.append(index)
        return choice

    def _ask(self, choice: _Choice, checks: list[Check]) -> list[Action]:
        for check in checks:
            choice.checks.add(check)
            self._by_check[check] = choice
        return [Ask(check) for check in checks]

    def _release(self, choice: _Choice) -> list[Action]:
        sent: list[Action] = []
        if not choice.rule.holds and choice.checks:
            return sent
        if self._is_sent_early or (choice.is_finished and choice.trace.is_verified):
            sent = [Send(chunk) for chunk in choice.holding.release()]
        if choice.is_finished and not choice.checks and not len(choice.holding):
            choice.is_over = True
        return sent

    def _drop(self, choice: _Choice, is_gone: Callable[[Check], bool]) -> list[Action]:
        gone = [check for check in choice.checks if is_gone(check)]
        for check in gone:
            choice.checks.discard(check)
            self._by_check.pop(check, None)
        return [Drop(check) for check in gone]

    def _stop(self, choice: _Choice, check: Check) -> list[Action]:
        """Say why it ends here. Nobody is told what was wrong: that may be what must not be said."""
        actions = self._drop(choice, lambda _: True)
        choice.is_over = True
        last = [] if self._is_sent_early else [Send(chunk) for chunk in choice.holding.release()]
        last += [Send(held.part.chunk) for held in choice.holding.clear()]
        why = {"stopped_by": check.verifier.name, "where": check.key.where, "step": check.cut.index}
        finish = finish_of(self.head, choice.index, "content_filter", self._route, predawn=why)
        sent = choice.holding.sent
        kept = choice.keep(lambda key: sent.get(key, 0))
        return [*actions, End(choice.index, kept), *last, Send(finish)]

    def _rewrite(self, choice: _Choice, check: Check) -> list[Action]:
        mending = self._mends(check, choice.trace, choice.holding.sent.get(check.key, 0))
        key, at = mending.key, mending.at
        if key.where == "tool_call" and choice.called:  # a call that the client has cannot be taken back
            return self._stop(choice, check)
        actions = self._drop(choice, lambda one: is_behind(one.key, key) or (one.key == key and one.cut.end > at))
        stays = at if key.where != "tool_call" else -1
        kept = choice.keep(lambda one: -1 if is_behind(one, key) else stays if one == key else EVERYTHING)
        choice.call += 1
        choice.is_finished = False
        choice.trace.cut(key, at)
        choice.holding.cut(key, at)
        check.group.settled(check.cut.index)  # where the step itself stays
        if mending.insert:
            member = choice.members.get(key.where) or ("text" if self._route == "completions" else key.where)
            chunk = chunk_of(self.head, choice.index, member, mending.insert)
            actions += self.said(Part(choice.index, (Piece(key, mending.insert, None, member),), None, chunk, True))
            choice.marks.pop((choice.call, key), None)  # no model wrote it
        actions.append(Continue(choice.index, mending, kept))
        return actions + self._release(choice)

    def _retry(self, choice: _Choice, check: Check) -> list[Action]:
        """Begin again, and tell the model what was wrong."""
        actions = self._drop(choice, lambda _: True)
        trace = Trace(self._verifiers, choice.index, longest_step=self._longest)
        again = self._choices[choice.index] = _Choice(choice.index, trace, choice.rule, self._is_free)
        again.members, again.call = choice.members, choice.call + 1
        for held in choice.holding.clear():
            again.holding.add(held)
        mending = Mending(check.key, 0, note=check.verdict.feedback if check.verdict else "", is_retry=True)
        return [*actions, Continue(choice.index, mending, (Kept(),) * again.call)]
