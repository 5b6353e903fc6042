"""The rules name metrics that exist, and every alert says what to do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana.build import HERE
from grafana.objectives import BURNS, OBJECTIVES, WINDOWS
from grafana.reading import complaints

GROUPS: list[dict[str, Any]] = yaml.safe_load((HERE / "prometheus" / "predawn.rules.yml").read_text())["groups"]
RULES = [rule for group in GROUPS for rule in group["rules"]]
ALERTS = [rule for rule in RULES if "alert" in rule]
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
PAGE = (Path(__file__).parents[2] / "docs" / "dashboards.md").read_text()
TESTED = "".join(file.read_text() for file in (Path(__file__).parent / "rules").glob("*.yml"))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_names_what_exists(rule) -> None:
    assert list(complaints(rule["expr"])) == []
    assert set(re.findall(r"predawn:[\w:]+", rule["expr"])) <= RECORDED


def test_what_is_recorded_is_read() -> None:
    read = {name for alert in ALERTS for name in re.findall(r"predawn:[\w:]+", alert["expr"])}

    assert RECORDED == read


def test_every_objective_is_recorded_over_every_window_its_alerts_read() -> None:
    assert {window for burn in BURNS for window in (burn.long, burn.short)} == set(WINDOWS)
    assert sum("slo" in rule.get("labels", {}) and "record" in rule for rule in RULES) == len(OBJECTIVES) * len(WINDOWS)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_says_what_it_means_and_where_to_look(alert) -> None:
    told = alert["annotations"]

    assert alert["labels"]["severity"] in {"page", "ticket"}
    assert told["summary"]
    assert told["description"].endswith(".")
    assert (HERE / "dashboards" / f"{told['dashboard'].removeprefix('/d/')}.json").is_file()
    assert f"### {alert['alert']}\n" in PAGE


@pytest.mark.parametrize("name", sorted({alert["alert"] for alert in ALERTS}))
def test_every_alert_has_a_test_for_promtool(name) -> None:
    assert name in TESTED


def test_the_asked_for_alerts_are_there() -> None:
    assert {alert["alert"] for alert in ALERTS} >= {
        "PredawnErrorBudgetBurn",
        "PredawnOverheadHigh",
        "PredawnStreamsTruncated",
        "PredawnBreakerOpen",
        "PredawnSleepBacklogOld",
        "PredawnStaleHits",
        "PredawnVerifierErrors",
        "PredawnBudgetExhausted",
    }


@pytest.mark.parametrize(
    ("expr", "complaint"),
    [
        ("sum(rate(predawn_nothing_total[5m]))", "there is no metric predawn_nothing_total"),
        ("max by (tier) (predawn_sleep_oldest_job_age_seconds)", "grouped by tier"),
        ('sum(rate(predawn_requests_total{status="1"}[5m]))', "no label status"),
    ],
)
def test_a_rule_that_names_what_does_not_exist_is_found(expr, complaint) -> None:
    assert any(complaint in found for found in complaints(expr))
