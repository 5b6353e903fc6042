"""Queries that may show nothing although everything has happened, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping

MAY_BE_SILENT: Mapping[tuple[str, str, str], str] = {
    ("predawn-budgets", "Flat curves", "{{model}}"): "a curve is called flat after hours of outcomes, if at all",
    ("predawn-runtime", "Reloads and exported spans", "spans {{outcome}}"): "0 without the plugin traces",
    (
        "predawn-runtime",
        "Work of the engine",
        "{{upstream}} {{state}}",
    ): "the bundled model is done between two scrapes",
    ("predawn-runtime", "Pages of keys and values", "{{upstream}}"): "the same",
}
"""By dashboard, panel and legend; whether each shows something is a matter of time."""
