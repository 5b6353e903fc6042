"""What the chunks of chat and completions say, as pieces of named texts, and chunks of our own in their manner."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from predawn.plugins import Chunk
from predawn.plugins.calls.plain import said_plainly as read_plainly
from predawn.proxy.wire.fold import BodyChunk, events_of
from predawn.proxy.wire.text import texts

if TYPE_CHECKING:
    from predawn.plugins.calls.plain import Said
    from predawn.proxy.exchange import RouteName
    from predawn.proxy.extensions import Channel

THOUGHTS = ("reasoning_content", "reasoning")
DETAILS = "reasoning_details"
"""Thoughts once more, with what providers want to have back: signatures and encrypted ones."""


class Key(NamedTuple):
    """A text of one choice: its thoughts, its content, or the arguments of one tool call."""

    where: Channel
    part: int = 0


class Piece(NamedTuple):
    """What a chunk adds to one text of a choice."""

    key: Key
    text: str
    call: Mapping[str, Any] | None = None
    """The delta of a tool call."""
    member: str = ""
    """Its name in the delta."""


class Part(NamedTuple):
    """What a chunk says of one choice."""

    choice: int
    pieces: tuple[Piece, ...]
    finish: str | None
    chunk: Chunk
    is_plain: bool = False
    """True where the chunk has nothing but one piece of text, so that it can be cut in two."""


_SAID = frozenset({*THOUGHTS, "content", "tool_calls", "function_call"})
CONTENT = Key("content")
REASONING = Key("reasoning")
KEYS: Mapping[str, Key] = {"content": CONTENT, "text": CONTENT, "reasoning_content": REASONING, "reasoning": REASONING}


def shape_of(route: RouteName) -> RouteName:
    """Which of the two shapes the parts of an answer have: completions', or chat's for all others."""
    return "completions" if route == "completions" else "chat"


def parts_of(chunk: Chunk, route: RouteName) -> list[Part]:
    """The chunk choice by choice; a chunk of several choices is taken apart. Empty for one without choices."""
    data = chunk.data
    choices = data.get("choices") if data is not None else None
    if not isinstance(choices, list):
        return []
    told = [choice for choice in choices if isinstance(choice, dict)]
    if len(told) == 1:
        return [_part(chunk, told[0], 0, route)]
    assert data is not None
    apart = {name: value for name, value in data.items() if name != "usage"}
    return [
        _part(chunk.with_data({**apart, "choices": [choice]}), choice, position, route)
        for position, choice in enumerate(told)
    ]


def _part(chunk: Chunk, choice: Mapping[str, Any], position: int, route: RouteName) -> Part:
    index = choice.get("index")
    finish = choice.get("finish_reason")
    pieces = tuple(_completion(choice) if route == "completions" else _chat(choice.get("delta")))
    plain = len(pieces) == 1 and finish is None and pieces[0].call is None and not choice.get("logprobs")
    number = index if isinstance(index, int) and not isinstance(index, bool) else position
    return Part(number, pieces, finish if isinstance(finish, str) else None, chunk, plain)


def _completion(choice: Mapping[str, Any]) -> Iterator[Piece]:
    text = choice.get("text")
    if isinstance(text, str) and text:
        yield Piece(CONTENT, text, None, "text")


def _chat(delta: Any) -> Iterator[Piece]:
    if not isinstance(delta, dict):
        return
    for member in THOUGHTS:
        thought = delta.get(member)
        if isinstance(thought, str) and thought:
            yield Piece(REASONING, thought, None, member)
            break  # some upstreams say it under both names
    else:
        if delta.get(DETAILS):
            yield from _details(delta)
    said = delta.get("content")
    if isinstance(said, str) and said:
        yield Piece(CONTENT, said, None, "content")
    elif isinstance(said, list):
        yield from _parts(said)
    if isinstance(old := delta.get("function_call"), dict):  # how tools were called before there were several
        told = old.get("arguments")
        yield Piece(Key("tool_call"), told if isinstance(told, str) else "", {"function": old}, "function_call")
    calls = delta.get("tool_calls")
    for position, call in enumerate(calls if isinstance(calls, list) else ()):
        if isinstance(call, dict):
            index = call.get("index")
            number = index if isinstance(index, int) and not isinstance(index, bool) else position
            yield Piece(Key("tool_call", number), _told_to_tool(call), call, "tool_calls")


def _told_to_tool(call: Mapping[str, Any]) -> str:
    """The arguments of a function, or the text that a custom tool is given."""
    function, custom = call.get("function"), call.get("custom")
    told = None
    if isinstance(function, dict):
        told = function.get("arguments")
    elif isinstance(custom, dict):
        told = custom.get("input")
    return told if isinstance(told, str) else ""


def _details(delta: Mapping[str, Any]) -> Iterator[Piece]:
    """Thoughts that are told in detail alone, as OpenRouter may."""
    said = "".join(span.text for span in texts({"choices": [{"delta": {DETAILS: delta[DETAILS]}}]}, "chat"))
    if said:
        yield Piece(REASONING, said, None, THOUGHTS[0])


def _parts(content: list[Any]) -> Iterator[Piece]:
    """Content in parts, as some providers send it; thoughts may be among them."""
    for span in texts({"choices": [{"delta": {"content": content}}]}, "chat"):
        if span.lane.kind == "thinking":
            yield Piece(REASONING, span.text, None, THOUGHTS[0])
        else:
            yield Piece(CONTENT, span.text, None, "content")


def choice_in(data: Mapping[str, Any]) -> dict[str, Any]:
    """The choice of a part's chunk, which has one."""
    choice: dict[str, Any] = next(one for one in data["choices"] if isinstance(one, dict))
    return choice


