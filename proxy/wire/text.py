"""Where text lives in the chunks of each dialect: chat, completions, responses and messages.

A reader asks for the `texts` of a chunk and gets spans; a lane names the text that spans of many chunks add up to. A
writer puts other text where a span stands (`put`), learns which lanes a chunk closes (`ended`) and makes a chunk of its
own for text that it held back (`continuation`). Annotations, citations and encrypted reasoning are not text here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec

from predawn.proxy.exchange import RouteName

_encode = msgspec.json.Encoder().encode
Path: TypeAlias = tuple[str | int, ...]
Form: TypeAlias = Literal["text", "json", "object"]


class Lane(NamedTuple):
    """One growing text of an answer."""

    group: int
    """Choice, output item or content block."""
    kind: str
    """What the text is, in the dialect's own word: `content`, `arguments`, `output_text`, `thinking` …"""
    part: int = 0
    """Tool call, content part or summary part."""


@dataclass(frozen=True, slots=True)
class TextSpan:
    """A text in a chunk: the next piece of its lane, or all of it where `whole` is true."""

    lane: Lane
    path: Path
    text: str
    form: Form = "text"
    """`json`: pieces of a JSON text. `object`: a JSON value stands at `path`; `text` is its encoding."""
    whole: bool = False
    logprobs: Path | None = None
    """Where the log probabilities of the text's tokens stand, if the chunk has them."""


def texts(data: Mapping[str, Any], route: RouteName) -> list[TextSpan]:
    """The texts in one chunk of an answer; empty ones only where they bring log probabilities."""
    finder = _FINDERS.get(route)
    return [span for span in finder(data) if span.text or span.logprobs] if finder is not None else []


def request_texts(request: Mapping[str, Any], route: RouteName) -> list[TextSpan]:
    """The texts a client wrote: messages, prompts, inputs and instructions, each of them whole."""
    spans: list[TextSpan] = []
    for name in _REQUEST_MEMBERS.get(route, ()):
        spans.extend(_written(request.get(name), (name,)))
    return [span for span in spans if span.text]


def ended(data: Mapping[str, Any], route: RouteName) -> list[tuple[int | str, ...]]:
    """What the chunk closes, as prefixes of lanes; `()` closes all."""
    if route in ("chat", "completions"):
        return [
            (_number(choice.get("index"), position),)
            for position, choice in _dicts(data.get("choices"))
            if choice.get("finish_reason") is not None
        ]
    kind = data.get("type")
    if route == "messages":
        if kind == "content_block_stop":
            return [(_number(data.get("index")),)]
        return [()] if kind in ("message_delta", "message_stop") else []
    if route == "responses" and isinstance(kind, str):
        return _response_ends(kind, data)
    return []


def get(data: Any, path: Path) -> Any:
    """The value at a path, or `None` where the path leads nowhere."""
    for key in path:
        try:
            data = data[key]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def put(data: Any, path: Path, value: Any) -> Any:
    """The data with another value at a path; containers on the way are copied, the rest is shared."""
    if not path:
        return value
    copy = data.copy()
    copy[path[0]] = put(data[path[0]], path[1:], value)
    return copy


def continuation(data: Mapping[str, Any], span: TextSpan, text: str, logprobs: Any = None) -> dict[str, Any]:
    """Data of a chunk that adds `text` to the lane of `span`, made after the chunk the span was found in."""
    if span.path[0] != "choices":
        more: dict[str, Any] = put(data, span.path, text)
        if "logprobs" in more:
            more["logprobs"] = logprobs or []
        return more
    value: Any = text
    for key in reversed(span.path[2:]):
        value = [{"index": span.lane.part, **value}] if isinstance(key, int) else {key: value}
    choice = {"index": span.lane.group, **value, "logprobs": _logprobs_member(span, logprobs), "finish_reason": None}
    rest = {key: value for key, value in data.items() if key not in ("choices", "usage")}
    return {**rest, "choices": [choice]}


def _logprobs_member(span: TextSpan, logprobs: Any) -> Any:
    """The `logprobs` member of a choice; chat puts the lane's name around the list."""
    if not logprobs or span.logprobs is None:
        return None
    return {span.logprobs[-1]: logprobs} if len(span.logprobs) > 3 else logprobs


