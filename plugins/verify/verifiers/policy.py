"""Rules for calls of tools that no schema can state: who may be paid how much, how often, and to where."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from predawn.plugins.verify.verifiers.patterns import compile_pattern
from predawn.plugins.verify.verifiers.schema_machine import same
from predawn.plugins.verify.verifiers.settings import PolicyRule

PATTERN_S = 0.01
MOST_VALUES = 1_000


class Policy:
    """The rules of the settings. Raises `ValueError` for a pattern that is none."""

    __slots__ = ("_rules",)

    def __init__(self, rules: Sequence[PolicyRule]) -> None:
        self._rules = [(rule, compile_pattern(rule.pattern) if rule.pattern is not None else None) for rule in rules]

    def broken(self, tool: str, arguments: Any, earlier: int) -> str | None:
        """What the first rule says that a call breaks, after `earlier` calls of the same tool."""
        for rule, pattern in self._rules:
            if rule.tool in {"*", tool} and (fault := _broken(rule, pattern, tool, arguments, earlier)) is not None:
                return rule.why or fault
        return None


def _broken(rule: PolicyRule, pattern: Any, tool: str, arguments: Any, earlier: int) -> str | None:
    if rule.max_calls is not None and earlier >= rule.max_calls:
        return f"{tool} may be called {rule.max_calls} times at most."
    if not rule.argument:
        return f"{tool} must not be called." if rule.forbid else None
    values = list(_at(arguments, rule.argument.split(".")))
    if not values:
        return f"{tool} must be given {rule.argument}." if rule.required else None
    if rule.forbid:
        return f"{tool} must not be given {rule.argument}."
    for value in values:
        if (fault := _unfit(rule, pattern, value)) is not None:
            return f"{rule.argument} of {tool} {fault}."
    return None


def _unfit(rule: PolicyRule, pattern: Any, value: Any) -> str | None:
    if rule.allowed is not None and not any(same(allowed, value) for allowed in rule.allowed):
        return f"must be one of {', '.join(map(repr, rule.allowed[:10]))}"
    if any(same(denied, value) for denied in rule.denied):
        return f"must not be {str(value)[:80]!r}"
    if rule.minimum is not None or rule.maximum is not None:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return "must be a number"
        if rule.minimum is not None and value < rule.minimum:
            return f"must be at least {rule.minimum:g}"
        if rule.maximum is not None and not value <= rule.maximum:
            return f"must be at most {rule.maximum:g}"
    if pattern is not None and not _fits(pattern, value):
        return f"must match {rule.pattern!r}"
    return None


def _fits(pattern: Any, value: Any) -> bool:
    """A search that takes too long is no match: a policy that cannot be checked is not kept."""
    try:
        return isinstance(value, str) and pattern.fullmatch(value, timeout=PATTERN_S) is not None
    except TimeoutError:
        return False


def _at(value: Any, path: Sequence[str]) -> Iterator[Any]:
    """The values at a path; `*` stands for every item."""
    found = [value]
    for name in path:
        inner: list[Any] = []
        for each in found[:MOST_VALUES]:
            if name == "*":
                inner += each if isinstance(each, list) else each.values() if isinstance(each, dict) else []
            elif isinstance(each, list) and name.isdecimal() and int(name) < len(each):
                inner.append(each[int(name)])
            elif isinstance(each, dict) and name in each:
                inner.append(each[name])
        found = inner
    yield from found
