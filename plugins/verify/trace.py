"""One choice of an answer as verifiers see it: its texts, the steps cut from them, and how far they are verified."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from predawn.plugins.verify.cutting import LONGEST_STEP, cutter, name_of
from predawn.plugins.verify.reading import CONTENT, REASONING, Key, Piece
from predawn.proxy.extensions import Step
from predawn.proxy.wire.fold import merge

if TYPE_CHECKING:
    from predawn.proxy.exchange import Verdict
    from predawn.proxy.extensions import Boundary, Channel, RegisteredVerifier

EVERYTHING: Final = 1 << 62
"""How far a text is verified that nobody reads."""
BLOCK: Final = 1 << 13
"""Characters that are joined once and then left as they are."""


class _StepOf(Step):
    """A step of a text: what stands before it is copied for the first who reads it. Many verifiers never do."""

    __slots__ = ("_said",)

    @classmethod
    def of(cls, cut: Cut) -> Step:
        said, call = cut.text, cut.call
        text = said.between(cut.start, cut.end)
        if call is not None:
            call = {**call, "function": {**call["function"], "arguments": said.between(0, cut.end)}}
        where, index, is_last = cut.key.where, cut.index, cut.is_last
        made = cls(text, where, cut.boundary, cut.start, cut.end, "", cut.choice, index, call, is_last)
        object.__delattr__(made, "before")
        object.__setattr__(made, "_said", said.until(cut.start))  # as it is now: a thread may read it later
        return made

    def __getattr__(self, name: str) -> Any:
        if name != "before":
            raise AttributeError(name)
        said: Callable[[], str] | None = self._said
        if said is None:  # another thread was faster
            return object.__getattribute__(self, "before")
        object.__setattr__(self, "before", said())
        object.__setattr__(self, "_said", None)
        return object.__getattribute__(self, "before")


@dataclass(slots=True, eq=False)
class Cut:
    """Where a step lies. Thousands may wait to be looked at, so the step itself is made for the first who does."""

    text: Text
    key: Key
    boundary: str
    start: int
    end: int
    choice: int
    index: int
    is_last: bool
    call: Mapping[str, Any] | None = None
    """The tool call without its arguments, which are the text."""
    _step: Step | None = field(default=None, repr=False)

    @property
    def step(self) -> Step:
        if self._step is None:
            self._step = _StepOf.of(self)
        return self._step

    def forget(self) -> None:
        """Let go of the step, which may hold the whole text; who wants it again gets another one."""
        self._step = None


@dataclass(slots=True, eq=False)
class Check:
    """One verifier's look at one step."""

    verifier: RegisteredVerifier
    cut: Cut
    group: Group
    verdict: Verdict | None = None
    why: str = ""
    """Why there is no word of the verifier's own: `timeout`, `error` or `shed`."""
    is_stale: bool = False
    """True once its text is gone; nobody wants to know any more."""
    began_s: float = 0.0
    ended_s: float = 0.0

    @property
    def key(self) -> Key:
        return self.cut.key

    @property
    def step(self) -> Step:
        return self.cut.step


