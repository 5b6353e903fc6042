"""What adaptive spending is compared with, and the promises as numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean
from typing import Any

from tests.benchmarks.budget.adaptive import AMPLE
from tests.benchmarks.budget.played import DIRECT, THINK, Outcomes, stopping, uniform
from tests.benchmarks.evidence import Bar

POINTS_LOST = 0.5
"""What counts as the same accuracy."""
EARLY_TOKENS = 1 / 3
ADAPTIVE_TOKENS = 0.5
POINTS_WON = 3.0


def plain(found: Mapping[str, Outcomes], samples: int) -> list[Outcomes]:
    """Settings that do the same for every request: an effort, a number of answers."""
    return [found[name] for name in (DIRECT, THINK, *uniform(samples))]


def any_for_all(found: Mapping[str, Outcomes], samples: int) -> list[Outcomes]:
    """Those, and strategies that look at the answers, the same one for every request."""
    return [*plain(found, samples), *(found[name] for name in stopping(samples))]


def best(settings: Sequence[Outcomes]) -> Outcomes:
    """The most accurate; of equal ones the cheapest."""
    return max(settings, key=lambda one: (one.accuracy, -one.tokens))


def hull(settings: Sequence[Outcomes]) -> list[Outcomes]:
    """Those that no mixture of others beats at equal mean tokens, the cheapest first."""
    kept: list[Outcomes] = []
    for one in sorted(settings, key=lambda setting: (setting.tokens, -setting.accuracy)):
        if kept and one.accuracy <= kept[-1].accuracy:
            continue
        while len(kept) > 1 and _slope(kept[-2], one) >= _slope(kept[-2], kept[-1]):
            kept.pop()
        kept.append(one)
    return kept


def _slope(left: Outcomes, right: Outcomes) -> float:
    return (right.accuracy - left.accuracy) / max(right.tokens - left.tokens, 1e-9)


@dataclass(frozen=True, slots=True)
class Mixture:
    """A fixed budget of given mean tokens: this share of the requests, drawn by lot, gets the dearer setting."""

    cheaper: Outcomes
    dearer: Outcomes
    share: float

    @property
    def name(self) -> str:
        if self.cheaper is self.dearer:
            return self.cheaper.name
        return f"{1 - self.share:.0%} {self.cheaper.name}, {self.share:.0%} {self.dearer.name}"

    @property
    def right(self) -> list[float]:
        pairs = zip(self.cheaper.right, self.dearer.right, strict=True)
        return [one + self.share * (other - one) for one, other in pairs]


def of_equal_tokens(settings: Sequence[Outcomes], tokens: float) -> Mixture:
    """The best that fixed settings can do with so many tokens in the mean, by lot between two of them."""
    line = hull(settings)
    for cheaper, dearer in zip(line, line[1:], strict=False):
        if cheaper.tokens <= tokens <= dearer.tokens:
            return Mixture(cheaper, dearer, (tokens - cheaper.tokens) / (dearer.tokens - cheaper.tokens))
    end = line[-1] if tokens > line[-1].tokens else line[0]
    return Mixture(end, end, 1.0)


def points(better: Sequence[float], worse: Sequence[float]) -> dict[str, float]:
    """The difference on the same problems in percentage points, with its standard error."""
    each = [100.0 * (one - other) for one, other in zip(better, worse, strict=True)]
    middle = fmean(each)
    return {"points": middle, "standard_error": sqrt(fmean((one - middle) ** 2 for one in each) / len(each))}


def compared(found: Mapping[str, Outcomes], adaptive: Outcomes, samples: int) -> dict[str, Any]:
    """One adaptive run beside the fixed settings."""
    uniform = plain(found, samples)
    uniform_best = best(uniform)
    rival, strategic = (of_equal_tokens(some, adaptive.tokens) for some in (uniform, any_for_all(found, samples)))
    return {
        "best uniform setting": uniform_best.name,
        "tokens_of_best_uniform": adaptive.tokens / uniform_best.tokens,
        "over_best_uniform": points(adaptive.right, uniform_best.right),
        "over_fixed_of_equal_tokens": {"fixed": rival.name, **points(adaptive.right, rival.right)},
        "over_any_strategy_for_all_of_equal_tokens": {
            "strategy": strategic.name,
            **points(adaptive.right, strategic.right),
        },
    }


def early_bars(found: Mapping[str, Outcomes], samples: int) -> dict[str, Bar]:
    """Of a vote that stops early."""
    most = min(16, samples)
    early, whole = found[f"vote@{most}, stops early"], found[f"vote of {most}"]
    lost = points(whole.right, early.right)
    output = fmean(early.output) / fmean(whole.output)
    return {
        f"vote of {most} that stops early, below the whole vote": Bar(
            lost["points"], POINTS_LOST, "points", f"± {lost['standard_error']:.2f}"
        ),
        f"vote of {most} that stops early, of the whole vote's tokens": Bar(output, EARLY_TOKENS, "×"),
    }


def adaptive_bars(told: Mapping[str, Mapping[str, Any]]) -> dict[str, Bar]:
    """Of the whole: one system, one setting, and both promises at once."""
    run = told[AMPLE]
    level, over = run["over_best_uniform"], run["over_fixed_of_equal_tokens"]
    return {
        "adaptive: below the best uniform setting": Bar(
            -level["points"], POINTS_LOST, "points", f"± {level['standard_error']:.2f}, {run['best uniform setting']}"
        ),
        "adaptive: of the best uniform setting's tokens": Bar(run["tokens_of_best_uniform"], ADAPTIVE_TOKENS, "×"),
        "adaptive: over a fixed budget of equal mean tokens": Bar(
            over["points"], POINTS_WON, "points", f"± {over['standard_error']:.2f}, {over['fixed']}", at_least=True
        ),
    }
