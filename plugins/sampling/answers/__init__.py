"""What an answer says, in a form in which equal answers are equal: numbers, options, yes and no, JSON, tool calls,
code.

`reader(...)` chooses by the request. A text that cannot be read safely says nothing: no vote is better than a wrong
one. Texts come from models and may be anything; all that is done here is bounded in time and memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from predawn.plugins.sampling.answers import tool_calls
from predawn.plugins.sampling.answers.asked import Asked, asked_of
from predawn.plugins.sampling.answers.auto import Auto
from predawn.plugins.sampling.answers.code import CodeExtractor
from predawn.plugins.sampling.answers.json_value import JsonExtractor
from predawn.plugins.sampling.answers.numbers import BoxedExtractor, NumberExtractor
from predawn.plugins.sampling.answers.options import OptionExtractor
from predawn.plugins.sampling.answers.yes_no import YesNoExtractor

if TYPE_CHECKING:
    from predawn.proxy.extensions import Extracted, Extractor

__all__ = ["BUILT_IN", "Reader", "reader"]

Reader: TypeAlias = "Callable[[str, Sequence[Mapping[str, Any]]], Extracted | None]"
"""Reads an answer: its text, and its tool calls as folded."""

BUILT_IN: Mapping[str, Callable[[Asked], Extractor]] = {
    "auto": Auto,
    "number": NumberExtractor,
    "boxed": BoxedExtractor,
    "option": OptionExtractor,
    "yes_no": lambda _: YesNoExtractor(),
    "json": lambda _: JsonExtractor(),
    "code": lambda _: CodeExtractor(),
    "tool_call": lambda _: tool_calls.ToolCallExtractor(),
}
"""By name; each made for one request."""


def reader(
    request: Mapping[str, Any], wanted: str = "auto", registered: Mapping[str, Extractor] | None = None
) -> Reader:
    """The function that reads the answers to one request. Raises `KeyError` for a name that nobody registered.

    What was registered goes before what is built in. An answer with tool calls says what it calls, however its text
    is read.
    """
    found = (registered or {}).get(wanted)
    extractor = found if found is not None else BUILT_IN[wanted](asked_of(request))

    def read(text: str, calls: Sequence[Mapping[str, Any]] = ()) -> Extracted | None:
        return tool_calls.read(calls) if calls else extractor.extract(text)

    return read
