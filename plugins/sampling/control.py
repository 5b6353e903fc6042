"""What a request asks of sampling, and what comes of it: a `Plan`, or the reason why there is none.

Wishes come from `extra_body["predawn"]["sampling"]` or the header `x-predawn-sampling`, never from message text; the
settings bound them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from predawn.plugins import RequestError
from predawn.plugins.sampling.settings import Delivery, Fallback, StrategyName

if TYPE_CHECKING:
    from predawn.plugins import Budget, Exchange
    from predawn.plugins.sampling.settings import SamplingSettings

PARAM: Final = "predawn.sampling"
_OFF: Final[frozenset[Any]] = frozenset({"off", "false", "no", "none"})
DRAWN: Final = frozenset({"chat", "completions", "responses"})
"""Endpoints whose answers can be drawn more than once."""


class Wish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a client may say, each of it optional."""

    strategy: StrategyName | None = None
    samples: int | None = None
    rounds: int | None = None
    epsilon: float | None = None
    beta: float | None = None
    first: int | None = None
    min_samples: int | None = None
    answer: str | None = None
    verifier: str | None = None
    fallback: Fallback | None = None
    temperature: float | None = None
    stream: Delivery | None = None
    hedge_after_s: float | None = None


_NOTHING: Final = Wish()
BOUNDS: Final[Mapping[str, tuple[float, float]]] = {
    "samples": (1, 1 << 20),
    "rounds": (1, 1 << 20),
    "epsilon": (1e-9, 0.999),
    "beta": (0, 1),
    "first": (1, 1 << 20),
    "min_samples": (1, 1 << 20),
    "temperature": (0, 2),
    "hedge_after_s": (0.001, 3600),
}
"""Of what makes sense at all; the settings bound it further."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a request is to be answered."""

    strategy: StrategyName
    samples: int
    rounds: int
    asked: bool
    """True if the client itself named a strategy or a number of samples: then it is refused, rather than given less,
    where it only has to wait for what it asks."""
    by: str
    """Whose wish it is: `client`, `budget` or `settings`."""
    answer: str
    verifier: str | None
    fallback: Fallback
    temperature: float | None
    warms_all: bool
    """True if the client wants its samples at `temperature`, whatever else its request says."""
    stream: Delivery
    epsilon: float
    beta: float
    first: int
    min_samples: int
    hedge_after_s: float | None


@dataclass(frozen=True, slots=True)
class Pass:
    """The request goes through as it is; `why` is for the record, and empty where nobody wanted anything else."""

    why: str = ""


PASS: Final = Pass()


def plan_of(exchange: Exchange, settings: SamplingSettings) -> Plan | Pass:
    """What becomes of a request. Raises `RequestError` 400 for a wish that cannot be meant."""
    asked = exchange.control.get("sampling")
    wish = _NOTHING
    if asked is not None:
        found = _read(asked)
        if found is None:
            return PASS
        if not settings.client_may:
            return Pass("clients may not ask for samples")
        wish = found
    plan = _planned(wish, exchange.budget, settings)
    if plan is None:
        return PASS
    why = _why_not(exchange)
    return Pass(why) if why else plan


def _planned(wish: Wish, budget: Budget | None, settings: SamplingSettings) -> Plan | None:
    """Client before budget before settings; `None` where one plain call is all that is wanted."""
    asked = wish.strategy is not None or wish.samples is not None or wish.rounds is not None
    samples, rounds, by = settings.samples, settings.rounds, "settings"
    strategy: StrategyName = settings.strategy
    if budget is not None and not asked:
        samples, rounds, by = budget.samples, budget.rounds, "budget"
        if samples <= 1:
            strategy = "revise" if rounds > 1 else "hedge" if strategy == "hedge" else "off"
    if asked:
        by = "client"
        if wish.strategy is not None:
            strategy = wish.strategy
            samples = settings.asked_samples
        elif strategy == "off":
            strategy = "vote"
        if wish.samples is not None:
            samples = wish.samples
        if wish.rounds is not None:
            rounds = wish.rounds
            strategy = "revise" if wish.strategy is None and wish.samples is None else strategy
    samples, rounds = min(samples, settings.max_samples), min(rounds, settings.max_rounds)
    if strategy == "off" or (samples if strategy not in {"revise", "hedge"} else rounds + 1) <= 1:
        return None
    if strategy == "revise":
        if rounds <= 1:
            return None
        samples = rounds
    elif strategy == "hedge":
        samples = 2
    return Plan(
        strategy=strategy,
        samples=samples,
        rounds=rounds,
        asked=asked,
        by=by,
        answer=wish.answer or settings.answer,
        verifier=wish.verifier or settings.verifier,
        fallback=wish.fallback or settings.fallback,
        temperature=settings.temperature if wish.temperature is None else wish.temperature,
        warms_all=wish.temperature is not None,
        stream=wish.stream or settings.stream,
        epsilon=settings.epsilon if wish.epsilon is None else wish.epsilon,
        beta=settings.beta if wish.beta is None else wish.beta,
        first=min(wish.first or settings.first, samples),
        min_samples=min(wish.min_samples or settings.min_samples, samples),
        hedge_after_s=wish.hedge_after_s or settings.hedge_after_s,
    )


def _read(asked: Any) -> Wish | None:
    """A wish in full, a strategy's name alone, or `None` for off."""
    if asked is False or (isinstance(asked, str) and asked.lower() in _OFF):
        return None
    if isinstance(asked, str):
        asked = {"strategy": asked}
    elif asked is True:
        asked = {}
    try:
        wish = msgspec.convert(asked, Wish)
    except msgspec.ValidationError as exc:
        message = str(exc).replace("`$.", "`").replace(" - at `$`", "")
        raise RequestError(400, f"sampling cannot be read: {message}.", param=PARAM) from exc
    for name, (least, most) in BOUNDS.items():
        value = getattr(wish, name)
        if value is not None and not least <= value <= most:
            raise RequestError(400, f"sampling.{name} must be between {least:g} and {most:g}.", param=f"{PARAM}.{name}")
    return wish


def _why_not(exchange: Exchange) -> str:
    """What keeps a request from being answered more than once; empty if nothing does."""
    if exchange.route not in DRAWN:
        return f"not for {exchange.path.partition('?')[0]}"
    request = exchange.request
    if (n := request.get("n")) is not None and n != 1:
        return "the client asked for n choices"
    if exchange.route == "completions":
        return _not_this_completion(request)
    if exchange.route == "responses":
        return _not_this_response(request)
    modalities = request.get("modalities")
    if "audio" in request or (isinstance(modalities, list) and "audio" in modalities):
        return "sound cannot be compared"
    return ""


def _not_this_completion(request: Mapping[str, Any]) -> str:
    if (best_of := request.get("best_of")) is not None and best_of != 1:
        return "the client asked for best_of"
    prompt = request.get("prompt")
    if isinstance(prompt, list) and len(prompt) > 1 and not isinstance(prompt[0], int):
        return "several prompts"
    return ""


def _not_this_response(request: Mapping[str, Any]) -> str:
    """Each response may be stored, continued, and use tools of the provider's: then another one is not just a draw."""
    if request.get("background") is True:
        return "it runs in the background"
    if request.get("conversation") is not None:
        return "each response would be added to the conversation"
    tools = request.get("tools")
    for tool in tools if isinstance(tools, list) else ():
        if not isinstance(tool, dict) or tool.get("type") not in {"function", "custom"}:
            return "its tools are run by the provider"
    return ""
