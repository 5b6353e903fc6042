"""What plugins register for others to use: verifiers, estimators of difficulty, extractors of answers.

The three protocols are all that an author needs; what is optional is looked up once, when a thing is registered. What
was registered is offered as `App.verifiers`, `App.estimators` and `App.extractors`, by name.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from predawn.proxy.exchange import Difficulty, Exchange, Verdict

Channel: TypeAlias = Literal["reasoning", "content", "tool_call"]
BoundaryName: TypeAlias = Literal["line", "sentence", "paragraph", "json", "tool_call", "reasoning_step", "window"]
Splitter: TypeAlias = Callable[[str], int]
"""Says how long the first step of a text is, in characters; 0 while it has not ended yet."""
Boundary: TypeAlias = "BoundaryName | Splitter"
FailsAs: TypeAlias = Literal["open", "closed"]
BOUNDARIES: tuple[BoundaryName, ...] = (
    "line",
    "sentence",
    "paragraph",
    "json",
    "tool_call",
    "reasoning_step",
    "window",
)
CHANNELS: tuple[Channel, ...] = ("reasoning", "content", "tool_call")
VERIFIER_TIMEOUT_S = 5.0
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


@dataclass(frozen=True, slots=True)
class Step:
    """A piece of an answer that can be judged by itself. `start` and `end` count characters of its channel."""

    text: str
    where: Channel
    boundary: str
    start: int
    end: int
    before: str = ""
    """Its channel up to `start`."""
    choice: int = 0
    index: int = 0
    """How many steps of this boundary came before it in its channel."""
    tool_call: Mapping[str, Any] | None = None
    """The whole call, arguments as text, where the step is one."""
    is_last: bool = False
    """True for exactly one step of a channel, once it is known to have ended; its text may be empty."""
    forked: str | None = None
    """What the model said to the suffix of the verifier's own `fork`; `None` where it was not asked."""


class Verifier(Protocol):
    """Judges steps of answers.

    It may also have `reads` (channels it wants, `("content",)` if absent), `timeout_s`, `fails` (`"open"` or
    `"closed"`: what is done if it raises or takes too long), and `fork(prefix) -> (suffix, max_tokens)`.
    """

    @property
    def name(self) -> str: ...

    @property
    def boundary(self) -> Boundary: ...

    async def verify(self, step: Step, exchange: Exchange) -> Verdict:
        """Say what is to be thought of a step; may wait, must not block."""
        ...


@dataclass(frozen=True, slots=True)
class Evidence:
    """How well an answer went, as far as somebody could tell: what estimators learn from."""

    source: Literal["verdict", "agreement", "feedback"]
    score: float
    """0 wrong, 1 right."""
    weight: float = 1.0
    samples: int = 1
    output_tokens: int = 0


class Estimator(Protocol):
    """Says how hard a request is. It may also have `learn(exchange, evidence)`."""

    @property
    def name(self) -> str: ...

    async def estimate(self, exchange: Exchange) -> Difficulty | None:
        """The difficulty, or `None` if it cannot tell."""
        ...


@dataclass(frozen=True, slots=True)
class Extracted:
    """The answer found in a text: equal keys are equal answers."""

    key: Hashable
    shown: str
    """As one would write it."""


class Extractor(Protocol):
    """Finds what a text answers, in a form in which equal answers are equal."""

    @property
    def name(self) -> str: ...

    def extract(self, text: str) -> Extracted | None:
        """The answer, or `None` if there is none of this kind."""
        ...


@dataclass(frozen=True, slots=True)
class RegisteredVerifier:
    """A verifier with what it left open filled in. Itself a `Verifier`."""

    name: str
    boundary: Boundary
    verify: Callable[[Step, Exchange], Awaitable[Verdict]]
    reads: tuple[Channel, ...] = ("content",)
    timeout_s: float = VERIFIER_TIMEOUT_S
    fails: FailsAs = "open"
    fork: Callable[[str], tuple[str, int]] | None = None
    plugin: str = ""
    """Who registered it."""


@dataclass(frozen=True, slots=True)
class RegisteredEstimator:
    """An estimator with what it left open filled in. Itself an `Estimator`."""

    name: str
    estimate: Callable[[Exchange], Awaitable[Difficulty | None]]
    learn: Callable[[Exchange, Evidence], None] | None = None
    plugin: str = ""


