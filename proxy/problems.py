"""What is wrong with a settings file: `Problem`, the nearest right name, and pydantic's errors in plain words."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

from pydantic import BaseModel

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

Where: TypeAlias = tuple[str | int, ...]

_QUOTED = re.compile(r"'([^']*)'")
_LISTED_AT_MOST = 16


@dataclass(frozen=True, slots=True)
class Problem:
    """One error: the place in the file as keys and indexes, and what is wrong there in words without any value."""

    where: Where
    message: str
    line: int | None = None

    @property
    def place(self) -> str:
        """`upstreams[0].base_url`, or an empty string for the file as a whole."""
        text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.where)
        return text.removeprefix(".")

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" if self.where else self.message


class SettingsError(Exception):
    """The settings cannot be used; the text has a line `FILE:LINE: where: message` for every problem."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        super().__init__("\n".join(_line(source, problem) for problem in self.problems))


def _line(source: str, problem: Problem) -> str:
    return f"{source}: {problem}" if problem.line is None else f"{source}:{problem.line}: {problem}"


def nearest(name: str, candidates: Iterable[str]) -> str:
    """` — did you mean 'x'?` with the candidate most like `name`, or an empty string when none is near."""
    folded = {candidate.casefold(): candidate for candidate in candidates}
    found = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.6)
    return f" — did you mean '{folded[found[0]]}'?" if found else ""


def unknown(noun: str, name: str, candidates: Iterable[str]) -> str:
    """Words for a name that does not exist: the nearest one, or a short list of those that do."""
    names = sorted(candidates)
    if hint := nearest(name, names):
        return f"there is no {noun} '{name}'{hint}"
    if not names:
        return f"there is no {noun} '{name}'; none is defined"
    return f"there is no {noun} '{name}'; known: {_listed(names)}"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _LISTED_AT_MOST
    return ", ".join(names[:_LISTED_AT_MOST]) + (f" and {more} more" if more > 0 else "")


def explain(
    error: ValidationError, prefix: Where = (), *, model: type[BaseModel] | None = None, data: Any = None
) -> list[Problem]:
    """The problems in a pydantic error, each at its place below `prefix`.

    `model` (what was validated) adds the nearest key to unknown ones; `data` (its input) adds the nearest value of an
    enumeration and keeps pydantic's names of union members out of the place.
    """
    found: dict[Where, list[str]] = {}
    for details in error.errors(include_url=False):
        where = prefix + _place(details, data)
        messages = found.setdefault(where, [])
        if (message := _message(details, model)) not in messages:
            messages.append(message)
    return [Problem(where, ", or ".join(messages)) for where, messages in found.items()]


def _place(details: ErrorDetails, data: Any) -> Where:
    """As much of pydantic's location as exists in the input; a missing key counts as existing."""
    location = details["loc"]
    if data is None:
        return location
    place: list[str | int] = []
    for part in location:
        present = _has(data, part)
        if not present and details["type"] != "missing":
            break
        place.append(part)
        if present:
            data = data[part]
    return tuple(place)


def _has(data: Any, part: str | int) -> bool:
    if isinstance(data, Mapping):
        return part in data
    return isinstance(data, (list, tuple)) and isinstance(part, int) and part < len(data)


def _message(details: ErrorDetails, model: type[BaseModel] | None) -> str:
    kind, text = details["type"], details["msg"]
    if kind == "missing":
        return "this key is missing"
    if kind == "extra_forbidden":
        return _unknown_key(str(details["loc"][-1]), _model_at(model, details["loc"][:-1]))
    if kind == "literal_error":
        given = details["input"]
        names = _QUOTED.findall(details.get("ctx", {}).get("expected", ""))
        return text.replace("Input should be", "must be") + (nearest(given, names) if isinstance(given, str) else "")
    if kind == "value_error":
        return text.removeprefix("Value error, ")
    if kind == "tuple_type":
        return "must be a list"
    if kind in {"model_type", "model_attributes_type", "dict_type"}:
        return "must be a mapping of keys to values"
    return text.replace("Input should be", "must be")


def _unknown_key(key: str, model: type[BaseModel] | None) -> str:
    names = list(model.model_fields) if model else []
    if hint := nearest(key, names):
        return f"unknown key{hint}"
    return f"unknown key; known: {_listed(names)}" if names else "unknown key"


def _model_at(model: type[BaseModel] | None, location: Where) -> type[BaseModel] | None:
    for part in location:
        if isinstance(part, int) or model is None:
            continue
        field = model.model_fields.get(part)
        model = _model_in(field.annotation) if field else None
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)
