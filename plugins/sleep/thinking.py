"""`consolidate`: passes of rethinking over one bounded block of notes (arXiv 2504.13171), each pass one durable step.

What a pass wrote is on the desk before the step ends, as a candidate: killed at any point, the next run finds it there
and does not pay for it again. A candidate is never what requests are given; only `check` makes it so.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from predawn.plugins.sleep import prompts, terse
from predawn.plugins.sleep.asking import estimated_tokens
from predawn.plugins.sleep.contexts import Context, Message, Notes
from predawn.plugins.sleep.notes import concatenated, defused, fitted, likeness, read_notes
from predawn.plugins.sleep.work import Work, ended_by, superseded
from predawn.proxy.jobs.protocol import Json, StepError

if TYPE_CHECKING:
    from predawn.proxy.jobs.protocol import Steps

Stop: TypeAlias = Literal["", "converged", "unreadable"]
MOST_DRAFTS = 10
MOST_CLAIMS = 100


async def consolidate(steps: Steps, work: Work) -> dict[str, Any]:
    """Write candidate notes. Returns `outcome` (done, empty, failed, deferred, superseded), why it `stopped`, and how
    many `passes` and `tokens` it took."""
    done, tokens, stopped = 0, 0, "passes"
    try:
        if work.rules.drafts > 1 and work.rules.style == "full":
            drafted = await steps.run("drafts", partial(_drafts, work))
            done, tokens = 1, drafted["tokens"]
        for pass_no in range(done + 1, work.rules.max_passes + 1):
            result = await steps.run(f"pass {pass_no}", partial(_rethink, work, pass_no))
            tokens = result["tokens"]
            if result["stop"] != "budget":
                done = pass_no
            if result["stop"]:
                stopped = result["stop"]
                break
        last = await steps.run("candidate", partial(_candidate, work))
    except StepError as exc:
        return {**ended_by(exc), "passes": done, "tokens": tokens}
    outcome = "done" if last["chars"] else "empty"
    return {"outcome": outcome, "stopped": stopped, "passes": done, "tokens": tokens, "notes": work.notes_id}


async def _drafts(work: Work) -> Json:
    """Several first passes side by side, then one list of what they say. Drafts that exist are not paid for again."""
    context = await work.context()
    known = await _written(work)
    if known is not None:
        return {"tokens": known.sleep_tokens}
    lanes = range(1, min(work.rules.drafts, MOST_DRAFTS) + 1)
    drafts = await asyncio.gather(*(_draft(work, context, lane) for lane in lanes), return_exceptions=True)
    for failed in drafts:  # only once all have ended: what the others wrote is on the desk
        if isinstance(failed, BaseException):
            raise failed
    notes = [draft for draft in drafts if isinstance(draft, Notes)]
    text = concatenated([draft.text for draft in notes], 2 * work.rules.max_chars)
    tokens = sum(draft.sleep_tokens for draft in notes)
    await _keep(work, Pass(text, 1, tokens, {"drafts": len(notes)}))
    await work.desk.drop_candidates(work.subject.tenant, [draft.id for draft in notes])
    return {"tokens": tokens}


async def _draft(work: Work, context: Context, lane: int) -> Notes:
    ident = work.subject.ident("draft", lane)
    known = await work.desk.note(work.subject.tenant, ident)
    if known is not None:
        return known
    options = work.options("consolidate", work.rules.max_output_tokens, temperature=1.0 if lane > 1 else None)
    asked = await work.ask(prompts.rethink(context.messages, "", work.rules.max_chars), options)
    was_cut = asked.output_tokens >= work.rules.max_output_tokens
    text = read_notes(asked.text, work.rules.max_chars, was_cut=was_cut)
    notes = _notes(work, ident, Pass(text, 1, asked.prompt_tokens + asked.output_tokens, {"lane": lane}))
    await work.desk.add_notes(work.subject.tenant, notes)
    return notes


@dataclass(frozen=True, slots=True)
class Pass:
    """The notes as a pass left them."""

    text: str
    number: int
    tokens: int
    provenance: Mapping[str, Any] = field(default_factory=dict[str, Any])


async def _rethink(work: Work, pass_no: int) -> Json:
    """One pass. Its text goes to the desk; the step's result holds numbers only."""
    context = await work.context()
    known = await _written(work)
    if known is not None and known.passes >= pass_no:  # killed after it was written, before the step ended
        return {"tokens": known.sleep_tokens, "stop": known.provenance.get("stop", "")}
    rules = work.rules
    before, spent = (known.text, known.sleep_tokens) if known is not None else (await _earlier(work, context), 0)
    provenance: dict[str, Any] = dict(known.provenance) if known is not None else {}
    messages = _prompt(work, context.messages, before, merges=pass_no == 2 and "drafts" in provenance)
    if spent + estimated_tokens(messages) + rules.max_output_tokens > rules.budget_tokens:
        return {"tokens": spent, "stop": "budget"}
    options = work.options("consolidate", rules.max_output_tokens, temperature=_temperature(work, pass_no))
    asked = await work.ask(messages, options)
    stop: Stop
    if rules.style == "terse":
        text, stop, provenance = _voted(before, asked.text, provenance, rules.max_chars)
    else:
        text, stop = _rewritten(work, before, asked.text, was_cut=asked.output_tokens >= rules.max_output_tokens)
        if stop == "unreadable" and not provenance.get("unreadable"):
            stop, provenance["unreadable"] = "", 1  # once may be chance
    tokens = spent + asked.prompt_tokens + asked.output_tokens
    await _keep(work, Pass(text, pass_no, tokens, {**provenance, "stop": stop}))
    return {"tokens": tokens, "stop": stop}


