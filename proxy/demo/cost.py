"""What the questions took, in lines for a terminal: tokens and time by phase, and what the proxy added."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from predawn.proxy.demo.asking import Answered

HEADINGS = ("", "prompt", "thinking", "answer", "in all")
NOTHING = "-"
_SAMPLE = re.compile(r"^(\w+)(\{.*\})? ([-+.\deE]+|NaN)$")


def table_lines(answers: Sequence[Answered]) -> list[str]:
    """A row for each answer: tokens and time of its prompt, its thoughts and its answer, and the time of everything."""
    rows = [HEADINGS, *[tuple(_cells(answer)) for answer in answers]]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    return ["  " + "   ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]


def _cells(answer: Answered) -> Iterator[str]:
    first, content = answer.first_s, answer.content_s
    output = answer.output_tokens
    yield answer.title
    yield _phase(answer.prompt_tokens, first)
    thinks = answer.reasoning_tokens > 0 or (first is not None and content != first)
    ended = content if content is not None else answer.total_s
    yield _phase(answer.reasoning_tokens or None, ended - first) if thinks and first is not None else NOTHING
    said = None if output is None else output - answer.reasoning_tokens
    yield _phase(said, answer.total_s - content) if content is not None else NOTHING
    yield time_of(answer.total_s)


def _phase(tokens: int | None, seconds: float | None) -> str:
    counted = "? tokens" if tokens is None else "1 token" if tokens == 1 else f"{tokens} tokens"
    return f"{counted} {time_of(seconds):>7}" if seconds is not None else counted


def overhead_line(samples: Mapping[str, float], requests: int) -> str:
    """What the proxy itself added to each request, from the metric that measures it."""
    added = [value for name, value in samples.items() if name.startswith("predawn_overhead_seconds_sum")]
    each = f"{time_of(sum(added) / max(requests, 1))} a request" if added else "unknown"
    return f"  added by Predawn itself: {each}"


def samples_of(exposition: str) -> dict[str, float]:
    """The samples of a Prometheus text, by name and labels."""
    found = (_SAMPLE.match(line) for line in exposition.splitlines())
    return {match[1] + (match[2] or ""): float(match[3]) for match in found if match}


def time_of(seconds: float) -> str:
    """In milliseconds, or in seconds where these would be many."""
    if seconds >= 10:
        return f"{seconds:.1f} s"
    return f"{seconds * 1e3:.2f} ms" if seconds < 0.01 else f"{seconds * 1e3:.0f} ms"
