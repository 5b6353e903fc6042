"""A plan as tables, JSON and a picture: complete, consistent, and marked as predicted everywhere."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from predawn.kernels.gpus import find
from predawn.kernels.known_shapes import KNOWN_SHAPES
from predawn.kernels.plan import plot
from predawn.kernels.plan.document import document
from predawn.kernels.plan.plan import BATCHES, CONTEXTS, WINS, Plan, make_plan
from predawn.kernels.plan.tables import MARK, lines
from predawn.kernels.roofline import Workload


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(KNOWN_SHAPES["125M"], find("RTX-4060"), Workload())


def test_tokens_are_a_hundred_for_each_parameter_unless_given(plan: Plan) -> None:
    assert plan.tokens == 100 * 30 * plan.model.blocks.block_params
    assert make_plan(plan.model, plan.gpu, plan.work, tokens=5e9).tokens == 5e9


def test_a_model_without_sharing_is_planned_as_if_run_twice(plan: Plan) -> None:
    plain = replace(plan.model, blocks=replace(plan.model.blocks, repeat=1))

    assert make_plan(plain, plan.gpu, plan.work).model == plan.model


def test_each_table_is_marked_as_predicted(plan: Plan) -> None:
    text = "\n".join(lines(plan))

    assert text.count(MARK) == 3
    assert "arXiv 2510.18245" in text


def test_the_times_of_the_three_ways_are_shown(plan: Plan) -> None:
    text = list(lines(plan))
    rows = [line.split("  ")[0] for line in text]

    assert {"30 blocks, run once", "30 x 2 shared", "60 distinct blocks"} <= set(rows)


def test_wins_and_losses_are_marked_by_the_gain(plan: Plan) -> None:
    rows = [line for line in lines(plan) if line.startswith("batch ")]
    cells = [cell for row in rows for cell in row.split("  ")[1:] if cell.strip()]

    assert len(rows) == len(BATCHES)
    assert len(cells) == len(BATCHES) * len(CONTEXTS)
    assert all(cell.endswith("+" if float(cell.split()[0]) >= WINS else "-") for cell in cells)
    assert {cell[-1] for cell in cells} == {"+", "-"}


def test_the_document_is_json_that_says_it_is_predicted(plan: Plan) -> None:
    found = json.loads(json.dumps(document(plan)))

    assert found["predicted"] is True
    assert found["persistent"]["gain"] == pytest.approx(plan.persistent.gain)
    assert len(found["gain"]) == len(BATCHES) * len(CONTEXTS)
    assert len(found["pareto"]) == len(plan.front)
    assert [reference["name"] for reference in found["references"]] == [
        "30 blocks once",
        "30 x 2 shared",
        "60 distinct",
    ]


def test_the_picture_is_drawn(plan: Plan, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot.draw(plan, tmp_path / "plan.png")

    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("name", "complaint"),
    [("plan.txt", r"must be \.png, \.svg or \.pdf"), ("absent/plan.png", "No such file or directory")],
)
def test_a_picture_that_cannot_be_written_is_refused(plan: Plan, tmp_path: Path, name: str, complaint: str) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(plot.PlotError, match=complaint):
        plot.draw(plan, tmp_path / name)
