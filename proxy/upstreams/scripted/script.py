"""What a fake provider is told to say: `Script`, made of `Answer`s, readable from YAML, a header or a model's name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, Self, TypeAlias, TypeVar, get_args

from pydantic import Field, ValidationError

from predawn.proxy.problems import Problem, explain, unknown
from predawn.proxy.settings import Part

Fault: TypeAlias = Literal[
    "refuse",
    "stall_headers",
    "stall_first_byte",
    "stall_mid_stream",
    "die_first_byte",
    "die_mid_event",
    "no_done",
    "length_too_long",
    "length_too_short",
    "garbage",
    "invalid_utf8",
    "error_event",
    "redirect",
]
Style: TypeAlias = Literal[
    "crlf",
    "data_lines",
    "no_space",
    "comments",
    "byte_by_byte",
    "trickle",
    "one_write",
    "huge_event",
    "gzip",
    "http10",
    "no_usage",
]
FAULTS: tuple[str, ...] = get_args(Fault)
STYLES: tuple[str, ...] = get_args(Style)
WORDS = frozenset({"text", "texts", "pieces", "tool_calls", "body", "raw"})
"""What is said: an answer that gives one of these takes none of the others from its script."""

A = TypeVar("A", bound="Answer")


class ScriptError(ValueError):
    """A script that cannot be read; the message names each culprit and the nearest valid name."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class ToolCall(Part):
    name: str = Field(description="Function that is called.")
    arguments: str | dict[str, Any] = Field(
        default="{}", description="Its arguments: an object, or the text just as it is."
    )


class Answer(Part):
    """One answer. Members that are not given come from the script that holds it."""

    text: str | None = Field(
        default=None, description="What is said, one word per chunk; made up from seed and request if absent."
    )
    texts: tuple[str, ...] | None = Field(
        default=None, description="What each of `n` choices says, over again if `n` is larger."
    )
    pieces: tuple[str, ...] | None = Field(default=None, description="What is said, chunk by chunk.")
    reasoning: str = Field(default="", description="Thought aloud before the answer (`reasoning_content`).")
    tool_calls: tuple[ToolCall, ...] | None = Field(
        default=None,
        description="Functions called; else the first one offered (each with `parallel_tool_calls`).",
    )
    finish_reason: str | None = Field(default=None, description="In place of `stop`, `length` or `tool_calls`.")
    usage: dict[str, Any] = Field(default_factory=dict, description="Members that replace those of the counted usage.")
    chunks: int = Field(default=16, ge=0, description="Tokens of a made-up answer; each is a chunk of a stream.")
    first_byte_ms: float = Field(default=0, ge=0, description="Wait before the first byte.")
    interval_ms: float = Field(default=0, ge=0, description="Wait between two tokens.")
    status: int = Field(default=200, ge=200, le=599, description="HTTP status; 400 and above answers with an error.")
    headers: dict[str, str] = Field(default_factory=dict, description="Headers added to the reply.")
    body: str | dict[str, Any] | None = Field(default=None, description="The whole body, just as it is.")
    raw: tuple[bytes, ...] | None = Field(
        default=None, description="The bytes of a stream, write by write, as they are."
    )
    fault: Fault | None = Field(default=None, description="How the answer fails.")
    after: int | None = Field(
        default=None, ge=0, description="Events sent whole before the fault strikes; half of them if absent."
    )
    style: tuple[Style, ...] = Field(default=(), description="Unusual but valid ways to write the reply.")

    def but(self, changes: Mapping[str, Any]) -> Answer:
        """This answer with other values for some members, checked."""
        kept = self.model_fields_set & Answer.model_fields.keys()
        if WORDS & changes.keys():
            kept -= WORDS
        return _read(Answer, {**{name: getattr(self, name) for name in kept}, **changes}, "answer")

    @property
    def given(self) -> dict[str, Any]:
        """The members that were given, not taken from the defaults."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class Script(Answer):
    """A fake provider's part: `answers` are given first, one per request; its own members answer all the others."""

    answers: tuple[Answer, ...] = Field(default=(), description="Answers to the first requests, in order.")
    cycle: bool = Field(default=False, description="Begin again with the first of `answers` after the last.")
    error_rate: float = Field(default=0, ge=0, le=1, description="Share of requests that fail, drawn from the seed.")
    errors: tuple[str, ...] = Field(
        default=("status=500",), min_length=1, description="How those fail: overrides, drawn evenly."
    )
    seed: int = Field(default=1, description="Decides made-up text and drawn errors.")
    models: tuple[str, ...] = Field(default=("scripted",), description="Names listed by `/v1/models`.")

    @classmethod
    def of(cls, *answers: Answer | str) -> Self:
        """A script of answers given one after the other; a plain string is a text."""
        return cls(answers=tuple(Answer(text=item) if isinstance(item, str) else item for item in answers))

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Self:
        """Check a script from a settings file; raises `ScriptError` with every mistake at once."""
        return _read(cls, _spell_out(data), "script")


def overrides(text: str) -> dict[str, Any]:
    """Read `stall_headers`, `status=429, retry-after=1`, `crlf, chunks=3`, or a JSON object into members of an answer.

    A bare word is a fault or a style; a key with a dash is a header.
    """
    if text.lstrip().startswith("{"):
        try:
            return _spell_out(json.loads(text))
        except json.JSONDecodeError as exc:
            raise ScriptError(Problem(("script",), f"not valid JSON: {exc}")) from None
    changes: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            _add_word(changes, key)
        elif "-" in key:
            changes.setdefault("headers", {})[key] = value
        else:
            changes[key] = _value(value)
    return changes


def _add_word(changes: dict[str, Any], word: str) -> None:
    if word in STYLES:
        changes["style"] = (*changes.get("style", ()), word)
    elif word in FAULTS:
        changes["fault"] = word
    else:
        raise ScriptError(Problem(("script",), unknown("fault or style", word, FAULTS + STYLES)))


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _spell_out(data: Mapping[str, Any]) -> dict[str, Any]:
    """Accept a plain string where an answer stands, and one style where a list of them stands."""
    spelled = dict(data)
    if isinstance(style := spelled.get("style"), str):
        spelled["style"] = (style,)
    if isinstance(answers := spelled.get("answers"), list | tuple):
        spelled["answers"] = tuple(
            {"text": item} if isinstance(item, str) else _spell_out(item) if isinstance(item, Mapping) else item
            for item in answers
        )
    return spelled


def _read(kind: type[A], data: Mapping[str, Any], where: str) -> A:
    try:
        return kind.model_validate(data)
    except ValidationError as exc:
        raise ScriptError(*explain(exc, (where,), model=kind, data=data)) from None