@dataclass(frozen=True, slots=True)
class RegisteredExtractor:
    """An extractor and who registered it. Itself an `Extractor`."""

    name: str
    extract: Callable[[str], Extracted | None]
    plugin: str = ""


RegisterVerifier: TypeAlias = Callable[[Verifier], None]
RegisterEstimator: TypeAlias = Callable[[Estimator], None]
RegisterExtractor: TypeAlias = Callable[[Extractor], None]


class ExtensionError(Exception):
    """Something registered that cannot be used; the message says what is wrong with it."""


def registered_verifier(verifier: Any, plugin: str) -> RegisteredVerifier:
    """A verifier as it will be used. Raises `ExtensionError`."""
    name = _name_of(verifier)
    boundary: Any = getattr(verifier, "boundary", None)
    if not _is_boundary(boundary):
        raise ExtensionError(f"its boundary is {boundary!r}, not one of {', '.join(BOUNDARIES)} or a function")
    reads = _tuple_of(getattr(verifier, "reads", ("content",)))
    if not reads or any(channel not in CHANNELS for channel in reads):
        raise ExtensionError(f"it reads {reads!r}, which may be {', '.join(CHANNELS)}")
    timeout_s = getattr(verifier, "timeout_s", VERIFIER_TIMEOUT_S)
    if not isinstance(timeout_s, (int, float)) or isinstance(timeout_s, bool) or not timeout_s > 0:
        raise ExtensionError(f"its timeout_s is {timeout_s!r}, not a number above 0")
    fails: Any = getattr(verifier, "fails", "open")
    if fails not in ("open", "closed"):
        raise ExtensionError(f"its fails is {fails!r}, not 'open' or 'closed'")
    return RegisteredVerifier(
        name,
        boundary,
        _function(verifier, "verify", ("step", "exchange"), is_async=True),
        reads,
        float(timeout_s),
        fails,
        _function(verifier, "fork", ("prefix",)) if hasattr(verifier, "fork") else None,
        plugin,
    )


def registered_estimator(estimator: Any, plugin: str) -> RegisteredEstimator:
    """An estimator as it will be used. Raises `ExtensionError`."""
    name = _name_of(estimator)
    estimate = _function(estimator, "estimate", ("exchange",), is_async=True)
    learn = _function(estimator, "learn", ("exchange", "evidence")) if hasattr(estimator, "learn") else None
    return RegisteredEstimator(name, estimate, learn, plugin)


def registered_extractor(extractor: Any, plugin: str) -> RegisteredExtractor:
    """An extractor as it will be used. Raises `ExtensionError`."""
    return RegisteredExtractor(_name_of(extractor), _function(extractor, "extract", ("text",)), plugin)


def comparable(found: object) -> Extracted | None:
    """What an extractor returned. Raises `TypeError` for what is no answer, or cannot be compared."""
    if found is None:
        return None
    if not isinstance(found, Extracted) or not isinstance(found.shown, str):
        raise TypeError(f"it returned {found!r:.100} in place of an Extracted or None")
    hash(found.key)
    return found


def _is_boundary(value: Any) -> bool:
    return callable(value) or value in BOUNDARIES


def _tuple_of(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list, set, frozenset)) else (value,)


def _name_of(thing: Any) -> str:
    if isinstance(thing, type):
        raise ExtensionError("it is a class; register an instance")
    name = getattr(thing, "name", None)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ExtensionError(f"its name is {name!r}, not a word of a-z, 0-9 and _")
    return name


def _function(thing: Any, name: str, takes: tuple[str, ...], *, is_async: bool = False) -> Any:
    """A method of the right kind that can be called with so many arguments."""
    function = getattr(thing, name, None)
    shown = f"{name}({', '.join(takes)})"
    if not callable(function):
        raise ExtensionError(f"it has no {shown}")
    if inspect.iscoroutinefunction(function) != is_async:
        raise ExtensionError(f"its {name} must be {'async def' if is_async else 'a plain def'}")
    try:
        inspect.signature(function).bind(*takes)
    except TypeError:
        raise ExtensionError(f"it must have {shown}") from None
    except ValueError:
        pass  # made in C, which does not tell
    return function
