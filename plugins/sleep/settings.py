"""What can be set about sleep, and the rules that come of it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from predawn.plugins import PluginSettings
from predawn.plugins.sleep.anticipation import MOST_QUESTIONS, AnticipationRules
from predawn.plugins.sleep.budget_day import DayLimits
from predawn.plugins.sleep.checking import CheckRules
from predawn.plugins.sleep.contexts import Policy, SplitRule
from predawn.plugins.sleep.effort import Effort
from predawn.plugins.sleep.gate import GateRules, Hours
from predawn.plugins.sleep.notes import MAX_CHARS
from predawn.plugins.sleep.planning import NightRules
from predawn.plugins.sleep.serving import NO_CONDITIONS
from predawn.plugins.sleep.stages import StageRules
from predawn.plugins.sleep.triggers import Schedule
from predawn.plugins.sleep.warming import WarmRules
from predawn.plugins.sleep.wishes import Limits
from predawn.plugins.sleep.work import ThinkingRules
from predawn.plugins.sleep.worth import Prices, WorthRules
from predawn.proxy.keys import NANO

Positive = Annotated[int, Field(ge=1)]


class SleepSettings(PluginSettings):
    policy: Policy = Field(
        default="worthwhile", description="Sleep when it pays, on every context, or never; a context may say otherwise."
    )
    # when
    idle_s: float = Field(default=5, ge=0, description="How long an upstream must have had nothing to do.")
    hours: tuple[str, ...] = Field(default=(), description="Spans of the day, like `22:00-06:00`; always when absent.")
    timezone: str = Field(default="UTC", description="Of `hours` and `schedule`.")
    schedule: tuple[str, ...] = Field(
        default=(), description="Times of the day, like `03:30`, at which all that waits is looked at again."
    )
    quiet_s: float = Field(default=120, gt=0, description="A context unused for so long is looked at again.")
    calls_per_upstream: Positive = Field(default=1, description="Calls asleep at a time, in one process.")
    load_urls: dict[str, str] = Field(
        default_factory=dict,
        description="Metrics pages of upstreams by name, as vLLM, SGLang and llama.cpp have them; a queue keeps sleep "
        "away.",
    )
    # how much
    tokens_per_day: int | None = Field(
        default=2_000_000, ge=0, description="A tenant's tokens a day (UTC), prompts included; no limit when null."
    )
    usd_per_day: float | None = Field(
        default=None, ge=0, description="A tenant's money a day, where models have prices."
    )
    budget_tokens: Positive = Field(
        default=60_000, description="Tokens for one version of a context, prompts included."
    )
    max_passes: Annotated[int, Field(ge=1, le=100)] = Field(
        default=4, description="Rethinks of the notes at most; they stop when nothing changes any more."
    )
    drafts: Annotated[int, Field(ge=1, le=10)] = Field(
        default=1, description="First drafts written side by side; the gain ends near 5."
    )
    max_notes_chars: Annotated[int, Field(ge=100, le=100_000)] = Field(
        default=MAX_CHARS, description="Size of the notes, when they are written and when they are put in."
    )
    max_output_tokens: Annotated[int, Field(ge=16)] = Field(
        default=2048, description="Of one call asleep, reasoning included."
    )
    questions: Annotated[int, Field(ge=0, le=MOST_QUESTIONS)] = Field(
        default=5, description="Questions to anticipate for each context; 0 for none."
    )
    logprobs: bool = Field(
        default=False,
        description="Ask for the log-probabilities of anticipated questions: the first sign of how predictable a "
        "context is, before any has come. Not every upstream takes that.",
    )
    warm: bool = Field(default=True, description="Keep the prefixes of contexts in the upstream's cache.")
    # with what
    model: str | None = Field(
        default=None, description="Alias to think with; when absent the context's own, or the first of the settings."
    )
    check_model: str | None = Field(
        default=None, description="Alias to check notes with; the one that wrote when absent."
    )
    think: bool | None = Field(default=None, description="Let the model reason asleep; left to the model when absent.")
    style: Literal["auto", "full", "terse"] = Field(
        default="auto", description="How notes are written; `terse` is the language of the bundled model."
    )
    # in requests
    inject: Literal["covered", "always", "never"] = Field(
        default="covered",
        description="When notes are put in: where they hold what the question names, for each question, or not at all.",
    )
    effort_with_notes: Effort = Field(
        default="none",
        description="How much a model thinks that has a `reasoning` knob and fresh notes which hold what the question "
        "names, unless the client asks for an effort itself; `unchanged` leaves that to the model.",
    )
    use_stale: bool = Field(default=True, description="Use notes of the unchanged part while a change is slept on.")
    serve: Literal["off", "hint", "exact"] = Field(
        default="hint",
        description="What an anticipated answer is for: nothing, a line in the notes, or being the answer itself.",
    )
    split: SplitRule = Field(
        default="off", description="Where a message that holds context and question is cut, if it may be."
    )
    namespace: str = Field(default="", max_length=200, description="Change it, and all that is known counts no more.")
    # what is known
    discover: bool = Field(
        default=True,
        description="Find contexts in what requests begin with; their text is kept in the store. Not with "
        "`policy: off`.",
    )
    min_tokens: Positive = Field(default=1024, description="Shortest beginning that is found by itself.")
    min_uses: Positive = Field(default=3, description="How often it must have come.")
    discovered_ttl_s: float = Field(
        default=7 * 86_400, gt=0, description="How long a discovered context is kept without being used."
    )
    window_tokens: int | None = Field(
        default=None, ge=1, description="A conversation near this length is slept on before its client cuts it."
    )
    max_contexts: Positive = Field(default=1000, description="Of each tenant, registered and discovered ones each.")
    max_context_bytes: Positive = Field(default=4 << 20, description="Of one registered context.")
    max_discovered_bytes: Positive = Field(
        default=1 << 20, description="Of one discovered context; what is longer is found up to there."
    )
    max_tenant_bytes: Positive = Field(
        default=256 << 20,
        description="Of all contexts of a tenant. Discovered ones that were unused for longest make room.",
    )
    keep_uses_days: float = Field(default=90, gt=0, description="How long it is remembered what was used when.")
    # is it worth it?
    price_ratio: float = Field(
        default=10, gt=0, description="What a token is worth while somebody waits, against one asleep."
    )
    expected_uses: float = Field(
        default=10, ge=0, description="Uses within `horizon_s` of a context about which nothing is known yet."
    )
    horizon_s: float = Field(default=86_400, gt=0, description="How far ahead uses are counted.")

    @model_validator(mode="after")
    def _reads(self) -> Self:
        """Times and time zones are errors of the settings, not of the first night."""
        Hours(self.hours, self.timezone)
        Schedule(self.schedule, self.timezone)
        return self

    @property
    def discovers(self) -> bool:
        """Whether texts of requests may be kept: not where nothing would ever be thought about them."""
        return self.discover and self.policy != "off"

    @property
    def limits(self) -> Limits:
        """What tenants may register."""
        return Limits(
            self.max_contexts,
            self.max_context_bytes,
            max_tenant_bytes=self.max_tenant_bytes,
            max_discovered_bytes=self.max_discovered_bytes,
        )

    @property
    def night(self) -> NightRules:
        """What bounds sleep."""
        return NightRules(
            gate=GateRules(self.idle_s, self.hours, self.timezone, self.calls_per_upstream),
            limits=DayLimits(self.tokens_per_day, None if self.usd_per_day is None else round(self.usd_per_day * NANO)),
            stages=StageRules(
                thinking=ThinkingRules(
                    max_passes=self.max_passes,
                    drafts=self.drafts,
                    max_chars=self.max_notes_chars,
                    budget_tokens=self.budget_tokens,
                    max_output_tokens=self.max_output_tokens,
                    thinks=self.think,
                ),
                check=CheckRules(model=self.check_model or "", max_output_tokens=self.max_output_tokens),
                anticipation=AnticipationRules(
                    questions=self.questions,
                    max_output_tokens=self.max_output_tokens,
                    logprobs=self.logprobs,
                    conditions=NO_CONDITIONS,
                ),
            ),
            worth=WorthRules(
                policy=self.policy,
                prices=Prices(ratio=self.price_ratio),
                horizon_s=self.horizon_s,
                prior_uses=self.expected_uses,
            ),
            warming=WarmRules(),
            questions=self.questions,
            warms=self.warm,
            quiet_s=self.quiet_s,
            schedule=self.schedule,
        )
