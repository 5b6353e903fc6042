"""A JSON Schema followed along with a JSON text: says that a document cannot be valid any more as soon as that is so.

It knows the keywords that structured output uses (types, properties, items, enum, const, limits, anyOf, oneOf, allOf,
local references). What it does not know it lets pass: the whole schema is checked once the document is complete.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from predawn.plugins.verify.verifiers.json_machine import Event
from predawn.plugins.verify.verifiers.vocabulary import words_of

WORK_PER_EVENT = 40
WORK_AT_FIRST = 600
MOST_HOPS = 32
_TYPES = {"true": "boolean", "false": "boolean", "number": "number"}


class OverrunError(Exception):
    """The schema multiplies itself: following it costs too much."""


class Schema:
    """A schema, what its references lead to, and how much work following it may still be."""

    __slots__ = ("_left", "called", "root")

    def __init__(self, root: Any, called: str = "the answer") -> None:
        self.root = root
        self.called = called
        self._left = WORK_AT_FIRST

    def earn(self) -> None:
        """Something was written."""
        self._left += WORK_PER_EVENT

    def spend(self) -> None:
        """A schema looks at it. Raises `OverrunError`."""
        self._left -= 1
        if self._left < 0:
            raise OverrunError

    def resolved(self, schema: Any) -> Any:
        """The schema that a local reference leads to; `True` for what cannot be followed. Siblings are kept."""
        hops = 0
        while isinstance(schema, dict) and isinstance(reference := schema.get("$ref"), str):
            hops += 1
            target = self.target(reference) if hops <= MOST_HOPS else None
            target = True if target is None else target
            siblings = {key: value for key, value in schema.items() if key not in {"$ref", "$defs", "definitions"}}
            if siblings:
                return {"allOf": [target, siblings]}
            schema = target
        return schema

    def target(self, reference: str) -> Any:
        """What a reference into this document leads to; `None` for any other."""
        if not reference.startswith("#") or (len(reference) > 1 and reference[1] != "/") or "%" in reference:
            return None
        found = self.root
        for part in reference[1:].split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict) and name in found:
                found = found[name]
            elif isinstance(found, list) and name.isdigit() and int(name) < len(found):
                found = found[int(name)]
            else:
                return None
        return found


class Check:
    """One schema applied to one value that is being written. `event` returns what is wrong, or nothing."""

    __slots__ = ("_children", "_groups", "_items", "_keys", "_kind", "_of", "_open", "_schema", "done", "path")

    def __init__(self, of: Schema, schema: Any, path: str, depth: int = 0) -> None:
        of.spend()
        if depth > MOST_HOPS:
            raise OverrunError
        schema = of.resolved(schema)
        self._of = of
        self._schema: Mapping[str, Any] | bool = schema if isinstance(schema, (dict, bool)) else True
        self.path = path
        self.done = False
        self._kind = ""
        self._open: list[Check] = []
        """Checks of the child that is being written."""
        self._children: list[tuple[Any, str]] = []
        """Schemas of the child that comes next."""
        self._keys: set[str] = set()
        self._items = 0
        self._groups: list[tuple[str, list[Check]]] = []
        if isinstance(self._schema, dict):
            for name in ("allOf", "anyOf", "oneOf"):
                members = self._schema.get(name)
                if isinstance(members, list) and members:
                    self._groups.append((name, [Check(of, member, path, depth + 1) for member in members]))

    def event(self, event: Event) -> str | None:
        """Take an event of this value in."""
        self._of.spend()
        fault = self._own(event) if self._schema is not True else self._follow(event)
        if fault is not None:
            return fault
        for name, members in self._groups:
            told = [(member, member.event(event)) for member in members if not member.done or event.what != "begin"]
            alive = [member for member, said in told if said is None]
            faults = [said for _, said in told if said is not None]
            if faults and (name == "allOf" or not alive):
                return (
                    faults[0]
                    if name == "allOf" or len(faults) == 1
                    else f"{self._here()} fits none of the allowed forms: {faults[0]}"
                )
            members[:] = alive
            if name == "oneOf" and self.done and len(alive) > 1:
                return f"{self._here()} fits more than one of the forms of which it must fit one"
        return None

    def _here(self) -> str:
        return self.path or self._of.called

    def _follow(self, event: Event) -> str | None:
        """Only see where the value ends."""
        if self._kind == "":
            self._kind = event.kind or ""
            self._items = 1 if event.kind in {"object", "array"} else 0
        elif event.what == "begin" and event.kind in {"object", "array"}:
            self._items += 1
        elif event.what == "end":
            self._items -= 1
            self.done = self._items == 0
        elif event.what == "value" and self._items == 0:
            self.done = True
        return None

    def _own(self, event: Event) -> str | None:
        if self._schema is False:
            return f"{self._here()} must not be there"
        if self._open:
            return self._in_child(event)
        if not self._kind:
            return self._begun(event)
        if event.what == "end":
            self.done = True
            return self._ended()
        if event.what == "value" and self._kind not in {"object", "array"}:
            self.done = True
            return self._complete(event)
        if event.what == "grown" and self._kind == "string":
            return self._grown(event.text)
        if event.what == "grown" and event.value:
            return self._key_grown(event.text)
        if event.what == "key":
            return self._key(event.text)
        if event.what == "begin":
            return self._child(event)
        return None

    def _in_child(self, event: Event) -> str | None:
        for check in self._open:
            fault = check.event(event)
            if fault is not None:
                return fault
        if all(check.done for check in self._open):
            self._open = []
        return None

    # -- the value itself

    def _begun(self, event: Event) -> str | None:
        assert event.kind is not None
        self._kind = event.kind
        types = self._schema.get("type")  # type: ignore[union-attr]
        kind = _TYPES.get(event.kind, event.kind)
        allowed = [types] if isinstance(types, str) else types if isinstance(types, list) else None
        if allowed is not None and kind not in allowed and not (kind == "number" and "integer" in allowed):
            return f"{self._here()} must be {' or '.join(map(str, allowed))}, not {kind}"
        choices = self._choices()
        if choices is not None and not any(_kind_of(choice) == kind for choice in choices):
            return f"{self._here()} must be {_listed(choices)}"
        return None

    def _choices(self) -> Sequence[Any] | None:
        assert isinstance(self._schema, dict)
        if "const" in self._schema:
            return [self._schema["const"]]
        choices = self._schema.get("enum")
        return choices if isinstance(choices, list) else None

    def _grown(self, text: str) -> str | None:
        if not text:
            return None
        choices = self._choices()
        if choices is not None and not any(isinstance(choice, str) and choice.startswith(text) for choice in choices):
            return f"{self._here()} must be {_listed(choices)}"
        longest = _limit(self._schema, "maxLength")
        if longest is not None and len(text) > longest:
            return f"{self._here()} must have at most {longest:g} characters"
        return None

    def _complete(self, event: Event) -> str | None:
        schema, value = self._schema, event.value
        choices = self._choices()
        if choices is not None and not any(same(choice, value) for choice in choices):
            return f"{self._here()} must be {_listed(choices)}"
        if self._kind == "string":
            for name, word, wrong in (("minLength", "least", -1), ("maxLength", "most", 1)):
                limit = _limit(schema, name)
                if limit is not None and (len(value) - limit) * wrong > 0:
                    return f"{self._here()} must have at {word} {limit:g} characters"
        elif self._kind == "number":
            return self._number(value)
        return None

    def _number(self, value: float) -> str | None:
        assert isinstance(self._schema, dict)
        types = self._schema.get("type")
        is_integer = types == "integer" or (isinstance(types, list) and "integer" in types and "number" not in types)
        if is_integer and (not math.isfinite(value) or value != int(value)):
            return f"{self._here()} must be an integer"
        for name, word, fails in _LIMITS:
            limit = _limit(self._schema, name)
            if limit is not None and fails(value, limit):
                return f"{self._here()} must be {word} {limit:g}"
        step = _limit(self._schema, "multipleOf")
        if step is not None and not is_multiple(value, step):
            return f"{self._here()} must be a multiple of {step:g}"
        return None

    # -- members and items

    def _key_grown(self, text: str) -> str | None:
        assert isinstance(self._schema, dict)
        if not text or self._allows_any_key():
            return None
        names = _mapping(self._schema, "properties")
        if any(name.startswith(text) for name in names):
            return None
        return f"{self._here()} has no member {text!r}; it may have {_listed(list(names))}"

    def _allows_any_key(self) -> bool:
        assert isinstance(self._schema, dict)
        return self._schema.get("additionalProperties", True) is not False or bool(
            _mapping(self._schema, "patternProperties")
        )

    def _key(self, name: str) -> str | None:
        assert isinstance(self._schema, dict)
        self._keys.add(name)
        most = _limit(self._schema, "maxProperties")
        if most is not None and len(self._keys) > most:
            return f"{self._here()} must have at most {most:g} members"
        properties = _mapping(self._schema, "properties")
        path = f"{self.path}.{name[:60]}" if self.path else name[:60]
        if name in properties:
            self._children = [(properties[name], path)]
        elif not self._allows_any_key():
            return f"{self._here()} has no member {name[:60]!r}; it may have {_listed(list(properties))}"
        elif _mapping(self._schema, "patternProperties"):
            self._children = []
        else:
            self._children = [(self._schema.get("additionalProperties", True), path)]
        return None

    def _child(self, event: Event) -> str | None:
        assert isinstance(self._schema, dict)
        if self._kind == "array":
            most = _limit(self._schema, "maxItems")
            if most is not None and self._items >= most:
                return f"{self._here()} must have at most {most:g} items"
            self._children = [(self._item_schema(), f"{self.path}[{self._items}]")]
            self._items += 1
        self._open = [Check(self._of, schema, path) for schema, path in self._children] or [Check(self._of, True, "")]
        return self._in_child(event)

    def _item_schema(self) -> Any:
        assert isinstance(self._schema, dict)
        items = self._schema.get("items", True)
        first = self._schema.get("prefixItems")
        if isinstance(items, list):  # drafts before 2020-12
            first, items = items, self._schema.get("additionalItems", True)
        if isinstance(first, list) and self._items < len(first):
            return first[self._items]
        return items

    def _ended(self) -> str | None:
        assert isinstance(self._schema, dict)
        if self._kind == "object":
            required = self._schema.get("required")
            missing = (
                [n for n in required if isinstance(n, str) and n not in self._keys]
                if isinstance(required, list)
                else []
            )
            if missing:
                return f"{self._here()} lacks {', '.join(map(repr, missing[:5]))}"
            least = _limit(self._schema, "minProperties")
            if least is not None and len(self._keys) < least:
                return f"{self._here()} must have at least {least:g} members"
        least = _limit(self._schema, "minItems")
        if self._kind == "array" and least is not None and self._items < least:
            return f"{self._here()} must have at least {least:g} items"
        return None


_LIMITS: tuple[tuple[str, str, Callable[[float, float], bool]], ...] = (
    ("minimum", "at least", operator.lt),
    ("maximum", "at most", operator.gt),
    ("exclusiveMinimum", "more than", operator.le),
    ("exclusiveMaximum", "less than", operator.ge),
)
"""Keywords of numbers, and what breaks them."""


def _limit(schema: Any, name: str) -> float | None:
    value = schema.get(name)
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _mapping(schema: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = schema.get(name)
    return value if isinstance(value, dict) else {}


def _kind_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    return {int: "number", float: "number", str: "string", list: "array", dict: "object"}.get(type(value), "")


def same(one: Any, other: Any) -> bool:
    """Equality of JSON: `1` is `1.0` and is not `true`."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


