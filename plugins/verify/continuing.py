"""How an answer goes on from what is left of it, by what its upstream can do.

Raw completions take the prompt with the kept text behind it. Chat upstreams that continue a last assistant message
(`models[].prefill`) get the kept text as one. All others are asked again, with the kept text and the feedback in the
conversation. Where nothing is kept and nothing is told, the same is asked again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from predawn.plugins.verify.mending import Mending
    from predawn.proxy.exchange import Exchange

Way: TypeAlias = Literal["completions", "prefill", "feedback", "again"]
LIMITS: Final = ("max_tokens", "max_completion_tokens")
ONE_CHOICE: Final = ("n", "best_of", "echo")
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
        if exchange.alias in self.prefills and exchange.upstream not in self.refused:
            return "prefill"
        return "feedback"


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
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages:
        return None
    if mending.key.where == "tool_call" and not mending.is_retry:
        changes["messages"] = [*messages, *_refused_call(mending)]
    elif mending.is_retry or not (mending.thoughts or mending.content):
        way = _begun_again(changes, messages, mending.note)
    elif way == "prefill":
        said = _noted(messages, mending.note) if mending.note else messages
        changes |= _prefilled(said, mending.thoughts, mending.content, exchange, ways)
    elif mending.content:
        told = GO_ON.format(mending.note).strip()
        draft = {"role": "assistant", "content": mending.content}
        changes["messages"] = [*messages, draft, {"role": "user", "content": told}]
    else:
        right = mending.insert.strip()
        way = _begun_again(changes, messages, mending.note or (right and f"This is right: {right}"))
    return Changed(changes, ONE_CHOICE, way if mending.key.where != "tool_call" or mending.is_retry else "feedback")


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
    without = (*ONE_CHOICE, *LIMITS, "tools", "tool_choice", "response_format", "logprobs", "top_logprobs")
    limit = "max_completion_tokens" if request.get("max_completion_tokens") is not None else "max_tokens"
    changes: dict[str, Any] = {"temperature": 0, limit: fork.max_tokens}
    if way == "completions":
        prompt = request.get("prompt")
        if not isinstance(prompt, str):
            return None
        changes["prompt"] = prompt + content + suffix
    elif not isinstance(messages := request.get("messages"), list):
        return None
    elif way == "prefill":
        # after thoughts the answer is begun, so that the model does not think on
        said = content + suffix if content else suffix.lstrip()
        changes |= _prefilled(messages, thoughts, said, exchange, ways)
    else:
        told = [{"role": "assistant", "content": content or thoughts}] if content or thoughts else []
        question = {"role": "user", "content": THE_ANSWER.format(f"Complete this: {suffix.strip()}")}
        changes["messages"] = [*messages, *told, question]
    return Changed(changes, tuple(name for name in without if name not in changes), way)


def _prefilled(messages: Sequence[Any], thoughts: str, content: str, exchange: Exchange, ways: Ways) -> dict[str, Any]:
    begun: dict[str, Any] = {"role": "assistant", "content": content}
    if thoughts:
        begun["reasoning_content"] = thoughts
    changes: dict[str, Any] = {"messages": [*messages, begun]}
    if exchange.upstream not in ways.plain:
        changes |= {"continue_final_message": True, "add_generation_prompt": False}
    return changes


def _begun_again(changes: dict[str, Any], messages: Sequence[Any], note: str) -> Way:
    """Ask from the beginning, with a note or, for a model that would only be confused by it, without a word."""
    if not note:
        return "again"
    changes["messages"] = _noted(messages, REJECTED.format(note))
    return "feedback"


def _noted(messages: Sequence[Any], note: str) -> list[Any]:
    """The conversation with a note at the end of the last message of a user, or of its own where there is none."""
    noted = list(messages)
    for place in range(len(noted) - 1, -1, -1):
        message = noted[place]
        if isinstance(message, dict) and message.get("role") == "user":
            said = message.get("content")
            if isinstance(said, str):
                noted[place] = {**message, "content": f"{said}\n\n{note}"}
                return noted
            if isinstance(said, list):
                noted[place] = {**message, "content": [*said, {"type": "text", "text": note}]}
                return noted
            break
        if isinstance(message, dict) and message.get("role") == "tool":
            break
    return [*noted, {"role": "user", "content": note}]


def _refused_call(mending: Mending) -> list[dict[str, Any]]:
    """The wrong call as if it had been made, and its result: why it was not."""
    call = {"type": "function", **mending.call}
    call["id"] = str(call.get("id") or "call_refused")
    function = call.get("function")
    named = dict(function) if isinstance(function, Mapping) else {}
    call["function"] = {"name": str(named.get("name") or "unknown"), "arguments": _object(named.get("arguments"))}
    return [
        {"role": "assistant", "content": mending.content or None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": f"Error: {mending.note} The call was not made."},
    ]


def _object(arguments: Any) -> str:
    """Arguments as upstreams take them back: those that are no JSON would be refused."""
    import msgspec

    try:
        msgspec.json.decode(arguments)
    except (msgspec.DecodeError, TypeError, RecursionError):
        return "{}"
    return str(arguments)


def room_left(exchange: Exchange, kept: int) -> int | None:
    """Tokens that may still be written within the client's `max_tokens`; `None` without one."""
    limits = _limits(exchange.request).values()
    return max(min(limits) - kept, 0) if limits else None


def _limits(request: Mapping[str, Any]) -> dict[str, int]:
    given = {name: request.get(name) for name in LIMITS}
    return {name: one for name, one in given.items() if isinstance(one, int) and not isinstance(one, bool)}
