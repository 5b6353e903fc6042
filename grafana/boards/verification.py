"""What verifiers find, what is done about it, and what it costs those who wait."""

from __future__ import annotations

from grafana.boards.common import ANNOTATIONS, JOB, MODEL, READ, RED, UPSTREAM, YELLOW, heat, quantile_by, quantiles
from grafana.model.dashboard import Dashboard, Row
from grafana.model.panel import Bars, Lines, Panel, Stat, Step
from grafana.model.query import Query
from grafana.model.unit import Unit
from grafana.promql import busy, or_zero, share, some

BY = ("verifier",)


def board() -> Dashboard:
    """For whoever answers for what is said."""
    return Dashboard(
        uid="predawn-verification",
        title="Predawn / Verification",
        description="What is found, what is done about it, can the verifiers be relied on, and what does it cost?",
        rows=(
            Row("At a glance", _glance()),
            Row("What is found, and what is done about it?", _found()),
            Row("Can the verifiers be relied on?", _reliance()),
            Row("What does it cost those who wait?", _cost()),
            Row("How long do verifiers take?", _durations()),
        ),
        variables=(JOB, MODEL, UPSTREAM),
        annotations=ANNOTATIONS,
    )


def _of_checks(verdict: str) -> str:
    return share(READ.rate("verifier_checks_total", f'verdict=~"{verdict}"'), READ.rate("verifier_checks_total"))


def _glance() -> tuple[Panel, ...]:
    return (
        Stat(
            title="Checks",
            description="Steps of answers looked at, a second. One step is looked at by each verifier.",
            unit=Unit.PER_S,
            queries=(Query(or_zero(READ.rate("verifier_checks_total")), "checks"),),
        ),
        Stat(
            title="Violations, of checks",
            description="Share of steps of which a verifier said that they are wrong. A sudden rise is a new model, a "
            "new prompt, or a new rule.",
            unit=Unit.SHARE,
            queries=(Query(or_zero(_of_checks("violation")), "violations"),),
            decimals=1,
        ),
        Stat(
            title="Interventions",
            description="Violations a second about which something was done: stopped, rewritten, begun again.",
            unit=Unit.PER_S,
            queries=(Query(or_zero(READ.rate("verifier_interventions_total", 'action!="flag"')), "interventions"),),
        ),
        Stat(
            title="Not answered, of checks",
            description="Share of checks that failed, took too long, or were passed over because too much waited. What "
            "was not looked at may be wrong.",
            unit=Unit.SHARE,
            queries=(Query(or_zero(_of_checks("error|timeout|shed")), "not answered"),),
            steps=(Step(0.01, YELLOW), Step(0.05, RED)),
            decimals=1,
        ),
        Stat(
            title="Hidden, of verifiers' time",
            description="Share of the verifiers' time that ran while the model was still writing, and so cost nobody "
            "any waiting.",
            unit=Unit.SHARE,
            queries=(Query(or_zero(READ.mean("verifier_overlap_ratio")), "hidden"),),
        ),
        Stat(
            title="Added at the end, p95",
            description="From the end of the generation to a verifier's last word. It is what verification adds to an "
            "answer that waits for it.",
            unit=Unit.SECONDS,
            queries=(Query(or_zero(some(READ.quantile(0.95, "verifier_added_latency_seconds"))), "added, p95"),),
            steps=(Step(0.5, YELLOW), Step(1, RED)),
        ),
    )


def _found() -> tuple[Panel, ...]:
    checks = "verifier_checks_total"
    return (
        Lines(
            title="Checks by verdict",
            description="pass, violation, unsure; error and timeout: there is no verdict; shed: passed over because "
            "too much waited.",
            unit=Unit.PER_S,
            queries=(Query(or_zero(READ.rate(checks, by=("verdict",)), "verdict"), "{{verdict}}"),),
            stacked=True,
        ),
        Lines(
            title="Violations by verifier",
            description="Who finds something.",
            unit=Unit.PER_S,
            queries=(Query(or_zero(READ.rate(checks, 'verdict="violation"', by=BY), *BY), "{{verifier}}"),),
            stacked=True,
        ),
        Lines(
            title="Interventions by action",
            description="flag: noted only; stop: the answer ended; rewrite: the step was put right and the model went "
            "on; retry: the answer was begun again.",
            unit=Unit.PER_S,
            queries=(
                Query(or_zero(READ.rate("verifier_interventions_total", by=("action",)), "action"), "{{action}}"),
            ),
            stacked=True,
        ),
    )


