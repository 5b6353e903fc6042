"""`grounded`: figures and quotes come from the conversation."""

import pytest
from tests.plugins.verify.verifiers.reading import read, violations

from predawn.plugins.verify.verifiers import create

REPORT = (
    "Revenue was $12.5 million in 2023, up 14% from 11.0. Mr. Smith said: “We are very happy with the results, truly.” "
    "There are twenty-five shops. The rate is 3.14159. Dated 2024-01-15."
)


def about(text=REPORT, role="user"):
    return {"messages": [{"role": role, "content": text}]}


@pytest.mark.parametrize(
    "text",
    [
        "Revenue was 12.5 million dollars.",
        "Revenue was $12,500,000.",
        "It grew by 14 percent, a growth of 0.14.",
        "It has 25 shops.",
        "The rate is 3.14.",
        "On January 15, 2024.",
        "1. First, three reasons.\n2. Then, see [12].",
        'He said "we are very happy with the results".',
        "He said “very happy … results, truly”.",
        'the "best" option',
        "11 + 14 = 25 and 12.5 * 2 = 25, 25 * 3 = 75.",
    ],
)
async def test_what_the_conversation_says_passes(text):
    assert await violations(create("grounded"), text, request=about()) == []


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("Revenue was $13.5 million.", "$13.5"),
        ("It grew by 15%.", "15"),
        ("It has 26 shops.", "26"),
        ("It was in 2022.", "2022"),
        ("The rate is 3.15.", "3.15"),
        ('He said "we are very sad about the results".', "we are very sad about the results"),
        ("25 * 3 = 76, so 76.", "76"),
    ],
)
async def test_what_it_does_not_say_is_told(text, where):
    verdicts = await violations(create("grounded"), text, request=about())

    assert where == verdicts[0].where


async def test_a_quote_may_span_steps():
    text = 'He said "it is over. We go home now" and left.'

    assert len(await violations(create("grounded"), text, request=about())) == 1
    assert await violations(create("grounded"), text, request=about("It is over. We go home, now!")) == []


async def test_only_the_roles_of_the_settings_are_context():
    assert len(await violations(create("grounded"), "It has 25 shops.", request=about(role="assistant"))) == 1


async def test_tool_results_and_parts_are_context():
    parts = [{"role": "tool", "content": [{"type": "text", "text": "It has 4711 shops."}]}]

    assert await violations(create("grounded"), "So 4,711 shops.", request={"messages": parts}) == []


async def test_figures_or_quotes_can_be_all_that_is_read():
    text = 'It has 26 shops, "said the man in the moon".'

    assert len(await violations(create("grounded", {"numbers": False}), text, request=about())) == 1
    assert len(await violations(create("grounded", {"quotes": False, "ignore_up_to": 30}), text, request=about())) == 0


async def test_a_conversation_too_long_leaves_all_unsure():
    verifier = create("grounded", {"max_context_chars": 10})

    assert (await read(verifier, "It has 26 shops.", request=about()))[0].outcome == "unsure"


@pytest.mark.parametrize(
    ("told", "context"),
    [
        ("1,234,567 units", "1 234 567 units"),
        ("12,345 francs", "12'345 francs"),
        ("2,500.75 euros", "2.500,75 Euro"),
        ("0.75 shares", "0,75"),
        ("500,000 people", "half a million people"),
        ("24 eggs", "two dozen eggs"),
        ("about 13%", "up 12.5%"),
        ("a margin of 46%", "margin 0.4567"),
    ],
)
async def test_a_figure_in_other_notation_is_ground(told, context):
    request = {"messages": [{"role": "user", "content": context}]}

    assert await violations(create("grounded"), told, request=request) == []


@pytest.mark.parametrize(
    ("told", "context"), [("47%", "margin 0.4567"), ("14%", "up 12.5%"), ("1,234,568", "1 234 567")]
)
async def test_a_figure_that_only_looks_like_one_is_no_ground(told, context):
    request = {"messages": [{"role": "user", "content": context}]}

    assert len(await violations(create("grounded"), told, request=request)) == 1
