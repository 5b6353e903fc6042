"""How an answer goes on from what is left of it, by what its upstream can do.

Raw completions take the prompt with the kept text behind it. Chat upstreams that continue a last assistant message
(`models[].prefill`) get the kept text as one. All others are asked again, with the kept text and the feedback in the
conversation. Where nothing is kept and nothing is told, the same is asked again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from predawn.plugins.verify.conversing import Talk

if TYPE_CHECKING:
    from predawn.plugins.verify.mending import Mending
    from predawn.proxy.exchange import Exchange

Way: TypeAlias = Literal["completions", "prefill", "feedback", "again"]
LIMITS: Final = ("max_tokens", "max_completion_tokens", "max_output_tokens")
LEAST_OUTPUT: Final = 16
"""Tokens below which `max_output_tokens` is refused by OpenAI."""
ONE_CHOICE: Final = ("n", "best_of", "echo")
FORMS: Final = ("tools", "tool_choice", "response_format", "logprobs", "top_logprobs", "thinking", "text")
"""What would keep a model from saying a few words."""
REJECTED: Final = "A draft of your answer was rejected: {} Take that into account."
GO_ON: Final = "{} Go on exactly where your answer breaks off, and do not repeat any of it."
THE_ANSWER: Final = "{} Say nothing else."


@dataclass(frozen=True, slots=True)
class Changed:
    """What a request has to say in place of what its client wrote."""

    changes: Mapping[str, Any]
    without: tuple[str, ...] = ()
    way: Way = "feedback"


@dataclass(slots=True)
class Ways:
    """What upstreams can do, from the settings and from how they took it."""

    prefills: frozenset[str]
    """Aliases whose upstream continues a last assistant message."""
    plain: frozenset[str] = frozenset()
    """Upstreams to which members beyond OpenAI's must not be sent."""
    refused: set[str] = field(default_factory=set[str])
    """Upstreams that refused a prefill all the same."""

    def way_of(self, exchange: Exchange) -> Way:
        if exchange.route == "completions":
            return "completions"
        if exchange.alias not in self.prefills or self._place(exchange) in self.refused:
            return "feedback"
        if exchange.route == "responses":
            return "feedback"  # the API has no begun answers
        return "feedback" if _must_think_first(exchange) else "prefill"

    def refuse(self, exchange: Exchange) -> None:
        """Its upstream took no prefill: it is never asked so again."""
        self.refused.add(self._place(exchange))

    @staticmethod
    def _place(exchange: Exchange) -> str:
        return exchange.upstream if exchange.route == "chat" else f"{exchange.upstream}/{exchange.route}"


def continued(exchange: Exchange, mending: Mending, ways: Ways, *, kept_tokens: int, attempt: int) -> Changed | None:
    """The request that goes on after a cut; `None` if there is no way. There must be room within `max_tokens`."""
    request = exchange.request
    changes: dict[str, Any] = {}
    if kept_tokens:
        changes |= {name: limit - kept_tokens for name, limit in _limits(request).items()}
    if isinstance(seed := request.get("seed"), int) and not isinstance(seed, bool):
        changes["seed"] = seed + attempt  # the same seed would err in the same way
    way = ways.way_of(exchange)
    if way == "completions":
        prompt = request.get("prompt")
        if not isinstance(prompt, str):
            return None
        changes["prompt"] = prompt + mending.content
        return Changed(changes, ONE_CHOICE, way if mending.content else "again")
    talk = Talk.of(request, exchange.route)
    if talk is None:
        return None
    if mending.key.where == "tool_call" and not mending.is_retry and not _must_think_first(exchange):
        way, changes = "feedback", changes | talk.refused(mending)
    elif mending.is_retry or not (mending.thoughts or mending.content):
        way = _begun_again(changes, talk, mending.note)
    elif way == "prefill" and (mending.content.strip() or exchange.route == "chat"):
        said = talk.noted(mending.note) if mending.note else talk
        changes |= _prefilled(said, mending.thoughts, mending.content, exchange, ways)
    elif mending.content.strip():
        told = GO_ON.format(mending.note).strip()
        draft = {"role": "assistant", "content": mending.content}
        way, changes = "feedback", changes | talk.with_turns(draft, {"role": "user", "content": told})
    else:
        right = mending.insert.strip()
        way = _begun_again(changes, talk, mending.note or (right and f"This is right: {right}"))
    return Changed(changes, ONE_CHOICE, way)


