"""`arithmetic`: equations and quantities in prose, checked in exact rationals; nothing is evaluated as code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from predawn.plugins import Exchange, Verdict
from predawn.plugins.verify.verifiers.equations import Equation, corrected, equations, sentences
from predawn.plugins.verify.verifiers.quantities import Named, Slip, running_slip
from predawn.plugins.verify.verifiers.settings import ArithmeticSettings
from predawn.plugins.verify.verifiers.slices import Breath, pieces_of
from predawn.plugins.verify.verifiers.tokens import plain
from predawn.proxy.extensions import Step

SEEN_BEFORE = 4_000
"""Characters before a step in which quantities are looked for."""
_PASS = Verdict("pass")


class ArithmeticVerifier:
    """Reads sentences; tells the first equation or quantity that is wrong, and what it should be."""

    name = "arithmetic"
    boundary: Literal["sentence"] = "sentence"

    def __init__(self, settings: ArithmeticSettings | None = None) -> None:
        self.settings = settings or ArithmeticSettings()
        self.reads = self.settings.reads
        self.timeout_s = self.settings.timeout_s
        self.fails = self.settings.fails

    async def verify(self, step: Step, exchange: Exchange) -> Verdict:
        """A violation quotes the equation; `corrected` is the step up to it, with the right result."""
        del exchange
        if step.before.count("```") % 2:
            _, fence, rest = step.text.partition("```")
            if not fence or not any(char.isdigit() for char in rest):
                return _PASS
        named = await self._known(step) if self.settings.quantities else None
        breath = Breath()
        done = 0
        for piece in pieces_of(step.text):
            text = plain(piece)
            for start, sentence in sentences(text):
                fault = self._fault(
                    named,
                    (step.before[-600:] + step.text[max(0, done - 600) : done] + text[max(0, start - 600) : start])[
                        -600:
                    ],
                    sentence,
                )
                if fault is not None:
                    return _Found(fault, sentence, text, start, piece, done).verdict(step.text)
                await breath()
            await breath()
            done += len(piece)
        return _PASS

    async def _known(self, step: Step) -> Named:
        """The quantities that were named before a step."""
        named = Named()
        if "=" in step.text and step.before:
            breath = Breath()
            for _, sentence in sentences(plain(step.before[-SEEN_BEFORE:])):
                named.read(sentence)
                await breath()
        return named

    @staticmethod
    def _fault(named: Named | None, before: str, sentence: str) -> Equation | Slip | None:
        wrong = next((equation for equation in equations(sentence) if not equation.holds), None)
        if wrong is not None or named is None:
            return wrong
        return named.read(sentence) or running_slip(before, sentence)


@dataclass(frozen=True, slots=True)
class _Found:
    """A fault, and where its sentence stands."""

    fault: Equation | Slip
    sentence: str
    text: str
    """The plain text of a piece of the step, the sentence in it."""
    start: int
    piece: str
    done: int
    """Where the piece begins in the step."""

    def verdict(self, step: str) -> Verdict:
        fault = self.fault
        because = fault.because if isinstance(fault, Slip) else f"it should be {fault.right_result}"
        return Verdict("violation", fault.text, f"{fault.text} is wrong: {because}.", self._put_right(step))

    def _put_right(self, step: str) -> str | None:
        """The step up to the fault's end, with the right result. Decoration before it stays as it is."""
        if self.text == self.piece:
            return step[: self.done + self.start] + corrected(self.sentence, self.fault)
        shown, piece = self.fault.shown.text, self.piece
        nth = self.text[: self.start + self.fault.result[0]].count(shown)
        if not shown or self.text.count(shown) != piece.count(shown):
            return None
        at = -1
        for _ in range(nth + 1):
            at = piece.find(shown, at + 1)
        after = piece[at + len(shown) :].partition("\n")[0]
        return step[: self.done] + piece[:at] + self.fault.right_result + after
