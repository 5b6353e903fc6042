"""The picture of a training run: its loss, and what the network could do as it went."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_SHOWN = {
    "stepwise_whole": ("reasoning right from end to end", "#c2410c"),
    "notes_whole": ("notes right from end to end", "#1d4ed8"),
    "noted_tokens": ("answers at once, from notes", "#60a5fa"),
    "direct_tokens": ("answers at once, without notes", "#94a3b8"),
}


def draw(log: Path, picture: Path) -> None:
    """Draw `log`, a line of JSON for each check, to `picture`. Raises ImportError without matplotlib."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    checks = [json.loads(line) for line in log.read_text().splitlines()]
    steps = [check["step"] for check in checks]
    figure, (upper, lower) = plt.subplots(2, 1, figsize=(10, 7), sharex=True, layout="constrained")
    upper.plot(steps, [check["loss"] for check in checks], color="#1e293b")
    upper.set(ylabel="loss", yscale="log")
    for name, (label, colour) in _SHOWN.items():
        lower.plot(steps, [check[name] for check in checks], color=colour, label=label)
    lower.set(xlabel="step", ylabel="share of unseen lessons", ylim=(0, 1.02))
    lower.legend(loc="lower right", fontsize=9)
    for axis in (upper, lower):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.3)
    figure.savefig(picture, dpi=100)
    plt.close(figure)
