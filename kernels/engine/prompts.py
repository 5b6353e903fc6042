"""From a request to the tokens that the model continues."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import msgspec

from predawn.kernels.engine.asks import UNSUPPORTED, AnyAsk, AskError, ChatAsk, CompletionAsk
from predawn.kernels.engine.channels import Beginning, beginning_after

OWN_VARIABLES: Final = frozenset({"messages", "tools", "add_generation_prompt", "continue_final", "bos_token"})
"""What a template is given by the engine and not by `chat_template_kwargs`."""
LONGEST_CONTROL: Final = 64
"""Characters in which a control token at the beginning of a text is looked for."""
NO_EFFORT: Final = ("none", "minimal")


class Tokenizer(Protocol):
    """Text to tokens. Spellings of control tokens stand for them where `special`; see `tokens.Tokenizer`."""

    @property
    def adds_bos(self) -> bool: ...
    @property
    def bos_id(self) -> int | None: ...
    @property
    def longest_token(self) -> int: ...
    def encode(self, text: str, /, *, special: bool) -> list[int]: ...
    def decode(self, ids: Sequence[int], /) -> str: ...


class Template(Protocol):
    """Messages to text."""

    @property
    def source(self) -> str: ...
    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        /,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        continue_final: bool,
        add_generation_prompt: bool,
        **variables: Any,
    ) -> str: ...


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model continues."""

    tokens: list[int]
    text: str = ""
    """As it was given; empty for a chat."""
    beginning: Beginning = "plain"
    continues: bool = False
    """Whether the answer goes on with what the client wrote for the model."""


class Prompter:
    """Makes prompts for one model. Errors are `AskError`s that name the member."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: Template | None,
        *,
        vocabulary: int,
        context: int,
        template_errors: tuple[type[Exception], ...],
    ) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._vocabulary = vocabulary
        self._context = context
        self._template_errors = template_errors

    @property
    def context(self) -> int:
        """Tokens of prompt and answer together, at most."""
        return self._context

    def prompts(self, ask: AnyAsk) -> list[Prompt]:
        """One for a chat, one for each prompt of a completion."""
        if isinstance(ask, ChatAsk):
            return [self._chat(ask)]
        return [self._plain(given, ask) for given in ask.prompts]

    def _plain(self, given: str | list[int], ask: CompletionAsk) -> Prompt:
        if isinstance(given, str):
            return Prompt(self._tokens(given, "prompt", self._beginning(given)), given)
        if any(not 0 <= token < self._vocabulary for token in given):
            raise AskError(f"prompt has a token outside of 0 to {self._vocabulary - 1}.", "prompt")
        self._fit(len(given), "prompt")
        return Prompt(given, self._tokenizer.decode(given) if ask.echo else "")

    def _chat(self, ask: ChatAsk) -> Prompt:
        template = self._template
        if template is None:
            raise AskError("This model has no chat template; ask it by /v1/completions.", "messages", code=UNSUPPORTED)
        messages = [_message(message, f"messages[{place}]") for place, message in enumerate(ask.messages)]
        if "developer" not in template.source:
            messages = [{**m, "role": "system"} if m["role"] == "developer" else m for m in messages]
        continues = _continues(ask, messages)
        variables = _variables(ask)
        if tools := _tools(ask, template.source):
            variables["tools"] = tools
        try:
            text = template.render(messages, continue_final=continues, add_generation_prompt=not continues, **variables)
            opening = self._opening(template, messages, text, variables, continues=continues)
        except self._template_errors as exc:
            raise AskError(f"The model's chat template refuses these messages: {exc}", "messages") from None
        beginning = beginning_after(opening, continues=continues)
        return Prompt(self._tokens(text, "messages"), "", beginning, continues)

    def _opening(
        self,
        template: Template,
        messages: Sequence[Mapping[str, Any]],
        text: str,
        variables: Mapping[str, Any],
        *,
        continues: bool,
    ) -> str:
        """The part of a rendered prompt that is the model's own turn, its opening tags and prefill."""
        history = messages[:-1] if continues else messages
        if not history:
            return text
        try:
            before = template.render(history, continue_final=False, add_generation_prompt=False, **variables)
        except self._template_errors:
            return text  # a history that cannot stand alone
        return text[_shared(before, text) :]

    def _beginning(self, text: str) -> list[int]:
        """What this model's raw prompts begin with, unless `text` says so itself."""
        bos = self._tokenizer.bos_id
        if not self._tokenizer.adds_bos or bos is None:
            return []
        return [] if self._tokenizer.encode(text[:LONGEST_CONTROL], special=True)[:1] == [bos] else [bos]

    def _tokens(self, text: str, param: str, before: Sequence[int] = ()) -> list[int]:
        """Raises `AskError` for a text that cannot fit, without spending time on a huge one."""
        fewest = len(text.encode("utf-8", "replace")) // self._tokenizer.longest_token
        if fewest >= self._context:
            self._fit(fewest, param)
        tokens = [*before, *self._tokenizer.encode(text, special=True)]
        if not tokens:
            raise AskError(f"{param} holds nothing to continue.", param)
        self._fit(len(tokens), param)
        return tokens

    def _fit(self, tokens: int, param: str) -> None:
        if tokens >= self._context:
            raise overflow(tokens, self._context, param)


