"""From a finished exchange to its spans, by phase: before, during, alongside, after.

Names and attributes are those of OpenTelemetry's conventions for generative AI (gen_ai.*, in development in 2026) and
for HTTP. What the whole request used is `predawn.tokens.*`: with gen_ai.usage.* on the calls alone, whoever adds that
up over a trace counts nothing twice.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from predawn.plugins.traces.context import LONGEST_STATE, Context, Trace, new_span_id
from predawn.plugins.traces.otlp import Link, Span, Value
from predawn.plugins.traces.otlp import attributes as encoded
from predawn.plugins.traces.places import Place

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from predawn.plugins import Call, Exchange
    from predawn.plugins.verify.result import Looked

MOST_LINKS: Final = 32
LONGEST_NAME: Final = 200
"""Of a model: an alias `*` takes any name."""
OPERATIONS: Final = {
    "chat": "chat",
    "completions": "text_completion",
    "responses": "chat",
    "messages": "chat",
    "embeddings": "embeddings",
}
NOTHING: Final[Mapping[str, Value]] = {}
ELSEWHERE: Final = Place("", b"")


def spans_of(
    exchange: Exchange,
    trace: Trace,
    places: Mapping[str, Place],
    *,
    ended_s: float,
    looked: Sequence[Looked] = (),
    content: Mapping[str, Value] = NOTHING,
) -> Iterator[Span]:
    """All spans of a request; `ended_s` is when everything about it was over."""
    at, ledger = exchange.arrived_at, exchange.ledger
    state = trace.state if len(trace.state) <= LONGEST_STATE else ""
    parent = trace.parent.span if trace.parent is not None else 0
    path = f"/v1{exchange.path.partition('?')[0]}" if exchange.route != "raw" else "/v1/*"
    root = Span(
        trace.trace,
        trace.root,
        parent,
        path if exchange.route == "raw" else f"POST {path}",
        "server",
        at,
        at + ledger.total_s,
        _request(exchange),
    )
    root.constant = _asked(exchange.route, path, exchange.alias, exchange.tenant, exchange.outcome, exchange.status)
    root.is_error = exchange.status >= 500
    root.state = state
    if trace.linked is not None:
        root.links.append(Link(trace.linked.trace, trace.linked.span, {}))
    yield root

    def inner(name: str, phase: str, began_s: float, until_s: float) -> Span:
        made = Span(trace.trace, new_span_id(), trace.root, name, "internal", at + began_s, at + until_s, {})
        made.constant = _phase(phase)
        made.state = state
        return made

    asked_s = min((call.started_s for call in ledger.calls), default=ledger.total_s)
    before = inner("before", "before", 0.0, asked_s)
    before.links += _thoughts(exchange)
    if exchange.notes:
        before.attributes["predawn.notes"] = len(exchange.notes)
    yield before
    yield from _calls(exchange, trace, places, state, content)
    for one in looked:
        since, until = one.began_s - exchange.started, one.ended_s - exchange.started
        yield _verified(inner(f"verify {one.verifier}", "alongside", since, until), one)
    yield inner("after", "after", ledger.total_s, max(ended_s, ledger.total_s))


def spans_asleep(exchange: Exchange, context: Context, places: Mapping[str, Place]) -> Iterator[Span]:
    """The spans of a call that nobody waited for: in the trace of its context, to which requests link."""
    at, ledger = exchange.arrived_at, exchange.ledger
    decision = exchange.decisions[0] if exchange.decisions else None
    trace = Trace(context.trace, None, None, is_kept=True)
    attributes: dict[str, Value] = {"predawn.phase": "before", **_spent(exchange)}
    if decision is not None:
        attributes["predawn.sleep.purpose"] = decision.what
    thought = Span(context.trace, trace.root, context.span, "sleep", "internal", at, at + ledger.total_s, attributes)
    thought.is_error = exchange.outcome == "upstream_error"
    yield thought
    yield from _calls(exchange, trace, places, "", NOTHING)


def beginning_of(exchange: Exchange, name: str, context: Context) -> Span:
    """The span that all thoughts about a context hang on."""
    attributes: dict[str, Value] = {
        "predawn.phase": "before",
        "predawn.context": name,
        "predawn.tenant": exchange.tenant,
    }
    at = exchange.arrived_at
    return Span(context.trace, context.span, 0, "context", "internal", at, at + exchange.ledger.total_s, attributes)


def context_name(exchange: Exchange) -> str:
    """The context that a call asleep was about; empty if that was not said."""
    for decision in exchange.decisions:
        if isinstance(name := decision.detail.get("context"), str):
            return name
    return ""


@lru_cache(maxsize=16)
def _phase(phase: str) -> bytes:
    return encoded({"predawn.phase": phase})


@lru_cache(maxsize=1024)
def _asked(route: str, path: str, alias: str, tenant: str, outcome: str, status: int) -> bytes:  # noqa: PLR0917 - a key
    """What is the same of many requests, encoded: a third of what a span costs."""
    told: dict[str, Value] = {
        "http.route": path,
        "http.response.status_code": status,
        "predawn.outcome": outcome,
        "predawn.model": alias,
        "predawn.tenant": tenant,
    }
    if route != "raw":
        told["http.request.method"] = "POST"
    if outcome != "ok":
        told["error.type"] = str(status) if status >= 500 else outcome
    return encoded(told)


def _request(exchange: Exchange) -> dict[str, Value]:
    attributes: dict[str, Value] = {"predawn.exchange.id": exchange.id, **_spent(exchange)}
    if exchange.difficulty is not None:
        attributes["predawn.difficulty"] = float(exchange.difficulty.score)
    budget = exchange.budget
    if budget is not None:
        attributes["predawn.budget.samples"] = budget.samples
        if budget.effort is not None:
            attributes["predawn.budget.effort"] = budget.effort
        if budget.max_output_tokens is not None:
            attributes["predawn.budget.max_output_tokens"] = budget.max_output_tokens
    return attributes


def _spent(exchange: Exchange) -> dict[str, Value]:
    """What is not 0 of the tokens by phase."""
    ledger = exchange.ledger
    told: dict[str, Value] = {}
    if ledger.prompt:
        told["predawn.tokens.input"] = ledger.prompt
    if ledger.output:
        told["predawn.tokens.output"] = ledger.output
    if ledger.reasoning:
        told["predawn.tokens.reasoning"] = ledger.reasoning
    if ledger.discarded:
        told["predawn.tokens.discarded"] = ledger.discarded
    if ledger.verify:
        told["predawn.tokens.verify"] = ledger.verify
    if ledger.slept:
        told["predawn.tokens.slept"] = float(ledger.slept)
    if ledger.spend_usd:
        told["predawn.spend_usd"] = float(ledger.spend_usd)
    return told


def _thoughts(exchange: Exchange) -> Iterator[Link]:
    """What was thought before and went into the request; linked, because it began before the request did."""
    for note in exchange.notes[:MOST_LINKS]:
        name = note.get("context")
        if isinstance(name, str) and name:
            context = Context.of(exchange.tenant, name)
            attributes: dict[str, Value] = {"predawn.context": name, "predawn.notes.kind": str(note.get("kind", ""))}
            if isinstance(fresh := note.get("fresh"), bool):
                attributes["predawn.notes.fresh"] = fresh
            if isinstance(age_s := note.get("age_s"), float):
                attributes["predawn.notes.age_s"] = age_s
            yield Link(context.trace, context.span, attributes)


def _calls(
    exchange: Exchange, trace: Trace, places: Mapping[str, Place], state: str, content: Mapping[str, Value]
) -> Iterator[Span]:
    ledger = exchange.ledger
    operation = OPERATIONS.get(exchange.route, "")
    for call in ledger.calls:
        began_at = exchange.arrived_at + call.started_s
        seconds = call.seconds or max(ledger.total_s - call.started_s, 0.0)  # raw relays do not time theirs
        model = call.model[:LONGEST_NAME]
        name = f"{operation or exchange.route} {model}".rstrip()
        told = _used(exchange, call)
        if call is ledger.calls[-1]:
            told |= content
            if exchange.stream and len(ledger.calls) == 1 and ledger.first_token_s is not None:
                told["gen_ai.response.time_to_first_chunk"] = max(ledger.first_token_s - call.started_s, 0.0)
        span = Span(trace.trace, trace.span_of(call), trace.root, name, "client", began_at, began_at + seconds, told)
        where = places.get(call.upstream, ELSEWHERE)
        error = str(call.status) if call.status >= 400 else "" if call.outcome == "ok" else call.outcome
        stream = exchange.stream if call.purpose == exchange.call_purpose else None
        span.constant = _called(operation, model, stream, call.purpose, call.phase, error, where)
        span.is_error = error not in ("", "cancelled")
        span.state = state
        yield span


@lru_cache(maxsize=1024)
def _called(  # noqa: PLR0917 - a key
    operation: str, model: str, stream: bool | None, purpose: str, phase: str, error: str, place: Place
) -> bytes:
    """What is the same of many calls, encoded; whether a plugin's own call streams is not known."""
    told: dict[str, Value] = {
        "predawn.phase": "alongside" if purpose == "verify" else "before" if purpose == "sleep" else "during",
        "predawn.purpose": purpose,
        "predawn.tokens.phase": phase,
    }
    if operation:
        told |= {"gen_ai.operation.name": operation, "gen_ai.request.model": model}
        if stream is not None:
            told["gen_ai.request.stream"] = stream
    if error:
        told["error.type"] = error
    return encoded(told) + place.encoded


