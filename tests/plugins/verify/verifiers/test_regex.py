"""`regex`: what must and must not be said, wherever the text is cut."""

import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.plugins.verify.verifiers.reading import read, violations

from predawn.plugins import Exchange
from predawn.plugins.verify.verifiers import create
from predawn.proxy.extensions import Step

NEVER = [r"\bsecret code\b", r"\d{4}-\d{4}", r"ab+c?", r"(?<=x)y", r"z$"]


def steps(text, cuts):
    """Steps that end anywhere, even inside words."""
    ends = sorted({min(cut, len(text)) for cut in cuts} | {len(text)})
    starts = [0, *ends[:-1]]
    return [
        Step(text[a:b], "content", "own", a, b, text[:a], index=i, is_last=i == len(ends) - 1)
        for i, (a, b) in enumerate(zip(starts, ends, strict=True))
    ]


@given(
    st.lists(
        st.sampled_from(
            ["secret code", "secret codes", "1234-5678", "12345", "abb", "c", "x", "y", "z", " ", "\n", "."]
        ),
        max_size=10,
    ).map("".join),
    st.lists(st.integers(0, 60), max_size=8),
)
@example("secret code", [11])
@example("secret codes", [11])
@example("z\nx", [2])
@example("z\n", [1])
@example("xz\n", [2, 3])
@settings(max_examples=300)
async def test_a_match_is_found_however_the_text_is_cut(text, cuts):
    verifier, exchange = create("regex", {"must_not": NEVER}), Exchange(b"{}")
    expected = any(regex.search(pattern, text) for pattern in NEVER)
    found = [(await verifier.verify(step, exchange)).outcome for step in steps(text, cuts)]

    assert expected == ("violation" in found)


@given(st.text("abc. \n", max_size=40), st.lists(st.integers(0, 40), max_size=6))
@settings(max_examples=200)
async def test_what_is_missing_is_told_once_the_answer_ends(text, cuts):
    verifier, exchange = create("regex", {"must": ["ab|c c"]}), Exchange(b"{}")
    found = [(await verifier.verify(step, exchange)).outcome for step in steps(text, cuts)]

    assert (regex.search("ab|c c", text) is None) == (found[-1] == "violation")
    assert set(found[:-1]) <= {"pass"}


async def test_feedback_says_why_and_quotes_the_match():
    verifier = create("regex", {"must_not": [{"pattern": "b.d", "why": "Be kind."}]})
    (verdict,) = await violations(verifier, "This is bad.")

    assert ("Be kind.", "bad") == (verdict.feedback, verdict.where)


async def test_case_can_be_ignored():
    assert len(await violations(create("regex", {"must_not": ["bad"], "ignore_case": True}), "So BAD.")) == 1


@pytest.mark.parametrize(("fails", "outcome"), [("open", "unsure"), ("closed", "violation")])
async def test_a_pattern_that_runs_away_is_stopped(fails, outcome):
    verifier = create("regex", {"must_not": ["(a|aa)+$"], "fails": fails})

    assert outcome == (await read(verifier, "a" * 60 + "!"))[-1].outcome


@pytest.mark.parametrize("pattern", ["(", "a*", "(?<n>a)(?P<n"])
def test_a_pattern_that_is_none_stops_the_start(pattern):
    with pytest.raises(ValueError, match="pattern"):
        create("regex", {"must_not": [pattern]})
