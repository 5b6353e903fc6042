"""One figure of a relay benchmark: panels in which shorter is better, and how much of each bar was used."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.evidence import Bar, Evidence
from tests.benchmarks.proxy.bars import ALL_BARS, IDLE_BARS, MEASURES
from tests.benchmarks.proxy.workloads import IDLE_STREAMS

OURS, THEIRS, LIMIT = "#c2410c", "#94a3b8", "#1e293b"
TITLES = {
    "cpu_us_per_request_1.5kb": "CPU per request, 1.5 KB (µs)",
    "cpu_us_per_request_1.5kb_fresh_heads": "the same, each head like no other (µs)",
    "cpu_us_per_request_60kb": "CPU per request, 60 KB (µs)",
    "added_p50_ms_at_50_per_s": "added p50 at 50 requests/s (ms)",
    "added_ttft_p50_ms": "added time to first chunk, p50 (ms)",
    "cpu_us_per_chunk": "CPU per streamed chunk (µs)",
    "kb_per_stream": "memory per open idle stream (KB)",
}


def draw(evidence: Evidence, path: Path) -> None:
    """Writes the figure beside the JSON file."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    peers: Mapping[str, Any] = evidence.figures["peers"]
    figure, axes = pyplot.subplots(2, 4, figsize=(20, 8.5), layout="constrained")
    _used(axes.flat[len(TITLES)], evidence.bars)
    for axis, (measure, title) in zip(axes.flat, TITLES.items(), strict=False):
        values = {
            peer: value
            for peer, own in peers.items()
            if (value := _value(own, measure)) is not None and peer != "direct"
        }
        _panel(axis, title, values, _limit(measure, peers))
    held = [bar.holds for bar in evidence.bars.values()]
    verdict = f"{held.count(True)} bars hold, {held.count(False)} do not, {held.count(None)} without a figure"
    machine = evidence.machine
    figure.suptitle(
        f"Predawn beside other gateways — one core each, one run, medians of {evidence.settings['rounds']} rounds; {verdict}\n"
        f"{evidence.begun:%Y-%m-%d} · {machine.cpu}, {machine.cores} cores · dashed: the most that Predawn's bars allow",
        fontsize=11,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _value(own: Mapping[str, Any], measure: str) -> float | None:
    if measure != "kb_per_stream":
        return own.get(measure)
    return own["idle_streams"]["kb_per_stream"] if (own.get("idle_streams") or {}).get("streams") else None


def _limit(measure: str, peers: Mapping[str, Any]) -> float | None:
    """The strictest bar on Predawn that this panel can show."""
    if measure == "kb_per_stream":
        return min(bar for _, _, bar in IDLE_BARS) * 1024 / IDLE_STREAMS
    allowed = [
        spec.bar * value
        for spec in ALL_BARS
        if not spec.other.startswith("predawn")
        and spec.measure in {MEASURES[name] for name in (measure, f"{measure}_in_turn") if name in MEASURES}
        and (value := peers.get(spec.other, {}).get(measure))
    ]
    return min(allowed) if allowed else None


def _used(axis: Any, bars: Mapping[str, Bar]) -> None:
    """Each bar that could be measured, as the share of it that was used."""
    shown = {name: bar.value / bar.bar for name, bar in bars.items() if bar.value is not None and bar.bar}
    names = list(reversed(shown))
    axis.set_title("share of each bar that was used", fontsize=10, loc="left")
    axis.barh(names, [min(shown[name], 2) for name in names], color=[OURS if shown[n] > 1 else THEIRS for n in names])
    for row, name in enumerate(names):
        axis.annotate(f"{name}: {shown[name]:.0%}", (0.02, row), va="center", fontsize=7.5)
    axis.axvline(1, color=LIMIT, linestyle="--", linewidth=1)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_yticks([])


def _panel(axis: Any, title: str, values: Mapping[str, float], limit: float | None) -> None:
    """Horizontal bars on a logarithmic axis, the smallest on top, each with its number."""
    from matplotlib.ticker import NullFormatter

    axis.set_title(title, fontsize=10, loc="left")
    names: Sequence[str] = sorted(values, key=lambda name: values[name], reverse=True)
    if not names:
        axis.text(0.5, 0.5, "not measured", ha="center", va="center", transform=axis.transAxes)
        axis.set_axis_off()
        return
    floor = max(1e-3, min((v for v in values.values() if v > 0), default=1e-3))
    shown = [max(values[name], floor / 2) for name in names]
    axis.barh(names, shown, color=[OURS if name.startswith("predawn") else THEIRS for name in names])
    axis.set_xscale("log")
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlim(floor / 2.5, max([*shown, limit or 0]) * 6)
    for row, name in enumerate(names):
        number = f"{values[name]:,.3g}" if values[name] < 1000 else f"{values[name]:,.0f}"
        place = {"xytext": (4, 0), "textcoords": "offset points", "va": "center", "fontsize": 9}
        axis.annotate(number, (shown[row], row), bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8}, **place)
    if limit:
        axis.axvline(limit, color=LIMIT, linestyle="--", linewidth=1, zorder=0)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=9)
