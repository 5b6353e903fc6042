"""`regex`: what an answer must, or must not, say, wherever its text is cut into chunks and steps."""

from __future__ import annotations

from typing import Literal

from predawn.plugins import Exchange, Verdict
from predawn.plugins.verify.verifiers.patterns import Pattern, Span
from predawn.plugins.verify.verifiers.settings import RegexSettings
from predawn.proxy.extensions import Step

SEEN = "verify.regex"
_PASS = Verdict("pass")


class RegexVerifier:
    """Searches each step together with the end of what came before it."""

    name = "regex"
    boundary: Literal["sentence"] = "sentence"

    def __init__(self, settings: RegexSettings | None = None) -> None:
        self.settings = settings or RegexSettings()
        self.reads = self.settings.reads
        self.timeout_s = self.settings.timeout_s
        self.fails = self.settings.fails
        self._must, self._must_not = (
            tuple(
                Pattern(rule, ignore_case=self.settings.ignore_case, timeout_s=self.settings.match_timeout_s)
                for rule in rules
            )
            for rules in (self.settings.must, self.settings.must_not)
        )

    async def verify(self, step: Step, exchange: Exchange) -> Verdict:
        """A violation names the pattern and quotes the match; what is missing is told with the last step."""
        whole = step.before + step.text
        since = len(step.before)
        start = max(0, since - self.settings.max_match)
        longest = self.settings.max_match
        try:
            for pattern in self._must_not:
                found = await pattern.find(whole, start, since, is_last=step.is_last, longest=longest)
                if found is not None:
                    return _forbidden(pattern, whole, found)
            for pattern in self._must:
                if await self._is_missing(pattern, step, whole, start, exchange):
                    return Verdict("violation", pattern.name, pattern.why or f"The answer must contain: {pattern.name}")
        except TimeoutError:
            outcome: Literal["violation", "unsure"] = "violation" if self.fails == "closed" else "unsure"
            return Verdict(outcome, "", "A pattern took too long to be searched for.")
        return _PASS

    async def _is_missing(self, pattern: Pattern, step: Step, whole: str, start: int, exchange: Exchange) -> bool:
        """Whether an answer ends without a match. What steps found counts where it is too long to be searched whole."""
        seen: set[tuple[int, str, str]] = exchange.state.setdefault(SEEN, set())
        key = (step.choice, step.where, pattern.name)
        longest = self.settings.max_match
        if await pattern.find(whole, start, len(step.before), is_last=step.is_last, longest=longest) is not None:
            seen.add(key)
            return False
        if not step.is_last:
            return False
        if key in seen and len(whole) > 1 << 20:
            return False
        return await pattern.find(whole, 0, -1, is_last=True, longest=len(whole)) is None


def _forbidden(pattern: Pattern, text: str, found: Span) -> Verdict:
    return Verdict(
        "violation",
        text[found.start : found.end][:200],
        pattern.why or f"The answer must not contain this: {pattern.name}",
    )
