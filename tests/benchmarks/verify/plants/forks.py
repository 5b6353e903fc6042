"""Thoughts whose answer settles, and thoughts whose answer does not; here a settled answer is what must be caught."""

from __future__ import annotations

from random import Random

from tests.benchmarks.verify.plants.case import Case


def draw(random: Random, wrong: bool) -> Case:
    answer = random.randint(2, 999)
    steps = 12
    said = [str(random.randint(1000, 9999)) for _ in range(steps)]
    if wrong:
        at = random.randint(0, 6)
        for place in range(at, at + 4):
            said[place] = random.choice(
                (
                    f" {answer}",
                    f": {answer}.",
                    f" **{answer}**.",
                    f" ${answer}",
                    f" {answer}. Wait, let",
                    f" {answer} apples"[: 4 + len(str(answer))],
                    f" \\boxed{{{answer}}}",
                )
            )
    else:
        kind = random.randint(0, 2)
        if kind == 0:
            said = [f" {answer + place % 2}." for place in range(steps)]
        elif kind == 1:
            said = [random.choice((" not", " the", "", " that", " 3 +")) for _ in range(steps)]
        else:
            said = [f" {answer}." if place % 3 else " 3 *" for place in range(steps)]
    text = "".join(f"Step number {word} gives x = {word}.\n" for word in "abcdefghijkl"[:steps])
    return Case(
        text,
        "settled" if wrong else "unsettled",
        {},
        {"every": 1, "warm_up": 0, "agree": 3, "on_settled": "finish"},
        "reasoning",
        None,
        tuple(said),
    )
