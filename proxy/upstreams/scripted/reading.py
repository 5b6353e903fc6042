"""Reading requests the forgiving way a fake may: what is missing or odd is left out, never an exception."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from predawn.proxy.upstreams.scripted.speech import Tool


def texts_in(value: Any) -> Iterator[str]:
    """Every text in a prompt: strings, messages, and the text parts of their content."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from texts_in(item)
    elif isinstance(value, Mapping):
        for key in ("text", "content"):
            yield from texts_in(value.get(key))


def mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def mappings(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def whole_number(*values: Any) -> int | None:
    """The first of the values that is an integer."""
    return next((value for value in values if isinstance(value, int) and not isinstance(value, bool)), None)


def strings(value: Any) -> tuple[str, ...]:
    """A string, or a list of them, as a tuple."""
    if isinstance(value, str):
        return (value,)
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def tool(name: Any, schema: Any) -> Tool:
    return Tool(str(name), mapping(schema))
