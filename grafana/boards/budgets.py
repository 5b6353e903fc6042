"""How hard requests are, what they are given, what they use, and what several chances buy."""

from __future__ import annotations

from grafana.boards.common import (
    ANNOTATIONS,
    GREEN,
    JOB,
    MODEL,
    READ,
    RED,
    UPSTREAM,
    YELLOW,
    heat,
    quantile_by,
    quantiles,
)
from grafana.model.dashboard import Dashboard, Row
from grafana.model.panel import Bars, Lines, Panel, Stat, States, Step, Word
from grafana.model.query import Query
from grafana.model.unit import Unit
from grafana.promql import or_zero, share


def board() -> Dashboard:
    """For whoever sets targets and ceilings."""
    return Dashboard(
        uid="predawn-budgets",
        title="Predawn / Budgets & sampling",
        description="How hard are requests, who gets what, is it used, and do further samples pay?",
        rows=(
            Row("At a glance", _glance()),
            Row("How hard are requests?", _difficulty()),
            Row("Who gets what?", _grants()),
            Row("What has been learnt?", _learning()),
            Row("Do more chances pay?", _sampling()),
            Row("When does sampling stop?", _stops()),
        ),
        variables=(JOB, MODEL, UPSTREAM),
        annotations=ANNOTATIONS,
    )


def _exhausted() -> str:
    return share(READ.rate("budget_exhausted_total"), READ.rate("budget_granted_tokens", part="count"))


def _glance() -> tuple[Panel, ...]:
    cancelled = READ.rate("samples_total", 'outcome=~"discarded|cancelled|failed"')
    return (
        Stat(
            title="Granted, mean",
            description="What a request was expected to cost when it got its budget, in tokens.",
            unit=Unit.TOKENS,
            queries=(Query(or_zero(READ.mean("budget_granted_tokens")), "granted"),),
        ),
        Stat(
            title="Spent, mean",
            description="What a request did cost: all its output, and the prompts of further calls.",
            unit=Unit.TOKENS,
            queries=(Query(or_zero(READ.mean("budget_spent_tokens")), "spent"),),
        ),
        Stat(
            title="Met a ceiling",
            description="Share of requests whose budget a ceiling made smaller, or that were refused for it.",
            unit=Unit.SHARE,
            queries=(Query(or_zero(_exhausted()), "exhausted"),),
            steps=(Step(0.05, YELLOW), Step(0.2, RED)),
        ),
        Stat(
            title="Samples, mean",
            description="Answers drawn for a request that was given more than one chance.",
            unit=Unit.COUNT,
            queries=(Query(or_zero(READ.mean("samples_drawn")), "samples"),),
            decimals=1,
        ),
        Stat(
            title="Ended early",
            description="Share of sampled requests that were answered before all that was allowed was drawn. High is "
            "good: that is what voting in steps saves.",
            unit=Unit.SHARE,
            queries=(
                Query(
                    or_zero(share(READ.rate("early_stops_total"), READ.rate("samples_drawn", part="count"))), "early"
                ),
            ),
        ),
        Stat(
            title="Samples not chosen",
            description="Share of answers drawn that were not given out. It is the price of choosing.",
            unit=Unit.SHARE,
            queries=(Query(or_zero(share(cancelled, READ.rate("samples_total"))), "not chosen"),),
        ),
    )


def _difficulty() -> tuple[Panel, ...]:
    score = "difficulty_score"
    return (
        heat(
            "Difficulty",
            "How hard requests were judged: 0 is trivial, 1 hopeless. A single dark band means that the estimators do "
            "not tell requests apart, and that budgets cannot help.",
            score,
            unit=Unit.SHARE,
        ),
        quantiles("Difficulty: p50, p90, p99", "How it changes with the traffic.", score, unit=Unit.SHARE),
        Lines(
            title="Who judged",
            description="Requests a second by the estimator that was surest of its view.",
            unit=Unit.REQUESTS_PER_S,
            queries=(Query(or_zero(READ.rate(score, by=("estimator",), part="count"), "estimator"), "{{estimator}}"),),
            stacked=True,
        ),
    )


