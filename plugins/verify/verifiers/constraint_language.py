"""Constraints as people write them, read by Python's own grammar alone: no part of them is ever run as code.

Numbers, declared names, + - * / by numbers, comparisons (chained too), `and`, `or`, `not`, `implies(a, b)`,
`iff(a, b)`, `sum(a, b, …)`, `min`, `max`, `abs`, `distinct(a, b, …)`, `exactly(n, a, b, …)`,
`at_most(n, …)`, `at_least(n, …)`.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

Value: TypeAlias = "Fraction | bool"
LONGEST = 2_000
MOST_NODES = 400
FUNCTIONS = {
    "implies": 2, "iff": 2, "sum": 0, "min": 0, "max": 0, "abs": 1, "distinct": 0,
    "exactly": 0, "at_most": 0, "at_least": 0,
}  # fmt: skip
"""How many arguments each takes; 0 for one or more."""
_NODES = (
    ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.UAdd, ast.BinOp, ast.Add, ast.Sub,
    ast.Mult, ast.Div, ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Call, ast.Name, ast.Load,
    ast.Constant,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Constraint:
    """One constraint, with the names it speaks of."""

    text: str
    tree: ast.expr
    names: frozenset[str]


class UnknownError(Exception):
    """A name has no value yet."""


def parse(text: str, kinds: Mapping[str, str]) -> Constraint:
    """Raises `ValueError` that names the constraint and says what is wrong with it."""
    if len(text) > LONGEST:
        raise ValueError(f"constraint {text[:60]!r}… is longer than {LONGEST} characters")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as exc:
        raise ValueError(f"constraint {text!r} cannot be read: {getattr(exc, 'msg', exc)}") from exc
    nodes = list(ast.walk(tree))
    called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    names = {node.id for node in nodes if isinstance(node, ast.Name) and id(node) not in called}
    for node in nodes:
        if (fault := _fault(node)) is not None:
            raise ValueError(f"constraint {text!r} {fault}")
    if len(nodes) > MOST_NODES:
        raise ValueError(f"constraint {text[:60]!r}… has too many parts")
    if unknown := sorted(names - kinds.keys()):
        raise ValueError(f"constraint {text!r} names {', '.join(unknown)}, which is no declared variable")
    if not names:
        raise ValueError(f"constraint {text!r} names no variable")
    if not _is_boolean(tree.body, kinds):
        raise ValueError(f"constraint {text!r} is a number, not something that holds or does not")
    return Constraint(text.strip(), tree.body, frozenset(names))


def _fault(node: ast.AST) -> str | None:
    if not isinstance(node, _NODES):
        return f"uses {type(node).__name__}, which constraints do not have"
    if isinstance(node, ast.Constant) and not isinstance(node.value, (bool, int, float)):
        return f"has {node.value!r}, which is no number"
    if isinstance(node, ast.Call):
        if not isinstance(node.func, ast.Name) or node.func.id not in FUNCTIONS or node.keywords:
            return f"calls what is none of {', '.join(FUNCTIONS)}"
        wanted = FUNCTIONS[node.func.id]
        if (wanted and len(node.args) != wanted) or not node.args:
            return f"gives {node.func.id} {len(node.args)} arguments"
    return None


def _is_boolean(node: ast.expr, kinds: Mapping[str, str]) -> bool:
    if isinstance(node, ast.Name):
        return kinds[node.id] == "bool"
    if isinstance(node, ast.Constant):
        return isinstance(node.value, bool)
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id not in {"sum", "min", "max", "abs"}
    return isinstance(node, (ast.BoolOp, ast.Compare)) or (
        isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
    )


def value_of(node: ast.expr, values: Mapping[str, Value]) -> Value:
    """What an expression comes to, exactly. Raises `UnknownError` for a name without a value, `ZeroDivisionError`."""
    match node:
        case ast.Constant(value=bool() as truth):
            return truth
        case ast.Constant(value=int() | float() as number):
            return Fraction(str(number))
        case ast.Name(id=name):
            if name not in values:
                raise UnknownError(name)
            return values[name]
        case ast.UnaryOp(op=op, operand=operand):
            inner = value_of(operand, values)
            return not inner if isinstance(op, ast.Not) else -Fraction(inner) if isinstance(op, ast.USub) else inner
        case ast.BoolOp(op=op, values=parts):
            truths = [bool(value_of(part, values)) for part in parts]
            return all(truths) if isinstance(op, ast.And) else any(truths)
        case ast.BinOp(left=left, op=op, right=right):
            return _worked(op, Fraction(value_of(left, values)), Fraction(value_of(right, values)))
        case ast.Compare():
            return _compared(node, values)
        case ast.Call(func=ast.Name(id=name), args=args):
            return _called(name, [value_of(arg, values) for arg in args])
    raise ValueError(type(node).__name__)


def _worked(op: ast.operator, left: Fraction, right: Fraction) -> Fraction:
    if isinstance(op, ast.Add):
        return left + right
    if isinstance(op, ast.Sub):
        return left - right
    return left * right if isinstance(op, ast.Mult) else left / right


def _compared(node: ast.Compare, values: Mapping[str, Value]) -> bool:
    sides = [value_of(side, values) for side in (node.left, *node.comparators)]
    return all(holds(op, left, right) for op, left, right in zip(node.ops, sides, sides[1:], strict=False))


def holds(op: ast.cmpop, left: Value, right: Value) -> bool:
    """One comparison."""
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


def _called(name: str, args: list[Value]) -> Value:
    numbers = [Fraction(arg) for arg in args]
    match name:
        case "implies":
            return not args[0] or bool(args[1])
        case "iff":
            return bool(args[0]) == bool(args[1])
        case "sum":
            return sum(numbers, Fraction(0))
        case "min" | "max":
            return min(numbers) if name == "min" else max(numbers)
        case "abs":
            return abs(numbers[0])
        case "distinct":
            return len(set(args)) == len(args)
    count = sum(bool(arg) for arg in args[1:])
    return (
        count == numbers[0] if name == "exactly" else count <= numbers[0] if name == "at_most" else count >= numbers[0]
    )
