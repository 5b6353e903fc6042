"""The settings of `budget`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from predawn.plugins import PluginSettings
from predawn.proxy.exchange import Effort

PolicyName = Literal["fixed", "tiers", "marginal"]


class Part(BaseModel):
    """A part of the settings: unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TierSettings(Part):
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")] = Field(
        description="What records, headers and metrics call it."
    )
    below: float = Field(
        default=1.01, gt=0, le=1.01, description="Requests whose difficulty is less belong here; the last tier has all."
    )
    effort: Effort | None = Field(
        default=None, description="How much the model thinks: `none` … `max`; its own default when absent."
    )
    max_output_tokens: int | None = Field(
        default=None, ge=1, description="Most tokens of one answer, thinking included; the client's limit when absent."
    )
    samples: int = Field(
        default=1, ge=1, le=256, description="Answers drawn side by side; needs the plugin `sampling`."
    )
    rounds: int = Field(
        default=1,
        ge=1,
        le=32,
        description="Revisions one after another; beside `samples`, so many times as many samples. Needs the plugin "
        "`sampling`.",
    )
    verify: bool = Field(default=False, description="Check the answer while it is written; needs the plugin `verify`.")
    deadline_s: float | None = Field(default=None, gt=0, description="Time after which no further call is begun.")
    tokens: float | None = Field(
        default=None,
        gt=0,
        description="What a request of this tier costs, until it has been measured; guessed if absent.",
    )


STANDARD_TIERS: tuple[TierSettings, ...] = (
    TierSettings(name="easy", below=0.25, effort="none"),
    TierSettings(name="usual", below=0.55, effort="low"),
    TierSettings(name="hard", below=0.8, effort="medium", samples=3),
    TierSettings(name="hardest", effort="high", samples=6),
)


class CeilingSettings(Part):
    request_tokens: int | None = Field(
        default=None,
        ge=1,
        description="Most output tokens of one request: all its samples, rounds and checks together.",
    )
    key_tokens_per_day: int | None = Field(
        default=None, ge=1, description="Most output tokens of one client key in a day (UTC)."
    )
    tenant_tokens_per_day: int | None = Field(
        default=None, ge=1, description="Most output tokens of one tenant in a day (UTC)."
    )
    tokens_per_day: int | None = Field(
        default=None, ge=1, description="Most output tokens of everybody together in a day (UTC)."
    )
    samples: int = Field(default=32, ge=1, le=256, description="Most samples, whatever a tier or a client asks for.")
    rounds: int = Field(default=8, ge=1, le=32, description="Most rounds, likewise.")
    answer_tokens: int = Field(
        default=4096, ge=1, description="Held for an answer that nothing limits, while a daily ceiling is set."
    )


class LearningSettings(Part):
    enabled: bool = Field(default=True, description="Learn from how requests end; off: only the settings count.")
    outcomes: int = Field(
        default=512,
        ge=16,
        le=10_000,
        description="Past outcomes kept for each tenant and model; older ones are forgotten.",
    )
    tenants: int = Field(
        default=1000, ge=1, description="Pairs of tenant and model kept in memory; the rest is in the store."
    )
    flush_s: float = Field(default=2.0, gt=0, le=60, description="Longest time until an outcome is in the store.")
    retention_days: float = Field(default=30, gt=0, description="Older outcomes are deleted.")
    explore: float = Field(
        default=0.03,
        ge=0,
        le=0.5,
        description="Share of requests that get a neighbouring tier, to learn what it is worth.",
    )
    flat_after: int = Field(
        default=60, ge=20, description="Outcomes of a kind of task before its curve can be called flat."
    )
    flat_gain: float = Field(
        default=0.03,
        gt=0,
        lt=1,
        description="A doubling of tokens that surely gains less than this is not worth its price.",
    )


class BudgetSettings(PluginSettings):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    policy: PolicyName = Field(
        default="tiers",
        description="`fixed`: the tier `fixed_tier` for all; `tiers`: by difficulty, as the table says; `marginal`: by "
        "what more tokens have been seen to gain, so that the mean comes to `target_tokens`.",
    )
    tiers: tuple[TierSettings, ...] = Field(
        default=STANDARD_TIERS, description="From the easiest to the hardest, and from the cheapest to the dearest."
    )
    fixed_tier: str | None = Field(
        default=None, description="The tier of `fixed`; the second, or only, one when absent."
    )
    target_tokens: float | None = Field(
        default=None,
        gt=0,
        description="Mean tokens a request may cost under `marginal`: output, and all that sampling adds.",
    )
    targets: dict[str, float] = Field(default_factory=dict, description="`target_tokens` of single aliases.")
    target_per: Literal["tenant", "model"] = Field(
        default="tenant",
        description="Whose mean it is: each tenant's of its requests to a model, or everybody's to that model.",
    )
    estimators: tuple[str, ...] = Field(
        default=("features", "neighbours"), description="Who judges difficulty; their views are weighed by confidence."
    )
    embeddings: str | None = Field(
        default=None,
        description="Alias of an embedding model by which past requests are compared; by their words when absent.",
    )
    shape: bool = Field(
        default=True, description="Spend on width for short independent tasks and on depth for chains of steps."
    )
    probe: Literal["off", "auto", "always"] = Field(
        default="auto",
        description="Ask the model a little first: never, when what it tells is worth more than it costs, or always.",
    )
    probe_tokens: int = Field(default=24, ge=1, le=512, description="Most tokens of one answer to a probe.")
    probe_timeout_s: float = Field(default=3.0, gt=0, description="Longest time a probe may hold a request up.")
    probe_capabilities: bool = Field(
        default=False, description="At start, ask each model with a `reasoning` knob whether it obeys it."
    )
    ceilings: CeilingSettings = Field(default_factory=CeilingSettings, description="What no request gets past.")
    learning: LearningSettings = Field(default_factory=LearningSettings, description="What is remembered.")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        names = [tier.name for tier in self.tiers]
        if not names:
            raise ValueError("tiers needs at least one tier")
        if len(set(names)) < len(names):
            raise ValueError("two tiers have the same name")
        bounds = [tier.below for tier in self.tiers[:-1]]
        if bounds != sorted(set(bounds)):
            raise ValueError("the tiers' `below` must rise from one to the next")
        if self.fixed_tier is not None and self.fixed_tier not in names:
            raise ValueError(f"fixed_tier {self.fixed_tier!r} is none of the tiers: {', '.join(names)}")
        if self.policy == "marginal" and self.target_tokens is None and not self.targets:
            raise ValueError("policy marginal needs target_tokens, or targets for some aliases")
        if any(not target > 0 for target in self.targets.values()):
            raise ValueError("targets must be greater than 0")
        return self

    def target_of(self, alias: str) -> float | None:
        """Mean tokens a request to this alias may cost."""
        return self.targets.get(alias, self.target_tokens)
