"""What can be set about each built-in verifier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

Fails: TypeAlias = Literal["open", "closed"]
Channel: TypeAlias = Literal["reasoning", "content", "tool_call"]
Positive = Annotated[int, Field(ge=1)]


class VerifierSettings(BaseModel):
    """Settings every built-in verifier has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    timeout_s: float = Field(default=1.0, gt=0, description="Longest time for one step; beyond it the step is unsure.")
    fails: Fails = Field(
        default="open", description="What a check that fails or takes too long counts as: `open` passes, `closed` not."
    )


class ArithmeticSettings(VerifierSettings):
    reads: tuple[Channel, ...] = Field(default=("reasoning", "content"), description="Which texts are read.")
    quantities: bool = Field(
        default=True, description="Also follow named and running quantities, not only single equations."
    )


class JsonSchemaSettings(VerifierSettings):
    json_schema: dict[str, Any] | None = Field(
        default=None, description="JSON Schema of answers; the request's `response_format` goes first."
    )
    max_chars: Positive = Field(
        default=1 << 18,
        description="A longer answer is followed as it is written, but keywords that can only be checked at the end "
        "(`pattern`, `not`, `if`, `uniqueItems`, …) are left unsure.",
    )


class PolicyRule(BaseModel):
    """What a call of a tool must keep to. All that is given must hold."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tool: str = Field(description="Name of the tool; `*` for all of them.", min_length=1)
    argument: str = Field(default="", description="Path of an argument, like `to` or `items.0.price`.")
    forbid: bool = Field(default=False, description="The tool, or the argument, must not be used at all.")
    required: bool = Field(default=False, description="The argument must be there.")
    allowed: tuple[Any, ...] | None = Field(default=None, description="Values the argument may have.")
    denied: tuple[Any, ...] = Field(default=(), description="Values it must not have.")
    minimum: float | None = Field(default=None, description="Smallest number.")
    maximum: float | None = Field(default=None, description="Largest number.")
    pattern: str | None = Field(default=None, description="Regular expression that must match the whole text.")
    max_calls: int | None = Field(default=None, ge=0, description="Calls of the tool in one answer at most.")
    why: str = Field(default="", description="What the model is told when it breaks the rule.")


class ToolCallSettings(VerifierSettings):
    policy: tuple[PolicyRule, ...] = Field(default=(), description="Rules beyond what the tools' schemas say.")
    unknown_arguments: Literal["schema", "refuse"] = Field(
        default="schema", description="Arguments that a tool does not declare: as its schema says, or always refused."
    )


class PatternRule(BaseModel):
    """One pattern that answers must, or must not, match."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pattern: str = Field(description="Regular expression of the `regex` package.", min_length=1)
    name: str = Field(default="", description="What feedback and the record call it; the pattern when absent.")
    why: str = Field(default="", description="What the model is told on a violation.")

    @model_validator(mode="before")
    @classmethod
    def _from_pattern(cls, value: Any) -> Any:
        return {"pattern": value} if isinstance(value, str) else value


class RegexSettings(VerifierSettings):
    must: tuple[PatternRule, ...] = Field(default=(), description="Each must match somewhere in the finished answer.")
    must_not: tuple[PatternRule, ...] = Field(default=(), description="None may match anywhere.")
    reads: tuple[Channel, ...] = Field(default=("content",), description="Which texts are searched.")
    ignore_case: bool = Field(default=False, description="Let letters match in either case.")
    max_match: Annotated[int, Field(ge=16, le=65_536)] = Field(
        default=1024, description="Longest match across steps, in characters; within one step it may be longer."
    )
    match_timeout_s: float = Field(
        default=0.015, gt=0, le=1, description="Longest search; a pattern that runs longer leaves the step unsure."
    )


class PythonSettings(VerifierSettings):
    reads: tuple[Channel, ...] = Field(default=("content",), description="Which texts are read.")
    names: bool = Field(default=True, description="Undefined names are violations, not only syntax.")
    known: tuple[str, ...] = Field(default=(), description="Names that exist where the code will run.")
    python: tuple[int, int] | None = Field(
        default=None, description="Oldest Python the code must suit, like `[3, 9]`; the running one when absent."
    )
    sandbox: tuple[str, ...] = Field(
        default=(),
        description="Command that runs code from its standard input in a sandbox of yours; nothing is run without one.",
    )
    sandbox_timeout_s: float = Field(default=5.0, gt=0, le=300, description="Longest run; then it is killed.")
    sandbox_memory_mb: Positive = Field(default=256, description="Memory a run may use.")
    sandbox_output_bytes: Positive = Field(default=65_536, description="Output of a run that is read.")
    sandbox_runs: Positive = Field(default=2, description="Runs side by side.")


