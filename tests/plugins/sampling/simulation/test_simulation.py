"""Strategies on recorded answers: what is counted, and that it is what the proxy would have paid."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.json import decode

from predawn.plugins.sampling.simulation.contest import Entry, EntryError, Rules, contest, entry
from predawn.plugins.sampling.simulation.playing import JudgeRules, Outcome, Play, StuckError
from predawn.plugins.sampling.simulation.recording import Branch, Line, Problem, RecordingError, problems, read_problem
from predawn.plugins.sampling.strategies import STRATEGIES, Options


def branch(answer: str | None, tokens: int = 10, **members: Any) -> dict[str, Any]:
    return {"answer": answer, "tokens": tokens, **members}


def recorded(tmp_path: Path, *lines: Any) -> Path:
    path = tmp_path / "recorded.jsonl"
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


def problem(tmp_path: Path, *branches: dict[str, Any], answer: str | None = "42", **members: Any) -> Problem:
    (read,) = problems(recorded(tmp_path, {"answer": answer, "branches": list(branches), **members}))
    return read


def play(name: str, of: Problem, judge: JudgeRules | None = None, at_once: int = 64, **options: Any) -> Outcome:
    strategy = STRATEGIES[name](Options(**{"samples": len(of.drawn), **options}))
    return Play(strategy, of.drawn, at_once=at_once, judge=judge or JudgeRules(), chance=random.Random(0)).run()


def test_a_vote_costs_what_it_drew(tmp_path: Path) -> None:
    outcome = play("vote", problem(tmp_path, *(branch("42", 10 + number) for number in range(16))))

    assert (outcome.correct, outcome.samples, outcome.tokens, outcome.why) == (True, 3, 10 + 11 + 12, "settled")
    assert outcome.seconds == pytest.approx(12 * 0.02)


def test_samples_that_are_given_up_cost_what_had_been_said(tmp_path: Path) -> None:
    drawn = problem(tmp_path, branch("42", 10), branch("42", 100), branch("41", 1000))
    outcome = play("first_m_of_k", drawn, first=1)

    assert outcome.tokens == 10 + 10 + 10
    assert outcome.seconds == pytest.approx(10 * 0.02)


def test_answers_wait_for_their_turn(tmp_path: Path) -> None:
    drawn = problem(tmp_path, *(branch("42", 10) for _ in range(4)))

    assert play("judge", drawn, at_once=1).seconds == pytest.approx(4 * play("judge", drawn).seconds)


def test_a_hedge_goes_to_whichever_begins_first(tmp_path: Path) -> None:
    drawn = problem(
        tmp_path, branch("41", 10, seconds=9, first_token_s=8), branch("42", 10, seconds=1.0, first_token_s=0.5)
    )
    outcome = play("hedge", drawn, hedge_after_s=2)

    assert (outcome.correct, outcome.samples, outcome.seconds) == (True, 2, pytest.approx(3.0))
    assert 10 < outcome.tokens < 20


def test_a_judge_is_as_good_as_it_is_said_to_be(tmp_path: Path) -> None:
    drawn = problem(
        tmp_path, branch(None, text="wrong", correct=False), branch(None, text="right", correct=True), answer=None
    )

    assert play("judge", drawn, JudgeRules(1.0)).correct
    assert not play("judge", drawn, JudgeRules(0.0)).correct
    assert play("judge", drawn, JudgeRules(1.0, tokens=7)).tokens == 20 + 14


def test_a_recording_that_is_too_short_is_a_failure_and_not_the_end(tmp_path: Path) -> None:
    outcome = play("vote", problem(tmp_path, branch("42"), branch("42")), samples=16)

    assert (outcome.correct, outcome.samples) == (True, 2)


def test_a_strategy_that_waits_for_nothing_is_told_of() -> None:
    class Idle:
        name = "idle"
        progress_every = 0

        def on(self, event: object) -> tuple[()]:
            return ()

    with pytest.raises(StuckError):
        Play(Idle(), [], at_once=1, judge=JudgeRules(), chance=random.Random(0)).run()


@given(
    st.sampled_from(sorted(STRATEGIES)),
    st.lists(
        st.tuples(
            st.sampled_from(["41", "42", "43", None]),
            st.integers(0, 40),
            st.floats(0, 3),
            st.sampled_from(["stop", "length"]),
        ),
        min_size=1,
        max_size=12,
    ),
    st.integers(1, 12),
    st.integers(1, 4),
    st.floats(0, 1),
)
def test_cost_never_exceeds_what_the_limit_allows(
    name: str, drawn: list[tuple[str | None, int, float, str]], samples: int, at_once: int, beta: float
) -> None:
    branches = [
        {"answer": answer, "tokens": tokens, "seconds": seconds, "finish_reason": reason, "correct": answer == "42"}
        for answer, tokens, seconds, reason in drawn
    ]
    line = json.dumps({"branches": branches})

    of = read_problem(decode(line, type=Line), "here")
    outcome = play(name, of, at_once=at_once, samples=samples, beta=beta)
    dearest = sorted((tokens for _, tokens, _, _ in drawn), reverse=True)[: samples if name != "hedge" else 2]

    assert outcome.samples <= min(samples, len(drawn))
    assert outcome.tokens <= sum(dearest) + 2 * 32 * len(drawn)


def test_figures_are_the_same_for_the_same_seed(tmp_path: Path) -> None:
    path = recorded(
        tmp_path, *({"answer": "42", "branches": [branch(str(40 + n % 4), n + k) for n in range(8)]} for k in range(9))
    )
    rules = Rules(repeat=3, seed=5, judge=JudgeRules(0.7))
    rows = [
        [line.row() for line in contest(problems(path), [entry("vote@4"), entry("judge@4")], rules)] for _ in range(2)
    ]

    assert rows[0] == rows[1]
    assert rows[0][0]["problems"] == 9


def test_early_stop_is_as_good_as_all_sixteen_for_a_third_of_the_tokens() -> None:
    """The bar of `make eval-budget`, on votes such as the bundled model casts: one right in .83, sixteen in .95."""
    chance = random.Random(7)
    figures = contest(
        (_like_the_bundled_model(chance, number) for number in range(1500)),
        [Entry("all", "vote", Options(samples=16, min_samples=16)), entry("vote@16"), entry("single")],
        Rules(),
    )
    everything, early, single = figures

    assert 0.78 < single.accuracy < 0.88
    assert 0.92 < everything.accuracy < 0.98
    assert early.accuracy >= everything.accuracy - 0.005
    assert early.tokens <= everything.tokens / 3


def _like_the_bundled_model(chance: random.Random, number: int) -> Problem:

    depth = chance.randrange(1, 9)
    wrong = chance.betavariate(0.3 * (0.5 + depth / 8), 1.5)
    others = [chance.gammavariate(0.7, 1) for _ in range(chance.randrange(5, 15))]
    branches = tuple(
        Branch(
            tokens=max(5, round(chance.gauss(8 + 7 * depth, 2))),
            answer=str(chance.choices(range(41, 41 + len(others)), others)[0]) if chance.random() < wrong else "40",
        )
        for _ in range(16)
    )
    return read_problem(Line(branches, number, "How many?", "40"), "here")


# -- the file


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 1"),
        ('{"answer": "1"}', "branches"),
        ('{"answer": "1", "branches": []}', "no branches"),
        ('{"branches": [{"tokens": 1, "answer": "1"}]}', "neither"),
        ('{"answer": "1", "branches": [{"tokens": -1}]}', "negative"),
        ('{"answer": "1", "branches": [{"tokens": "x"}]}', "int"),
        ('{"answer": "1", "branches": [{"tokens": 1, "verdicts": ["perhaps"]}]}', "perhaps"),
        ("[" * 100_000, "line 1"),
        ("\udcff", "line 1"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "recorded.jsonl"
    path.write_bytes(line.encode("utf-8", "surrogateescape"))

    with pytest.raises(RecordingError, match=said):
        list(problems(path))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="cannot be read"):
        list(problems(tmp_path / "absent"))


def test_an_unknown_extractor_is_named(tmp_path: Path) -> None:
    path = recorded(tmp_path, {"answer": "1", "branches": [branch("1")]})

    with pytest.raises(RecordingError, match="nonsense"):
        list(problems(path, answer="nonsense"))


def test_answers_are_read_from_texts_where_none_are_given(tmp_path: Path) -> None:
    drawn = problem(
        tmp_path,
        {"tokens": 1, "text": "3 + 39 = 42. Bob = 42."},
        {"tokens": 1, "text": "Who knows."},
        question="How many?",
    ).drawn

    assert [one.correct for one in drawn] == [True, False]
    assert drawn[1].sample.extracted is None


def test_answers_that_no_extractor_reads_are_compared_as_they_stand(tmp_path: Path) -> None:
    question = "How many?"
    drawn = problem(tmp_path, branch("x + Y"), branch("X  + y"), branch("x"), answer="x + y", question=question).drawn

    assert [one.correct for one in drawn] == [True, True, False]


# -- the entries


def test_entries_are_read() -> None:
    assert entry("vote").options.samples == 16
    assert entry("waves@8:beta=0.25,min_samples=3").options == Options(
        samples=8, rounds=3, first=3, beta=0.25, min_samples=3
    )


SENSELESS = ("vote:epsilon=-1", "vote:epsilon=nan", "waves:beta=2", "hedge:hedge_after_s=-3", "vote:fallback=dice")


@pytest.mark.parametrize(
    "text", ["votes", "vote@x", "vote@0", "vote@4:what=1", "vote@4:epsilon=x", "vote@9999", "", *SENSELESS]
)
def test_entries_that_cannot_be_meant_are_refused(text: str) -> None:
    with pytest.raises(EntryError):
        entry(text)
