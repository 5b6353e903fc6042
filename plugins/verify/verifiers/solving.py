"""z3 on declared variables: whether what is assigned so far can still be completed, and the nearest proposal if not."""

from __future__ import annotations

import ast
import asyncio
import threading
from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction
from typing import Any

from predawn.plugins.verify.verifiers.constraint_language import Constraint, Value
from predawn.plugins.verify.verifiers.settings import VariableSettings


def load() -> Any:
    """The package z3. Raises `ValueError` that says how to install it."""
    try:
        import z3
    except ImportError as exc:
        raise ValueError("constraints need the package `z3-solver`: pip install 'predawn[constraints]'") from exc
    return z3


class Solver:
    """Proposes assignments. One search at a time: z3 keeps one memory for all threads that use its main context."""

    __slots__ = ("_constraints", "_lock", "_milliseconds", "_variables", "_z3")

    def __init__(
        self, variables: Mapping[str, VariableSettings], constraints: Sequence[Constraint], milliseconds: int
    ) -> None:
        self._z3 = load()
        self._variables = variables
        self._constraints = constraints
        self._milliseconds = milliseconds
        self._lock = threading.Lock()

    async def nearest(self, assigned: Mapping[str, Value], free: Collection[str] = ()) -> dict[str, Value] | None:
        """The assignment of all variables that keeps to the constraints and changes fewest of those assigned.

        Of those that change equally many, the one that changes `free` ones and changes them least. `None` if there is
        none, or none was found in time.
        """
        return await asyncio.to_thread(self._nearest, dict(assigned), frozenset(free))

    def _nearest(self, assigned: dict[str, Value], free: frozenset[str]) -> dict[str, Value] | None:
        with self._lock:
            z3, context = self._z3, self._z3.Context()
            optimizer = z3.Optimize(ctx=context)
            optimizer.set("timeout", self._milliseconds)
            symbols = {name: _symbol(z3, name, kind.kind, context) for name, kind in self._variables.items()}
            translate = _Translation(z3, symbols, context)
            optimizer.add(*self._bounds(symbols, translate))
            for constraint in self._constraints:
                optimizer.add(translate.truth(constraint.tree))
            for name, value in assigned.items():
                optimizer.add_soft(symbols[name] == translate.constant(value), 10 if name in free else 11)
            distances = [
                _distance(z3, symbols[n], v, translate) for n, v in assigned.items() if not isinstance(v, bool)
            ]
            if distances:
                optimizer.minimize(z3.Sum(distances))
            if optimizer.check() != z3.sat:
                return None
            model = optimizer.model()
            return {name: _value(z3, model.eval(symbol, model_completion=True)) for name, symbol in symbols.items()}

    def _bounds(self, symbols: Mapping[str, Any], translate: _Translation) -> list[Any]:
        bounds = []
        for name, variable in self._variables.items():
            if variable.kind == "bool":
                continue
            if variable.minimum is not None:
                bounds.append(symbols[name] >= translate.constant(Fraction(str(variable.minimum))))
            if variable.maximum is not None:
                bounds.append(symbols[name] <= translate.constant(Fraction(str(variable.maximum))))
        return bounds


def _distance(z3: Any, symbol: Any, value: Value, translate: _Translation) -> Any:
    if z3.is_bool(symbol):
        return translate.constant(Fraction(0))
    off = symbol - translate.constant(value)
    return z3.If(off >= 0, off, -off)


def _symbol(z3: Any, name: str, kind: str, context: Any) -> Any:
    if kind == "bool":
        return z3.Bool(name, context)
    return z3.Int(name, context) if kind == "int" else z3.Real(name, context)


def _value(z3: Any, value: Any) -> Value:
    if z3.is_true(value) or z3.is_false(value):
        return bool(z3.is_true(value))
    if z3.is_algebraic_value(value):
        value = value.approx(10)
    return Fraction(value.as_fraction() if z3.is_rational_value(value) else value.as_long())