def one_by_one(part: Part) -> list[Part]:
    """The part with a chunk for each of its pieces, and the end apart; unchanged where there is but one of them."""
    count = len(part.pieces)
    if count + (part.finish is not None) < 2:
        return [part]
    data = part.chunk.data
    assert data is not None
    choice = choice_in(data)
    delta = choice.get("delta") or {}
    if isinstance(delta.get("content"), list):
        return [part]  # parts stay together
    rest = {name: value for name, value in delta.items() if name not in _SAID}
    made: list[Part] = []
    for place, piece in enumerate(part.pieces):
        said = {piece.member: delta[piece.member] if piece.member == "function_call" else _said(piece)}
        alone: dict[str, Any] = {**choice, "finish_reason": None}
        if piece.member == "text":
            alone |= said
        else:
            alone["delta"] = {**rest, **said} if place == 0 else said
        if place and "logprobs" in alone:
            alone["logprobs"] = None
        chunk = part.chunk.with_data({**data, "choices": [alone]})
        is_plain = piece.call is None and alone.get("logprobs") is None
        made.append(Part(part.choice, (piece,), None, chunk, is_plain))
    if part.finish is not None:
        end = {name: value for name, value in choice.items() if name not in ("delta", "text", "logprobs")}
        empty: dict[str, Any] = {"text": ""} if "text" in choice else {"delta": {}}
        chunk = part.chunk.with_data({**data, "choices": [{**end, **empty, "logprobs": None}]})
        made.append(Part(part.choice, (), part.finish, chunk))
    return made


def _said(piece: Piece) -> Any:
    return piece.text if piece.call is None else [piece.call]


def cut_in_two(part: Part, at: int) -> tuple[Part, Part]:
    """A part before and after `at`, an offset in its only piece."""
    text = part.pieces[0].text
    return with_text(part, text[:at]), with_text(part, text[at:], goes_on=at > 0)


def with_text(part: Part, text: str, *, goes_on: bool = False) -> Part:
    """The part with another text in place of its only piece; log-probabilities are of the whole, and go.

    A part that goes on does not say again who speaks.
    """
    (piece,) = part.pieces
    data = part.chunk.data
    assert data is not None
    made = _with_text(data, piece, text)
    if goes_on:
        made["choices"][0].get("delta", {}).pop("role", None)
    chunk = part.chunk.with_data(made)
    return part._replace(pieces=(piece._replace(text=text),), chunk=chunk)


