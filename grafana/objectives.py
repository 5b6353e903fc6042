"""What is promised, and how fast an error budget may burn (Google's SRE workbook, chapter 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from grafana.promql import Reader, share

Severity: TypeAlias = Literal["page", "ticket"]


@dataclass(frozen=True, slots=True)
class Objective:
    """A share of requests that shall be good."""

    name: str
    title: str
    meaning: str
    target: float
    metric: str
    """A counter or a histogram; how many requests it counts is the whole."""
    bad: tuple[str, ...] = ()
    """Matchers of the bad ones, for a counter."""
    within: str = ""
    """Bucket of the good ones, for a histogram."""

    @property
    def allowed(self) -> float:
        """Share of requests that may be bad."""
        return round(1 - self.target, 9)

    def missed(self, reader: Reader, *by: str) -> str:
        """The share of bad ones; nothing where nobody asked."""
        if not self.within:
            return share(reader.rate(self.metric, *self.bad, by=by), reader.rate(self.metric, by=by))
        good = reader.rate(self.metric, f'le="{self.within}"', by=by, part="bucket")
        return f"1 - {share(good, reader.rate(self.metric, by=by, part='count'))}"


AVAILABILITY: Final = Objective(
    name="availability",
    title="Answered",
    meaning="Share of requests that were not answered with a 5xx",
    target=0.999,
    metric="requests_total",
    bad=('code=~"5.."',),
)
FIRST_TOKEN: Final = Objective(
    name="first_token",
    title="First token in 2.56 s",
    meaning="Share of streams whose first token came within 2.56 s",
    target=0.99,
    metric="time_to_first_token_seconds",
    within="2.56",
)
OBJECTIVES: Final = (AVAILABILITY, FIRST_TOKEN)


@dataclass(frozen=True, slots=True)
class Burn:
    """An alert: a budget burns so many times too fast, over a long window and still over a short one."""

    factor: float
    long: str
    short: str
    wait: str
    severity: Severity
    until_empty: str


BURNS: Final = (
    Burn(14.4, "1h", "5m", "2m", "page", "two days"),
    Burn(6, "6h", "30m", "15m", "page", "five days"),
    Burn(3, "1d", "2h", "1h", "ticket", "ten days"),
    Burn(1, "3d", "6h", "3h", "ticket", "thirty days"),
)
WINDOWS: Final = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
