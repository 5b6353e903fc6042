"""The rules as Prometheus' own tool sees them; `rules/` holds what they must do."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from grafana.build import HERE as GRAFANA
from tests.grafana.stand import MISSING

pytestmark = pytest.mark.prometheus
RULES = sorted((Path(__file__).parent / "rules").glob("*.yml"))


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    if shutil.which("promtool") is None:
        pytest.fail(MISSING)


@pytest.mark.parametrize("file", RULES, ids=lambda file: file.stem)
def test_promtool_agrees_with_the_rules(file) -> None:
    told = subprocess.run(["promtool", "test", "rules", file.name], cwd=file.parent, capture_output=True, text=True)

    assert told.returncode == 0, told.stdout + told.stderr


def test_promtool_finds_the_rules_well_formed() -> None:
    rules = GRAFANA / "prometheus" / "predawn.rules.yml"
    told = subprocess.run(["promtool", "check", "rules", str(rules)], capture_output=True, text=True)

    assert told.returncode == 0, told.stdout + told.stderr
    assert "rules found" in told.stdout
