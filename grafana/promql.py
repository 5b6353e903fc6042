"""Queries, put together from metrics that exist and labels that they have."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from grafana.metrics import SCRAPED, named

VARIABLES: Final = ("job", "model", "upstream", "tenant_class")
"""Labels by which a dashboard can be narrowed down; a metric is filtered by those that it has."""
_MATCHER = re.compile(r'^(\w+)(=|!=|=~|!~)"[^"]*"$')


@dataclass(frozen=True, slots=True)
class Reader:
    """Writes queries over one window of time, narrowed down by `filters` (label → pattern)."""

    window: str = "$__rate_interval"
    filters: Mapping[str, str] = field(
        default_factory=lambda: MappingProxyType({name: f"${name}" for name in VARIABLES})
    )

    def pick(self, metric: str, *matchers: str, part: str = "") -> str:
        """A selector: `pick("requests_total", 'code=~"5.."')`; `part` is `bucket`, `sum` or `count` of a histogram."""
        found = named(metric)
        asked = {_label(matcher, metric): matcher for matcher in matchers}
        usual = {
            label: f'{label}=~"{pattern}"' for label, pattern in self.filters.items() if label in found.labels | SCRAPED
        }
        wanted = ",".join({**usual, **asked}.values())
        name = f"{found.name}_{part}" if part else found.name
        return f"{name}{{{wanted}}}" if wanted else name

    def rate(self, metric: str, *matchers: str, by: Iterable[str] = (), part: str = "") -> str:
        """How much a counter grew in a second, added up over all but `by`."""
        return _sum(f"rate({self.pick(metric, *matchers, part=part)}[{self.window}])", by)

    def increase(self, metric: str, *matchers: str, by: Iterable[str] = (), part: str = "") -> str:
        """How much a counter grew within the window."""
        return _sum(f"increase({self.pick(metric, *matchers, part=part)}[{self.window}])", by)

    def quantile(self, share: float, metric: str, *matchers: str, by: Iterable[str] = ()) -> str:
        """What so large a share of observations stayed below; not a number where there was none."""
        return f"histogram_quantile({share:g}, {self.rate(metric, *matchers, by=(*by, 'le'), part='bucket')})"

    def mean(self, metric: str, *matchers: str, by: Iterable[str] = ()) -> str:
        """The mean of a histogram's observations; nothing where there was none."""
        whole = self.rate(metric, *matchers, by=by, part="sum")
        return f"{whole} / ({self.rate(metric, *matchers, by=by, part='count')} > 0)"

    def buckets(self, metric: str, *matchers: str) -> str:
        """A histogram as a heatmap takes it."""
        return self.increase(metric, *matchers, by=("le",), part="bucket")


def total(selector: str, by: Iterable[str] = ()) -> str:
    """A gauge, added up over all but `by`."""
    return _sum(selector, by)


def share(part: str, whole: str) -> str:
    """`part / whole`; nothing where there is no whole."""
    return f"{part} / ({whole} > 0)"


def some(quantile: str) -> str:
    """A quantile without the values that are none."""
    return f"{quantile} >= 0"


def busy(query: str) -> str:
    """Only lines that are not 0, where so many are that a legend could not hold them."""
    return f"{query} > 0"


def or_zero(query: str, *labels: str) -> str:
    """0 where the query finds nothing, as on a fresh install; `labels` are then `none`."""
    return or_else(query, 0, **dict.fromkeys(labels, "none"))


def or_else(query: str, value: float, **labels: str) -> str:
    """A value where the query finds nothing, with these labels."""
    instead = f"vector({value:g})"
    for name, said in labels.items():
        instead = f'label_replace({instead}, "{name}", "{said}", "", "")'
    return f"({query}) or on() {instead}"


def _sum(query: str, by: Iterable[str]) -> str:
    labels = ", ".join(by)
    return f"sum by ({labels}) ({query})" if labels else f"sum({query})"


def _label(matcher: str, metric: str) -> str:
    found = _MATCHER.match(matcher)
    if found is None:
        raise ValueError(f'{matcher!r} is no matcher like code=~"5.."')
    label = found[1]
    if label not in named(metric).labels | SCRAPED | {"le"}:
        raise LookupError(f"{metric} has no label {label!r}")
    return label
