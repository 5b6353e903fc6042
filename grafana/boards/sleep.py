"""What sleep spends while nobody waits, and what that saves when somebody asks."""

from __future__ import annotations

from grafana.boards.common import (
    ANNOTATIONS,
    DAY,
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
from grafana.model.panel import Lines, Panel, Stat, States, Step, Word
from grafana.model.query import Query
from grafana.model.unit import Unit
from grafana.promql import busy, or_zero, share, total

ASLEEP = ('type=~"input|output"', 'phase="sleep"')
KNOWN = 'result=~"hit|stale"'
ASKED = 'result=~"hit|stale|miss|expired"'


def board() -> Dashboard:
    """For whoever pays for the nights."""
    return Dashboard(
        uid="predawn-sleep",
        title="Predawn / Sleep-time & contexts",
        description="What does sleep spend, what does it save, is it keeping up, and does it stay out of the way?",
        rows=(
            Row("Does it pay?", _balance()),
            Row("Are notes there when they are needed?", _uses()),
            Row("Is it keeping up?", _jobs()),
            Row("Does it stay out of the way?", _gate()),
            Row("What is known", _contexts()),
        ),
        variables=(JOB, MODEL, UPSTREAM),
        annotations=ANNOTATIONS,
        span="now-24h",
    )


def _balance() -> tuple[Panel, ...]:
    saved, spent = DAY.increase("context_tokens_saved_total"), DAY.increase("tokens_total", *ASLEEP)
    regrets = share(DAY.increase("context_regrets_total"), DAY.increase("context_uses_total"))
    return (
        Stat(
            title="Saved, 24 h",
            description="Output tokens that nobody had to wait for, against answers of the same model about the same "
            "context without notes.",
            unit=Unit.TOKENS,
            queries=(Query(or_zero(saved), "saved"),),
            past=False,
        ),
        Stat(
            title="Spent asleep, 24 h",
            description="Tokens of all calls of sleep, prompts included.",
            unit=Unit.TOKENS,
            queries=(Query(or_zero(spent), "spent"),),
            past=False,
        ),
        Stat(
            title="Saved for each token asleep, 24 h",
            description="Sleep pays where this is above 1 / `price_ratio` (0.1 unless the settings say otherwise): "
            "what a token asleep is worth against one that somebody waits for.",
            unit=Unit.TIMES,
            queries=(Query(or_zero(share(saved, spent)), "saved ÷ spent"),),
            base=YELLOW,
            steps=(Step(0.1, GREEN),),
            decimals=2,
            past=False,
        ),
        Stat(
            title="Requests with a known context, 24 h",
            description="Share of requests looked up whose beginning had been slept on, at least in part.",
            unit=Unit.SHARE,
            queries=(
                Query(
                    or_zero(share(DAY.rate("context_lookups_total", KNOWN), DAY.rate("context_lookups_total", ASKED))),
                    "known",
                ),
            ),
            past=False,
        ),
        Stat(
            title="Stale, of the known, 24 h",
            description="Share of hits whose context had changed since: their notes are about its unchanged beginning. "
            "Sleep that keeps up holds this low.",
            unit=Unit.SHARE,
            queries=(
                Query(
                    or_zero(
                        share(
                            DAY.rate("context_lookups_total", 'result="stale"'),
                            DAY.rate("context_lookups_total", KNOWN),
                        )
                    ),
                    "stale",
                ),
            ),
            steps=(Step(0.2, YELLOW), Step(0.5, RED)),
            past=False,
        ),
        Stat(
            title="Regretted, of all uses, 24 h",
            description="Share of uses whose answer a verifier or a client called wrong. Notes that mislead are worse "
            "than none: above a few percent look at what they say.",
            unit=Unit.SHARE,
            queries=(Query(or_zero(regrets), "regretted"),),
            steps=(Step(0.02, YELLOW), Step(0.1, RED)),
            decimals=1,
            past=False,
        ),
        *_flows(),
    )


def _flows() -> tuple[Panel, ...]:
    return (
        Lines(
            title="Saved and spent",
            description="Tokens a second: written asleep, and spared while somebody waited. Spending comes first.",
            unit=Unit.TOKENS_PER_S,
            queries=(
                Query(or_zero(READ.rate("tokens_total", *ASLEEP)), "spent asleep"),
                Query(or_zero(READ.rate("context_tokens_saved_total")), "saved"),
            ),
            width=12,
        ),
        Lines(
            title="Tokens asleep by model",
            description="Who thinks at night: tokens a second, read and written.",
            unit=Unit.TOKENS_PER_S,
            queries=(
                Query(
                    or_zero(busy(READ.rate("tokens_total", *ASLEEP, by=("model", "type"))), "model"),
                    "{{model}} {{type}}",
                ),
            ),
            stacked=True,
            width=12,
        ),
    )


def _uses() -> tuple[Panel, ...]:
    return (
        Lines(
            title="Requests by what is known of them",
            description="hit: slept on; stale: slept on before its last change; miss: no context, or none slept on "
            "yet; expired: known once; skipped: the request did not want to be looked up.",
            unit=Unit.REQUESTS_PER_S,
            queries=(Query(or_zero(READ.rate("context_lookups_total", by=("result",)), "result"), "{{result}}"),),
            stacked=True,
        ),
        Lines(
            title="Uses by kind",
            description="notes: put into the request; hint: an anticipated answer among them; served: the anticipated "
            "answer was the answer, and no model was asked.",
            unit=Unit.REQUESTS_PER_S,
            queries=(Query(or_zero(READ.rate("context_uses_total", by=("kind",)), "kind"), "{{kind}}"),),
            stacked=True,
        ),
        Lines(
            title="Regrets",
            description="Uses a second whose answer a verifier or a client called wrong.",
            unit=Unit.PER_S,
            queries=(Query(or_zero(READ.rate("context_regrets_total")), "regrets"),),
        ),
        heat(
            "Age of notes when used",
            "How old notes are when somebody is helped by them.",
            "context_age_seconds",
            width=12,
        ),
        quantiles(
            "Age of notes when used: p50, p90, p99",
            "If p50 is far above the time between changes of a context, notes are about an older version.",
            "context_age_seconds",
            width=12,
        ),
    )


def _jobs() -> tuple[Panel, ...]:
    return (
        Lines(
            title="Contexts that wait",
            description="candidate: nothing done yet; active: a job has begun; deferred: put off, because people were "
            "waiting or money was spent.",
            unit=Unit.COUNT,
            queries=(Query(or_zero(total(READ.pick("sleep_backlog_jobs"), by=("kind",)), "kind"), "{{kind}}"),),
            stacked=True,
        ),
        Lines(
            title="Oldest that waits",
            description="How long the context that waits longest has waited. If it only rises, sleep gets no time: "
            "look at the gate, at `hours`, and at `tokens_per_day`. An alert begins at 6 hours.",
            unit=Unit.SECONDS,
            queries=(Query(or_zero(f"max({READ.pick('sleep_oldest_job_age_seconds')})"), "oldest"),),
            steps=(Step(21600, RED),),
        ),
        Lines(
            title="Jobs by outcome",
            description="Jobs a second that ended. accepted and done are good; rejected: the check found too much "
            "wrong in the notes; deferred jobs come again; failed ones are in the log.",
            unit=Unit.PER_S,
            queries=(Query(or_zero(READ.rate("sleep_jobs_total", by=("outcome",)), "outcome"), "{{outcome}}"),),
            stacked=True,
        ),
        heat(
            "How long a job takes",
            "One job of sleep, its waits for a free upstream included.",
            "sleep_job_duration_seconds",
        ),
        quantiles(
            "How long a job takes: p50, p90, p99",
            "Long jobs are no harm by themselves: they give way whenever somebody asks.",
            "sleep_job_duration_seconds",
        ),
        Lines(
            title="Jobs by kind",
            description="consolidate: think and write notes; check: judge them; anticipate: foresee questions; warm: "
            "keep a prefix in the upstream's cache.",
            unit=Unit.PER_S,
            queries=(Query(or_zero(READ.rate("sleep_jobs_total", by=("kind",)), "kind"), "{{kind}}"),),
            stacked=True,
        ),
        quantile_by(
            "How long a job takes, by kind, p90",
            "Which of the stages takes the time.",
            "sleep_job_duration_seconds",
            ("kind",),
            share=0.9,
            width=24,
            height=6,
        ),
    )


def _gate() -> tuple[Panel, ...]:
    return (
        States(
            title="Gate by upstream",
            description="Open: sleep may ask the upstream. Shut: somebody waits, it is not the hour, or the day's "
            "tokens are spent.",
            unit=Unit.NONE,
            queries=(
                Query(or_zero(f"min by (upstream) ({READ.pick('sleep_gate_open')})", "upstream"), "{{upstream}}"),
            ),
            words=(Word(0, "shut", "orange"), Word(1, "open", GREEN)),
            width=12,
        ),
        Lines(
            title="Why the gate was shut",
            description="Calls of sleep a second that were kept from beginning, or ended because somebody came.",
            unit=Unit.PER_S,
            queries=(Query(or_zero(READ.rate("sleep_gate_closed_total", by=("reason",)), "reason"), "{{reason}}"),),
            stacked=True,
            width=12,
        ),
    )


def _contexts() -> tuple[Panel, ...]:
    return (
        Lines(
            title="Contexts",
            description="Contexts known, added up over all processes; shared ones count in each.",
            unit=Unit.COUNT,
            queries=(Query(or_zero(total(READ.pick("context_entries"))), "contexts"),),
        ),
        Lines(
            title="Memory of notes",
            description="Texts of notes kept in memory, added up over all processes.",
            unit=Unit.BYTES,
            queries=(Query(or_zero(total(READ.pick("context_bytes"))), "notes"),),
        ),
        Lines(
            title="Discovered contexts",
            description="Beginnings that came often: kept, refused for want of room, and others evicted for them. Many "
            "evictions mean that `max_contexts` or `max_tenant_bytes` is small for this traffic.",
            unit=Unit.PER_S,
            queries=(Query(or_zero(READ.rate("context_discoveries_total", by=("result",)), "result"), "{{result}}"),),
            stacked=True,
        ),
    )
