"""What a strategy is told and what it may ask for: plain values, no clock, no loop, no upstream.

A strategy is a state machine. Whoever drives it (the proxy, or `predawn simulate`) tells it what happened with
`on(event)` and does the actions it returns, in their order. `Began` comes first, and exactly once. After a `Stop`
nothing more is told and nothing more is asked. Actions that have become pointless (the cancelling of a sample that has
ended) are ignored by the driver.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from predawn.plugins.sampling.strategies.trust import Trust
    from predawn.proxy.exchange import Verdict
    from predawn.proxy.extensions import Extracted


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer, or what has come of it so far."""

    index: int
    """Counts from 0, in the order in which samples were started."""
    text: str = ""
    """What it says to the user, once it has finished; reasoning is left out."""
    extracted: Extracted | None = None
    """What it answers, as far as that can be compared; `None` where it cannot. Only finished samples have one."""
    tokens: int = 0
    """Output tokens so far, reasoning included."""
    mean_logprob: float | None = None
    """Mean log-probability of its tokens; `None` where the upstream tells none."""
    worst_logprob: float | None = None
    """Lowest mean over any window of consecutive tokens (DeepConf's group confidence)."""
    verdicts: tuple[Verdict, ...] = ()
    """What verifiers said of it; those of `best_of` have been asked before `Finished` is told."""
    finish_reason: str = ""
    finished: bool = False
    hedges: int | None = None
    """How often its end hedges, where that has been counted: `tally.hedges_in`."""

    @property
    def complete(self) -> bool:
        """True for an answer that ended by itself: neither cut off at its limit nor withheld."""
        return self.finished and self.finish_reason in {"stop", "tool_calls", "function_call"}


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a judge, asked in both orders, said of two samples; `better` is `None` where the orders disagree."""

    left: int
    right: int
    better: int | None


# ── events ──


@dataclass(frozen=True, slots=True)
class Began:
    """The request is here; nothing has been drawn."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A sample has ended."""

    sample: Sample


@dataclass(frozen=True, slots=True)
class Progress:
    """A sample has grown; told every `Strategy.progress_every` chunks of it, never if that is 0."""

    sample: Sample


@dataclass(frozen=True, slots=True)
class Failed:
    """A sample came to nothing: its upstream failed, or it could not be afforded."""

    index: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Judged:
    """The answer to one `Judge`; pairs of which the judge said nothing usable have `better=None`."""

    judgements: tuple[Judgement, ...]


@dataclass(frozen=True, slots=True)
class Woke:
    """The time of the last `Wake` has passed."""


@dataclass(frozen=True, slots=True)
class Hurry:
    """The time is up: whoever leads now is the answer, or whoever ends first. Nothing more is started or judged."""


Event: TypeAlias = Began | Finished | Progress | Failed | Judged | Woke | Hurry

# ── actions ──


@dataclass(frozen=True, slots=True)
class Start:
    """Draw so many more samples at once; with `seeing`, each is asked to improve on these finished ones."""

    count: int
    seeing: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Cancel:
    """Give up a sample that still runs."""

    index: int


@dataclass(frozen=True, slots=True)
class Judge:
    """Have pairs of finished samples compared; one `Judged` answers all of them."""

    pairs: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Wake:
    """Be told `Woke` after so many seconds; a new one replaces the last."""

    after_s: float


@dataclass(frozen=True, slots=True)
class Stop:
    """The end: this sample is the answer and every other one is given up.

    The winner may still be running: it is then streamed while it grows. `None` means that there is no answer, because
    every sample failed; the client gets the first failure as it came.
    """

    winner: int | None
    why: str
    """A word for the record and the metrics, from `WHYS`."""
    agreement: float | None = None
    """Share of the finished, comparable samples that say what the winner says; `None` where none could be compared."""
    confidence: float | None = None
    """The posterior chance that the leader would stay the leader."""


Action: TypeAlias = Start | Cancel | Judge | Wake | Stop

WHYS = (
    "sure",  # the leader is one that others would hardly contradict
    "settled",  # the chance that the leader changes is small enough
    "exhausted",  # everything that was allowed has been drawn
    "enough",  # the first m have come
    "verified",
    "judged",
    "unchanged",  # a revision changed nothing
    "first",  # the faster of two requests
    "incomparable",  # nothing could be extracted, a single answer was taken
    "unprofitable",  # another wave would cost more than it brings
    "late",  # the time was up
    "failed",  # every sample failed
)


@dataclass(frozen=True, slots=True)
class Options:
    """What settings, budget and request together say to a strategy."""

    samples: int = 8
    """Most samples that may ever be started, at least 1."""
    rounds: int = 1
    """Most answers one after another, the first included: 1 allows no revision."""
    min_samples: int = 2
    """So many comparable answers come before a vote may settle."""
    epsilon: float = 0.05
    """A vote settles once the chance that its leader changes is below this."""
    beta: float = 0.5
    """From cheap (0) to thorough (1), for `waves`."""
    first: int = 1
    """The m of `first_m_of_k`."""
    hedge_after_s: float = 1.0
    """When `hedge` sends its second request."""
    trust: Trust | None = None
    """Of `confidence`: what earlier requests have taught, and where this one adds to it."""
    fallback: str = "judge"
    """What decides between answers that cannot be compared: `judge`, or `single` (the first complete one)."""


class Strategy(Protocol):
    """Decides how many samples are drawn, which are given up, and which one is the answer."""

    name: str
    progress_every: int
    """Chunks of a sample between two `Progress` events; 0 for never."""

    def on(self, event: Event) -> Sequence[Action]: ...


CreateStrategy: TypeAlias = Callable[[Options], Strategy]
"""Makes the strategy of one request."""
