"""Messages to a prompt, by the template that comes with a model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from predawn.kernels.engine.errors import CheckpointError
from predawn.kernels.engine.tokens import REASONING_TAGS, Tokenizer

_CUT = "\ufdd2"
"""Marks the end of a message that is to be continued; a Unicode noncharacter."""
_MOST_CHARACTERS = 1 << 24
"""Of text that a template may make by repeating."""


class TemplateError(Exception):
    """The template refuses these messages or cannot render them; the message is the template's own words."""


class ChatTemplate:
    """A Jinja template as `tokenizer_config.json` holds it, in a sandbox without access to anything but its messages.

    No control token comes from a message: their spellings are broken up before the template sees them, in every text
    of messages, tools and variables, and `Tokenizer.encode(…, special=True)` puts the texts together again as plain
    ones. Only the model's own messages may spell `<think>` and `</think>`, for templates divide them there.
    """

    def __init__(
        self,
        source: str,
        tokenizer: Tokenizer,
        *,
        file: Path | str = "chat template",
        bos_token: str = "",
        eos_token: str = "",
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        self.source = source
        self._tokenizer = tokenizer
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        environment = _environment(now)
        try:
            self._template = environment.from_string(source)
        except (jinja2.TemplateError, RecursionError) as exc:
            raise CheckpointError(file, f"is no chat template ({exc})", fix="fetch it again") from None

    def __repr__(self) -> str:
        return f"ChatTemplate({len(self.source)} characters)"

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        /,  # so that clients may name a variable "self"
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        continue_final: bool = False,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> str:
        """The prompt, for `Tokenizer.encode(…, special=True)`. Raises `TemplateError`.

        `continue_final` leaves the final message open, so that the model goes on with its last word; the text that is
        continued is its content, or its `reasoning_content` if it has no content yet.
        """
        if continue_final and add_generation_prompt:
            raise TemplateError("a message cannot be continued and followed by a new one")
        guarded = [self._message(message) for message in messages]
        if continue_final:
            guarded[-1:] = [_open_ended(guarded[-1])] if guarded else []
        given = {
            **{name: self._guarded(value, ()) for name, value in variables.items()},
            **self._tokens,
            "messages": guarded,
            "tools": self._guarded(tools, ()),
            "add_generation_prompt": add_generation_prompt,
        }
        text = self._rendered(given)
        if not continue_final:
            return text
        before, cut, _ = text.rpartition(_CUT)
        if not cut:
            raise TemplateError("the template does not show the final message, so it cannot be continued")
        return before.replace(_CUT, "")

    def _rendered(self, given: Mapping[str, Any]) -> str:
        try:
            return self._template.render(given)
        except TemplateError:
            raise
        except (
            jinja2.TemplateError,
            TypeError,
            ValueError,
            ArithmeticError,
            LookupError,
            AttributeError,
            RecursionError,
            AssertionError,
            MemoryError,
        ) as exc:  # what expressions over unexpected messages can raise
            raise TemplateError(str(exc) or type(exc).__name__) from exc

    def _message(self, message: Mapping[str, Any]) -> dict[str, Any]:
        spare = REASONING_TAGS if message.get("role") == "assistant" else ()
        made = self._guarded(message, spare)
        assert isinstance(made, dict)
        if isinstance(made.get("content"), list):
            made["content"] = _joined(made["content"])
        return made

    def _guarded(self, value: Any, spare: Sequence[str]) -> Any:
        if isinstance(value, str):
            return self._tokenizer.guarded(value.replace(_CUT, ""), spare=spare)
        if isinstance(value, Mapping):
            return {self._guarded(key, spare): self._guarded(one, spare) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [self._guarded(one, spare) for one in value]
        return value


def _joined(parts: Sequence[Any]) -> str:
    """The text of a message that is given in parts."""
    texts = [part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise TemplateError("a message has a part that is not text")
    return "\n".join(map(str, texts))


def _open_ended(message: dict[str, Any]) -> dict[str, Any]:
    """The message with the place marked where the model goes on."""
    for key in ("content", "reasoning_content"):
        if isinstance(message.get(key), str) and message[key]:
            return {**message, key: message[key] + _CUT}
    return {**message, "content": _CUT}


class _Sandbox(ImmutableSandboxedEnvironment):
    """Also refuses to make texts and numbers of any size, which would end the process."""

    intercepted_binops = frozenset(["*", "**"])

    def call_binop(self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**":
            raise SecurityError("powers are not for chat templates")
        for many, one in ((left, right), (right, left)):
            if isinstance(one, str | list | tuple) and isinstance(many, int) and many * len(one) > _MOST_CHARACTERS:
                raise SecurityError("a chat template repeats a text too often")
        return super().call_binop(context, operator, left, right)


class _Generation(Extension):
    """`{% generation %}…{% endgeneration %}` marks what is trained on; for a prompt it means nothing."""

    tags = {"generation"}  # noqa: RUF012 - as its base class has it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment(now: Callable[[], datetime]) -> ImmutableSandboxedEnvironment:
    """As transformers sets it up, which templates are written for."""
    environment = _Sandbox(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation], autoescape=False
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda pattern: now().strftime(pattern)
    return environment


def _raise_exception(message: object) -> NoReturn:
    raise TemplateError(str(message))


def _to_json(value: Any, indent: int | None = None, *, ensure_ascii: bool = False, **options: Any) -> str:
    """Unlike Jinja's own: no HTML escapes, other scripts as they are."""
    return json.dumps(value, indent=indent, ensure_ascii=ensure_ascii, **options)


def read(folder: Path, about: Mapping[str, Any], tokenizer: Tokenizer) -> ChatTemplate | None:
    """The template of a folder: `chat_template.jinja`, or the key of `tokenizer_config.json`; None if there is none."""
    from predawn.kernels.engine.tokens import token_text

    path = folder / "chat_template.jinja"
    found: Any = about.get("chat_template")
    if path.exists():
        try:
            found = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as exc:
            raise CheckpointError(path, f"is not UTF-8 ({exc})", fix="fetch it again") from None
    else:
        path = folder / "tokenizer_config.json"
    if isinstance(found, list):  # several, by name
        named = {one.get("name"): one.get("template") for one in found if isinstance(one, dict)}
        found = named.get("default")
    if found is None:
        return None
    if not isinstance(found, str):
        raise CheckpointError(path, "is not text", tensor="chat_template", fix="fetch it again")
    bos, eos = (token_text(about.get(name)) for name in ("bos_token", "eos_token"))
    return ChatTemplate(found, tokenizer, file=path, bos_token=bos, eos_token=eos)
