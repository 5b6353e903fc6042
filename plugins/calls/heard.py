"""What has come of one answer so far: texts, tool calls, log-probabilities and usage, chunk by chunk. Sans-io."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from predawn.proxy.wire.fold import merge
from predawn.proxy.wire.openai import Usage
from predawn.proxy.wire.text import Lane, texts

if TYPE_CHECKING:
    from predawn.plugins import Chunk
    from predawn.plugins.calls.plain import Said
    from predawn.proxy.exchange import RouteName

TEXT_KINDS = frozenset({"content", "text", "output_text"})
REASONING_KINDS = frozenset({"reasoning_content", "reasoning", "thinking", "reasoning_text", "reasoning_summary_text"})
THOUGHTS = frozenset({"reasoning_content", "reasoning"})
CHARACTERS_PER_TOKEN = 4
"""Where a whole answer comes without its usage."""


class TokenLogprob(NamedTuple):
    """A token of an answer, how likely it was, and what else it might have been."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()
    """The likeliest tokens at its place, as far as the upstream tells, itself included."""


class Pieces:
    """A growing text: adding is cheap, and so is reading what did not grow."""

    __slots__ = ("_joined", "_new", "add")

    def __init__(self) -> None:
        self._joined = ""
        self._new: list[str] = []
        self.add = self._new.append
        """Adds to it."""

    @property
    def text(self) -> str:
        if self._new:
            self._joined += "".join(self._new)
            self._new.clear()
        return self._joined


class HeardChoice:
    """One choice of an answer."""

    __slots__ = (
        "_calls",
        "_logprobs",
        "_reasoning",
        "_refusal",
        "_text",
        "_unread",
        "finish_reason",
        "index",
        "tokens",
    )

    def __init__(self, index: int = 0) -> None:
        self.index = index
        self.finish_reason: str | None = None
        self.tokens = 0
        """Output tokens: as many as log-probabilities came, else as many as chunks brought something."""
        self._text = Pieces()
        self._reasoning = Pieces()
        self._refusal = Pieces()
        self._calls: dict[str, Any] = {}
        self._unread: list[Any] = []
        self._logprobs: list[TokenLogprob] = []

    @property
    def text(self) -> str:
        return self._text.text

    @property
    def reasoning(self) -> str:
        return self._reasoning.text

    @property
    def refusal(self) -> str:
        return self._refusal.text

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        """As in a message: `id`, `type`, and `function` with `name` and `arguments`; these may still grow."""
        calls = [call for call in self._calls.get("tool_calls") or () if isinstance(call, dict)]
        return [{key: value for key, value in call.items() if key != "index"} for call in calls]

    @property
    def logprobs(self) -> list[TokenLogprob] | None:
        """The tokens of thought and text in order, or `None` if the upstream told nothing of them."""
        if self._unread:
            for told in self._unread:
                self._logprobs += _logprobs(told)
            self._unread.clear()
        return self._logprobs or None

    def saw(self, choice: dict[str, Any]) -> None:
        """Take in one entry of `choices`."""
        delta = choice.get("delta")
        brought = 0
        if isinstance(delta, dict):
            said = delta.get("content")
            thought = delta.get("reasoning_content") or delta.get("reasoning")
            if said:
                brought = 1
                if isinstance(said, str):
                    self._text.add(said)
                else:
                    self._saw_parts(choice)
            if thought and isinstance(thought, str):
                brought = 1
                self._reasoning.add(thought)
            if len(delta) > 1 or not (said or thought):
                brought = self._saw_more(delta) or brought
        elif isinstance(said := choice.get("text"), str) and said:
            brought = 1
            self._text.add(said)
        told = choice.get("logprobs")
        if isinstance(told, dict):
            self._unread.append(told)
            brought = _count(told) or brought
        self.tokens += brought
        reason = choice.get("finish_reason")
        if reason is not None:
            self.finish_reason = str(reason)

    def add(self, member: str, text: str) -> None:
        """More text, which is not counted by this."""
        (self._reasoning if member in THOUGHTS else self._text).add(text)

    def _saw_more(self, delta: dict[str, Any]) -> int:
        if isinstance(refusal := delta.get("refusal"), str) and refusal:
            self._refusal.add(refusal)
            return 1
        if isinstance(calls := delta.get("tool_calls"), list) and calls:
            merge(self._calls, {"tool_calls": calls})
            return 1
        return 0

    def _saw_parts(self, choice: dict[str, Any]) -> None:
        """Content in parts, as some providers send it."""
        for span in texts({"choices": [{**choice, "logprobs": None}]}, "chat"):
            if span.lane.kind == "content":
                self._text.add(span.text)
            elif span.lane.kind == "thinking":
                self._reasoning.add(span.text)


