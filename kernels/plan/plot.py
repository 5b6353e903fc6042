"""A plan as a picture: predicted loss against predicted time, and what sharing gains by load."""

from __future__ import annotations

from pathlib import Path

from predawn.kernels.plan.plan import BATCHES, CONTEXTS, Plan

COLOURS = ("#94a3b8", "#c2410c", "#0369a1", "#4d7c0f")


class PlotError(RuntimeError):
    """The picture cannot be drawn or written; the message says what is missing."""


def draw(plan: Plan, path: Path) -> None:
    """Writes the picture; the ending of `path` chooses its format. Raises `PlotError`."""
    try:
        import matplotlib as mpl
    except ImportError:
        raise PlotError("a picture needs matplotlib: pip install 'predawn[plot]'") from None
    if path.suffix.lower() not in {".png", ".svg", ".pdf"}:
        raise PlotError(f"{path}: the picture must be .png, .svg or .pdf")
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 5.2), layout="constrained")
    for place, repeat in enumerate(sorted({design.shape.repeat for design in plan.designs})):
        some = [design for design in plan.designs if design.shape.repeat == repeat]
        left.scatter(
            [design.step_s * 1e6 for design in some],
            [design.loss for design in some],
            s=9,
            alpha=0.5,
            color=COLOURS[place % len(COLOURS)],
            label=f"{repeat} pass{'es' if repeat > 1 else ''} per block",
        )
    front = plan.front
    left.plot([design.step_s * 1e6 for design in front], [design.loss for design in front], color="#1e293b", lw=1.2)
    for design in plan.search.references():
        left.plot(design.step_s * 1e6, design.loss, "k*", ms=11)
        left.annotate(design.name, (design.step_s * 1e6, design.loss), (6, 4), textcoords="offset points", fontsize=8)
    left.set(xlabel="predicted µs per decode step", ylabel="predicted loss (nats)", title="shapes of equal stored size")
    left.legend(fontsize=8)
    for batch in BATCHES:
        right.plot(
            CONTEXTS, [plan.gain(batch, context) for context in CONTEXTS], marker="o", ms=3, label=f"batch {batch}"
        )
    right.axhline(1, color="#1e293b", lw=0.8, ls="--")
    right.set(
        xscale="log", xlabel="tokens of context", ylabel="times faster than distinct blocks", title="gain of sharing"
    )
    right.set_xticks(CONTEXTS, [str(context) for context in CONTEXTS])
    right.legend(fontsize=8)
    figure.suptitle(f"{plan.model.name} on {plan.gpu.name} — predicted, not measured", fontsize=11)
    try:
        figure.savefig(path, dpi=110)
    except OSError as exc:
        raise PlotError(f"{path}: {exc.strerror}") from None
    finally:
        plt.close(figure)
