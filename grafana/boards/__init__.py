"""The five dashboards, one file for each."""

from __future__ import annotations

from grafana.boards import budgets, overview, runtime, sleep, verification
from grafana.model.dashboard import Dashboard


def all_boards() -> tuple[Dashboard, ...]:
    """In the order in which they are listed."""
    return (overview.board(), sleep.board(), budgets.board(), verification.board(), runtime.board())