def _dicts(items: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    """Positions and items of a list, objects only."""
    if isinstance(items, list):
        for position, item in enumerate(items):
            if isinstance(item, dict):
                yield position, item


def _number(value: Any, default: int = 0) -> int:
    """An index as the wire gives it, or the default where it gives none or nonsense."""
    return value if isinstance(value, int) else default


def _span(
    owner: Mapping[str, Any], name: str, base: Path, lane: Lane, *, form: Form = "text", whole: bool = False
) -> Iterator[TextSpan]:
    """The span of a member, if it is a string."""
    value = owner.get(name)
    if isinstance(value, str):
        yield TextSpan(lane, (*base, name), value, form, whole)


# --- chat and completions -------------------------------------------------------------------------------------------


def _chat(data: Mapping[str, Any]) -> Iterator[TextSpan]:
    for position, choice in _dicts(data.get("choices")):
        delta = choice.get("delta")
        if isinstance(delta, dict):
            index = _number(choice.get("index"), position)
            base: Path = ("choices", position, "delta")
            for span in _chat_delta(delta, base, index):
                where: Path = ("choices", position, "logprobs", span.lane.kind)
                has_them = len(span.path) == 4 and get(data, where) is not None
                yield _with_logprobs(span, where) if has_them else span


def _with_logprobs(span: TextSpan, where: Path) -> TextSpan:
    return TextSpan(span.lane, span.path, span.text, span.form, span.whole, where)


def _chat_delta(delta: dict[str, Any], base: Path, index: int) -> Iterator[TextSpan]:
    for name in ("content", "refusal", "reasoning_content", "reasoning"):
        yield from _span(delta, name, base, Lane(index, name))
    for position, part in _dicts(delta.get("content")):
        yield from _span(part, "text", (*base, "content", position), Lane(index, "content", position))
        for inner, thought in _dicts(part.get("thinking")):
            yield from _span(
                thought, "text", (*base, "content", position, "thinking", inner), Lane(index, "thinking", position)
            )
    for position, detail in _dicts(delta.get("reasoning_details")):
        for name in ("text", "summary"):
            lane = Lane(index, f"reasoning_details.{name}", _number(detail.get("index"), position))
            yield from _span(detail, name, (*base, "reasoning_details", position), lane)
    yield from _chat_calls(delta, base, index)
    if isinstance(audio := delta.get("audio"), dict):
        yield from _span(audio, "transcript", (*base, "audio"), Lane(index, "transcript"))


def _chat_calls(delta: dict[str, Any], base: Path, index: int) -> Iterator[TextSpan]:
    for position, call in _dicts(delta.get("tool_calls")):
        part = _number(call.get("index"), position)
        where: Path = (*base, "tool_calls", position)
        if isinstance(function := call.get("function"), dict):
            yield from _span(function, "arguments", (*where, "function"), Lane(index, "arguments", part), form="json")
        if isinstance(custom := call.get("custom"), dict):
            yield from _span(custom, "input", (*where, "custom"), Lane(index, "input", part))
    if isinstance(function := delta.get("function_call"), dict):
        yield from _span(function, "arguments", (*base, "function_call"), Lane(index, "function_call"), form="json")


def _completions(data: Mapping[str, Any]) -> Iterator[TextSpan]:
    for position, choice in _dicts(data.get("choices")):
        where: Path = ("choices", position, "logprobs")
        for span in _span(choice, "text", ("choices", position), Lane(_number(choice.get("index"), position), "text")):
            yield span if choice.get("logprobs") is None else _with_logprobs(span, where)


# --- responses ------------------------------------------------------------------------------------------------------


class _Event(NamedTuple):
    """What `response.<kind>.delta` and `response.<kind>.done` carry."""

    member: str
    """Member of the `done` event that holds all of the text."""
    part: str = ""
    """Member that numbers the part within its item."""
    form: Form = "text"


_EVENTS = {
    "output_text": _Event("text", "content_index"),
    "refusal": _Event("refusal", "content_index"),
    "reasoning_text": _Event("text", "content_index"),
    "reasoning_summary_text": _Event("text", "summary_index"),
    "function_call_arguments": _Event("arguments", form="json"),
    "mcp_call_arguments": _Event("arguments", form="json"),
    "custom_tool_call_input": _Event("input"),
    "code_interpreter_call_code": _Event("code"),
    "audio.transcript": _Event("transcript"),
}
_PART_KINDS = {
    "output_text": ("output_text", "text"),
    "refusal": ("refusal", "refusal"),
    "reasoning_text": ("reasoning_text", "text"),
    "summary_text": ("reasoning_summary_text", "text"),
}
_ITEM_MEMBERS: dict[str, tuple[tuple[str, str, Form], ...]] = {
    "function_call": (("function_call_arguments", "arguments", "json"),),
    "mcp_call": (("mcp_call_arguments", "arguments", "json"), ("mcp_call_output", "output", "text")),
    "custom_tool_call": (("custom_tool_call_input", "input", "text"),),
    "code_interpreter_call": (("code_interpreter_call_code", "code", "text"),),
}


def _responses(data: Mapping[str, Any]) -> Iterator[TextSpan]:
    if isinstance(response := data.get("response"), dict):
        yield from _items(response.get("output"), ("response", "output"))
        return
    group = _number(data.get("output_index"))
    name, _, step = str(data.get("type", "")).removeprefix("response.").rpartition(".")
    if isinstance(item := data.get("item"), dict):
        yield from _item(item, ("item",), group)
    elif isinstance(part := data.get("part"), dict):
        yield from _part(part, ("part",), group, _number(data.get("content_index", data.get("summary_index"))))
    elif event := _EVENTS.get(name):
        lane = Lane(group, name, _number(data.get(event.part)))
        member = "delta" if step == "delta" else event.member
        for span in _span(data, member, (), lane, form=event.form, whole=step != "delta"):
            yield _with_logprobs(span, ("logprobs",)) if data.get("logprobs") else span
    else:
        yield from _items(data.get("output"), ("output",))


def _items(items: Any, base: Path) -> Iterator[TextSpan]:
    for group, item in _dicts(items):
        yield from _item(item, (*base, group), group)


def _item(item: dict[str, Any], base: Path, group: int) -> Iterator[TextSpan]:
    for name in ("content", "summary"):
        for position, part in _dicts(item.get(name)):
            yield from _part(part, (*base, name, position), group, position)
    for kind, name, form in _ITEM_MEMBERS.get(str(item.get("type")), ()):
        yield from _span(item, name, base, Lane(group, kind), form=form, whole=True)


def _part(part: dict[str, Any], base: Path, group: int, position: int) -> Iterator[TextSpan]:
    kind, name = _PART_KINDS.get(str(part.get("type")), ("", ""))
    for span in _span(part, name, base, Lane(group, kind, position), whole=True):
        yield _with_logprobs(span, (*base, "logprobs")) if part.get("logprobs") else span


def _response_ends(kind: str, data: Mapping[str, Any]) -> list[tuple[int | str, ...]]:
    if isinstance(data.get("response"), dict):
        return [] if kind in ("response.created", "response.in_progress", "response.queued") else [()]
    group = _number(data.get("output_index"))
    name, _, step = kind.removeprefix("response.").rpartition(".")
    if step != "done":
        return []
    if event := _EVENTS.get(name):
        return [(group, name, _number(data.get(event.part)))]
    return [(group,)] if name == "output_item" else []


# --- messages -------------------------------------------------------------------------------------------------------

_BLOCK_DELTAS: dict[str, tuple[str, str, Form]] = {
    "text_delta": ("text", "text", "text"),
    "thinking_delta": ("thinking", "thinking", "text"),
    "input_json_delta": ("input", "partial_json", "json"),
}


def _messages(data: Mapping[str, Any]) -> Iterator[TextSpan]:
    kind = data.get("type")
    group = _number(data.get("index"))
    if kind == "content_block_delta" and isinstance(delta := data.get("delta"), dict):
        known = _BLOCK_DELTAS.get(str(delta.get("type")))
        if known is not None:
            name, member, form = known
            yield from _span(delta, member, ("delta",), Lane(group, name), form=form)
    elif kind == "content_block_start" and isinstance(block := data.get("content_block"), dict):
        yield from _block(block, ("content_block",), group, whole=False)
    else:
        base: Path = ("message", "content") if kind == "message_start" else ("content",)
        for position, block in _dicts(get(data, base)):
            yield from _block(block, (*base, position), position, whole=True)


def _block(block: dict[str, Any], base: Path, group: int, *, whole: bool) -> Iterator[TextSpan]:
    for name in ("text", "thinking"):
        yield from _span(block, name, base, Lane(group, name), whole=whole)
    if isinstance(given := block.get("input"), dict) and given:
        yield TextSpan(Lane(group, "input"), (*base, "input"), _encode(given).decode(), "object", whole=True)


_FINDERS = {"chat": _chat, "completions": _completions, "responses": _responses, "messages": _messages}


# --- requests -------------------------------------------------------------------------------------------------------

_REQUEST_MEMBERS: dict[RouteName, tuple[str, ...]] = {
    "chat": ("messages", "prediction"),
    "completions": ("prompt", "suffix"),
    "responses": ("instructions", "input"),
    "embeddings": ("input",),
    "messages": ("system", "messages"),
}
_WRITTEN = ("content", "text", "refusal", "reasoning_content", "thinking", "output", "summary", "function", "custom")
_CALLS = ("tool_calls", "function_call")


def _written(value: Any, path: Path) -> Iterator[TextSpan]:
    """Texts in a message, in a part of one, or in lists of them."""
    if isinstance(value, str):
        yield TextSpan(Lane(0, str(path[-1])), path, value, whole=True)
    elif isinstance(value, list):
        for position, item in enumerate(value):
            yield from _written(item, (*path, position))
    elif isinstance(value, dict):
        for name in (*_WRITTEN, *_CALLS):
            if name in value:
                yield from _written(value[name], (*path, name))
        yield from _span(value, "arguments", path, Lane(0, "arguments"), form="json", whole=True)
        given = value.get("input")
        if isinstance(given, str):
            yield TextSpan(Lane(0, "input"), (*path, "input"), given, whole=True)
        elif isinstance(given, dict) and given:
            yield TextSpan(Lane(0, "input"), (*path, "input"), _encode(given).decode(), "object", whole=True)
