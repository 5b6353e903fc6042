"""`check`: promotes candidate notes to accepted ones, or rejects them. It is independent of how they were written.

Arithmetic is checked exactly and costs nothing. Then every line is judged by the text alone, by a prompt that knows
nothing of the first one; what is not confirmed is taken out. In terse style each claim must be about a name of
the text and come out again of a second pass. Notes of which too much was wrong are rejected whole.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from predawn.plugins.sleep import prompts, terse
from predawn.plugins.sleep.arithmetic import wrong_equations
from predawn.plugins.sleep.contexts import Context, Notes, NotesStatus
from predawn.plugins.sleep.notes import lines_of, without
from predawn.plugins.sleep.work import Work, ended_by, superseded
from predawn.proxy.jobs.protocol import Json, StepError

if TYPE_CHECKING:
    from predawn.proxy.jobs.protocol import Steps

Verdict: TypeAlias = Literal["right", "wrong", "unclear"]
_VERDICT = re.compile(r"^\W{0,4}(\d{1,4})\W{1,4}(right|wrong|unclear)\b[\W_]*(.*)$", re.IGNORECASE)
_WORDS: Mapping[str, Verdict] = {"right": "right", "wrong": "wrong", "unclear": "unclear"}
_WORKING = ("votes", "works", "stop")
"""What passes keep for each other, of no use once they are over."""
MOST_LINES = 200


@dataclass(frozen=True, slots=True)
class CheckRules:
    """How strict a check is."""

    model: str = ""
    """Another alias to check with; empty for the one that wrote."""
    most_wrong: float = 0.5
    """A greater share of faulty lines rejects the rest as well."""
    max_output_tokens: int = 2_048


@dataclass(frozen=True, slots=True)
class Judged:
    """What a check found: the text that may be used, and what was taken out for which reason."""

    text: str
    kept: int
    faults: Mapping[str, int] = field(default_factory=dict[str, int])
    examples: tuple[str, ...] = ()
    """The first few faulty lines with their reasons."""
    tokens: int = 0

    def is_accepted(self, most_wrong: float) -> bool:
        faulty = sum(self.faults.values())
        return self.kept > 0 and faulty <= most_wrong * (self.kept + faulty)

    @property
    def reason(self) -> str:
        """Why it was not accepted."""
        counts = ", ".join(f"{count} {fault}" for fault, count in self.faults.items())
        if not self.kept:
            return f"nothing was confirmed: {counts or 'the notes are empty'}"
        return f"too much was wrong: {counts}; {self.kept} right"


async def check(steps: Steps, work: Work, strictness: CheckRules) -> dict[str, Any]:
    """Judge a subject's candidate. Returns `outcome` (accepted, rejected, failed, deferred, superseded), how many lines
    were `kept`, how many taken out for which of the `faults`, and the `reason` where nothing is left."""
    try:
        return dict(await steps.run("check", partial(_check, work, strictness)))
    except StepError as exc:
        return ended_by(exc)


async def _check(work: Work, strictness: CheckRules) -> Json:
    tenant = work.subject.tenant
    context = await work.context()
    notes = await work.desk.note(tenant, work.notes_id)
    if notes is None:
        raise superseded()
    if "check" not in notes.provenance:
        await work.show("checking", "check", notes.passes, notes.sleep_tokens)
        judged = await _judged(work, strictness, context, notes)
        notes = _marked(notes, judged, strictness)
        if not await work.desk.add_notes(tenant, notes):
            raise superseded()
    # From here on everything can be done again: what the check said, and cost, is with the notes.
    verdict = dict(notes.provenance["check"])
    if notes.status == "candidate":
        status: NotesStatus = "accepted" if verdict["outcome"] == "accepted" else "rejected"
        if not await work.desk.judge(tenant, replace(notes, status=status)):
            raise superseded()
    has_notes = verdict["outcome"] == "accepted" or context.notes_id is not None
    await work.show("asleep" if has_notes else "failed", "check", notes.passes, notes.sleep_tokens)
    return {
        **{name: value for name, value in verdict.items() if name != "examples"},
        "sleep_tokens": notes.sleep_tokens,
    }


def _marked(notes: Notes, judged: Judged, strictness: CheckRules) -> Notes:
    """A candidate with what was found about it; its text is what may be used of it, if anything may."""
    is_accepted = judged.is_accepted(strictness.most_wrong)
    text = judged.text if is_accepted else notes.text
    found = {
        "outcome": "accepted" if is_accepted else "rejected",
        "reason": "" if is_accepted else judged.reason,
        "kept": judged.kept,
        "faults": dict(judged.faults),
        "examples": list(judged.examples),
        "tokens": judged.tokens,
        "model": strictness.model or notes.model,
    }
    provenance = {name: value for name, value in notes.provenance.items() if name not in _WORKING}
    return replace(
        notes,
        text=text,
        tokens=len(text.encode()) // 4,
        sleep_tokens=notes.sleep_tokens + judged.tokens,
        provenance={**provenance, "check": found},
    )


async def _judged(work: Work, strictness: CheckRules, context: Context, notes: Notes) -> Judged:
    judge = _by_second_pass if work.rules.style == "terse" else _by_judge
    return await judge(work, strictness, context, notes)


async def _by_judge(work: Work, strictness: CheckRules, context: Context, notes: Notes) -> Judged:
    lines = lines_of(notes.text)[:MOST_LINES]
    faults = {i: f"arithmetic: {wrong[0]}" for i, line in enumerate(lines) if (wrong := wrong_equations(line))}
    open_ = [i for i in range(len(lines)) if i not in faults]
    options = work.options("check", strictness.max_output_tokens, model=strictness.model)
    tokens = 0
    for _ in range(2):  # a verdict that is missing is asked for once more
        if not open_:
            break
        asked = await work.ask(prompts.check(context.messages, [lines[i] for i in open_]), options)
        tokens += asked.prompt_tokens + asked.output_tokens
        verdicts = read_verdicts(asked.text)
        for number, i in enumerate(open_, 1):
            verdict, why = verdicts.get(number, ("right", ""))
            if verdict != "right":
                faults[i] = f"{verdict}: {why}"
        open_ = [i for number, i in enumerate(open_, 1) if number not in verdicts]
    faults.update(dict.fromkeys(open_, "unjudged: no verdict"))
    return Judged(
        without("\n".join(lines), faults),
        len(lines) - len(faults),
        Counter(fault.partition(":")[0] for fault in faults.values()),
        tuple(f"{lines[i]} [{fault}]"[:300] for i, fault in list(faults.items())[:3]),
        tokens,
    )


async def _by_second_pass(work: Work, strictness: CheckRules, context: Context, notes: Notes) -> Judged:
    options = work.options("check", strictness.max_output_tokens, temperature=work.rules.wander, model=strictness.model)
    asked = await work.ask(prompts.terse_notes(context.messages), options)
    claims = terse.agreed(terse.read_claims(notes.text), terse.read_claims(asked.text))
    claims = terse.heard(claims, "\n".join(map(prompts.text_of, context.messages)))
    good = [claim for claim in claims if claim.fault is None]
    bad = [claim for claim in claims if claim.fault is not None]
    return Judged(
        " ".join(f"{claim.name} = {claim.value}." for claim in good),
        len(good),
        Counter(str(claim.fault) for claim in bad),
        tuple(f"{claim.text} [{claim.fault}]"[:300] for claim in bad[:3]),
        asked.prompt_tokens + asked.output_tokens,
    )


def read_verdicts(answer: str) -> dict[int, tuple[Verdict, str]]:
    """Verdicts by line number, with reasons. A line that is judged twice, differently, is `unclear`."""
    found: dict[int, tuple[Verdict, str]] = {}
    for line in answer.splitlines():
        match = _VERDICT.match(line.strip())
        if match is not None:
            number, verdict = int(match[1]), _WORDS[match[2].lower()]
            if number in found and found[number][0] != verdict:
                verdict = "unclear"
            found[number] = (verdict, match[3].strip()[:200])
    return found