@dataclass(frozen=True, slots=True)
class Fork:
    """A place in an answer, and what is asked there."""

    thoughts: str
    content: str
    suffix: str
    max_tokens: int


def forked(exchange: Exchange, fork: Fork, ways: Ways) -> Changed | None:
    """The request that asks what the model thinks so far: its text, `suffix`, and a few tokens more."""
    request = exchange.request
    thoughts, content, suffix = fork.thoughts, fork.content, fork.suffix
    way = ways.way_of(exchange)
    without = (*ONE_CHOICE, *LIMITS, *FORMS)
    limit = "max_completion_tokens" if request.get("max_completion_tokens") is not None else "max_tokens"
    changes: dict[str, Any] = {"temperature": 0, limit: fork.max_tokens}
    if exchange.route == "responses":
        changes = {"temperature": 0, "max_output_tokens": max(fork.max_tokens, LEAST_OUTPUT)}
    if way == "completions":
        prompt = request.get("prompt")
        if not isinstance(prompt, str):
            return None
        changes["prompt"] = prompt + content + suffix
    elif (talk := Talk.of(request, exchange.route)) is None:
        return None
    elif way == "prefill":
        # after thoughts the answer is begun, so that the model does not think on
        said = content + suffix if content else suffix.lstrip()
        changes |= _prefilled(talk, thoughts, said, exchange, ways)
    else:
        told = [{"role": "assistant", "content": content or thoughts}] if content or thoughts else []
        question = {"role": "user", "content": THE_ANSWER.format(f"Complete this: {suffix.strip()}")}
        changes |= talk.with_turns(*told, question)
    return Changed(changes, tuple(name for name in without if name not in changes), way)


def _prefilled(talk: Talk, thoughts: str, content: str, exchange: Exchange, ways: Ways) -> dict[str, Any]:
    if exchange.route == "messages":  # Anthropic's API: the last message is gone on with, and must not end with a space
        return talk.with_turns({"role": "assistant", "content": content.rstrip()})
    begun: dict[str, Any] = {"role": "assistant", "content": content}
    if thoughts:
        begun["reasoning_content"] = thoughts
    changes = talk.with_turns(begun)
    if exchange.upstream not in ways.plain:
        changes |= {"continue_final_message": True, "add_generation_prompt": False}
    return changes


def _begun_again(changes: dict[str, Any], talk: Talk, note: str) -> Way:
    """Ask from the beginning, with a note or, for a model that would only be confused by it, without a word."""
    if not note:
        return "again"
    changes |= talk.noted(REJECTED.format(note)).with_turns()
    return "feedback"


def _must_think_first(exchange: Exchange) -> bool:
    """Whether a turn of the assistant that is gone on from must begin with thoughts, which nobody but its API signs."""
    thinks = exchange.request.get("thinking") if exchange.route == "messages" else None
    return isinstance(thinks, dict) and thinks.get("type") != "disabled"


def room_left(exchange: Exchange, kept: int) -> int | None:
    """Tokens that may still be written within the client's `max_tokens`; `None` without one."""
    limits = _limits(exchange.request).values()
    if not limits:
        return None
    left = max(min(limits) - kept, 0)
    return 0 if kept and exchange.route == "responses" and left < LEAST_OUTPUT else left


def _limits(request: Mapping[str, Any]) -> dict[str, int]:
    given = {name: request.get(name) for name in LIMITS}
    return {name: one for name, one in given.items() if isinstance(one, int) and not isinstance(one, bool)}
