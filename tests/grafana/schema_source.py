"""The dashboards as TypeScript that compiles if, and only if, they are what Grafana's own types say.

`@grafana/schema` has no JSON schema, but types made from the definitions that Grafana's own code is made from. A literal in
TypeScript may have no member that its type does not know, so a misspelt option is found as well as a wrong value.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

OLD, NEW = "10.4.19", "13.2.3"
"""Releases of Grafana whose types are asked: the last of the oldest line that we serve, and a new one."""
TYPESCRIPT = "5.9.3"
RAW = "@grafana/schema/dist/esm/raw/composable"
KINDS = {
    "bargauge": ("BarGauge", "BarGaugePanelCfg", False),
    "heatmap": ("Heatmap", "HeatmapPanelCfg", True),
    "stat": ("Stat", "StatPanelCfg", False),
    "state-timeline": ("StateTimeline", "StateTimelinePanelCfg", True),
    "table": ("Table", "TablePanelCfg", False),
    "timeseries": ("Timeseries", "TimeSeriesPanelCfg", True),
}
"""By panel: a name for its types, the file they are in, and whether that has the type of `custom`."""
LEFT_OUT = {
    "annotations": {"expr", "step", "tagKeys", "titleFormat", "useValueForTime"},  # the datasource's own
    "templating": {"definition"},  # Grafana writes it into whatever it exports
}
"""Members that Grafana reads and its types leave out."""
PLAIN = """
// a literal of JSON has strings where the types have enums
type Plain<T> = T extends string ? `${T}` : T extends number | boolean | null | undefined ? T
  : T extends (infer E)[] ? Plain<E>[] : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;
"""


def source(boards: Sequence[Mapping[str, Any]], version: str) -> str:
    """A module to compile."""
    return "\n".join([*_imports(version), PLAIN, *(line for board in boards for line in _board(board))]) + "\n"


def _imports(version: str) -> Iterator[str]:
    yield "import type { Dashboard, GraphFieldConfig, Panel, RowPanel, TableFieldOptions } from '@grafana/schema';"
    query = f"'{RAW}/prometheus/dataquery/x/PrometheusDataQuery_types.gen'"
    # a package of its own in later releases
    yield (
        f"import type {{ PrometheusDataQuery }} from {query};" if version == OLD else "type PrometheusDataQuery = any;"
    )
    for kind, (name, file, has_custom) in KINDS.items():
        own = f", FieldConfig as {name}Field" if has_custom and name != "Timeseries" else ""
        folder = kind.replace("-", "")
        yield f"import type {{ Options as {name}Options{own} }} from '{RAW}/{folder}/panelcfg/x/{file}_types.gen';"
    yield "type TimeseriesField = GraphFieldConfig; type StatField = {}; type BarGaugeField = {};"
    yield "type TableField = TableFieldOptions;"


def _board(board: Mapping[str, Any]) -> Iterator[str]:
    name = board["uid"].replace("-", "_")
    lists = {part: {"list": [_without(one, LEFT_OUT[part]) for one in board[part]["list"]]} for part in LEFT_OUT}
    yield f"export const {name}: Plain<Omit<Dashboard, 'panels'>> = {_literal(_without({**board, **lists}, {'panels'}))};"
    for panel in board["panels"]:
        own = f"{name}_{panel['id']}"
        if panel["type"] == "row":
            yield f"export const {own}: Plain<RowPanel> = {_literal(panel)};"
            continue
        kind = KINDS[panel["type"]][0]
        defaults = panel["fieldConfig"]["defaults"]
        bare = {**panel, "fieldConfig": {**panel["fieldConfig"], "defaults": {**defaults, "custom": {}}}}
        outside = _without(bare, {"options", "targets"})
        options = dict(panel["options"])
        if panel["type"] == "heatmap":
            options["tooltip"] = _without(options["tooltip"], {"show"})  # for Grafana 10.0 to 10.3
        yield f"export const {own}: Plain<Omit<Panel, 'options' | 'targets'>> = {_literal(outside)};"
        yield f"export const {own}_options: Plain<Partial<{kind}Options>> = {_literal(options)};"
        yield f"export const {own}_custom: Plain<Partial<{kind}Field>> = {_literal(defaults['custom'])};"
        yield f"export const {own}_targets: Plain<PrometheusDataQuery>[] = {_literal(panel['targets'])};"


def _without(value: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: member for name, member in value.items() if name not in names}


def _literal(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
