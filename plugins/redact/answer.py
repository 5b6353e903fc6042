"""The chunk filter: one masker per lane of an answer, and what was held back leaves before its lane ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from predawn.plugins.redact.json_masker import JsonMasker
from predawn.plugins.redact.logprobs import TokenQueue, like
from predawn.plugins.redact.masker import Masker, Segment
from predawn.plugins.redact.rules import Rule
from predawn.proxy.exchange import Chunk, Decision, Exchange, RouteName
from predawn.proxy.wire.text import Form, Lane, Path, TextSpan, continuation, ended, get, put, texts

_decode = msgspec.json.Decoder().decode


class Masking:
    """The rules in force, put to work on one request or one answer; what they masked is noted as a decision."""

    __slots__ = ("_counts", "_exchange", "_rules", "_what", "_window")

    def __init__(self, rules: Sequence[Rule], window: int, exchange: Exchange, what: str) -> None:
        self._rules = rules
        self._window = window
        self._exchange = exchange
        self._what = what
        self._counts: Counter[str] = Counter()

    def masker(self, form: Form) -> Masker | JsonMasker:
        return (Masker if form == "text" else JsonMasker)(self._rules, self._window)

    def shown(self, segments: list[Segment]) -> str:
        """What may be seen of settled segments."""
        for segment in segments:
            if segment.rule is not None:
                if not self._counts:
                    self._exchange.decisions.append(Decision("redact", self._what, self._counts))
                self._counts[segment.rule] += 1
        return "".join(segment.shown for segment in segments)

    def whole(self, span: TextSpan) -> Any:
        """What belongs where a whole span stands, or `None` where nothing is masked."""
        shown = self.shown(self.masker(span.form).finish(span.text))
        if shown == span.text:
            return None
        return _decode(shown) if span.form == "object" else shown


class LaneMasker:
    """One lane on its way: its masker, its tokens, and the chunk that it was last seen in."""

    __slots__ = ("_masker", "_masking", "_tokens", "chunk", "span")

    def __init__(self, masking: Masking, span: TextSpan, chunk: Chunk) -> None:
        self._masking = masking
        self._masker = masking.masker(span.form)
        self._tokens: TokenQueue | None = None
        self.span = span
        self.chunk = chunk

    def feed(self, text: str, logprobs: Any, *, final: bool) -> tuple[str, list[dict[str, Any]]]:
        """Take the next piece; returns the text and the token entries that may leave."""
        if logprobs is not None:
            self._tokens = self._tokens or TokenQueue()
        if self._tokens is not None:
            self._tokens.feed(text, logprobs)
        segments = self._masker.finish(text) if final else self._masker.feed(text)
        released = self._tokens.settle(segments, final=final) if self._tokens is not None else []
        return self._masking.shown(segments), released


class AnswerFilter:
    """Masks the text of one answer; a `ChunkFilter`.

    Chunks without text, and those in which nothing changes, pass untouched.
    """

    def __init__(self, masking: Masking, route: RouteName) -> None:
        self._masking = masking
        self._route: RouteName = route
        self._lanes: dict[Lane, LaneMasker] = {}
        self._added = 0
        """Chunks put in so far; the numbers of later events of a response move up by as many."""

    def __call__(self, chunk: Chunk) -> Chunk | list[Chunk]:
        data = chunk.data
        ends: list[tuple[int | str, ...]] = ended(data, self._route) if data is not None else []
        if chunk.is_last:
            ends = [()]
        if data is None:
            return [*self._rest(ends, chunk), chunk] if ends else chunk
        spans = texts(data, self._route)
        changed = self._without_token_ids(data, spans)
        last_spans = {span.lane: span.path for span in spans if not span.whole}
        for span in spans:
            if span.whole:
                changed = self._mask_whole(changed, span)
            else:
                final = _closes(ends, span.lane) and last_spans[span.lane] == span.path
                changed = self._mask_piece(changed, span, chunk, final=final)
        extra = self._rest(ends, chunk)
        changed = self._renumbered(changed)
        masked = chunk if changed is data else chunk.with_data(changed)
        return [*extra, masked] if extra else masked

    def _mask_whole(self, data: dict[str, Any], span: TextSpan) -> dict[str, Any]:
        if span.logprobs is None:
            return self._put(data, span, self._masking.whole(span))
        lane = LaneMasker(self._masking, span, Chunk(None))
        return self._put_piece(data, span, *lane.feed(span.text, get(data, span.logprobs), final=True))

    def _mask_piece(self, data: dict[str, Any], span: TextSpan, chunk: Chunk, *, final: bool) -> dict[str, Any]:
        lane = self._lanes.get(span.lane)
        if lane is None:
            lane = self._lanes[span.lane] = LaneMasker(self._masking, span, chunk)
        lane.span, lane.chunk = span, chunk
        logprobs = get(data, span.logprobs) if span.logprobs is not None else None
        shown, released = lane.feed(span.text, logprobs, final=final)
        if final:
            del self._lanes[span.lane]
        return self._put_piece(data, span, shown, released)

    def _put_piece(
        self, data: dict[str, Any], span: TextSpan, shown: str, released: list[dict[str, Any]]
    ) -> dict[str, Any]:
        data = self._put(data, span, shown)
        if span.logprobs is None:
            return data
        standing = get(data, span.logprobs)
        allowed = like(standing, released)
        if allowed == standing:
            return data
        changed: dict[str, Any] = put(data, span.logprobs, allowed)
        return changed

    @staticmethod
    def _put(data: dict[str, Any], span: TextSpan, value: Any) -> dict[str, Any]:
        if value is None or value == span.text:
            return data
        changed: dict[str, Any] = put(data, span.path, value)
        return changed

    def _rest(self, ends: list[tuple[int | str, ...]], chunk: Chunk) -> list[Chunk]:
        """Chunks with what lanes that end here still hold back."""
        chunks: list[Chunk] = []
        for name in [name for name in self._lanes if _closes(ends, name)]:
            lane = self._lanes.pop(name)
            shown, released = lane.feed("", None, final=True)
            if not shown and not released:
                continue
            shape = get(lane.chunk.data, lane.span.logprobs) if lane.span.logprobs is not None else None
            more = continuation(lane.chunk.data or {}, lane.span, shown, like(shape, released) if released else None)
            if chunk.data is not None and "sequence_number" in more:
                more["sequence_number"] = chunk.data.get("sequence_number", 0)
            chunks.append(Chunk.of(self._renumbered(more), event=lane.chunk.event))
            self._added += 1
        return chunks

    def _renumbered(self, data: dict[str, Any]) -> dict[str, Any]:
        number = data.get("sequence_number")
        if not self._added or self._route != "responses" or not isinstance(number, int):
            return data
        return {**data, "sequence_number": number + self._added}

    def _without_token_ids(self, data: dict[str, Any], spans: list[TextSpan]) -> dict[str, Any]:
        """Token ids and entries without a text beside them would spell what is masked."""
        choices = data.get("choices")
        if self._route not in ("chat", "completions") or not isinstance(choices, list):
            return data
        claimed = {span.logprobs[1] for span in spans if span.logprobs is not None}
        for at, choice in enumerate(choices):
            if not isinstance(choice, dict):
                continue
            paths: list[Path] = [("choices", at, "token_ids")]
            if at not in claimed:
                paths.append(("choices", at, "logprobs"))
            for path in paths:
                if get(data, path):
                    data = put(data, path, None)
        return data


def _closes(ends: list[tuple[int | str, ...]], lane: Lane) -> bool:
    return any(tuple(lane[: len(end)]) == end for end in ends)
