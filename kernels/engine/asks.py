"""What may be asked of the engine, in the words of OpenAI's API. A wrong value is refused by its name.

Members nobody here knows are skipped, as other compatible servers do. What changes an answer and cannot be done is
refused instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

Kind: TypeAlias = Literal["chat", "completions"]
MOST_CHOICES: Final = 128
MOST_CHOICES_IN_ALL: Final = 256
"""Of all prompts of a request."""
MOST_STOPS: Final = 16
COMPLETION_TOKENS: Final = 16
"""`max_tokens` of a completion that names none, as at OpenAI."""
UNSUPPORTED: Final = "unsupported_parameter"


class AskError(Exception):
    """A request that cannot be obeyed; `param` names the member."""

    def __init__(self, message: str, param: str | None = None, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code


class StreamOptions(Struct):
    """How a stream ends."""

    include_usage: bool | None = None


class Ask(Struct, kw_only=True):
    """What both endpoints take. A member that is null is as good as absent."""

    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Meta(ge=1, le=MOST_CHOICES)] | None = None
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    stop: str | list[str] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    seed: Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    logit_bias: Annotated[dict[str, Annotated[float, Meta(ge=-100, le=100)]], Meta(max_length=1024)] | None = None
    ignore_eos: bool | None = None
    repeat: Annotated[int, Meta(ge=1)] | None = None
    """Passes through each stored block of a weight-shared model, at most its own number."""
    lookup: bool | None = None
    """Draft from n-grams seen before; changes when tokens come, never which."""
    width: Annotated[int, Meta(ge=1, le=16)] | None = None
    """Experiment: trajectories that vote on each token."""

    @property
    def choices(self) -> int:
        """Answers per prompt."""
        return self.n or 1

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with its usage."""
        return self.stream_options is not None and self.stream_options.include_usage is True

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings. Raises `AskError`."""
        given = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        if len(given) > MOST_STOPS or "" in given:
            raise AskError(f"stop takes at most {MOST_STOPS} strings, none of them empty.", "stop")
        return given

    @property
    def biases(self) -> dict[int, float]:
        """`logit_bias` by token. Raises `AskError`."""
        try:
            return {int(token): bias for token, bias in (self.logit_bias or {}).items()}
        except ValueError:
            raise AskError("logit_bias maps token numbers to biases.", "logit_bias") from None


class ChatAsk(Ask, kw_only=True):
    """`/v1/chat/completions`."""

    messages: Annotated[list[dict[str, Any]], Meta(min_length=1)]
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    functions: list[Any] | None = None
    response_format: dict[str, Any] | None = None
    modalities: list[str] | None = None
    reasoning_effort: str | None = None
    enable_thinking: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None

    @property
    def limit(self) -> int | None:
        """Tokens of each answer, thoughts included; None leaves it to the context."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def top(self) -> int | None:
        """Alternatives to report for each token; None where no logprobs are wanted. Raises `AskError`."""
        if self.logprobs:
            return self.top_logprobs or 0
        if self.top_logprobs:
            raise AskError("top_logprobs needs logprobs to be true.", "top_logprobs")
        return None

    def check(self) -> None:
        """Raises `AskError` for what changes an answer and cannot be done here."""
        if (self.response_format or {}).get("type", "text") != "text":
            raise _unsupported("response_format", "of another type than text")
        if self.functions:
            raise _unsupported("functions")
        if self.modalities not in (None, [], ["text"]):
            raise _unsupported("modalities", "other than text")
        if self.tools and self.tool_choice not in (None, "auto", "none"):
            raise _unsupported("tool_choice", "that demands a call")


class CompletionAsk(Ask, kw_only=True):
    """`/v1/completions`."""

    prompt: str | list[int | str | list[int]]
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = None

    @property
    def limit(self) -> int:
        """Tokens of each answer."""
        return self.max_tokens or COMPLETION_TOKENS

    @property
    def top(self) -> int | None:
        """Alternatives to report for each token; None where no logprobs are wanted."""
        return self.logprobs

    @property
    def prompts(self) -> list[str | list[int]]:
        """One entry for each prompt. Raises `AskError`."""
        given = self.prompt
        if isinstance(given, str):
            return [given]
        numbers = [item for item in given if isinstance(item, int)]
        if numbers and len(numbers) == len(given):
            return [numbers]
        whole = [item for item in given if not isinstance(item, int)]
        if not given or numbers or len({type(item) for item in whole}) > 1:
            raise AskError("prompt is a text, a list of texts, a list of tokens, or a list of such lists.", "prompt")
        return whole

    def check(self) -> None:
        """Raises `AskError` for what changes an answer and cannot be done here."""
        many = sum(not isinstance(item, int) for item in self.prompt) if isinstance(self.prompt, list) else 1
        if many * self.choices > MOST_CHOICES_IN_ALL:
            message = f"{many} prompts with n={self.choices} are more than {MOST_CHOICES_IN_ALL} choices."
            raise AskError(message, "prompt")
        if self.suffix:
            raise _unsupported("suffix")
        if self.best_of is not None and self.best_of != self.choices:
            raise _unsupported("best_of", "other than n")
        if self.echo and self.logprobs is not None:
            raise _unsupported("echo", "together with logprobs: the prompt's own tokens are not scored")


AnyAsk: TypeAlias = ChatAsk | CompletionAsk
_DECODE: Final[Mapping[Kind, Callable[[bytes], AnyAsk]]] = {
    "chat": msgspec.json.Decoder(ChatAsk).decode,
    "completions": msgspec.json.Decoder(CompletionAsk).decode,
}
_PLACE = re.compile(r" - at `\$\.?([^`]*)`$")


def read(kind: Kind, body: bytes) -> AnyAsk:
    """The request in a body. Raises `AskError`."""
    try:
        ask = _DECODE[kind](body)
    except msgspec.ValidationError as exc:
        raise _invalid(str(exc)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise AskError(f"The request body is not valid JSON: {exc}.", code="invalid_json") from None
    ask.check()
    return ask


def _invalid(message: str) -> AskError:
    """`Expected ... - at `$.n`` as a sentence that begins with the member's name."""
    found = _PLACE.search(message)
    place = found[1].replace("[...]", "") if found else ""
    text = message[: found.start()] if found else message
    missing = re.search(r"missing required field `(\w+)`", text)
    if missing:
        return AskError(f"You must provide {missing[1]}.", missing[1])
    return AskError(f"Invalid {place or 'request'}: {text[:1].lower()}{text[1:]}.", place or None)


def _unsupported(name: str, what: str = "") -> AskError:
    return AskError(f"The local engine cannot do {f'{name} {what}'.strip()}.", name, code=UNSUPPORTED)