def _used(exchange: Exchange, call: Call) -> dict[str, Value]:
    """What is of this call alone; what a plugin's own call asked for is not what the client did."""
    told: dict[str, Value] = {}
    head, budget = exchange.head, exchange.budget
    if call.purpose == exchange.call_purpose:
        asked = head.output_limit if head is not None else None
        limits = [limit for limit in (asked, budget.max_output_tokens if budget is not None else None) if limit]
        if limits:
            told["gen_ai.request.max_tokens"] = min(limits)
        if head is not None and head.n is not None and head.n != 1:
            told["gen_ai.request.choice.count"] = head.n
    if call.prompt_tokens or call.output_tokens:
        told["gen_ai.usage.input_tokens"] = call.prompt_tokens
        told["gen_ai.usage.output_tokens"] = call.output_tokens
        if call.cached_tokens:
            told["gen_ai.usage.cache_read.input_tokens"] = call.cached_tokens
        if exchange.ledger.reasoning and len(exchange.ledger.calls) == 1:
            told["gen_ai.usage.reasoning.output_tokens"] = exchange.ledger.reasoning
        if call.estimated:
            told["predawn.tokens.estimated"] = True
    return told


def _verified(span: Span, looked: Looked) -> Span:
    span.attributes |= {
        "gen_ai.evaluation.name": looked.verifier,
        "gen_ai.evaluation.score.label": looked.worst,
        "predawn.verifier.checks": looked.checks,
        "predawn.verifier.violations": looked.violations,
        "predawn.verifier.busy_s": looked.busy_s,
    }
    return span
