"""`answer_fork`: asks what the answer would be so far, and says when it has stopped changing (arXiv 2602.11202).

The runner makes the forks: it continues the text so far with `suffix`, and hands over what the model said as
`step.forked`.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Literal

from predawn.plugins import Exchange, Verdict
from predawn.plugins.verify.verifiers.numerals import NUMBER, number_of
from predawn.plugins.verify.verifiers.settings import AnswerForkSettings
from predawn.proxy.extensions import Step

STATE = "verify.answer_fork"
_PASS = Verdict("pass")
_STEP_ENDS = ("\n", ". ", "! ", "? ", ".\n", "!\n", "?\n")
_FIRST_LINE = re.compile(r"[\s:*=$\\(\"'{]{0,20}(?:boxed\{)?([^\n]{0,200})")
_END = re.compile(r"(?<!\d)\.(?!\d)|\.(?=\s|$)|[;!?\n]")
_UNFINISHED = re.compile(r"(?:[-+*/=,(]|\b(?:the|a|an|of|is|and|to|that|because|not))\s*$", re.IGNORECASE)


class AnswerForkVerifier:
    """Reads reasoning. Equal complete answers in a row are told with `where` = `settled`."""

    name = "answer_fork"
    boundary: Literal["reasoning_step"] = "reasoning_step"

    def __init__(self, settings: AnswerForkSettings | None = None) -> None:
        self.settings = settings or AnswerForkSettings()
        self.reads = self.settings.reads
        self.timeout_s = self.settings.timeout_s
        self.fails = self.settings.fails

    def fork(self, prefix: str) -> tuple[str, int]:
        """What to append to a text, and how many tokens to ask for; nothing where it is too early or was just asked."""
        steps = sum(map(prefix.count, _STEP_ENDS))  # it is asked at every step of a text that may be long
        if steps < self.settings.warm_up or steps % self.settings.every:
            return "", 0
        return self.settings.suffix, self.settings.max_tokens

    async def verify(self, step: Step, exchange: Exchange) -> Verdict:
        """A pass with what is settled in `corrected`; with `on_settled: finish` a violation that ends the thinking."""
        if step.forked is None:
            return _PASS
        answers: dict[tuple[int, str], dict[int, Hashable]] = exchange.state.setdefault(STATE, {})
        mine = answers.setdefault((step.choice, step.where), {})
        mine[step.end] = key = answer_key(step.forked)
        if key is None:
            return Verdict("unsure", "", "The fork gave no complete answer.")
        last = [mine[end] for end in sorted(mine) if end <= step.end][-self.settings.agree :]
        if len(last) < self.settings.agree or any(each != key for each in last):
            return _PASS
        shown = answer_text(step.forked)
        told = f"The answer has been {shown} for {self.settings.agree} forks in a row."
        if self.settings.on_settled == "note":
            return Verdict("pass", "settled", told, shown)
        return Verdict("violation", "settled", told, f"{step.text.rstrip()}{self.settings.suffix} {shown}.")


def answer_text(said: str) -> str:
    """The answer at the beginning of what a fork said; empty if there is none."""
    line = _FIRST_LINE.match(said)
    text = line[1] if line else ""
    end = _END.search(text)
    return (text[: end.start()] if end else text).strip(" \t*\"'`:$}{)\\")


def answer_key(said: str) -> Hashable | None:
    """Equal for equal answers; `None` for none, and for one that goes on beyond what was asked for."""
    text = answer_text(said)
    if not text or _UNFINISHED.search(text):
        return None
    number = NUMBER.search(text)
    if number is not None and (value := number_of(number)) is not None and len(NUMBER.findall(text)) == 1:
        return value.value
    return " ".join(text.lower().split())
