"""`grounded`: figures and quotes of an answer must occur in the conversation it answers."""

from __future__ import annotations

from fractions import Fraction
from typing import ClassVar, Literal

from predawn.plugins import Exchange, Verdict
from predawn.plugins.verify.verifiers.claims import claimed_numbers, computed_numbers, quotes_closed_in
from predawn.plugins.verify.verifiers.context import messages_text
from predawn.plugins.verify.verifiers.ground import Ground
from predawn.plugins.verify.verifiers.settings import GroundedSettings
from predawn.plugins.verify.verifiers.slices import Breath, pieces_of
from predawn.proxy.extensions import Channel, Step

STATE = "verify.grounded"
SEEN_BEFORE = 8_000
_PASS = Verdict("pass")


class GroundedVerifier:
    """Reads sentences of `content`."""

    name = "grounded"
    boundary: Literal["sentence"] = "sentence"
    reads: ClassVar[tuple[Channel, ...]] = ("content",)

    def __init__(self, settings: GroundedSettings | None = None) -> None:
        self.settings = settings or GroundedSettings()
        self.timeout_s = self.settings.timeout_s
        self.fails = self.settings.fails

    async def verify(self, step: Step, exchange: Exchange) -> Verdict:
        """A violation quotes the figure or the quote that has no ground."""
        if not step.text.strip():
            return _PASS
        ground = await self._ground(exchange)
        if ground is None:
            return Verdict("unsure", "", "The conversation is too long to be searched.")
        computed: set[Fraction] | None = None
        breath, before = Breath(), step.before
        for piece in pieces_of(step.text):
            for quote in quotes_closed_in(before, piece, self.settings.min_quote_words) if self.settings.quotes else ():
                if not ground.has_quote(quote):
                    shown = quote if len(quote) <= 120 else quote[:117] + "…"
                    return Verdict("violation", shown, f"This quote does not occur in the conversation: “{shown}”")
                await breath()
            for numbers in claimed_numbers(before, piece, self.settings.ignore_up_to) if self.settings.numbers else ():
                for number in numbers:
                    if not ground.has_number(number):
                        computed = await self._computed(step) if computed is None else computed
                        if number.value not in computed:
                            told = f"{number.text} does not occur in the conversation."
                            return Verdict("violation", number.text, told)
                await breath()
            before = (before + piece)[-SEEN_BEFORE:]
            await breath()
        return _PASS

    async def _computed(self, step: Step) -> set[Fraction]:
        """What right equations near the step come to."""
        if not self.settings.computed:
            return set()
        return {value async for value in computed_numbers(step.before[-SEEN_BEFORE:] + step.text[: 4 * SEEN_BEFORE])}

    async def _ground(self, exchange: Exchange) -> Ground | None:
        """What the conversation says, read once."""
        if STATE not in exchange.state:
            text = messages_text(exchange.request, self.settings.roles)
            too_long = len(text) > self.settings.max_context_chars
            exchange.state[STATE] = None if too_long else Ground(text)
        ground: Ground | None = exchange.state[STATE]
        if ground is not None:
            await ground.ready()
        return ground
