"""Recorded problems: one JSON object a line, each with the answers that were once drawn to it (docs/simulate.md)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from predawn.plugins.sampling.answers import Reader, reader
from predawn.plugins.sampling.answers.units import resolved
from predawn.plugins.sampling.strategies.protocol import Sample
from predawn.proxy.exchange import Verdict
from predawn.proxy.extensions import Extracted

LONGEST_LINE = 64 << 20


class RecordingError(Exception):
    """A file that cannot be read; the message names the line and what is wrong with it."""


class Branch(msgspec.Struct, frozen=True):
    """One recorded answer."""

    tokens: int
    answer: str | None = None
    text: str | None = None
    correct: bool | None = None
    finish_reason: str = "stop"
    mean_logprob: float | None = None
    worst_logprob: float | None = None
    seconds: float | None = None
    first_token_s: float | None = None
    verdicts: tuple[Literal["pass", "violation", "unsure"], ...] = ()


class Line(msgspec.Struct, frozen=True):
    """One problem as it stands in the file."""

    branches: tuple[Branch, ...]
    id: str | int | None = None
    question: str = ""
    answer: str | None = None
    prompt_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Drawn:
    """A recorded answer, read: what a strategy gets to see of it, how long it took, whether it is right."""

    sample: Sample
    seconds: float
    first_token_s: float
    correct: bool


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem and the answers to draw from."""

    name: str
    prompt_tokens: int
    drawn: tuple[Drawn, ...]


def problems(
    path: Path, *, answer: str = "auto", token_s: float = 0.02, progress: Callable[[int], None] | None = None
) -> Iterator[Problem]:
    """The problems of a file, one by one; `progress` is told how many bytes have been read. Raises `RecordingError`."""
    decoder = msgspec.json.Decoder(Line)
    try:
        with path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), 1):
                if progress is not None:
                    progress(len(line))
                if line.strip():
                    yield read_problem(_decoded(decoder, line, path, number), f"{path}:{number}", answer, token_s)
    except OSError as exc:
        raise RecordingError(f"{path} cannot be read: {exc.strerror}") from exc


def _decoded(decoder: msgspec.json.Decoder[Line], line: bytes, path: Path, number: int) -> Line:
    try:
        decoded = decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise RecordingError(f"{path}, line {number}: {exc}") from exc
    if not decoded.branches:
        raise RecordingError(f"{path}, line {number}: no branches")
    if any(branch.tokens < 0 or (branch.seconds or 0) < 0 for branch in decoded.branches):
        raise RecordingError(f"{path}, line {number}: tokens and seconds cannot be negative")
    return decoded


def read_problem(line: Line, place: str, answer: str = "auto", token_s: float = 0.02) -> Problem:
    """A problem whose answers have been read. Raises `RecordingError` naming the place."""
    request = {"messages": [{"role": "user", "content": line.question}]}
    try:
        read = reader(request, answer)
    except KeyError as exc:
        raise RecordingError(f"there is no extractor {answer!r}") from exc
    wanted = _said(read, None, line.answer)
    if wanted is None and any(branch.correct is None for branch in line.branches):
        raise RecordingError(f"{place}: neither an `answer` to compare with nor `correct` in each branch")
    drawn = tuple(_drawn(branch, read, wanted, token_s) for branch in line.branches)
    return Problem(str(line.id) if line.id is not None else place, line.prompt_tokens, drawn)


def _drawn(branch: Branch, read: Reader, wanted: Extracted | None, token_s: float) -> Drawn:
    said = _said(read, branch.text, branch.answer)
    seconds = branch.seconds if branch.seconds is not None else branch.tokens * token_s
    begins = branch.first_token_s if branch.first_token_s is not None else min(token_s, seconds)
    sample = Sample(
        index=0,
        text=branch.text if branch.text is not None else branch.answer or "",
        extracted=said if branch.finish_reason in {"stop", "tool_calls", "function_call"} else None,
        tokens=branch.tokens,
        mean_logprob=branch.mean_logprob,
        worst_logprob=branch.worst_logprob,
        verdicts=tuple(Verdict(outcome) for outcome in branch.verdicts),
        finish_reason=branch.finish_reason,
        finished=True,
    )
    is_right = wanted is not None and said is not None and _equal(said.key, wanted.key)
    return Drawn(sample, seconds, begins, is_right if branch.correct is None else branch.correct)


def _said(read: Reader, text: str | None, answer: str | None) -> Extracted | None:
    """What a branch answers: `answer` as it stands where there is one, else what its text says."""
    if answer is None:
        return None if text is None else read(text, ())
    found = read(answer, ())
    return found if found is not None else _verbatim(answer)


def _verbatim(answer: str) -> Extracted | None:
    words = " ".join(answer.split())
    return Extracted(("verbatim", words.casefold()), words[:80]) if words else None


def _equal(left: Hashable, right: Hashable) -> bool:
    first, second = resolved([left, right])
    return first == second