def is_multiple(value: float, step: float) -> bool:
    """Exactly, in the decimals that were written: 0.3 is a multiple of 0.1."""
    if step <= 0 or not math.isfinite(value):
        return True
    return (Fraction(str(value)) / Fraction(str(step))).denominator == 1


def _listed(choices: Sequence[Any]) -> str:
    shown = ", ".join(repr(choice)[:60] for choice in choices[:8])
    more = f" and {len(choices) - 8} more" if len(choices) > 8 else ""
    return f"one of {shown}{more}" if len(choices) != 1 else shown


_FOLLOWED = words_of(
    "type enum const properties required additionalProperties items prefixItems minItems maxItems minLength maxLength "
    "minimum maximum exclusiveMinimum exclusiveMaximum multipleOf minProperties maxProperties allOf anyOf oneOf $ref"
)
_SAYS_NOTHING = words_of(
    "$schema $defs definitions $comment title description default examples deprecated readOnly writeOnly "
    "format name strict"
)
_2020 = "https://json-schema.org/draft/2020-12/schema"
MOST_NODES = 2_000


def is_followed(root: Any) -> bool:
    """Whether following a schema is all there is to check: it has no keyword that is let pass."""
    schema = Schema(root)
    waiting, seen = [root], set[int]()
    if isinstance(root, dict) and root.get("$schema", _2020).rstrip("#") != _2020:
        return False
    while waiting:
        node = waiting.pop()
        if isinstance(node, bool) or id(node) in seen:
            continue
        seen.add(id(node))
        if not isinstance(node, dict) or len(seen) > MOST_NODES or node.keys() - _FOLLOWED - _SAYS_NOTHING:
            return False
        if not _is_sound(node) or not _inner(schema, node, waiting):
            return False
    return True


