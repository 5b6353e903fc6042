"""The parts of the kernel benchmark that decide something without measuring."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from tests.benchmarks.evidence import Evidence
from tests.benchmarks.kernels import loop_lag, predictions, run, sharing
from tests.benchmarks.kernels.figures import AtLeast, Figures


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("distinct", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("shared R=1", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("shared R=2", [0, 0, 1, 1, 2, 2, 3, 3]),
        ("shared R=4", [0, 0, 0, 0, 1, 1, 1, 1]),
        ("cyclic R=2", [0, 1, 2, 3, 0, 1, 2, 3]),
    ],
)
def test_orders_use_the_blocks_they_say(name: str, blocks: list[int]) -> None:
    assert sharing.order(name, 8) == blocks


def test_every_order_has_every_turn() -> None:
    firsts = [next(sharing.turns(sharing.ORDERS, round_)) for round_ in range(5)]

    assert sorted(firsts) == sorted(sharing.ORDERS)
    assert all(sorted(sharing.turns(sharing.ORDERS, round_)) == sorted(sharing.ORDERS) for round_ in range(5))


def test_gains_are_taken_within_a_round() -> None:
    assert sharing.gains({"distinct": [2.0, 6.0], "shared R=2": [1.0, 2.0]}, "shared R=2") == [2.0, 3.0]


@pytest.mark.parametrize(("value", "holds"), [(1.5, True), (1.35, True), (1.3, False), (None, None)])
def test_a_bar_can_ask_for_at_least(value: float | None, holds: bool | None) -> None:
    assert AtLeast(value, 1.35).holds is holds
    assert AtLeast(value, 1.35).as_json()["at_least"] is True


def test_predictions_are_marked_as_such_in_every_row() -> None:
    figures = predictions.run(1)

    assert {row["figures"] for row in figures.rows} == {"predicted, not measured"}
    assert figures.bars == {}


def test_a_part_goes_into_the_evidence_under_its_name() -> None:
    evidence = Evidence("kernels", seeds={}, versions={})
    figures = Figures([{"a": 1}], {"fast": AtLeast(2.0, 1.0)}, {"threads": 1}, {"prompt": 7}, ["note"], {"all": [1]})
    run.add(evidence, "lookup", figures)

    assert evidence.figures == {"lookup": {"rows": [{"a": 1}], "all": [1]}}
    assert evidence.seeds == {"lookup: prompt": 7}
    assert evidence.settings == {"lookup": {"threads": 1}}
    assert evidence.all_hold


def test_each_part_has_a_table_of_its_own(tmp_path: Path) -> None:
    parts = {"sharing": Figures([{"block_mb": 0.5, "gain": 1.23456789}]), "engine": Figures()}
    (path,) = run.write_tables(parts, tmp_path / "bench-kernels.json")

    assert path.name == "bench-kernels-sharing.csv"
    assert list(csv.reader(path.read_text(encoding="utf-8").splitlines())) == [["block_mb", "gain"], ["0.5", "1.2346"]]


@pytest.mark.parametrize(("share", "at_most"), [(0.5, 0.001), (0.9, 0.025), (1.0, float("inf"))])
def test_the_lag_between_two_readings_is_a_buckets_upper_end(share: float, at_most: float) -> None:
    name = 'predawn_event_loop_lag_seconds_bucket{le="%s"}'
    before = {name % "0.001": 100.0, name % "0.025": 100.0, name % "+Inf": 200.0}
    after = {name % "0.001": 106.0, name % "0.025": 109.0, name % "+Inf": 210.0, "predawn_other": 1000.0}

    assert loop_lag.lag_at_most(before, after, share) == at_most


def test_an_unknown_part_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run.parse(["--parts", "sharing,speed"])

    assert "no such part: speed; there are sharing, engine, lookup, predictions, lag" in capsys.readouterr().err
