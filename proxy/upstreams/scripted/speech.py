"""What one request hears, before any API puts it into words: tokens, thoughts, tool calls and counts."""

from __future__ import annotations

import json
import random
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from predawn.proxy.upstreams.scripted.example import example

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from predawn.proxy.upstreams.scripted.script import Answer

VOCABULARY = "dawn light slow river stone field cloud tall grass quiet morning wind early bird warm bread".split()  # noqa: SIM905
CREATED = 1_700_000_000
"""A fixed `created`, so that equal requests have equal answers."""
_TOKEN = re.compile(r"\s*\S+|\s+")


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a stream, not yet encoded, and how many tokens it carries."""

    data: Mapping[str, Any]
    name: str | None = None
    tokens: int = 0


Events: TypeAlias = "Iterator[Event]"


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that a request offers."""

    name: str
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Ask:
    """What a request wants, whichever API it came by."""

    model: str
    texts: Sequence[str]
    """Every piece of text in the prompt."""
    n: int = 1
    stream: bool = False
    include_usage: bool = True
    limit: int | None = None
    stop: Sequence[str] = ()
    tools: Sequence[Tool] = ()
    parallel: bool = False
    schema: Mapping[str, Any] | None = None
    """A JSON schema the answer has to obey."""
    logprobs: int | None = None
    """`top_logprobs`, where log probabilities are wanted."""
    prompts: int = 1
    seed: int | None = None
    """The request's own seed, which makes another made-up text."""


@dataclass(frozen=True, slots=True)
class Call:
    id: str
    name: str
    pieces: tuple[str, ...]
    """The arguments' JSON text in the pieces of a stream."""

    @property
    def arguments(self) -> str:
        return "".join(self.pieces)


@dataclass(frozen=True, slots=True)
class Choice:
    tokens: tuple[str, ...]
    reasoning: tuple[str, ...]
    calls: tuple[Call, ...]
    finish: str
    """`stop`, `length`, `tool_calls`, or what the script says."""

    @property
    def text(self) -> str:
        return "".join(self.tokens)

    @property
    def size(self) -> int:
        return len(self.tokens) + len(self.reasoning) + sum(len(call.pieces) for call in self.calls)


@dataclass(frozen=True, slots=True)
class Speech:
    """All that is said to one request. A token is a word; each travels in an event of its own."""

    id: str
    """Twelve hexadecimal digits made of seed, model and prompt: equal requests hear equal speeches."""
    model: str
    choices: tuple[Choice, ...]
    prompt_tokens: int
    replaced_usage: Mapping[str, Any]

    @property
    def output_tokens(self) -> int:
        return sum(choice.size for choice in self.choices)

    @property
    def reasoning_tokens(self) -> int:
        return sum(len(choice.reasoning) for choice in self.choices)


def speak(ask: Ask, answer: Answer, *, seed: int) -> Speech:
    """Work out what `ask` hears: the same for equal seeds, models and prompts, streamed or not."""
    asked = "\0".join((ask.model, str(ask.seed), *ask.texts))
    mark = f"{zlib.crc32(asked.encode('utf-8', 'replace')):08x}{seed & 0xFFFF:04x}"
    count = ask.n * ask.prompts
    return Speech(
        id=mark,
        model=ask.model,
        choices=tuple(_choice(ask, answer, index, f"{mark}{index}") for index in range(count)),
        prompt_tokens=words_in(ask.texts),
        replaced_usage=answer.usage,
    )


def words_in(texts: Sequence[str]) -> int:
    return max(1, sum(len(text.split()) for text in texts))


def tokens_of(text: str) -> tuple[str, ...]:
    """One token per word, spaces in front; joined they are the text."""
    return tuple(_TOKEN.findall(text))


def _choice(ask: Ask, answer: Answer, index: int, mark: str) -> Choice:
    reasoning = tokens_of(answer.reasoning)
    calls = _calls(ask, answer, mark)
    tokens = () if calls and not _has_words(answer) else _tokens(ask, answer, index, mark)
    finish = "tool_calls" if calls else "stop"
    if ask.stop:
        tokens = _stopped(tokens, ask.stop)
    if ask.limit is not None and len(reasoning) + len(tokens) > ask.limit:
        tokens = tokens[: max(0, ask.limit - len(reasoning))]
        reasoning = reasoning[: ask.limit]
        finish = "length"
    return Choice(tokens, reasoning, calls, answer.finish_reason or finish)


def _has_words(answer: Answer) -> bool:
    return answer.text is not None or bool(answer.texts) or answer.pieces is not None


def _tokens(ask: Ask, answer: Answer, index: int, mark: str) -> tuple[str, ...]:
    if answer.pieces is not None:
        return answer.pieces
    if answer.texts:
        return tokens_of(answer.texts[index % len(answer.texts)])
    if answer.text is not None:
        return tokens_of(answer.text)
    if ask.schema is not None:
        return tokens_of(json.dumps(example(ask.schema)))
    words = random.Random(mark).choices(VOCABULARY, k=answer.chunks)  # noqa: S311 - made-up text, not a secret
    return tuple(word if place == 0 else " " + word for place, word in enumerate(words))


def _calls(ask: Ask, answer: Answer, mark: str) -> tuple[Call, ...]:
    if answer.tool_calls is not None:
        texts = [(call.name, call.arguments) for call in answer.tool_calls]
    elif ask.tools and not _has_words(answer):
        offered = ask.tools if ask.parallel else ask.tools[:1]
        texts = [(tool.name, example(tool.schema) or {}) for tool in offered]
    else:
        return ()
    return tuple(
        Call(f"call_{mark}_{place}", name, tokens_of(text if isinstance(text, str) else json.dumps(text)))
        for place, (name, text) in enumerate(texts)
    )


def _stopped(tokens: tuple[str, ...], stop: Sequence[str]) -> tuple[str, ...]:
    text = "".join(tokens)
    ends = [end for sequence in stop if sequence and (end := text.find(sequence)) >= 0]
    return tokens_of(text[: min(ends)]) if ends else tokens