def _grants() -> tuple[Panel, ...]:
    tier = ("tier",)
    return (
        Lines(
            title="Requests by tier",
            description="What share of the traffic is given how much.",
            unit=Unit.REQUESTS_PER_S,
            queries=(Query(or_zero(READ.rate("budget_granted_tokens", by=tier, part="count"), *tier), "{{tier}}"),),
            stacked=True,
        ),
        heat("Granted tokens", "What requests were expected to cost.", "budget_granted_tokens", unit=Unit.TOKENS),
        heat("Spent tokens", "What requests did cost.", "budget_spent_tokens", unit=Unit.TOKENS),
        quantile_by(
            "Granted tokens by tier, p90",
            "Tiers learn what they cost: the lines move apart as they do.",
            "budget_granted_tokens",
            tier,
            share=0.9,
            unit=Unit.TOKENS,
        ),
        quantile_by(
            "Spent tokens by tier, p90",
            "Tiers that cost the same are one tier.",
            "budget_spent_tokens",
            tier,
            share=0.9,
            unit=Unit.TOKENS,
        ),
        quantiles(
            "Spent tokens: p50, p90, p99",
            "A p99 far above p90 is what ceilings are for.",
            "budget_spent_tokens",
            unit=Unit.TOKENS,
        ),
        heat(
            "Used, of what was granted",
            "What requests cost against what was expected; all above 100 % is in the top row.",
            "budget_utilization_ratio",
            unit=Unit.SHARE,
        ),
        Lines(
            title="Met a ceiling, by tier",
            description="Requests a second whose budget a ceiling made smaller, or that were refused: of a request, "
            "of a key, of a tenant, or of all for a day.",
            unit=Unit.REQUESTS_PER_S,
            queries=(Query(or_zero(READ.rate("budget_exhausted_total", by=tier), *tier), "{{tier}}"),),
            stacked=True,
        ),
        Lines(
            title="Price",
            description="Gain in the chance of a right answer that one more token must bring under `marginal`. It "
            "rises while requests cost more than their target, and falls while they cost less.",
            unit=Unit.NONE,
            queries=(Query(or_zero(f"max by (model) ({READ.pick('budget_price')})", "model"), "{{model}}"),),
        ),
    )


def _learning() -> tuple[Panel, ...]:
    return (
        Lines(
            title="Outcomes learnt from",
            description="By what told how good an answer was. `none` alone means that only costs are learnt: add "
            "verifiers, samples that can be compared, or feedback.",
            unit=Unit.PER_S,
            queries=(Query(or_zero(READ.rate("budget_outcomes_total", by=("source",)), "source"), "{{source}}"),),
            stacked=True,
        ),
        Lines(
            title="Probes",
            description="Requests of which the model was asked a little first. empty and timeout cost tokens and told "
            "nothing.",
            unit=Unit.PER_S,
            queries=(Query(or_zero(READ.rate("budget_probes_total", by=("outcome",)), "outcome"), "{{outcome}}"),),
            stacked=True,
        ),
        Bars(
            title="Flat curves",
            description="Kinds of tasks, of all tenants, for which more tokens gain nothing. They get the cheapest "
            "tier.",
            unit=Unit.COUNT,
            queries=(Query(or_zero(f"max by (model) ({READ.pick('budget_flat_curves')})", "model"), "{{model}}"),),
            width=4,
        ),
        States(
            title="Obeys its knob",
            description="Whether a model thinks more when asked to. Filled by `probe_capabilities`; a model that does "
            "not obey can be given samples instead.",
            unit=Unit.NONE,
            queries=(Query(or_zero(f"min by (model) ({READ.pick('budget_knob_obeyed')})", "model"), "{{model}}"),),
            words=(Word(0, "no, or not asked", "gray"), Word(1, "yes", GREEN)),
            width=4,
        ),
    )


def _sampling() -> tuple[Panel, ...]:
    strategy = ("strategy",)
    return (
        heat(
            "Samples drawn",
            "Answers drawn for a request that was given more than one chance. A vote that ends early shows as a band "
            "below what was allowed.",
            "samples_drawn",
            unit=Unit.COUNT,
        ),
        quantiles("Samples drawn: p50, p90, p99", "The tail is the hard questions.", "samples_drawn", unit=Unit.COUNT),
        Lines(
            title="Samples by what became of them",
            description="selected: given out; discarded: came to its end, and another was chosen; cancelled: given up "
            "on its way; failed: the upstream did not answer.",
            unit=Unit.PER_S,
            queries=(Query(or_zero(READ.rate("samples_total", by=("outcome",)), "outcome"), "{{outcome}}"),),
            stacked=True,
        ),
        heat(
            "Agreement",
            "Share of comparable answers that say what the chosen one says. Near 1 one sample would have done; spread "
            "out, sampling earns its tokens.",
            "sample_agreement_ratio",
            unit=Unit.SHARE,
        ),
        quantile_by(
            "Agreement by strategy, p50",
            "The middle request's agreement.",
            "sample_agreement_ratio",
            strategy,
            share=0.5,
            unit=Unit.SHARE,
        ),
        Lines(
            title="Sampled requests by strategy",
            description="Requests a second that were given more than one chance.",
            unit=Unit.REQUESTS_PER_S,
            queries=(Query(or_zero(READ.rate("samples_drawn", by=strategy, part="count"), *strategy), "{{strategy}}"),),
            stacked=True,
        ),
    )


def _stops() -> tuple[Panel, ...]:
    return (
        Lines(
            title="Early ends by reason",
            description="Why requests were answered before all that was allowed was drawn.",
            unit=Unit.PER_S,
            queries=(Query(or_zero(READ.rate("early_stops_total", by=("reason",)), "reason"), "{{reason}}"),),
            stacked=True,
            width=12,
        ),
        Lines(
            title="Tokens of answers given up",
            description="Output tokens a second of samples that were given up on their way. They were paid for up to "
            "there; what they would have cost further is what was saved.",
            unit=Unit.TOKENS_PER_S,
            queries=(
                Query(
                    or_zero(READ.rate("sample_tokens_cancelled_total", by=("strategy",)), "strategy"), "{{strategy}}"
                ),
            ),
            stacked=True,
            width=12,
        ),
    )