def _shared(one: str, other: str) -> int:
    """How many characters two texts have in common at their beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def overflow(tokens: int, context: int, param: str) -> AskError:
    """What a client is told whose prompt leaves no room for an answer; clients look for these words."""
    message = (
        f"This model's maximum context length is {context} tokens, but your {param} "
        f"resulted in {tokens} tokens or more. Please reduce the length of the {param}."
    )
    return AskError(message, param, code="context_length_exceeded")


def _continues(ask: ChatAsk, messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the answer goes on with the final message: an assistant's, unless the client says otherwise."""
    is_prefill = messages[-1]["role"] == "assistant" and not messages[-1].get("tool_calls")
    if ask.continue_final_message and not is_prefill:
        raise AskError("continue_final_message needs a final message of the assistant.", "continue_final_message")
    if ask.continue_final_message and ask.add_generation_prompt:
        message = "continue_final_message and add_generation_prompt exclude each other."
        raise AskError(message, "continue_final_message")
    return is_prefill and ask.continue_final_message is not False and not ask.add_generation_prompt


def _variables(ask: ChatAsk) -> dict[str, Any]:
    """What the template is told beside the messages."""
    variables = dict(ask.chat_template_kwargs or {})
    if taken := OWN_VARIABLES & variables.keys():
        raise AskError(f"chat_template_kwargs cannot set {min(taken)}.", "chat_template_kwargs")
    if ask.enable_thinking is not None:
        variables["enable_thinking"] = ask.enable_thinking
    if ask.reasoning_effort is not None:
        variables["reasoning_effort"] = ask.reasoning_effort
        if ask.reasoning_effort in NO_EFFORT:  # for templates that know of the switch only
            variables.setdefault("enable_thinking", False)
    return variables


def _tools(ask: ChatAsk, source: str) -> list[dict[str, Any]] | None:
    if not ask.tools or ask.tool_choice == "none":
        return None
    if "tools" not in source:
        raise AskError("This model's chat template knows no tools.", "tools", code=UNSUPPORTED)
    return ask.tools


def _message(given: Mapping[str, Any], place: str) -> dict[str, Any]:
    """A message as templates expect it: its content is text."""
    message = dict(given)
    role = message.get("role")
    if not isinstance(role, str):
        raise AskError(f"{place}.role is missing or no text.", f"{place}.role")
    content = message.get("content")
    if isinstance(content, list):
        message["content"] = "\n".join([_text_of(part, f"{place}.content") for part in content])
    elif content is not None and not isinstance(content, str):
        raise AskError(f"{place}.content must be text or a list of parts.", f"{place}.content")
    elif content is None:
        message["content"] = ""
        if role != "assistant":
            raise AskError(f"{place}.content is missing.", f"{place}.content")
    if calls := message.get("tool_calls"):
        if not isinstance(calls, list):
            raise AskError(f"{place}.tool_calls must be a list.", f"{place}.tool_calls")
        message["tool_calls"] = [_call(call, f"{place}.tool_calls") for call in calls]
    return message


def _text_of(part: Any, place: str) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    text = part.get("text") if isinstance(part, dict) else None
    if kind == "text" and isinstance(text, str):
        return text
    raise AskError(f"{place} has a part that is no text; this model takes nothing else.", place)


def _call(call: Any, place: str) -> dict[str, Any]:
    """Templates want the arguments as an object, clients send them as JSON."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        raise AskError(f"{place} has an entry without a function.", place)
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = msgspec.json.decode(arguments or "{}")
        except msgspec.DecodeError:
            raise AskError(f"{place} has arguments that are not valid JSON.", place) from None
    return {**call, "function": {**function, "arguments": arguments}}
