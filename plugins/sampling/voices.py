"""One sample on its way, and what can be said of it so far."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

from predawn.plugins.sampling.strategies.protocol import Sample
from predawn.plugins.sampling.strategies.tally import hedges_in
from predawn.plugins.sampling.streaming import Growth

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping, Sequence

    from predawn.plugins import Extracted, Verdict
    from predawn.plugins.calls import HeardChoice, SideCall, TokenLogprob

State: TypeAlias = Literal["waiting", "running", "finished", "cancelled", "failed"]
WINDOW: Final = 32
"""Tokens whose mean log-probability is a group confidence. DeepConf takes 2,048 of very long thoughts."""


class Curve:
    """Mean and worst window of a growing list of log-probabilities; each token is looked at once."""

    __slots__ = ("_count", "_sum", "_window", "_window_sum", "worst")

    def __init__(self) -> None:
        self._count = 0
        self._sum = 0.0
        self._window: deque[float] = deque()
        self._window_sum = 0.0
        self.worst: float | None = None

    def read(self, tokens: Sequence[TokenLogprob] | None) -> None:
        """Take in what is new since the last time."""
        for token in (tokens or ())[self._count :]:
            value = max(token.logprob, -100.0)
            self._count += 1
            self._sum += value
            self._window.append(value)
            self._window_sum += value
            if len(self._window) > WINDOW:
                self._window_sum -= self._window.popleft()
            if len(self._window) == WINDOW:
                mean = self._window_sum / WINDOW
                self.worst = mean if self.worst is None else min(self.worst, mean)

    @property
    def mean(self) -> float | None:
        return self._sum / self._count if self._count else None


class Said(NamedTuple):
    """A whole answer."""

    text: str
    calls: Sequence[Mapping[str, Any]]
    """Its tool calls, folded."""
    finish_reason: str


class Draw:
    """One call to the upstream: for one sample or, with `n`, for several side by side."""

    __slots__ = ("count", "growth", "has_begun", "seeing", "side", "size", "started_s", "task", "voices")

    def __init__(self, voices: tuple[Voice, ...], seeing: tuple[int, ...]) -> None:
        self.voices = voices
        self.seeing = seeing
        self.growth = Growth()
        self.side: SideCall | None = None
        self.task: asyncio.Task[None] | None = None
        self.started_s = 0.0
        self.count = 0
        """Chunks that have come."""
        self.size = 0
        """Bytes of its answer that are kept."""
        self.has_begun = False
        """True once its first chunk has come."""
        for voice in voices:
            voice.draw = self

    @property
    def is_wanted(self) -> bool:
        """True while any of its samples may still be of use."""
        return any(voice.state in {"waiting", "running"} for voice in self.voices)

    def __repr__(self) -> str:
        return f"<Draw {', '.join(map(repr, self.voices))}>"


class Voice:
    """One sample, from its start to its end."""

    __slots__ = ("choice", "curve", "draw", "index", "sample", "state", "tokens")

    def __init__(self, index: int, choice: int = 0) -> None:
        self.index = index
        self.choice = choice
        """Its number among the choices of its call."""
        self.state: State = "waiting"
        self.draw: Draw
        self.sample: Sample | None = None
        """What the strategy was told of it, once it has ended."""
        self.curve = Curve()
        self.tokens = 0

    @property
    def heard(self) -> HeardChoice | None:
        side = self.draw.side
        return side.heard.choices.get(self.choice) if side is not None else None

    @property
    def spent(self) -> int:
        """Output tokens that are known to have been generated for it."""
        side, heard = self.draw.side, self.heard
        if side is None:
            return 0
        if len(self.draw.voices) == 1:
            return side.entry.tokens.output
        return heard.tokens if heard is not None else 0

    def so_far(self) -> Sample:
        """What has come of it, for a strategy that watches; its text would have to be joined anew each time."""
        heard = self.heard
        if heard is None:
            return Sample(self.index)
        self.curve.read(heard.logprobs)
        return Sample(self.index, tokens=heard.tokens, mean_logprob=self.curve.mean, worst_logprob=self.curve.worst)

    @property
    def said(self) -> Said:
        """What it has said in the end."""
        side, heard = self.draw.side, self.heard
        assert side is not None
        if side.parent.route == "responses":
            return Said(side.heard.text, *_ended_response(side))
        if heard is None:
            return Said("", (), "")
        return Said(heard.text, heard.tool_calls, heard.finish_reason or "")

    def finished(self, said: Said, extracted: Extracted | None, verdicts: tuple[Verdict, ...]) -> Sample:
        """What has become of it."""
        side, heard = self.draw.side, self.heard
        assert side is not None
        alone = len(self.draw.voices) == 1
        self.tokens = side.heard.output_tokens if alone else heard.tokens if heard is not None else 0
        self.curve.read(heard.logprobs if heard is not None else None)
        self.sample = Sample(
            self.index,
            text=said.text,
            extracted=extracted,
            tokens=self.tokens,
            mean_logprob=self.curve.mean,
            worst_logprob=self._worst,
            verdicts=verdicts,
            finish_reason=said.finish_reason,
            finished=True,
            hedges=hedges_in(said.text),
        )
        return self.sample

    @property
    def _worst(self) -> float | None:
        """Of an answer shorter than a window, the whole is the window."""
        return self.curve.worst if self.curve.worst is not None else self.curve.mean

    def __repr__(self) -> str:
        return f"<Voice {self.index} {self.state}>"


def _ended_response(side: SideCall) -> tuple[Sequence[Mapping[str, Any]], str]:
    """Tool calls and the reason to end of a response, in the words of chat."""
    found: Any = None
    for chunk in reversed(side.chunks[-3:]):
        data = chunk.data or {}
        found = data.get("response", data if "output" in data else None)
        if isinstance(found, dict):
            break
    if not isinstance(found, dict):
        return [], ""
    output = found.get("output")
    items = [item for item in output if isinstance(item, dict)] if isinstance(output, list) else []
    calls: list[Mapping[str, Any]] = [
        {"type": "function", "function": {"name": item.get("name"), "arguments": item.get("arguments")}}
        for item in items
        if item.get("type") == "function_call"
    ]
    if found.get("status") == "completed":
        return calls, "tool_calls" if calls else "stop"
    details = found.get("incomplete_details")
    return calls, str(details.get("reason") if isinstance(details, dict) else found.get("status"))