class Group:
    """The verifiers of a text that share a boundary, and how far all of them are content."""

    __slots__ = (
        "_base",
        "_ends",
        "_longest",
        "_settled",
        "_waiting",
        "boundary",
        "cutter",
        "name",
        "start",
        "verified",
        "verifiers",
    )

    def __init__(self, boundary: Boundary, verifiers: Sequence[RegisteredVerifier], longest: int) -> None:
        self.boundary: Boundary = boundary
        self.name = name_of(boundary)
        self.verifiers = tuple(verifiers)
        self.cutter = cutter(boundary, longest)
        self.start = 0
        """Where the open step begins."""
        self.verified = 0
        self._longest = longest
        self._base = 0
        """Where the cutter began."""
        self._ends = array("q")
        self._waiting: dict[int, int] = {}
        """Steps that are not verified yet, and how many checks they wait for. Numbers alone: hostile text may have a
        quarter of a million, which the garbage collector need not go through."""
        self._settled = 0
        """How many steps from the first on are verified."""

    def feed(self, piece: str) -> list[int]:
        """Ends of steps that are known now, in the channel."""
        base, ends = self._base, self.cutter.feed(piece)
        return [base + end for end in ends] if base and ends else ends

    def cut_step(self, end: int) -> tuple[int, int]:
        """The open step ends; its beginning and its number."""
        start, index = self.start, len(self._ends)
        self._waiting[index] = len(self.verifiers)
        self._ends.append(end)
        self.start = end
        return start, index

    def settled(self, index: int) -> None:
        """One check of a step is over, and it may stand."""
        waiting, ends = self._waiting, self._ends
        if index not in waiting:
            return
        waiting[index] -= 1
        if waiting[index] > 0:
            return
        del waiting[index]
        while self._settled < len(ends) and self._settled not in waiting:
            self.verified = ends[self._settled]
            self._settled += 1

    @property
    def is_settled(self) -> bool:
        return not self._waiting

    def go_back(self, text: str) -> None:
        """The channel has been cut to `text`: steps that do not end in it are forgotten, and the open one goes on."""
        at = len(text)
        del self._ends[bisect_right(self._ends, at) :]
        self._waiting = {index: left for index, left in self._waiting.items() if index < len(self._ends)}
        self._settled = min(self._settled, len(self._ends))
        self.restart(self._ends[-1] if self._ends else 0)
        self.cutter.feed(text[self.start :])
        self.verified = min(self.verified, at)

    def restart(self, at: int) -> None:
        """Begin a step at `at`."""
        self.cutter = cutter(self.boundary, self._longest)
        self.start = self._base = at


class Text:
    """A text that grows. Its steps are read without joining all of it, which for each of them would be quadratic."""

    __slots__ = ("_begins", "_blocks", "_last", "_new", "length")

    def __init__(self) -> None:
        self._blocks: list[str] = []
        """What stands before `_last`. It only grows, so that what was there can be read later, in a thread even."""
        self._begins = array("q", [0])
        """Where each block begins in the text, and `_last` behind them."""
        self._last = ""
        self._new: list[str] = []
        """What came since somebody read."""
        self.length = 0

    def add(self, piece: str) -> None:
        self._new.append(piece)
        self.length += len(piece)

    def cut(self, at: int) -> None:
        self._last = self.between(0, at)
        self._new.clear()
        self._blocks, self._begins = [], array("q", [0])
        self.length = len(self._last)

    def between(self, start: int, end: int) -> str:
        """A part of it; costs as much as that is long."""
        self._join()
        begins = self._begins
        if start >= begins[-1]:
            return self._last[start - begins[-1] : end - begins[-1]]
        first = bisect_right(begins, start) - 1
        behind = bisect_left(begins, end)
        parts = [*self._blocks[first:behind], self._last] if behind > len(self._blocks) else self._blocks[first:behind]
        return "".join(parts)[start - begins[first] : end - begins[first]]

    def until(self, end: int) -> Callable[[], str]:
        """Reads what stands before `end` as it is now, whatever becomes of the text, once it is called."""
        self._join()
        count = bisect_left(self._begins, end)
        last = self._last if count > len(self._blocks) else ""
        return partial(_joined, self._blocks, count, last, end)

    @property
    def text(self) -> str:
        return self.between(0, self.length)

    def _join(self) -> None:
        if self._new:
            self._last += "".join(self._new)
            self._new.clear()
            if len(self._last) >= BLOCK:
                self._blocks.append(self._last)
                self._begins.append(self.length)
                self._last = ""


def _joined(blocks: list[str], count: int, last: str, end: int) -> str:
    return "".join([*blocks[:count], last])[:end]