class GroundedSettings(VerifierSettings):
    numbers: bool = Field(default=True, description="Numbers must occur in the context.")
    quotes: bool = Field(default=True, description="Quotes must occur in the context.")
    roles: tuple[str, ...] = Field(
        default=("system", "developer", "user", "tool", "function"), description="Messages that are the context."
    )
    ignore_up_to: Annotated[int, Field(ge=0)] = Field(
        default=10, description="Plain whole numbers up to this need no ground: counts, list items."
    )
    computed: bool = Field(
        default=True, description="A number that a right equation of the answer comes to is grounded."
    )
    min_quote_words: Positive = Field(default=3, description="Shorter quotes are figures of speech.")
    max_context_chars: Positive = Field(default=2_000_000, description="A longer context leaves everything unsure.")


class JudgeSettings(VerifierSettings):
    timeout_s: float = Field(default=20.0, gt=0, description="Longest time for one step; beyond it the step is unsure.")
    reads: tuple[Channel, ...] = Field(default=("content",), description="Which texts are judged.")
    model: str | None = Field(default=None, description="Alias to judge with; the request's own when absent.")
    criteria: str = Field(
        default="The text is right: it follows from the conversation and contains no mistake.",
        description="What each step is held against.",
        min_length=1,
    )
    boundary: Literal["sentence", "paragraph", "line", "reasoning_step"] = Field(
        default="paragraph", description="Size of what is judged."
    )
    batch: Annotated[int, Field(ge=1, le=32)] = Field(
        default=4, description="Steps judged by one call, if that many are waiting."
    )
    max_calls: Positive = Field(default=16, description="Calls for one answer; what comes after is unsure.")
    max_output_tokens: Annotated[int, Field(ge=8)] = Field(default=400, description="Of one call, reasoning included.")
    max_context_chars: Annotated[int, Field(ge=200)] = Field(
        default=24_000, description="Of conversation and answer that the judge is shown."
    )


class AnswerForkSettings(VerifierSettings):
    timeout_s: float = Field(default=20.0, gt=0, description="Longest time for one step; beyond it the step is unsure.")
    suffix: str = Field(default="\nSo the answer is", description="What is appended to the text so far.", min_length=1)
    max_tokens: Annotated[int, Field(ge=1, le=256)] = Field(default=20, description="Of one fork.")
    every: Positive = Field(default=4, description="Steps from one fork to the next.")
    warm_up: Annotated[int, Field(ge=0)] = Field(default=4, description="Steps before the first fork.")
    agree: Annotated[int, Field(ge=2)] = Field(default=3, description="Equal answers in a row that count as stable.")
    reads: tuple[Channel, ...] = Field(default=("reasoning",), description="Which texts are forked.")
    on_settled: Literal["note", "finish"] = Field(
        default="note",
        description="What a settled answer does: it is noted; or it is a violation, which in `intervene` puts the "
        "answer in the place of further thoughts.",
    )


class VariableSettings(BaseModel):
    """One declared quantity."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["int", "real", "bool"] = Field(default="int", description="What values it takes.")
    minimum: float | None = Field(default=None, description="Smallest value.")
    maximum: float | None = Field(default=None, description="Largest value.")


class ConstraintsSettings(VerifierSettings):
    timeout_s: float = Field(default=2.0, gt=0, description="Longest time for one step; beyond it the step is unsure.")
    variables: Mapping[str, VariableSettings] = Field(
        default_factory=dict[str, VariableSettings], description="The quantities an answer assigns, by name."
    )
    constraints: tuple[str, ...] = Field(
        default=(), description="What must hold of them, like `x + 2*y <= 10` or `not (a and b)`."
    )
    solve_ms: Annotated[int, Field(ge=1, le=60_000)] = Field(
        default=500, description="Longest search for a proposal that keeps to the constraints."
    )

    @model_validator(mode="after")
    def _reads(self) -> Self:
        """A constraint that cannot be read is an error of the settings."""
        from predawn.plugins.verify.verifiers.constraint_language import parse

        for constraint in self.constraints:
            parse(constraint, {name: variable.kind for name, variable in self.variables.items()})
        return self