def _with_text(data: Mapping[str, Any], piece: Piece, text: str) -> dict[str, Any]:
    choice = choice_in(data)
    alone = {**choice, "logprobs": None} if "logprobs" in choice else choice
    if piece.member == "text":
        return {**data, "choices": [{**alone, "text": text}]}
    delta = {
        name: value
        for name, value in choice["delta"].items()
        if name not in THOUGHTS and name != DETAILS and not (name == "content" and isinstance(value, list))
    }
    told = {piece.member: text}
    if DETAILS in choice["delta"]:
        told |= _with_details(choice["delta"][DETAILS], piece.text, text)
    return {**data, "choices": [{**alone, "delta": {**delta, **told}}]}


def _with_details(details: Any, old: str, new: str) -> dict[str, Any]:
    """The details of a text with another one in its place; those of which it is not plain what they say go."""
    if isinstance(details, list) and len(details) == 1 and isinstance(detail := details[0], dict):
        for name in ("text", "summary"):
            if detail.get(name) == old:
                return {DETAILS: [{**detail, name: new}]}
    return {}


def head_part(part: Part) -> Part | None:
    """Who speaks, of a part that says so: the part without anything that is said."""
    data = part.chunk.data or {}
    choice = next((one for one in data.get("choices") or () if isinstance(one, dict)), {})
    delta = choice.get("delta")
    if not isinstance(delta, dict) or "role" not in delta:
        return None
    alone = {**choice, "delta": {"role": delta["role"], "content": ""}, "finish_reason": None}
    alone |= {"logprobs": None} if "logprobs" in choice else {}
    return Part(part.choice, (), None, part.chunk.with_data({**data, "choices": [alone]}))


def chunk_of(head: Mapping[str, Any], choice: int, member: str, text: str) -> Chunk:
    """A chunk of our own that adds `text`; `head` is what is around the choices of the answer's other chunks."""
    if member == "text":
        told: dict[str, Any] = {"index": choice, "text": text, "logprobs": None, "finish_reason": None}
    else:
        told = {"index": choice, "delta": {member: text}, "logprobs": None, "finish_reason": None}
    return Chunk.of({**head, "choices": [told]})


def finish_of(head: Mapping[str, Any], choice: int, reason: str, route: RouteName, **more: Any) -> Chunk:
    """The chunk that ends a choice."""
    said: dict[str, Any] = {"text": ""} if route == "completions" else {"delta": {}}
    told = {"index": choice, **said, "logprobs": None, "finish_reason": reason, **more}
    return Chunk.of({**head, "choices": [told]})


def head_of(chunk: Chunk) -> dict[str, Any]:
    """What is around the choices: id, model, time."""
    return {name: value for name, value in (chunk.data or {}).items() if name not in ("choices", "usage")}


def is_error(chunk: Chunk) -> bool:
    """Whether a chunk tells of an error within the stream."""
    data = chunk.data
    return data is not None and (data.get("error") is not None or data.get("type") == "error")


def as_stream(chunk: Chunk, route: RouteName) -> list[Chunk]:
    """A whole body as the chunks of a stream. Raises `ValueError` for one that is no answer."""
    if not isinstance(chunk, BodyChunk):
        return [chunk]
    try:
        events = events_of(chunk, route, include_usage=True)
    except (KeyError, TypeError, AttributeError) as exc:
        raise ValueError(f"the answer makes no stream ({type(exc).__name__})") from exc
    return [Chunk(raw, is_last=raw.startswith(b"data: [DONE]")) for raw in events]


def part_said(said: Said, chunk: Chunk) -> Part:
    """The part of a chunk that says no more than this."""
    return Part(said.choice, (Piece(KEYS[said.member], said.text, None, said.member),), None, chunk, True)


def said_plainly(event: bytes) -> tuple[int, Key, str] | None:
    """Choice, text and piece of an event that does no more than add to one text; `None` of others."""
    said = read_plainly(event)
    return (said.choice, KEYS[said.member], said.text) if said is not None else None
