"""`arithmetic`: the first slip of a step, and the step put right."""

import pytest
from tests.plugins.verify.verifiers.reading import violations

from predawn.plugins import Exchange
from predawn.plugins.verify.verifiers import create
from predawn.proxy.extensions import Step


async def told(text, before=""):
    step = Step(text, "reasoning", "sentence", len(before), len(before) + len(text), before)
    return await create("arithmetic").verify(step, Exchange(b"{}"))


@pytest.mark.parametrize(
    ("before", "text", "right"),
    [
        ("Ann = 3. Bob is Ann + 4.", " 3 + 4 = 8.", " 3 + 4 = 7."),
        ("Ann = 3. Bob is Ann + 4. 3 + 4 = 7.", " Bob = 8.", " Bob = 7."),
        ("Ann = 3.", " Bob = Ann + 4 = 8.", " Bob = Ann + 4 = 7."),
        ("Ann starts with 10 apples. She gives away 3.", " She has 6 left.", " She has 7 left."),
        ("Tom has 10 coins. He finds 4 coins.", " Now he has 15.", " Now he has 14."),
        (
            "",
            "Ann has 10 apples, gives 3 to Bob, and has 6 left.",
            "Ann has 10 apples, gives 3 to Bob, and has 7 left.",
        ),
        (
            "",
            "She had 16 eggs, ate 3, leaving 13, sold 4, leaving 8.",
            "She had 16 eggs, ate 3, leaving 13, sold 4, leaving 9.",
        ),
        ("", "\\( 3 + 4 = 8 \\), so it is.", "\\( 3 + 4 = 7 \\), so it is."),
        ("", "Thus $\\frac{12}{4} = 4$ boxes", "Thus $\\frac{12}{4} = 3$ boxes"),
        ("", "First 1 + 1 = 2; then 3 + 4 = 8, and 8 * 2 = 16.", "First 1 + 1 = 2; then 3 + 4 = 7"),
    ],
)
async def test_a_slip_is_put_right(before, text, right):
    verdict = await told(text, before)

    assert verdict.outcome == "violation"
    assert right == verdict.corrected


@pytest.mark.parametrize(
    ("before", "text"),
    [
        ("Ann = 3. Bob is Ann + 4. 3 + 4 = 7.", " Bob = 7."),
        ("Ann = 3. Bob is Ann + 5. Wait: Bob is Ann + 4.", " Bob = 7."),
        ("Ann has 3 apples.", " Bob gives her 4, so now she has 7."),
        ("", "She has 3 cats. Each eats 2 cans a day, leaving 5 cans."),
        ("", "Ann has 10 apples and 5 pears, gives away 3 apples, and has 12 left."),
        ("Room A has 10 seats. It is 5 pm.", " There are 6 left."),
        ("Look:\n```python\nx = 1\n", "y = 3 + 4 = 8\n"),
    ],
)
async def test_what_only_looks_like_a_slip_passes(before, text):
    assert (await told(text, before)).outcome == "pass"


async def test_single_equations_can_be_all_that_is_read():
    verifier = create("arithmetic", {"quantities": False})

    assert await violations(verifier, "Ann = 3. Bob is Ann + 4. Bob = 8.") == []
    assert len(await violations(verifier, "3 + 4 = 8. 3 + 4 = 9.")) == 2


@pytest.mark.parametrize(
    "text",
    [
        "4 apples at $3 each = $12",
        "3 for $5 = $1.67 each",
        "2 hours 30 minutes = 150 minutes",
        "1 hour 30 minutes + 45 minutes = 2 hours 15 minutes",
        "365 / 7 = 52 weeks and 1 day",
        "The sum of 3, 4 and 5 is 12.",
        "The product of 2, 3, and 4 is 24.",
        "8 / 2(2+2) = 1",
        "12'345 + 1 = 12'346",
        "11 + 3 = 2 on a clock",
        "Incorrect: 3 + 4 = 8",
        "Someone might say 2 + 2 = 5, but that's false.",
        'The student wrote "3 + 4 = 8".',
        "3/4 of the 20 is 15",
    ],
)
async def test_what_is_right_or_not_claimed_is_left_alone(text):
    assert await violations(create("arithmetic"), text) == []


@pytest.mark.parametrize(
    "text",
    [
        "$1 = 10 cents",
        "The sum of 3, 4 and 5 is 13.",
        "3/4 of 20 is 16",
        "7 × 8 = 54; 54 / 2 = 27",  # noqa: RUF001
        "1,234.50 + 0.50 = 1,236",
        "365 / 7 = 55 weeks and 1 day",
    ],
)
async def test_a_wrong_result_is_told_in_other_shapes_too(text):
    assert len(await violations(create("arithmetic"), text)) == 1
