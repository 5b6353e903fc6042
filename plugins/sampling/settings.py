"""What can be set about sampling."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from predawn.plugins import PluginSettings

StrategyName: TypeAlias = Literal[
    "vote", "first_m_of_k", "confidence", "best_of", "judge", "revise", "hedge", "waves", "off"
]
Fallback: TypeAlias = Literal["judge", "single"]
Delivery: TypeAlias = Literal["wait", "eager"]

MOST_SAMPLES = 256
MOST_ROUNDS = 16
Count = Annotated[int, Field(ge=1, le=MOST_SAMPLES)]
Rounds = Annotated[int, Field(ge=1, le=MOST_ROUNDS)]


class SamplingSettings(PluginSettings):
    strategy: StrategyName = Field(
        default="vote",
        description="How answers are drawn and chosen where a request may have more than one; `off` leaves that to "
        "requests that name a strategy.",
    )
    samples: Count = Field(
        default=1, description="Answers for a request of which neither its client nor a budget says how many."
    )
    asked_samples: Count = Field(
        default=8, description="Answers where a client names a strategy, but no number of samples."
    )
    max_samples: Count = Field(default=64, description="Most answers to one request, whoever asks for them.")
    rounds: Rounds = Field(
        default=3, description="Answers one after another of `revise`, the first included, where nobody says how many."
    )
    max_rounds: Rounds = Field(default=8, description="Most answers one after another, whoever asks for them.")
    at_once: Count = Field(default=16, description="Calls for one request that run side by side; others wait.")
    client_may: bool = Field(
        default=True, description="Let requests choose strategy and samples themselves, within the limits here."
    )
    # when it is enough
    epsilon: float = Field(
        default=0.05, gt=0, lt=1, description="A vote ends once the chance that its leader changes is below this."
    )
    min_samples: Count = Field(default=2, description="Comparable answers that come before a vote may end.")
    beta: float = Field(default=0.5, ge=0, le=1, description="Of `waves`: from cheap (0) to thorough (1).")
    first: Count = Field(default=3, description="Of `first_m_of_k`: how many answers are enough (m).")
    # what is comparable
    answer: str = Field(
        default="auto",
        min_length=1,
        description="The extractor that finds what an answer says; `auto` goes by the request.",
    )
    fallback: Fallback = Field(
        default="judge",
        description="What decides between answers that cannot be compared: a judge, or the first complete one.",
    )
    judge_model: str | None = Field(
        default=None, description="Alias that compares answers; the request's own model when absent."
    )
    judge_tokens: int = Field(default=512, ge=1, description="Output tokens of one comparison at most.")
    verifier: str | None = Field(
        default=None, description="Registered verifier by which `best_of` chooses; a judge when absent."
    )
    # how they differ
    temperature: float | None = Field(
        default=0.8,
        gt=0,
        le=2,
        description="Of samples whose client sends no temperature or 0, since equal answers cannot vote; null leaves "
        "it as it is.",
    )
    seeds: bool = Field(
        default=True,
        description="Give samples seeds of their own where the client sends none; for upstreams that know `seed`.",
    )
    logprobs: bool = Field(
        default=True, description="Let `confidence` ask for log-probabilities; they are hidden from the client."
    )
    # how it goes out
    stream: Delivery = Field(
        default="wait",
        description="Streams begin once the answer is chosen, or (`eager`) with the leader once it is safe enough.",
    )
    eager_epsilon: float = Field(
        default=0.2, gt=0, lt=1, description="Of `eager`: the chance that the leader changes at which it is given out."
    )
    hedge_after_s: float | None = Field(
        default=None,
        gt=0,
        description="Of `hedge`: when the second request is sent; after the model's own p95 when absent.",
    )
