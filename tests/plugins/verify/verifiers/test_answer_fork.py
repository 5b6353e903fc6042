"""`answer_fork`: says when the answer so far has stopped changing."""

import time

import pytest

from predawn.plugins import Exchange
from predawn.plugins.verify.verifiers import create
from predawn.plugins.verify.verifiers.answer_fork import answer_key
from predawn.proxy.extensions import Step


async def read(said, options):
    verifier, exchange = create("answer_fork", options), Exchange(b"{}")
    return [
        await verifier.verify(
            Step("so.", "reasoning", "reasoning_step", 3 * i, 3 * i + 3, "so." * i, forked=words), exchange
        )
        for i, words in enumerate(said)
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (" 7.", "7 apples"),
        (" **1,000**", "$1000."),
        ("\\boxed{3}", " 3.0"),
        (" Paris.", " paris\nbecause"),
        ("7. Wait", "7"),
    ],
)
def test_equal_answers_are_equal(one, other):
    assert answer_key(one) == answer_key(other) is not None


@pytest.mark.parametrize("said", ["", " the", " 3 +", " not", "\n", " ("])
def test_what_is_cut_off_is_no_answer(said):
    assert answer_key(said) is None


async def test_equal_answers_in_a_row_are_settled():
    verdicts = await read([" 5.", " 7.", " 7.", " 7."], {"agree": 3})

    assert [verdict.where for verdict in verdicts] == ["", "", "", "settled"]
    assert (verdicts[-1].outcome, verdicts[-1].corrected) == ("pass", "7")


async def test_a_fork_without_an_answer_breaks_the_row():
    assert [verdict.where for verdict in await read([" 7.", " 3 +", " 7."], {"agree": 2})] == ["", "", ""]


async def test_a_settled_answer_can_end_the_thinking():
    verdicts = await read([" 7.", " 7."], {"agree": 2, "on_settled": "finish"})

    assert (verdicts[-1].outcome, verdicts[-1].corrected) == ("violation", "so.\nSo the answer is 7.")


async def test_steps_that_were_not_forked_pass():
    assert [verdict.outcome for verdict in await read([None, None], {"agree": 2})] == ["pass", "pass"]


def test_forks_are_made_now_and_then():
    verifier = create("answer_fork", {"every": 2, "warm_up": 4})
    asked = [bool(verifier.fork("It is so.\n" * count)[0]) for count in range(5)]

    assert asked == [False, False, True, True, True]


@pytest.mark.parametrize("bait", ["\n", ". ", "a", "!\n"])
def test_the_steps_of_a_megabyte_are_counted_at_once(bait):
    verifier, prefix = create("answer_fork"), (bait * 1_000_000)[:1_000_000]
    best_s = float("inf")
    for _ in range(5):
        began = time.thread_time()
        verifier.fork(prefix)
        best_s = min(best_s, time.thread_time() - began)

    assert best_s <= 0.02
