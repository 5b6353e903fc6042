"""What a job works with and on: a way to ask, a desk, a clock, and one version of one context."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from predawn.plugins.sleep.contexts import Ask, AskOptions, Context, ContextState, Progress
from predawn.plugins.sleep.notes import MAX_CHARS
from predawn.plugins.sleep.prompts import Style
from predawn.proxy.jobs.protocol import StepError

if TYPE_CHECKING:
    from predawn.plugins.sleep.desk import Desk, Subject
    from predawn.proxy.clock import Clock


@dataclass(frozen=True, slots=True)
class ThinkingRules:
    """The bounds of one attempt at one version of a context."""

    style: Style = "full"
    max_passes: int = 4
    drafts: int = 1
    """Written in parallel, put together, then rethought as one; the gain ends near 5, and 10 can be worse."""
    max_chars: int = MAX_CHARS
    budget_tokens: int = 60_000
    """For all stages; a call that might go beyond it is not begun."""
    max_output_tokens: int = 2_048
    """Of one call, reasoning included."""
    converged_at: float = 0.95
    """Two passes so alike are the last ones."""
    thinks: bool | None = None
    """False asks for no reasoning; `None` leaves it to the model. Terse style never asks for any."""
    wander: float = 0.7
    """Temperature of terse passes after the first and of the terse check: another look, not the same again."""


@dataclass(frozen=True, slots=True)
class Work:
    """Handed to every job."""

    ask: Ask
    desk: Desk
    clock: Clock
    subject: Subject
    model: str
    """The alias that is asked."""
    rules: ThinkingRules = ThinkingRules()

    @property
    def notes_id(self) -> str:
        """The candidate of this attempt."""
        return self.subject.ident("notes")

    async def context(self) -> Context:
        """The subject's context. Raises a `StepError` of kind `Superseded` if its version is not the present one."""
        context = await self.desk.get(self.subject.tenant, self.subject.context_id)
        if context is None or context.version != self.subject.version or context.state == "forgotten":
            raise superseded()
        assert context.tenant == self.subject.tenant
        return context

    def options(
        self, purpose: str, max_tokens: int, *, temperature: float | None = None, model: str = ""
    ) -> AskOptions:
        """How to ask for this subject."""
        return AskOptions(
            model=model or self.model,
            tenant=self.subject.tenant,
            context_id=self.subject.context_id,
            purpose=purpose,
            max_tokens=max_tokens,
            temperature=temperature,
            thinks=False if self.rules.style == "terse" else self.rules.thinks,
        )

    async def show(self, state: ContextState, stage: str, pass_no: int, tokens: int) -> None:
        """Let whoever looks see how far it is."""
        subject, rules = self.subject, self.rules
        progress = Progress(state, stage, pass_no, rules.max_passes, tokens, rules.budget_tokens)
        await self.desk.report(subject.tenant, subject.context_id, subject.version, progress)


def superseded() -> StepError:
    """The end of a job whose context is not what it was."""
    return StepError("the context was changed or forgotten", kind="Superseded")


def ended_by(error: StepError) -> dict[str, Any]:
    """What a job returns whose step failed."""
    outcome = {"Deferred": "deferred", "Superseded": "superseded"}.get(error.kind, "failed")
    return {"outcome": outcome, "reason": str(error)}
