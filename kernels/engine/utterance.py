"""One choice of an answer while it is spoken: tokens in, pieces of text out."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from predawn.kernels.engine.channels import Channel, Channels, Segment
from predawn.kernels.engine.marks import MarkSearch
from predawn.kernels.engine.protocol import Finish, Piece, TokenScore


class SpokenToken(Protocol):
    """What the engine tells of a token."""

    @property
    def token_id(self) -> int: ...
    @property
    def logprob(self) -> float | None: ...
    @property
    def top(self) -> Sequence[tuple[int, float]]: ...
    @property
    def finish(self) -> Finish | None: ...


class Detokenizer(Protocol):
    """Text of tokens as they come; never half a character. It shows `<think>` and `</think>`."""

    def push(self, token_id: int, /) -> str: ...
    def rest(self) -> str: ...


class Vocabulary(Protocol):
    """What tokens stand for."""

    def token_bytes(self, token_id: int, /) -> bytes: ...


class Utterance:
    """Turns the tokens of one choice into pieces, and ends it at a stop string.

    Text goes out as soon as it can neither be the beginning of a stop string nor of a tag, nor half a character.
    """

    def __init__(
        self,
        place: tuple[int, int],
        detokenizer: Detokenizer,
        vocabulary: Vocabulary,
        channels: Channels,
        *,
        stops: Sequence[str] = (),
        scored: bool = False,
    ) -> None:
        self._id, self._index = place
        self._detokenizer = detokenizer
        self._vocabulary = vocabulary
        self._channels = channels
        self._stops = MarkSearch(stops)
        self._scored = scored
        self._scores: deque[TokenScore] = deque()
        self._heard = 0
        self._released = 0
        self.is_over = False
        self.output_tokens = 0
        self.reasoning_tokens = 0

    def hear(self, token: SpokenToken) -> Piece | None:
        """What can be said now that `token` has come; the last piece has `finish`."""
        assert not self.is_over
        thought = self._channels.is_reasoning
        self.output_tokens += 1
        text = "" if token.finish == "stop" else self._text(token)
        said, stop = self._stops.feed(text)
        if token.finish is not None and stop is None:
            said, stop = self._last(said)
        finish = token.finish if stop is None else "stop"
        segments = self._channels.feed(said)
        if finish is not None:
            segments += self._channels.end()
            self.is_over = True
        self.reasoning_tokens += thought or self._channels.is_reasoning
        return self._piece(segments, finish, cut=stop is not None)

    def _text(self, token: SpokenToken) -> str:
        text = self._detokenizer.push(token.token_id)
        if self._scored and token.logprob is not None:
            self._scores.append(self._score(token, token.logprob))
        self._heard += len(text)
        return text

    def _last(self, said: str) -> tuple[str, str | None]:
        """What was held back comes with the last token; even there a stop string may be complete."""
        more, stop = self._stops.feed(self._detokenizer.rest())
        return said + more + ("" if stop else self._stops.rest()), stop

    def _piece(self, segments: Sequence[Segment], finish: Finish | None, *, cut: bool) -> Piece | None:
        texts: dict[Channel, str] = {"content": "", "reasoning": ""}
        scores: dict[Channel, list[TokenScore]] = {"content": [], "reasoning": []}
        for segment in segments:
            self._released += segment.size
            released = self._scores_before(self._released)
            if segment.channel is not None:
                texts[segment.channel] += segment.text
                scores[segment.channel] += released
        if finish is not None and not cut:
            scores[self._channels.channel] += self._scores
        if finish is None and not any(texts.values()):
            return None
        return Piece(
            self._id,
            self._index,
            texts["content"],
            texts["reasoning"],
            finish,
            scores["content"] if self._scored else None,
            scores["reasoning"] if self._scored else None,
        )

    def _scores_before(self, end: int) -> list[TokenScore]:
        found: list[TokenScore] = []
        while self._scores and self._scores[0].offset < end:
            found.append(self._scores.popleft())
        return found

    def _score(self, token: SpokenToken, logprob: float) -> TokenScore:
        text, raw = self._named(token.token_id)
        top = [(*self._named(other), value) for other, value in token.top]
        return TokenScore(text, raw, logprob, top, self._heard)

    def _named(self, token_id: int) -> tuple[str, bytes]:
        raw = self._vocabulary.token_bytes(token_id)
        try:
            return raw.decode(), raw
        except UnicodeDecodeError:  # part of a character; OpenAI writes it so
            return "bytes:" + "".join([f"\\x{byte:02x}" for byte in raw]), raw