def _prompt(work: Work, messages: Sequence[Message], before: str, *, merges: bool) -> list[Message]:
    if work.rules.style == "terse":
        return prompts.terse_notes(messages)
    return prompts.rethink(messages, before, work.rules.max_chars, merges=merges)


def _temperature(work: Work, pass_no: int) -> float | None:
    if work.rules.style == "full":
        return None
    return work.rules.wander if pass_no > 1 else 0.0


def _rewritten(work: Work, before: str, answer: str, *, was_cut: bool) -> tuple[str, Stop]:
    """The notes after a full-style answer, and why there need be no further pass if so."""
    if before and answer.strip().strip("`*.").upper() == prompts.UNCHANGED:
        return before, "converged"
    text = read_notes(answer, work.rules.max_chars, was_cut=was_cut)
    if not text:
        return before, "unreadable"
    return text, "converged" if likeness(before, text) >= work.rules.converged_at else ""


def _voted(before: str, answer: str, provenance: Mapping[str, Any], max_chars: int) -> tuple[str, Stop, dict[str, Any]]:
    """Terse style rethinks by asking once more: for each name the number that most passes came to, the earliest of
    equals, with the work of the pass that found it. Claims with a fault in their work have no vote."""
    votes: dict[str, Counter[str]] = {name: Counter(counts) for name, counts in provenance.get("votes", {}).items()}
    works: dict[str, dict[str, str]] = {name: dict(work) for name, work in provenance.get("works", {}).items()}
    for claim in terse.read_claims(defused(answer))[:MOST_CLAIMS]:
        if claim.fault is None:
            votes.setdefault(claim.name, Counter())[str(claim.value)] += 1
            works.setdefault(claim.name, {}).setdefault(str(claim.value), claim.text)
    chosen = {name: counts.most_common(1)[0][0] for name, counts in votes.items()}
    text = fitted(" ".join(works[name][value] for name, value in chosen.items()), max_chars)
    kept = {**provenance, "votes": {name: dict(counts) for name, counts in votes.items()}, "works": works}
    if not text:
        return before, "unreadable", kept
    return text, "converged" if text == before else "", kept


async def _candidate(work: Work) -> Json:
    """What the passes left, cut to size."""
    known = await _written(work)
    if known is None:
        return {"chars": 0}
    text = fitted(known.text, work.rules.max_chars)
    if known.status == "candidate" and text != known.text:
        await work.desk.add_notes(work.subject.tenant, replace(known, text=text, tokens=len(text.encode()) // 4))
    return {"chars": len(text)}


async def _earlier(work: Work, context: Context) -> str:
    """Accepted notes of the version that this one continues: only the difference is to be thought about."""
    if context.base_version is None or work.rules.style == "terse":
        return ""
    subject = work.subject
    for version in await work.desk.lineage(subject.tenant, subject.context_id, subject.version):
        if version.notes_id is not None and version.version < subject.version:
            notes = await work.desk.note(subject.tenant, version.notes_id)
            return notes.text if notes is not None else ""
    return ""


async def _written(work: Work) -> Notes | None:
    return await work.desk.note(work.subject.tenant, work.notes_id)


async def _keep(work: Work, made: Pass) -> None:
    """Write the candidate and show the progress. Notes that were judged stay as they are."""
    known = await _written(work)
    if known is not None and known.status != "candidate":
        raise superseded()
    if not await work.desk.add_notes(work.subject.tenant, _notes(work, work.notes_id, made)):
        raise superseded()
    await work.show("sleeping", "consolidate", made.number, made.tokens)


def _notes(work: Work, ident: str, made: Pass) -> Notes:
    return Notes(
        id=ident,
        context_id=work.subject.context_id,
        version=work.subject.version,
        status="candidate",
        text=made.text,
        tokens=len(made.text.encode()) // 4,
        passes=made.number,
        made_at=work.clock.now(),
        sleep_tokens=made.tokens,
        model=work.model,
        provenance={**made.provenance, "style": work.rules.style, "attempt": work.subject.attempt},
    )