def _inner(schema: Schema, node: dict[str, Any], waiting: list[Any]) -> bool:
    """Adds the schemas inside one; false for a reference that leads nowhere."""
    if "$ref" in node:
        target = schema.target(node["$ref"]) if isinstance(node["$ref"], str) else None
        if target is None:
            return False
        waiting.append(target)
    waiting += _mapping(node, "properties").values()
    for name in ("allOf", "anyOf", "oneOf", "prefixItems"):
        waiting += node.get(name, ())
    waiting += [node[name] for name in ("items", "additionalProperties") if name in node]
    return True


def _is_sound(node: Mapping[str, Any]) -> bool:
    """Keywords have the types they must have, and enumerated values are scalars."""
    choices = [*node.get("enum", ()), node.get("const")] if isinstance(node.get("enum", []), list) else [[]]
    types = node.get("type", [])
    return (
        not any(isinstance(choice, (list, dict)) for choice in choices)
        and isinstance(types, (str, list))
        and all(isinstance(node.get(name, {}), dict) for name in ("properties",))
        and all(isinstance(node.get(name, []), list) for name in ("allOf", "anyOf", "oneOf", "prefixItems", "required"))
        and all(
            _limit(node, name) is not None for name in node if name.startswith(("min", "max", "exclusive", "multiple"))
        )
    )
