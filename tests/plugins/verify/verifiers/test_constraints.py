"""`constraints`: declared quantities keep to what was declared, or a proposal says how they could."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.plugins.verify.verifiers.reading import violations

from predawn.plugins import Exchange
from predawn.plugins.verify.verifiers import create
from predawn.plugins.verify.verifiers.constraint_language import parse, value_of
from predawn.plugins.verify.verifiers.settings import VariableSettings
from predawn.plugins.verify.verifiers.solving import Solver
from predawn.proxy.extensions import Step

OPTIONS = {
    "variables": {"x": {"minimum": 0}, "y": {"minimum": 0, "maximum": 10}, "flag": {"kind": "bool"}},
    "constraints": ["x + 2*y <= 10", "implies(flag, x >= 3)", "x != y"],
}


async def told(text, before="", options=OPTIONS):
    step = Step(text, "content", "line", len(before), len(before) + len(text), before)
    return await create("constraints", options).verify(step, Exchange(b"{}"))


@pytest.mark.parametrize(
    ("before", "text"),
    [
        ("", "x = 2\n"),
        ("x = 2\n", "y = 3\n"),
        ("", "x = 3 + y"),
        ("", "x = 10"),
        ("", "max = 99, box: 50"),
        ("", '{"x": 4, "y": 3, "flag": true}'),
        ("x = 99\n", "nothing here\n"),
    ],
)
async def test_what_keeps_to_the_constraints_passes(before, text):
    assert (await told(text, before)).outcome == "pass"


@pytest.mark.parametrize(
    ("before", "text", "right"),
    [
        ("x = 2\n", "y = 5\n", "y = 4\n"),
        ("", '{"x": 4, "y": 4, "flag": true}', '{"x": 4, "y": 3, "flag": true}'),
        ("x = 1\n", "flag: true", "flag: false"),
        ("", "y is 11", "y is 5"),
        ("", "- **y** = 6", "- **y** = 5"),
        ("", "x = 1.5", "x = 1"),
    ],
)
async def test_a_violation_proposes_the_nearest_values(before, text, right):
    verdict = await told(text, before)

    assert verdict.outcome == "violation"
    assert right == verdict.corrected
    assert (await told(right, before)).outcome == "pass"


async def test_what_cannot_be_satisfied_has_no_proposal():
    verdict = await told("x = 1", options={"variables": {"x": {}}, "constraints": ["x > 5", "x < 3"]})

    assert (verdict.outcome, verdict.corrected) == ("violation", None)


@pytest.mark.parametrize(
    ("constraint", "message"),
    [
        ("x +", "cannot be read"),
        ("x + 1", "is a number"),
        ("z > 1", "no declared variable"),
        ("1 < 2", "names no variable"),
        ("__import__('os')", "has 'os'|calls"),
        ("x.real > 1", "Attribute"),
        ("x if flag else y", "IfExp"),
        ("[x][0] > 1", "List|Subscript"),
        ("x ** 2 > 1", "Pow"),
        ("implies(x)", "arguments"),
        ("(lambda: x)() > 1", "calls|Lambda"),
    ],
)
def test_a_constraint_that_cannot_be_read_stops_the_start(constraint, message):
    with pytest.raises(ValueError, match=message):
        create("constraints", {**OPTIONS, "constraints": [constraint]})


TEXTS = [
    "x + 2*y <= 10", "implies(b, x >= 3)", "x != y", "abs(x - y) < 4", "min(x, y) == 2", "exactly(1, b, x > 2)", "at_most(1, b, x > 2, y > 2)",
    "distinct(x, y, 3)", "not b or x / 2 == y", "0 <= x < y", "sum(x, y, b) == 5", "iff(b, x == y)", "max(x, y) - 1 >= 2 and b", "at_least(2, x > 0, y > 0, b)",
]  # fmt: skip


@given(st.sampled_from(TEXTS), st.integers(-3, 8), st.integers(-3, 8), st.booleans())
@settings(max_examples=80)
async def test_z3_and_exact_arithmetic_agree(text, x, y, b):
    kinds = {"x": "int", "y": "int", "b": "bool"}
    constraint = parse(text, kinds)
    values = {"x": Fraction(x), "y": Fraction(y), "b": b}
    solver = Solver({name: VariableSettings(kind=kind) for name, kind in kinds.items()}, [constraint], 2000)
    nearest = await solver.nearest(values)

    assert bool(value_of(constraint.tree, values)) == (nearest == values)
    assert nearest is not None
    assert value_of(constraint.tree, nearest)


@pytest.mark.parametrize(
    ("text", "breaks"),
    [("x = 1,000", True), ("x = 11?", False), ("If x = 11, it fails.", False), ("y/x = 30", False), ("x = 11", True)],
)
async def test_only_what_is_assigned_counts(text, breaks):
    verifier = create("constraints", {"variables": {"x": {"kind": "int", "maximum": 10}}})

    assert bool(await violations(verifier, text)) is breaks
