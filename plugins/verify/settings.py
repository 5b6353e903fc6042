"""What can be set about verification."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

from predawn.plugins import PluginSettings

Mode: TypeAlias = Literal["observe", "gate", "intervene", "optimistic"]
Policy: TypeAlias = Literal["accept", "stop", "retry"]
When: TypeAlias = Literal["always", "budget", "asked"]


class VerifierEntry(BaseModel):
    """One verifier that is switched on: `- arithmetic`, or `- regex: {must_not: [...]}`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, description="A built-in verifier, or one that a plugin registers.")
    options: dict[str, Any] = Field(default_factory=dict, description="What a built-in verifier can be told.")
    models: tuple[str, ...] | None = Field(
        default=None, description="Aliases whose answers it reads; all that the plugin acts on when absent."
    )
    fails: Literal["open", "closed"] | None = Field(
        default=None,
        description="What a verifier that is late, raises or was passed over means: a pass, or a violation; its own "
        "word when absent.",
    )
    timeout_s: float | None = Field(
        default=None, gt=0, le=600, description="Longest time for one step; its own word when absent."
    )

    @model_validator(mode="before")
    @classmethod
    def _from_a_name(cls, value: Any) -> Any:
        """Accept `- name` and `- name: {option: …}` besides the entry itself; `models`, `fails` and `timeout_s` may
        stand among the options."""
        if isinstance(value, str):
            return {"name": value}
        if not isinstance(value, dict) or "name" in value:
            return value
        if len(value) != 1:
            raise ValueError("one entry names one verifier: `- name` or `- name: {key: value}`")
        ((name, given),) = value.items()
        if given is not None and not isinstance(given, dict):
            raise ValueError(f"the options of '{name}' must be a mapping of keys to values")
        options = dict(given or {})
        own = {key: options.pop(key) for key in ("models", "fails", "timeout_s") if key in options}
        return {"name": name, "options": options, **own}


class VerifySettings(PluginSettings):
    verifiers: tuple[VerifierEntry, ...] = Field(
        default=(), description="Who reads the answers, in the order in which their word counts."
    )
    mode: Mode = Field(
        default="observe",
        description="What a violation does: it is noted (`observe`); steps are sent once they are verified (`gate`), "
        "and wrong ones are also put right (`intervene`); or all is sent at once and stopped where it goes wrong "
        "(`optimistic`).",
    )
    when: When = Field(
        default="always",
        description="Which requests are verified: all, those whose budget says so, or those that ask for it.",
    )
    requests_may_relax: bool = Field(
        default=True,
        description="Whether a request may ask for less than is set here: for none, for a weaker mode, for fewer "
        "verifiers. Say no where verification guards something.",
    )
    corrections: Annotated[int, Field(ge=0, le=20)] = Field(
        default=4, description="`intervene`: how often one answer is cut and continued."
    )
    retries: Annotated[int, Field(ge=0, le=5)] = Field(
        default=1, description="How often an answer is begun again where `then` is `retry`."
    )
    then: Policy = Field(
        default="stop",
        description="What becomes of an answer that is still wrong: it ends there with `content_filter`, it is let "
        "through with a note, or it is begun again while nothing of it was sent.",
    )
    correction: Literal["replace", "remark"] = Field(
        default="replace",
        description="Where a verifier knows what is right: put that in the wrong step's place, or leave the step and "
        "say `Wait: …` after it.",
    )
    remark: str = Field(
        default="Wait: {}", max_length=500, description="How a model is told in its own voice; `{}` is what was wrong."
    )
    tells_why: bool | None = Field(
        default=None,
        description="Whether a model that begins again, or goes on without a correction, is told what was wrong. Small "
        "ones are only confused by it and are better asked the same again: when absent, all are told but the bundled "
        "one.",
    )
    holds: Literal["all", "answer"] = Field(
        default="all",
        description="`gate` and `intervene`: what waits until it is verified, thoughts and answer or the answer alone.",
    )
    checks_per_answer: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=8, description="Steps of one answer that are looked at side by side."
    )
    checks_at_once: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=256, description="The same for all answers of this process."
    )
    checks_waiting: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=1024, description="Steps that may wait for their turn; beyond it the oldest is passed over (`unsure`)."
    )
    longest_step: Annotated[int, Field(ge=64, le=1 << 20)] = Field(
        default=8192, description="Characters after which a step ends that has no boundary."
    )
    check_model: str | None = Field(
        default=None, description="Alias that verifiers ask which need a model; the request's own when absent."
    )
    verify_tokens: int | None = Field(
        default=4096,
        ge=0,
        description="Tokens that verifiers' forks of one answer may cost; no limit when null. Judges have their own.",
    )
