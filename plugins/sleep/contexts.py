"""What sleeps and what comes of it: contexts, their parts, notes, anticipated answers, and the questions asked asleep.

A context is a beginning of conversations that is known before the question: registered by a client, or discovered
because requests begin with it again and again. Its content has versions; notes belong to one version of one tenant.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Message: TypeAlias = Mapping[str, Any]
"""A chat message as it goes over the wire."""
ContextState: TypeAlias = Literal["new", "queued", "sleeping", "checking", "asleep", "skipped", "failed", "forgotten"]
"""`asleep`: slept on, and its notes were accepted. `skipped`: not worth it. `forgotten`: an empty gravestone."""
Source: TypeAlias = Literal["registered", "discovered"]
NotesStatus: TypeAlias = Literal["candidate", "accepted", "rejected", "stale"]
Policy: TypeAlias = Literal["always", "worthwhile", "off"]
SplitRule: TypeAlias = Literal["off", "last_paragraph", "last_sentence"]

SLEEPABLE: frozenset[ContextState] = frozenset({"new", "asleep", "skipped", "failed"})
"""States in which a job may be started; in the others one is under way, or there is nothing left."""


@dataclass(frozen=True, slots=True)
class Part:
    """One message of a context: what it is, how long it is, never what it says."""

    role: str
    digest: bytes
    """Of this message alone."""
    tokens: int
    live: bool = False
    """A live part changes all the time; neither it nor what follows it is kept or thought about."""
    characters: int | None = None
    """Length of its text; `None` where the message is more than a role and a text."""


@dataclass(frozen=True, slots=True)
class SleepOptions:
    """What a client wants for one context; `None` leaves it to the plugin's settings."""

    policy: Policy | None = None
    max_passes: int | None = None
    budget_tokens: int | None = None
    drafts: int | None = None
    questions: int | None = None
    """How many questions to anticipate; 0 for none."""
    warm: bool | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far sleep has come, as `GET /v1/contexts/{id}` shows it."""

    state: ContextState = "new"
    stage: str = ""
    """`consolidate`, `check`, `anticipate` or `warm` while a job runs."""
    pass_no: int = 0
    max_passes: int = 0
    tokens: int = 0
    """Spent on this version so far."""
    budget_tokens: int = 0
    decision: Mapping[str, Any] | None = None
    """The latest answer to "is it worth it?", with its numbers."""


@dataclass(frozen=True, slots=True)
class Context:
    """One context of one tenant, in its present version."""

    id: str
    tenant: str
    model: str
    """The alias it is for; empty for any."""
    namespace: str
    source: Source
    version: int
    """Counts up from 1; a changed content is a new version."""
    state: ContextState
    messages: tuple[Message, ...]
    """The stable content without its live rest. Empty in lists."""
    prefix_digest: bytes
    """The last link of `prefix.chain` over `messages`."""
    tokens: int
    """Of the stable content."""
    options: SleepOptions
    created_at: float
    expires_at: float | None
    uses: int = 0
    last_used_at: float | None = None
    parts: tuple[Part, ...] = ()
    """All parts, live ones included."""
    progress: Progress = field(default_factory=Progress)
    changed_at: float = 0.0
    """When this version came."""
    notes_id: str | None = None
    """The accepted notes of this version."""
    base_version: int | None = None
    """The newest earlier version of which this one is a continuation, for sleeping on the difference only."""


@dataclass(frozen=True, slots=True)
class Notes:
    """What sleep wrote about one version of a context."""

    id: str
    context_id: str
    version: int
    status: NotesStatus
    text: str
    tokens: int
    passes: int
    made_at: float
    sleep_tokens: int
    """Paid for them, their rejected drafts and their check included."""
    model: str
    provenance: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Anticipated:
    """A question that was expected, and its answer."""

    id: str
    context_id: str
    version: int
    question: str
    normalised: str
    """Two questions are the same where this is."""
    answer: str
    verified: bool
    model: str = ""
    conditions: str = ""
    """Digest of what else an answer depends on: system prompt, tools and sampling parameters."""
    made_at: float = 0.0
    sleep_tokens: int = 0
    provenance: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Use:
    """Notes or an anticipated answer went into one exchange."""

    context_id: str
    version: int
    notes_id: str
    exchange_id: str
    at: float
    model: str
    age_s: float
    tokens_saved: float
    """Against the running estimate for the same model and context; negative where it cost more."""
    stale: bool = False
    kind: Literal["notes", "hint", "served"] = "notes"
    regret: bool = False
    """Used, but the verifier or the client said that the answer was wrong."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Output tokens of one model's answers about one context, without notes or with them."""

    count: int
    mean: float


@dataclass(frozen=True, slots=True)
class Spent:
    """What one tenant's sleep cost on one day (UTC)."""

    tokens: int = 0
    nano_usd: int = 0
    calls: int = 0


@dataclass(slots=True)
class Used:
    """Tokens of a call, as far as they are known while it runs."""

    prompt_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True)
class AskOptions:
    """How a question is asked asleep."""

    model: str
    tenant: str
    context_id: str = ""
    purpose: str = "consolidate"
    """`consolidate`, `check`, `anticipate` or `warm`."""
    max_tokens: int | None = None
    temperature: float | None = None
    seed: int | None = None
    thinks: bool | None = None
    """False asks for an answer without reasoning, where the upstream has a knob for it."""
    logprobs: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Further members of the request."""
    used: Used = field(default_factory=Used, compare=False)
    """Whoever sends the question writes here what it has cost so far, so that a cancelled one is booked too."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What was answered asleep, and what it cost."""

    text: str
    reasoning: str = ""
    prompt_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    logprobs: tuple[float, ...] | None = None


class Preempted(Exception):  # noqa: N818 - it is news, not an error: somebody is waiting
    """A person came while sleep was asking; what the cancelled call cost is booked, and the step runs again later."""

    def __init__(self, message: str = "a request came", *, tokens: int = 0) -> None:
        super().__init__(message)
        self.tokens = tokens


Ask: TypeAlias = "Callable[[Sequence[Message], AskOptions], Awaitable[Asked]]"
"""Asks a model on a tenant's account while nobody waits. Raises `Preempted`, or `UpstreamError` as any call does."""
