"""Numbers as Grafana writes them."""

from __future__ import annotations

from typing import Final

DASH: Final = "-"
_COUNTS: Final = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K"))
_TIMES: Final = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
_BYTES: Final = ((2.0**40, "TiB"), (2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B"))


def written(value: float | None, unit: str, decimals: int | None = None) -> str:
    """`0.0123` in `s` is `12.3 ms`."""
    if value is None or value != value:  # noqa: PLR0124 - not a number
        return DASH
    if unit == "percentunit":
        return f"{_digits(value * 100, decimals)}%"
    if unit == "s":
        return _scaled(value, _TIMES, decimals)
    if unit == "bytes":
        return _scaled(value, _BYTES, decimals)
    kind, _, word = unit.partition(":")
    if kind == "suffix":
        return f"{_digits(value, decimals)}{word}"
    word = {"reqps": "req/s", "cps": "c/s"}.get(unit, word)
    return " ".join(filter(None, (_count(value, decimals), word)))


def _count(value: float, decimals: int | None) -> str:
    for size, letter in _COUNTS:
        if abs(value) >= size:
            return f"{_digits(value / size, decimals)} {letter}"
    return _digits(value, decimals)


def _scaled(value: float, sizes: tuple[tuple[float, str], ...], decimals: int | None) -> str:
    if value == 0:
        return f"0 {'s' if sizes is _TIMES else 'B'}"
    size, letter = next(((size, letter) for size, letter in sizes if abs(value) >= size), sizes[-1])
    return f"{_digits(value / size, decimals)} {letter}"


def _digits(value: float, decimals: int | None) -> str:
    """Three digits that say something, unless it is told how many."""
    if decimals is None:
        if value and abs(value) < 0.01:
            return f"{value:.2g}"
        decimals = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
        text = f"{value:.{decimals}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{value:.{decimals}f}"
