"""`constraints`: values that an answer assigns to declared quantities keep to what was declared; z3 proposes a fix."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import ClassVar, Literal

from predawn.plugins import Exchange, Verdict
from predawn.plugins.verify.verifiers.constraint_language import UnknownError, Value, parse, value_of
from predawn.plugins.verify.verifiers.settings import ConstraintsSettings
from predawn.plugins.verify.verifiers.slices import LONGEST_PIECE, Breath
from predawn.plugins.verify.verifiers.solving import Solver
from predawn.proxy.extensions import Channel, Step

_NUMBER = r"[-−]?(?:\d{1,3}(?:,\d{3}){1,9}|\d{1,30})(?:\.\d{1,30})?(?:/\d{1,30})?(?!,?[\w.]*\d)"  # noqa: RUF001
_VALUE = rf"(?P<value>{_NUMBER}|true\b|false\b|yes\b|no\b)"
_SUPPOSED = re.compile(r"\b(?:if|suppose|assum\w+|unless|whether)\b[^.;,]{0,60}$", re.IGNORECASE)
_TRUTHS = {"true": True, "yes": True, "false": False, "no": False}


class ConstraintsVerifier:
    """Reads lines such as `x = 3` and `"x": 3`; the last value of a name counts."""

    name = "constraints"
    boundary: Literal["line"] = "line"
    reads: ClassVar[tuple[Channel, ...]] = ("content",)

    def __init__(self, settings: ConstraintsSettings | None = None) -> None:
        self.settings = settings or ConstraintsSettings()
        self.timeout_s = self.settings.timeout_s
        self.fails = self.settings.fails
        kinds = {name: variable.kind for name, variable in self.settings.variables.items()}
        self._constraints = [parse(text, kinds) for text in self.settings.constraints]
        self._solver = Solver(self.settings.variables, self._constraints, self.settings.solve_ms)
        names = "|".join(re.escape(name) for name in sorted(kinds, key=len, reverse=True)) or r"(?!)"
        self._pattern = re.compile(
            rf"(?<![\w./])[\"'`*]{{0,3}}(?P<name>{names})[\"'`*]{{0,3}}[ \t]{{0,8}}"
            rf"(?:=|:|:=|\bis\b|→)[ \t]{{0,8}}[*`]{{0,2}}{_VALUE}"
            r"(?![ \t]{0,8}[-+*/^(<>?])",
            re.IGNORECASE if all(name == name.lower() for name in kinds) else 0,
        )

    async def verify(self, step: Step, exchange: Exchange) -> Verdict:
        """A violation names the broken constraints; `corrected` puts the proposed values into the step."""
        del exchange
        mine = [found async for found in self._assigned(step.text)] if self.settings.variables else []
        if not mine:
            return Verdict("pass")
        values: dict[str, Value] = {}
        async for found in self._assigned(step.before[-20_000:]):
            values[found.name] = found.value
        values |= {found.name: found.value for found in mine}
        changed = {found.name for found in mine}
        broken = [*self._out_of_bounds(values, changed), *self._broken(values, changed)]
        if not broken and len(values) == len(self.settings.variables):
            return Verdict("pass")
        proposal = await self._solver.nearest(values, changed)
        if not broken:  # the rest is still to be chosen: is there a choice?
            if proposal is None:
                return Verdict("unsure", "", "No proposal was found.")
            if all(proposal[name] == value for name, value in values.items()):
                return Verdict("pass")
            broken = ["no choice of the rest keeps to all constraints"]
        return replace(_violation(broken, values, proposal), corrected=_put_right(step.text, mine, values, proposal))

    async def _assigned(self, text: str) -> AsyncIterator[_Place]:
        breath = Breath()
        for start, line in _lines(text):
            for found in self._pattern.finditer(line):
                value = read_value(found["value"])
                is_supposed = _SUPPOSED.search(line, max(0, found.start() - 80), found.start()) is not None
                if value is not None and not is_supposed:
                    name = found["name"] if found["name"] in self.settings.variables else found["name"].lower()
                    yield _Place(name, value, found.start("value") + start, found.end("value") + start)
            await breath()

    def _out_of_bounds(self, values: Mapping[str, Value], changed: set[str]) -> Iterator[str]:
        for name in sorted(changed):
            variable, value = self.settings.variables[name], values[name]
            if isinstance(value, bool) != (variable.kind == "bool"):
                yield f"{name} is {'true or false' if variable.kind == 'bool' else 'a number'}"
            elif variable.kind == "int" and Fraction(value).denominator != 1:
                yield f"{name} is a whole number"
            elif variable.minimum is not None and value < Fraction(str(variable.minimum)):
                yield f"{name} >= {variable.minimum:g}"
            elif variable.maximum is not None and value > Fraction(str(variable.maximum)):
                yield f"{name} <= {variable.maximum:g}"

    def _broken(self, values: Mapping[str, Value], changed: set[str]) -> Iterator[str]:
        for constraint in self._constraints:
            if constraint.names & changed and constraint.names <= values.keys():
                try:
                    if not value_of(constraint.tree, values):
                        yield constraint.text
                except (UnknownError, ZeroDivisionError):
                    yield constraint.text


@dataclass(frozen=True, slots=True)
class _Place:
    """A value that was assigned, and where it stands."""

    name: str
    value: Value
    start: int
    end: int


def _lines(text: str) -> Iterator[tuple[int, str]]:
    at = 0
    for line in text.splitlines(keepends=True):
        for start in range(0, len(line), LONGEST_PIECE):
            yield at + start, line[start : start + LONGEST_PIECE + 100]
        at += len(line)


def read_value(text: str) -> Value | None:
    """A truth or an exact number; `None` for a division by 0."""
    lower = text.lower().replace("−", "-")  # noqa: RUF001
    if lower in _TRUTHS:
        return _TRUTHS[lower]
    top, _, bottom = lower.replace(",", "").partition("/")
    if bottom and not int(bottom):
        return None
    return Fraction(top) / int(bottom or 1)


def _violation(broken: Sequence[str], values: Mapping[str, Value], proposal: Mapping[str, Value] | None) -> Verdict:
    told = "; ".join(broken[:3])
    if proposal is None:
        return Verdict("violation", told[:120], f"This breaks: {told}. No proposal was found.")
    changes = {name: value for name, value in proposal.items() if name in values and values[name] != value}
    shown = ", ".join(f"{name} = {written(value)}" for name, value in changes.items())
    return Verdict("violation", told[:120], f"This breaks: {told}. It would hold with {shown}.")


def _put_right(
    text: str, mine: Sequence[_Place], values: Mapping[str, Value], proposal: Mapping[str, Value] | None
) -> str | None:
    """The step with the proposed values, if nothing before it has to change."""
    changes = {name: value for name, value in (proposal or {}).items() if values.get(name, value) != value}
    if not changes or not changes.keys() <= {found.name for found in mine}:
        return None
    for found in reversed(mine):
        if found.name in changes:
            text = text[: found.start] + written(changes[found.name]) + text[found.end :]
    return text


def written(value: Value) -> str:
    if isinstance(value, bool):
        return json.dumps(value)
    if value.denominator == 1:
        return str(value.numerator)
    decimals = next((n for n in range(1, 7) if (value * 10**n).denominator == 1), 0)
    return f"{float(value):.{decimals}f}" if decimals else f"{value.numerator}/{value.denominator}"
