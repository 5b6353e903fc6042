"""What is committed is what the code says."""

from __future__ import annotations

import json

from grafana import build
from tests.grafana.boards import panels, written


def test_what_is_committed_is_what_the_code_says() -> None:
    assert [path.name for path in build.stale(build.outputs())] == [], "run: python -m grafana.build"


def test_a_file_that_was_changed_or_left_over_is_out_of_date(tmp_path) -> None:
    wanted = {tmp_path / "a.json": "a", tmp_path / "b.json": "b"}
    (tmp_path / "a.json").write_text("changed")
    (tmp_path / "b.json").write_text("b")
    (tmp_path / "old.json").write_text("of last year")

    assert build.stale(wanted) == [tmp_path / "a.json", tmp_path / "old.json"]


def test_building_writes_what_is_missing_and_checking_does_not(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(build, "HERE", tmp_path / "grafana")

    assert build.main(["--check"]) == 1
    assert "out of date: grafana/dashboards/predawn-overview.json" in capsys.readouterr().err
    assert not (tmp_path / "grafana").exists()
    assert build.main([]) == 0
    assert build.main(["--check"]) == 0


def test_two_builds_are_the_same_to_the_byte() -> None:
    assert build.outputs() == build.outputs()


def test_there_are_five_dashboards_with_names_that_stay() -> None:
    assert {board["uid"]: board["title"] for board in written()} == {
        "predawn-overview": "Predawn / Overview & SLO",
        "predawn-sleep": "Predawn / Sleep-time & contexts",
        "predawn-budgets": "Predawn / Budgets & sampling",
        "predawn-verification": "Predawn / Verification",
        "predawn-runtime": "Predawn / Upstreams, plugins & runtime",
    }


def test_the_first_row_answers_whether_it_is_fast_what_is_added_saved_and_spent() -> None:
    overview = written()[0]
    first = [panel["title"] for panel in panels(overview) if panel["gridPos"]["y"] == 1]

    assert first == [
        "First token, p95",
        "Predawn adds, p99",
        "Saved by sleep, 24 h",
        "Failed requests",
        "What is spent, and when",
    ]


def test_latencies_have_a_heatmap_and_three_quantiles() -> None:
    overview = written()[0]
    heat = {"Time to first token", "Whole request", "Gap between tokens", "Predawn adds"}
    legends = {panel["title"]: [target["legendFormat"] for target in panel["targets"]] for panel in panels(overview)}

    assert {panel["title"] for panel in panels(overview) if panel["type"] == "heatmap"} == heat
    assert [legends[f"{title}: p50, p90, p99"] for title in sorted(heat)] == [["p50", "p90", "p99"]] * 4


def test_every_dashboard_can_be_narrowed_down_by_model_and_upstream_and_the_first_by_class() -> None:
    names = {board["uid"]: {one["name"] for one in board["templating"]["list"]} for board in written()}

    assert all({"datasource", "job", "model", "upstream"} <= found for found in names.values())
    assert "tenant_class" in names["predawn-overview"]


def test_the_committed_json_is_plain_text_that_ends_in_a_newline() -> None:
    for path, text in build.outputs().items():
        assert text.endswith("\n"), path
        if path.suffix == ".json":
            assert json.loads(text)["version"] == 1
