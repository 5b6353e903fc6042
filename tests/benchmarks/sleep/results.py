"""Answers turned into figures: how many were right, what they took, and what sleep gains or loses."""

from collections.abc import Sequence
from typing import Any

from tests.benchmarks.sleep.asking import Graded
from tests.benchmarks.sleep.curves import Economics, Tokens, interval, mean, median

QUERIES = (1, 2, 3, 5, 10, 20, 50, 100)
RATIOS = (1.0, 10.0)
SEED = 7
TOUCHED = 0.5
"""Output tokens below this share of the plain answer's mean: an answer given from notes."""


def tokens_of(answers: Sequence[Graded]) -> Tokens:
    """The mean of one answer."""
    total = Tokens()
    for graded in answers:
        total += graded.answer.tokens
    return total / max(len(answers), 1)


def scores(answers: Sequence[Graded]) -> dict[str, Any]:
    """What a way of asking came to."""
    tokens = tokens_of(answers)
    low, high = interval(by_case(answers), SEED)
    return {
        "questions": len(answers),
        "right": mean([float(graded.right) for graded in answers]),
        "right_interval": [low, high],
        "output_tokens": tokens.output,
        "prompt_tokens": tokens.prompt,
        "cached_tokens": tokens.cached,
        "right_by_depth": {str(depth): mean(values) for depth, values in _by_depth(answers).items()},
    }


def by_case(answers: Sequence[Graded]) -> list[list[float]]:
    """Right as 1 and wrong as 0, the questions of one context together."""
    groups: dict[str, list[float]] = {}
    for graded in answers:
        groups.setdefault(graded.case, []).append(float(graded.right))
    return list(groups.values())


def _by_depth(answers: Sequence[Graded]) -> dict[int, list[float]]:
    found: dict[int, list[float]] = {}
    for graded in sorted(answers, key=lambda one: one.question.depth):
        found.setdefault(graded.question.depth, []).append(float(graded.right))
    return found


def gained(plain: Sequence[Graded], noted: Sequence[Graded]) -> dict[str, Any]:
    """Accuracy with sleep less that without, in points, on the same questions; with an interval over contexts."""
    groups: dict[str, list[float]] = {}
    for before, after in zip(plain, noted, strict=True):
        groups.setdefault(before.case, []).append(100.0 * (after.right - before.right))
    low, high = interval(list(groups.values()), SEED)
    return {"points": mean([value for group in groups.values() for value in group]), "interval": [low, high]}


def times(plain: Sequence[Graded], noted: Sequence[Graded]) -> dict[str, Any]:
    """Seconds to the complete answer: means, for that is what people wait in all, and medians beside them."""
    found: dict[str, Any] = {"questions": len(plain)}
    for name, answers in (("plain", plain), ("noted", noted)):
        seconds = [graded.answer.seconds for graded in answers]
        found |= {f"{name}_mean_s": mean(seconds), f"{name}_median_s": median(seconds)}
        found[f"{name}_first_token_median_s"] = median([graded.answer.first_s for graded in answers])
    return found


def costs(found: Economics) -> dict[str, Any]:
    """Cost per query by queries per context, at each price ratio, in output tokens bought asleep."""
    shown: dict[str, Any] = {"asleep_per_context": found.asleep, "plain": found.plain, "noted": found.noted}
    for ratio in RATIOS:
        shown[f"t={ratio:g}"] = {
            "without_sleep": ratio * found.plain,
            "with_sleep": {str(queries): found.per_query(queries, ratio) for queries in QUERIES},
            "break_even_queries": found.break_even(ratio),
            "times_cheaper_at_10_queries": found.cheaper_by(10, ratio),
        }
    return shown


def from_notes(plain: Sequence[Graded], noted: Sequence[Graded]) -> float:
    """The share of questions that were answered in much fewer tokens than without notes."""
    pairs = zip(plain, noted, strict=True)
    return mean([float(after.answer.tokens.output < TOUCHED * before.answer.tokens.output) for before, after in pairs])
