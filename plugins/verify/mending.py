"""How a wrong step is put right: where the answer is cut, and what is said in the place of what is gone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from predawn.plugins.verify.reading import CONTENT, REASONING, Key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from predawn.plugins.verify.trace import Check, Trace


@dataclass(frozen=True, slots=True)
class Mending:
    """What remains of a choice, and how it goes on."""

    key: Key
    """The text that was cut."""
    at: int
    insert: str = ""
    """Said in the model's place after the cut; it is part of the answer."""
    note: str = ""
    """What the model is told, where it can only be told and not be corrected."""
    thoughts: str = ""
    """What remains, `insert` included."""
    content: str = ""
    call: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The tool call that was wrong."""
    is_retry: bool = False
    """Nothing remains."""


def mend(check: Check, trace: Trace, sent: int, *, remark: str = "Wait: {}", replaces: bool = True) -> Mending:
    """How to go on after a violation of which the text was sent up to `sent`.

    The step makes way for what its verifier says is right. Where it does not know, or where the step was sent, thoughts
    go on with a remark; visible text is cut before the step, and the model is told what was wrong.
    """
    verdict, step, key = check.verdict, check.step, check.key
    assert verdict is not None
    if key.where == "tool_call":
        call = step.tool_call or trace.calls.get(key.part, {})
        note = verdict.feedback or f"The call was refused by {check.verifier.name}."
        return Mending(key, 0, note=note, thoughts=trace.text(REASONING), content=trace.text(CONTENT), call=call)
    right = verdict.corrected.strip() if verdict.corrected else ""
    lead = step.text[: len(step.text) - len(step.text.lstrip())]
    at, insert, note = step.start, "", ""
    if right and replaces and sent <= step.start:
        insert = lead + right
    elif key == REASONING or right:
        at = max(step.start if not right else step.end, sent)
        told = right or verdict.feedback or f"that is wrong ({verdict.where})"
        insert = (" " if at else "") + remark.replace("{}", told)
    else:
        note = verdict.feedback or f"It was refused by {check.verifier.name}."
        at = max(step.start, sent)
    kept = trace.text(key)[:at] + insert
    if key == REASONING:
        return Mending(key, at, insert, note, thoughts=kept)
    return Mending(key, at, insert, note, thoughts=trace.text(REASONING), content=kept)