def _reliance() -> tuple[Panel, ...]:
    checks = "verifier_checks_total"
    silent = READ.rate(checks, 'verdict=~"error|timeout|shed"', by=("verifier", "verdict"))
    unsure = share(READ.rate(checks, 'verdict="unsure"', by=BY), READ.rate(checks, by=BY))
    return (
        Lines(
            title="Checks without a verdict",
            description="Checks a second that ended in an error or took too long, or were passed over, by verifier. "
            "Errors are in the log with the verifier's name.",
            unit=Unit.PER_S,
            queries=(Query(or_zero(busy(silent), "verifier", "verdict"), "{{verifier}} {{verdict}}"),),
            stacked=True,
        ),
        Lines(
            title="Unsure, by verifier",
            description="Share of a verifier's checks that ended in “unsure”. One that is mostly unsure costs its time "
            "and tells little.",
            unit=Unit.SHARE,
            queries=(Query(or_zero(unsure, *BY), "{{verifier}}"),),
            high=1,
        ),
        Bars(
            title="Checks by verifier",
            description="Steps looked at, a second, just now.",
            unit=Unit.PER_S,
            queries=(Query(or_zero(READ.rate(checks, by=BY), *BY), "{{verifier}}"),),
        ),
    )


def _cost() -> tuple[Panel, ...]:
    tokens = ("type",)
    return (
        heat(
            "Added at the end",
            "From the end of the generation to a verifier's last word; one observation an answer.",
            "verifier_added_latency_seconds",
        ),
        quantiles(
            "Added at the end: p50, p90, p99",
            "With observe nobody waits for it; with gate and intervene the last step does.",
            "verifier_added_latency_seconds",
        ),
        Lines(
            title="Hidden behind generation, by verifier",
            description="Mean share of a verifier's time that ran while the model was still writing. Low means that "
            "most of its work comes when the answer is over: cut smaller steps, or make it faster.",
            unit=Unit.SHARE,
            queries=(Query(or_zero(READ.mean("verifier_overlap_ratio", by=BY), *BY), "{{verifier}}"),),
            high=1,
        ),
        heat(
            "Hidden behind generation",
            "Share of the verifiers' time that cost nobody any waiting; one observation an answer.",
            "verifier_overlap_ratio",
            unit=Unit.SHARE,
        ),
        Lines(
            title="Tokens of verifiers that ask a model",
            description="Tokens a second that judges read and write.",
            unit=Unit.TOKENS_PER_S,
            queries=(
                Query(
                    or_zero(READ.rate("tokens_total", 'phase="verify"', 'type=~"input|output"', by=tokens), *tokens),
                    "{{type}}",
                ),
            ),
            stacked=True,
        ),
        Lines(
            title="Tokens thrown away",
            description="Tokens a second that were generated and not used: cut off, begun again, or not chosen. "
            "Sampling counts here, too.",
            unit=Unit.TOKENS_PER_S,
            queries=(
                Query(
                    or_zero(READ.rate("tokens_total", 'phase="discarded"', 'type=~"input|output"', by=tokens), *tokens),
                    "{{type}}",
                ),
            ),
            stacked=True,
        ),
    )


def _durations() -> tuple[Panel, ...]:
    took = "verifier_duration_seconds"
    return (
        heat("One look at one step", "How long a verifier takes for a step.", took),
        quantiles("One look at one step: p50, p90, p99", "All verifiers together.", took),
        quantile_by("One look at one step, by verifier, p95", "The slowest decides how long a gate holds.", took, BY),
    )