class Heard:
    """What has come of one answer so far; give it each chunk by `saw`. `choices` are by index; texts are choice 0's."""

    __slots__ = ("_first", "_lanes", "_route", "choices", "chunks", "error", "is_whole", "usage")

    def __init__(self, route: RouteName = "chat") -> None:
        self._route: RouteName = route
        self._first = HeardChoice()
        self._lanes: dict[Lane, Pieces] | None = None if route in ("chat", "completions") else {}
        self.choices: dict[int, HeardChoice] = {0: self._first}
        self.chunks = 0
        """How many chunks brought something, whatever it was."""
        self.usage: Usage | None = None
        """As the upstream told it, which is at the end."""
        self.error = ""
        """What an error inside the stream says."""
        self.is_whole = False
        """True once the answer's end mark was there."""

    def saw(self, chunk: Chunk) -> None:
        """Take in one chunk; anything may be in it."""
        if chunk.is_last:
            self.is_whole = True
        data = chunk.data
        if data is None:
            return
        self.chunks += 1
        if self._lanes is not None:
            self._saw_event(data, self._lanes)
        else:
            choices = data.get("choices")
            if isinstance(choices, list):
                for position, choice in enumerate(choices):
                    if isinstance(choice, dict):
                        self._choice(choice.get("index", position)).saw(choice)
        if "usage" in data:
            self._count(data["usage"])
        if "error" in data and data["error"] is not None:
            error = data["error"]
            self.error = str(error.get("message") if isinstance(error, dict) else error)[:500] or "an error"

    def saw_plainly(self, said: Said) -> None:
        """Take in a chunk of chat or completions that says no more than this."""
        self.chunks += 1
        choice = self._first if said.choice == 0 else self._choice(said.choice)
        choice.tokens += 1
        choice.add(said.member, said.text)

    def saw_run(self, first: Said, texts: list[str]) -> None:
        """The same of chunks that add these to one text, which is that of the first."""
        self.chunks += len(texts)
        choice = self._first if first.choice == 0 else self._choice(first.choice)
        choice.tokens += len(texts)
        choice.add(first.member, "".join(texts))

    def _choice(self, index: Any) -> HeardChoice:
        if index == 0 or not isinstance(index, int) or isinstance(index, bool):
            return self._first
        found = self.choices.get(index)
        if found is None:
            found = self.choices[index] = HeardChoice(index)
        return found

    def _count(self, usage: Any) -> None:
        if isinstance(usage, dict):
            try:
                told = msgspec.convert(usage, Usage, strict=False)
            except msgspec.ValidationError:
                return
            if self.usage is not None and told.prompt == 0 and self._route == "messages":
                told = msgspec.structs.replace(self.usage, output_tokens=told.output_tokens)
            self.usage = told

    def _saw_event(self, data: dict[str, Any], lanes: dict[Lane, Pieces]) -> None:
        """A named event of `/v1/responses` or `/v1/messages`, or a whole body of theirs."""
        first = self._first
        if data.get("type") == "error" and "error" not in data:  # of `/v1/responses`
            self.error = str(data.get("message"))[:500] or "an error"
        for span in texts(data, self._route):
            pieces = lanes.get(span.lane)
            if pieces is None or span.whole:
                pieces = lanes[span.lane] = Pieces()
            pieces.add(span.text)
            if not span.whole:
                first.tokens += 1
        for holder in (data, data.get("delta"), data.get("message"), data.get("response")):
            if isinstance(holder, dict):
                if isinstance(reason := holder.get("stop_reason"), str):
                    first.finish_reason = reason
                if holder is not data:
                    self._count(holder.get("usage"))

    @property
    def text(self) -> str:
        return self._first.text if self._lanes is None else self._joined(TEXT_KINDS)

    @property
    def reasoning(self) -> str:
        return self._first.reasoning if self._lanes is None else self._joined(REASONING_KINDS)

    @property
    def refusal(self) -> str:
        return self._first.refusal if self._lanes is None else self._joined(frozenset({"refusal"}))

    def _joined(self, kinds: frozenset[str]) -> str:
        return "".join(pieces.text for lane, pieces in (self._lanes or {}).items() if lane.kind in kinds)

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        """Of chat; the other dialects' are not put together here."""
        return self._first.tool_calls

    @property
    def logprobs(self) -> list[TokenLogprob] | None:
        return self._first.logprobs

    @property
    def finish_reason(self) -> str | None:
        return self._first.finish_reason

    @property
    def is_finished(self) -> bool:
        """True once every choice has said why it ended."""
        return all(choice.finish_reason is not None for choice in self.choices.values())

    @property
    def output_tokens(self) -> int:
        """From the usage where it tells, else counted: never fewer than were seen to come of an unfinished answer."""
        counted = self.counted_tokens
        if self.usage is None:
            return counted
        return self.usage.output if self.is_whole else max(self.usage.output, counted)

    @property
    def counted_tokens(self) -> int:
        """Output tokens of all choices as they were seen to come."""
        counted = sum(choice.tokens for choice in self.choices.values())
        if self.chunks <= 1 and self.is_whole:  # a whole body is one chunk
            letters = sum(len(one.text) + len(one.reasoning) for one in self.choices.values())
            letters += 0 if self._lanes is None else len(self.text) + len(self.reasoning)
            return max(counted, letters // CHARACTERS_PER_TOKEN)
        return counted

    def __repr__(self) -> str:
        return f"<Heard {self.chunks} chunks, {self.output_tokens} tokens{', whole' if self.is_whole else ''}>"


def _count(told: Mapping[str, Any]) -> int:
    for name in ("content", "tokens"):
        if isinstance(items := told.get(name), list):
            thoughts = told.get("reasoning_content")
            return len(items) + len(thoughts) if isinstance(thoughts, list) else len(items)
    return 0


def _logprobs(told: Mapping[str, Any]) -> list[TokenLogprob]:
    """The tokens of one `logprobs` member, chat's or completions'; what makes no sense is left out.

    Thoughts are among `content` with vLLM, and beside it, before it, with our own engine.
    """
    content = told.get("content")
    if isinstance(content, list):
        if isinstance(thoughts := told.get("reasoning_content"), list):
            content = [*thoughts, *content]
        return [made for item in content if (made := _chat_token(item)) is not None]
    tokens, values, tops = told.get("tokens"), told.get("token_logprobs"), told.get("top_logprobs")
    if not isinstance(tokens, list) or not isinstance(values, list):
        return []
    tops = tops if isinstance(tops, list) else []
    found: list[TokenLogprob] = []
    for at, (token, value) in enumerate(zip(tokens, values, strict=False)):
        if isinstance(token, str) and _is_number(value):
            top = tops[at] if at < len(tops) and isinstance(tops[at], dict) else {}
            pairs = tuple((name, float(one)) for name, one in top.items() if _is_number(one))
            found.append(TokenLogprob(token, float(value), pairs))
    return found


def _chat_token(item: Any) -> TokenLogprob | None:
    if not isinstance(item, dict) or not _is_number(item.get("logprob")):
        return None
    listed = item.get("top_logprobs")
    pairs = [
        (str(one.get("token", "")), float(one["logprob"]))
        for one in (listed if isinstance(listed, list) else ())
        if isinstance(one, dict) and _is_number(one.get("logprob"))
    ]
    return TokenLogprob(str(item.get("token", "")), float(item["logprob"]), tuple(pairs))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
