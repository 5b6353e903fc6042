"""Grafana's own types accept the dashboards, and refuse what is not one."""

from __future__ import annotations

import copy
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.grafana.boards import panels, written
from tests.grafana.schema_source import NEW, OLD, TYPESCRIPT, source

from predawn.proxy.small_model.files import cache_folder

pytestmark = pytest.mark.prometheus
BOARDS = written()
NPM_TIMEOUT_S = 110


@pytest.fixture(scope="module", params=[OLD, NEW])
def types(request) -> tuple[str, Path]:
    """A folder with Grafana's types and a compiler; kept in the cache."""
    if not (shutil.which("npm") and shutil.which("node")):
        pytest.skip("npm and node are not installed: the dashboards are not held against Grafana's types")
    folder = cache_folder() / f"grafana-schema-{request.param}"
    if not (folder / "node_modules" / "typescript" / "bin" / "tsc").exists():
        install(folder, f"@grafana/schema@{request.param}", f"typescript@{TYPESCRIPT}")
    return request.param, folder


def install(folder: Path, *packages: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock", "--fetch-retries=1"]
    told = subprocess.run(
        ["npm", "install", *options, "--prefix", str(folder), *packages],
        capture_output=True,
        text=True,
        timeout=NPM_TIMEOUT_S,
    )
    if told.returncode != 0:
        pytest.skip(f"npm cannot install {', '.join(packages)}: {told.stderr[-300:]}")


def complaints(types: tuple[str, Path], boards: list[dict[str, Any]]) -> str:
    version, folder = types
    module = folder / "boards.ts"
    module.write_text(source(boards, version))
    options = ["--noEmit", "--strict", "--skipLibCheck", "--target", "es2022", "--module", "esnext"]
    command = ["node", "node_modules/typescript/bin/tsc", *options, "--moduleResolution", "node", module.name]
    told = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100)
    return told.stdout + told.stderr


def test_grafana_s_types_accept_every_dashboard(types) -> None:
    assert complaints(types, BOARDS) == ""


@pytest.mark.parametrize(
    ("place", "name", "value"),
    [
        ("options.legend", "displayMode", "lists"),
        ("options.legend", "showLegends", True),
        ("options.tooltip", "sort", "downwards"),
        ("fieldConfig.defaults.custom", "drawStyle", "lines"),
        ("fieldConfig.defaults.custom", "fillOpactiy", 10),
        ("fieldConfig.defaults", "unit", 5),
        ("gridPos", "w", "8"),
    ],
)
def test_they_refuse_a_dashboard_that_was_broken_on_purpose(types, place, name, value) -> None:
    board = copy.deepcopy(BOARDS[0])
    panel: Any = next(panel for panel in panels(board) if panel["type"] == "timeseries")
    for part in place.split("."):
        panel = panel[part]
    panel[name] = value

    assert complaints(types, [board]).count("error TS") == 1
