"""Asks a Prometheus over its HTTP API what a panel would ask, with Grafana's variables filled in."""

from __future__ import annotations

import json
import math
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

USUAL_POINTS: Final = 200
"""About what Grafana asks for in a panel of a third of a screen."""


class AskingError(Exception):
    """Prometheus did not answer, or refused a query; the message has its words."""


@dataclass(frozen=True, slots=True)
class Span:
    """What the time picker says, in seconds since 1970, and how often targets are scraped."""

    start: float
    end: float
    scraped_every_s: float = 15.0

    @property
    def step(self) -> float:
        """Between two points."""
        return max(float(self.scraped_every_s), float(round((self.end - self.start) / USUAL_POINTS)))

    @property
    def rate_interval(self) -> float:
        """`$__rate_interval`: at least four scrapes, so that one that is missed makes no gap."""
        return max(self.step + self.scraped_every_s, 4 * self.scraped_every_s)


@dataclass(frozen=True, slots=True)
class Series:
    """One line: its labels, and points of time and value. A value may be not a number."""

    labels: Mapping[str, str]
    points: tuple[tuple[float, float], ...]

    @property
    def finite(self) -> tuple[tuple[float, float], ...]:
        return tuple(point for point in self.points if math.isfinite(point[1]))

    @property
    def last(self) -> float | None:
        """The latest value that is a number."""
        finite = self.finite
        return finite[-1][1] if finite else None


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A running Prometheus. `chosen` are values of a dashboard's variables; one that is absent is All."""

    url: str
    chosen: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 30.0

    def filled(self, expr: str, span: Span) -> str:
        """The query as Grafana sends it."""
        built_in = {"__rate_interval": f"{span.rate_interval:g}s", "__range": f"{span.end - span.start:.0f}s"}
        for name, value in built_in.items():
            expr = expr.replace(f"${name}", value)
        parts = expr.split("$")
        return parts[0] + "".join(self._value(part) for part in parts[1:])

    def _value(self, part: str) -> str:
        name = next((part[:end] for end, sign in enumerate(part) if not (sign.isalnum() or sign == "_")), part)
        return self.chosen.get(name, ".*") + part[len(name) :]

    def over(self, expr: str, span: Span) -> list[Series]:
        """The lines of a query over a span."""
        asked = {"query": self.filled(expr, span), "start": span.start, "end": span.end, "step": span.step}
        return list(_series(self.get("query_range", asked), "values"))

    def at(self, expr: str, span: Span) -> list[Series]:
        """The values of a query at a span's end."""
        return list(_series(self.get("query", {"query": self.filled(expr, span), "time": span.end}), "value"))

    def get(self, path: str, asked: Mapping[str, Any]) -> Any:
        """`data` of an answer of the API."""
        if not self.url.startswith(("http://", "https://")):
            raise AskingError(f"{self.url!r} is no address of a Prometheus")
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(asked)}"
        try:
            with urllib.request.urlopen(url, timeout=self.timeout_s) as answer:  # noqa: S310 - the scheme is checked
                told = json.load(answer)
        except urllib.error.HTTPError as exc:
            raise AskingError(f"{exc.code}: {exc.read().decode(errors='replace')}") from None
        except (OSError, ValueError) as exc:
            raise AskingError(f"{self.url} did not answer: {exc}") from None
        return told["data"]


def _series(data: Mapping[str, Any], member: str) -> Iterator[Series]:
    for one in data["result"]:
        points = [one[member]] if member == "value" else one[member]
        labels = {name: value for name, value in one["metric"].items() if name != "__name__"}
        yield Series(labels, tuple((float(time), float(value)) for time, value in points))