class _Channel:
    """One text of the choice and who reads it."""

    __slots__ = ("call", "groups", "is_closed", "key", "text")

    def __init__(self, key: Key, groups: list[Group]) -> None:
        self.key = key
        self.text = Text()
        self.groups = groups
        self.is_closed = False
        self.call: dict[str, Any] = {}

    @property
    def verified(self) -> int:
        """Up to where every verifier is content; of a tool call that is all or nothing."""
        groups = self.groups
        if not groups or (self.is_closed and all(group.is_settled for group in groups)):
            return EVERYTHING
        if self.key.where == "tool_call":
            return -1
        return groups[0].verified if len(groups) == 1 else min(group.verified for group in groups)


class Trace:
    """Feed it what is said; it returns the checks that come of it."""

    def __init__(
        self, verifiers: Sequence[RegisteredVerifier], choice: int = 0, *, longest_step: int = LONGEST_STEP
    ) -> None:
        self.choice = choice
        self._longest = longest_step
        self._thinks_again = False
        """True while there are thoughts after something else was said."""
        self._channels: dict[Key, _Channel] = {}
        self._growing: dict[Key, _Channel] = {}
        """Those of them that are not closed: few, however many tools are called."""
        self._readers: dict[Channel, dict[Boundary, list[RegisteredVerifier]]] = {}
        for verifier in verifiers:
            for where in verifier.reads:
                if where == "tool_call" or verifier.boundary != "tool_call":
                    self._readers.setdefault(where, {}).setdefault(verifier.boundary, []).append(verifier)

    def feed(self, piece: Piece) -> list[Check]:
        """Add a piece of text. Thoughts are over once something is said, and a tool call once another one begins."""
        channel = self._channels.get(piece.key)
        checks: list[Check] = []
        if channel is None:
            checks = self._close_before(piece.key)
            channel = self._open(piece.key)
        else:
            if self._thinks_again and piece.key != REASONING:
                checks = self._close_before(piece.key)
                self._thinks_again = False
            if channel.is_closed and (piece.text or _says_more(channel.call, piece.call)):
                self._reopen(channel)
        if piece.call is not None:
            _add_call(channel.call, piece.call)
        text = piece.text
        if text:
            channel.text.add(text)
            for group in channel.groups:
                for end in group.feed(text):
                    checks += self._step(channel, group, end, is_last=False)
        return checks

    def add(self, key: Key, text: str) -> tuple[list[Check], int]:
        """`feed` of a piece that is no tool call's, at half the cost where its text is growing already.

        It also tells how long the text is now.
        """
        channel = self._channels.get(key)
        if channel is None or channel.is_closed or self._thinks_again:
            return self.feed(Piece(key, text)), self.length(key)
        channel.text.add(text)
        checks: list[Check] = []
        for group in channel.groups:
            for end in group.feed(text):
                checks += self._step(channel, group, end, is_last=False)
        return checks, channel.text.length

    def close(self) -> list[Check]:
        """The choice is over: its last steps."""
        checks: list[Check] = []
        if "content" in self._readers and CONTENT not in self._channels and not self._calls_tools:
            self._open(CONTENT)
        for channel in self._channels.values():
            checks += self._close(channel)
        return checks

    def verified(self, key: Key) -> int:
        """Up to where a text is verified; `EVERYTHING` where nobody reads it, or it has ended and all of it is."""
        channel = self._channels.get(key)
        return channel.verified if channel is not None else EVERYTHING

    @property
    def is_verified(self) -> bool:
        """True once everything said so far is verified."""
        return all(channel.verified == EVERYTHING for channel in self._channels.values())

    @property
    def thoughts_are_verified(self) -> bool:
        channel = self._channels.get(REASONING)
        return channel is None or channel.verified == EVERYTHING

    def text(self, key: Key) -> str:
        channel = self._channels.get(key)
        return channel.text.text if channel is not None else ""

    def length(self, key: Key) -> int:
        channel = self._channels.get(key)
        return channel.text.length if channel is not None else 0

    def text_up_to(self, check: Check) -> tuple[str, str]:
        """Thoughts and content as they were at the end of a check's step."""
        step = check.step
        said = step.before + step.text
        if check.key == REASONING:
            return said, ""
        return self.text(REASONING), said if check.key == CONTENT else self.text(CONTENT)

    @property
    def calls(self) -> dict[int, Mapping[str, Any]]:
        """The tool calls as far as they came, by index."""
        return {key.part: _whole_call(one) for key, one in self._channels.items() if key.where == "tool_call"}

    @property
    def _calls_tools(self) -> bool:
        return any(key.where == "tool_call" for key in self._channels)

    def cut(self, key: Key, at: int) -> None:
        """Forget what was said after `at` in one text, and the texts that follow it; a tool call goes as a whole."""
        for other in list(self._channels):
            if is_behind(other, key) or (other == key and key.where == "tool_call"):
                del self._channels[other]
                self._growing.pop(other, None)
        kept = self._channels.get(key)
        if kept is None:
            return
        kept.text.cut(at)
        kept.is_closed = False
        self._growing[key] = kept
        for group in kept.groups:
            group.go_back(kept.text.text)

    def _open(self, key: Key) -> _Channel:
        readers = self._readers.get(key.where, {})
        groups = [Group(boundary, verifiers, self._longest) for boundary, verifiers in readers.items()]
        channel = self._channels[key] = self._growing[key] = _Channel(key, groups)
        return channel

    def _reopen(self, channel: _Channel) -> None:
        """More comes of a text that was thought to be over."""
        channel.is_closed = False
        self._growing[channel.key] = channel
        self._thinks_again = self._thinks_again or channel.key == REASONING
        for group in channel.groups:
            group.restart(channel.text.length)

    def _close_before(self, key: Key) -> list[Check]:
        checks: list[Check] = []
        for other in tuple(self._growing.values()):
            if other.key == REASONING or (key.where == "tool_call" and other.key.where == "tool_call"):
                checks += self._close(other)
        return checks

    def _close(self, channel: _Channel) -> list[Check]:
        if channel.is_closed:
            return []
        channel.is_closed = True
        del self._growing[channel.key]
        length = channel.text.length
        return [check for group in channel.groups for check in self._step(channel, group, length, is_last=True)]

    def _step(self, channel: _Channel, group: Group, end: int, *, is_last: bool) -> list[Check]:
        """The checks of the open step, which ends at `end`."""
        start, index = group.cut_step(end)
        call = _call(channel) if is_last and channel.key.where == "tool_call" else None
        cut = Cut(channel.text, channel.key, group.name, start, end, self.choice, index, is_last, call)
        return [Check(verifier, cut, group) for verifier in group.verifiers]