class _Translation:
    """Constraints in z3's terms."""

    __slots__ = ("_context", "_symbols", "_z3")

    def __init__(self, z3: Any, symbols: Mapping[str, Any], context: Any) -> None:
        self._z3 = z3
        self._symbols = symbols
        self._context = context

    def constant(self, value: Value) -> Any:
        z3 = self._z3
        if isinstance(value, bool):
            return z3.BoolVal(value, self._context)
        if value.denominator == 1:
            return z3.IntVal(value.numerator, self._context)
        return z3.Q(value.numerator, value.denominator, self._context)

    def truth(self, node: ast.expr) -> Any:
        """A Boolean; a number is true unless it is 0."""
        found = self.term(node)
        return found if self._z3.is_bool(found) else found != 0

    def number(self, node: ast.expr) -> Any:
        found = self.term(node)
        return self._z3.If(found, 1, 0, self._context) if self._z3.is_bool(found) else found

    def term(self, node: ast.expr) -> Any:
        z3 = self._z3
        match node:
            case ast.Constant(value=bool() as truth):
                return self.constant(truth)
            case ast.Constant(value=int() | float() as number):
                return self.constant(Fraction(str(number)))
            case ast.Name(id=name):
                return self._symbols[name]
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return z3.Not(self.truth(operand))
            case ast.UnaryOp(op=op, operand=operand):
                return -self.number(operand) if isinstance(op, ast.USub) else self.number(operand)
            case ast.BoolOp(op=op, values=parts):
                truths = [self.truth(part) for part in parts]
                return z3.And(*truths) if isinstance(op, ast.And) else z3.Or(*truths)
            case ast.BinOp(left=left, op=op, right=right):
                return self._worked(op, self.number(left), self.number(right))
            case ast.Compare(left=left, ops=ops, comparators=rest):
                sides = [self.term(side) for side in (left, *rest)]
                return z3.And(*(self._compared(op, a, b) for op, a, b in zip(ops, sides, sides[1:], strict=False)))
            case ast.Call(func=ast.Name(id=name), args=args):
                return self._called(name, args)
        raise ValueError(type(node).__name__)

    def _worked(self, op: ast.operator, left: Any, right: Any) -> Any:
        if isinstance(op, ast.Add):
            return left + right
        if isinstance(op, ast.Sub):
            return left - right
        if isinstance(op, ast.Mult):
            return left * right
        return (self._z3.ToReal(left) if self._z3.is_int(left) else left) / right

    def _compared(self, op: ast.cmpop, left: Any, right: Any) -> Any:
        z3 = self._z3
        if z3.is_bool(left) != z3.is_bool(right):
            left, right = (z3.If(s, 1, 0, self._context) if z3.is_bool(s) else s for s in (left, right))
        match op:
            case ast.Eq():
                return left == right
            case ast.NotEq():
                return left != right
            case ast.Lt():
                return left < right
            case ast.LtE():
                return left <= right
            case ast.Gt():
                return left > right
        return left >= right

    def _called(self, name: str, args: Sequence[ast.expr]) -> Any:
        z3 = self._z3
        match name:
            case "implies":
                return z3.Implies(self.truth(args[0]), self.truth(args[1]))
            case "iff":
                return self.truth(args[0]) == self.truth(args[1])
            case "distinct":
                return z3.Distinct(*map(self.term, args)) if len(args) > 1 else self.constant(value=True)
            case "sum":
                return z3.Sum([self.number(arg) for arg in args])
            case "abs":
                number = self.number(args[0])
                return z3.If(number >= 0, number, -number)
            case "min" | "max":
                first, *rest = map(self.number, args)
                for other in rest:
                    first = z3.If(first <= other if name == "min" else first >= other, first, other)
                return first
        count = z3.Sum([z3.If(self.truth(arg), 1, 0, self._context) for arg in args[1:]])
        wanted = self.number(args[0])
        return count == wanted if name == "exactly" else count <= wanted if name == "at_most" else count >= wanted
