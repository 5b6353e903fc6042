"""`anticipate`: the questions that are likely to be asked, each answered twice and kept as verified if both agree.

Answers are asked for as a client would ask, with the notes and without them, so that what is served later is what the
upstream would have said. Whether two answers agree is seen from their texts where they are short, else a judge says.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from predawn.plugins.sleep import prompts, terse
from predawn.plugins.sleep.asking import estimated_tokens
from predawn.plugins.sleep.contexts import Anticipated, Asked, Context, Notes
from predawn.plugins.sleep.notes import defused
from predawn.plugins.sleep.predictability import PREDICTABILITY, likelihood
from predawn.plugins.sleep.work import Work, ended_by
from predawn.proxy.jobs.protocol import Json, StepError

if TYPE_CHECKING:
    from predawn.proxy.jobs.protocol import Steps

MOST_QUESTIONS = 50
MOST_CHARS = 400
"""Of a question."""
SHORT = 60
"""Answers up to so many characters are compared by their text."""
_QUESTION = re.compile(
    r"^\W{0,4}(?:\d{1,3}[.):]\s*)?\*{0,2}Q(?:uestion)?\s*+\d{0,3}\*{0,2}\s*+[:.)]\*{0,2}\s*(.+)$", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class AnticipationRules:
    """How many questions, and what their answers depend on."""

    questions: int = 5
    max_output_tokens: int = 1_024
    logprobs: bool = False
    """Ask for the questions' log-probabilities: how sure the model is of them is a first sign of how predictable the
    context is. Not every upstream takes that."""
    conditions: str = ""
    """See `Anticipated.conditions`; these answers are asked without tools and sampling parameters."""


async def anticipate(steps: Steps, work: Work, rules: AnticipationRules) -> dict[str, Any]:
    """Foresee questions and answer them. Returns `outcome`, and how many were `asked`, `answered` and `verified`."""
    counts = {"asked": 0, "answered": 0, "verified": 0, "tokens": 0}
    try:
        asked = await steps.run("questions", partial(_questions, work, rules))
        counts["asked"], counts["tokens"] = asked["count"], asked["tokens"]
        for number in range(asked["count"]):
            result = await steps.run(f"answer {number + 1}", partial(_answer, work, rules, number))
            if result["stop"]:
                return {"outcome": "done", "stopped": result["stop"], **counts}
            counts["answered"] += 1
            counts["verified"] += result["verified"]
            counts["tokens"] += result["tokens"]
    except StepError as exc:
        return {**ended_by(exc), **counts}
    return {"outcome": "done", "stopped": "", **counts}


def normalised(question: str) -> str:
    """What makes two questions the same: their characters, without case, spacing and closing punctuation."""
    plain = " ".join(unicodedata.normalize("NFKC", question).casefold().split())
    return plain.strip("\"'\u201c\u201d\u2018\u2019 ").rstrip("?!. ")


def read_questions(answer: str, most: int) -> list[str]:
    """The questions of an answer, each once."""
    found: dict[str, str] = {}
    for line in answer.splitlines():
        match = _QUESTION.match(line.strip())
        if match is not None and len(text := defused(match[1]).strip()) <= MOST_CHARS and re.search(r"\w", text):
            found.setdefault(normalised(text), text)
    return list(found.values())[: min(most, MOST_QUESTIONS)]


async def _questions(work: Work, rules: AnticipationRules) -> Json:
    """Write the questions to the desk, unless they are there."""
    context = await work.context()
    known = await _of_attempt(work)
    if known:
        return {"count": len(known), "tokens": 0}
    notes = await _notes(work, context)
    if work.rules.style == "terse":
        _, noun = terse.names_and_noun("\n".join(map(prompts.text_of, context.messages)))
        claims = terse.read_claims(notes.text if notes is not None else "") if noun else []
        found, tokens = [terse.question_for(claim.name, noun) for claim in claims][: rules.questions], 0
    else:
        messages = prompts.questions(context.messages, notes.text if notes is not None else "", rules.questions)
        options = replace(work.options("anticipate", rules.max_output_tokens), logprobs=rules.logprobs)
        asked = await work.ask(messages, options)
        if asked.logprobs:
            subject = work.subject
            place = (subject.tenant, subject.context_id, work.model, PREDICTABILITY)
            await work.desk.observe(*place, likelihood(asked.logprobs))
        found, tokens = read_questions(asked.text, rules.questions), asked.prompt_tokens + asked.output_tokens
    await work.desk.add_anticipated(
        work.subject.tenant, [_row(work, rules, number, text) for number, text in enumerate(found)]
    )
    if notes is not None:
        await work.show("asleep", "anticipate", notes.passes, notes.sleep_tokens + tokens)
    return {"count": len(found), "tokens": tokens}


async def _answer(work: Work, rules: AnticipationRules, number: int) -> Json:
    """Answer one question, unless it is answered."""
    context = await work.context()
    row = next((one for one in await _of_attempt(work) if one.id == _ident(work, number)), None)
    if row is None:
        return {"stop": "gone", "verified": False, "tokens": 0}
    if row.provenance.get("answered"):
        return {"stop": "", "verified": row.verified, "tokens": row.sleep_tokens}
    notes = await _notes(work, context)
    has_notes, paid = (notes.tokens, notes.sleep_tokens) if notes is not None else (0, 0)
    spent = paid + sum(one.sleep_tokens for one in await _of_attempt(work))
    cost = 2 * (estimated_tokens(context.messages) + has_notes + rules.max_output_tokens)
    if spent + cost > work.rules.budget_tokens:
        return {"stop": "budget", "verified": False, "tokens": 0}
    answer, verified, tokens = await _answered(work, rules, context, notes, row.question)
    provenance = {**row.provenance, "answered": True, "with_notes": notes.id if notes is not None else None}
    found = replace(row, answer=answer, verified=verified, sleep_tokens=tokens, provenance=provenance)
    await work.desk.add_anticipated(work.subject.tenant, [found])
    return {"stop": "", "verified": verified, "tokens": tokens}


async def _answered(
    work: Work, rules: AnticipationRules, context: Context, notes: Notes | None, question: str
) -> tuple[str, bool, int]:
    """The answer, whether it is verified, and what both cost."""
    noted = await _asked(work, rules, context, notes, question)
    tokens = _cost(noted)
    if noted.output_tokens >= rules.max_output_tokens or not noted.text.strip():
        return noted.text, False, tokens  # cut off: not an answer that could be given
    if work.rules.style == "terse":  # what the notes say has been checked
        claimed = {claim.name: claim.value for claim in terse.read_claims(notes.text)} if notes is not None else {}
        value = next((value for name, value in claimed.items() if question.endswith(f" {name} have?")), None)
        return noted.text, value is not None and terse.last_number(noted.text) == value, tokens
    plain = await _asked(work, rules, context, None, question)
    tokens += _cost(plain)
    agrees = are_same(noted.text, plain.text)
    if agrees is None:
        judged = await work.ask(
            prompts.same_answer(question, noted.text, plain.text), work.options("anticipate", rules.max_output_tokens)
        )
        tokens += _cost(judged)
        agrees = re.fullmatch(r"\W*yes\W*", judged.text.strip(), re.IGNORECASE) is not None
    return noted.text, agrees, tokens


def are_same(first: str, second: str) -> bool | None:
    """Whether two answers agree; `None` where their texts do not tell."""
    one, other = normalised(first), normalised(second)
    if one == other:
        return bool(one)
    if len(one) <= SHORT and len(other) <= SHORT and re.search(r"\d", one + other):
        numbers = [re.findall(r"\d+(?:[.,]\d+)*", text) for text in (one, other)]
        if numbers[0] != numbers[1]:
            return False
    return None


async def _asked(work: Work, rules: AnticipationRules, context: Context, notes: Notes | None, question: str) -> Asked:
    style = work.rules.style
    messages = prompts.awake(
        style,
        context.messages,
        notes.id if notes is not None else "",
        notes.text if notes is not None else "",
        question,
        is_split=style == "terse",
    )
    return await work.ask(messages, work.options("anticipate", rules.max_output_tokens))


async def _notes(work: Work, context: Context) -> Notes | None:
    """The accepted notes of the present version."""
    if context.notes_id is None:
        return None
    notes = await work.desk.note(work.subject.tenant, context.notes_id)
    return notes if notes is not None and notes.status == "accepted" else None


async def _of_attempt(work: Work) -> list[Anticipated]:
    subject = work.subject
    found = await work.desk.anticipated(subject.tenant, subject.context_id, subject.version)
    return [one for one in found if one.provenance.get("attempt") == subject.attempt]


def _row(work: Work, rules: AnticipationRules, number: int, question: str) -> Anticipated:
    return Anticipated(
        id=_ident(work, number),
        context_id=work.subject.context_id,
        version=work.subject.version,
        question=question,
        normalised=normalised(question),
        answer="",
        verified=False,
        model=work.model,
        conditions=rules.conditions,
        made_at=work.clock.now(),
        provenance={"attempt": work.subject.attempt, "rank": number},
    )


def _ident(work: Work, number: int) -> str:
    return work.subject.ident("question", number)


def _cost(asked: Asked) -> int:
    return asked.prompt_tokens + asked.output_tokens
