"""Units of values, by the names that Grafana has for them."""

from __future__ import annotations

from enum import StrEnum


class Unit(StrEnum):
    """What the numbers of a panel are."""

    SECONDS = "s"
    SHARE = "percentunit"
    COUNT = "short"
    BYTES = "bytes"
    REQUESTS_PER_S = "reqps"
    PER_S = "cps"
    TOKENS = "count:tok"
    TOKENS_PER_S = "count:tok/s"
    TIMES = "suffix:\u00d7"
    NONE = "none"