_ORDER: Mapping[Channel, int] = {"reasoning": 0, "content": 1, "tool_call": 2}


def is_behind(one: Key, other: Key) -> bool:
    """Whether a text follows another one, so that it may build upon it."""
    return (_ORDER[one.where], one.part) > (_ORDER[other.where], other.part)


def _says_more(call: Mapping[str, Any], delta: Mapping[str, Any] | None) -> bool:
    """Whether a delta changes a tool call besides its arguments: the name of one that was verified, say."""
    if delta is None:
        return False
    changed = deepcopy(dict(call))
    _add_call(changed, delta)
    return changed != call


def _add_call(call: dict[str, Any], delta: Mapping[str, Any]) -> None:
    """What a delta says of a tool call besides its arguments, which are a text of their own.

    A custom tool is called as a function with the type `custom`, as verifiers know it from `/v1/responses`.
    """
    said = {name: value for name, value in delta.items() if name not in ("index", "function", "custom")}
    function = delta.get("function", delta.get("custom"))
    if isinstance(function, Mapping):
        named = {name: value for name, value in function.items() if name not in ("arguments", "input")}
        if named:
            said["function"] = named
    merge(call, said)


def _call(channel: _Channel) -> dict[str, Any]:
    """What is known of a tool call besides its arguments."""
    function = channel.call.get("function")
    return {**channel.call, "function": dict(function) if isinstance(function, dict) else {}}


def _whole_call(channel: _Channel) -> Mapping[str, Any]:
    call = _call(channel)
    call["function"]["arguments"] = channel.text.text
    return call
