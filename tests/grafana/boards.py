"""The dashboards as they are written, for tests."""

from __future__ import annotations

import json
from typing import Any

from grafana.build import outputs


def written() -> list[dict[str, Any]]:
    return [json.loads(text) for path, text in outputs().items() if path.suffix == ".json"]


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]
