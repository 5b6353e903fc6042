"""One query of a panel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

Format: TypeAlias = Literal["time_series", "heatmap", "table"]
SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True, slots=True)
class Query:
    """PromQL, and what its lines are called: plain words, or `{{label}}`."""

    expr: str
    legend: str
    exemplars: bool = False
    """Show single requests as points beside it."""

    def json(self, position: int, form: Format) -> dict[str, Any]:
        """As a panel's target."""
        once = form == "table"
        return {
            "datasource": SOURCE,
            "editorMode": "code",
            "exemplar": self.exemplars,
            "expr": self.expr,
            "format": form,
            "instant": once,
            "legendFormat": self.legend,
            "range": not once,
            "refId": chr(ord("A") + position),
        }
