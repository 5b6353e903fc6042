import json

from tests.benchmarks.evidence import Bar, Evidence, rounded
from tests.benchmarks.processes import connections_on, free_port, tree


def evidence():
    return Evidence("none", seeds={"order": 1}, versions={"python": "3"})


def test_a_bar_holds_up_to_its_value_and_not_beyond():
    assert [True, True, False] == [Bar(value, 1.0).holds for value in (0.5, 1.0, 1.01)]


def test_a_bar_without_a_figure_neither_holds_nor_breaks_a_run():
    run = evidence()
    run.bars["speed"] = Bar(None, 1.0, reason="peer: not obtainable")

    assert run.bars["speed"].holds is None
    assert run.all_hold


def test_saved_evidence_names_command_seeds_bars_and_no_machine(tmp_path):
    run = evidence()
    run.bars["speed"] = Bar(2.0, 1.0, "x")
    run.save(tmp_path / "deep" / "out.json")

    saved = json.loads((tmp_path / "deep" / "out.json").read_text())

    assert {"value": 2.0, "bar": 1.0, "holds": False, "unit": "x"} == saved["bars"]["speed"]
    assert {"order": 1} == saved["seeds"]
    assert {"cpu", "cores", "memory_gb", "kernel", "load_before"} == set(saved["machine"])
    assert " /" not in saved["command"]


def test_rounding_keeps_structure_and_leaves_whole_numbers_alone():
    assert {"a": [1.2346, 123456789, "1.23456789"], "b": None} == rounded(
        {"a": (1.23456789, 123456789, "1.23456789"), "b": None}
    )


def test_a_free_port_has_no_connections_and_this_process_is_in_its_own_tree():
    import os

    assert connections_on(free_port()) == 0
    assert os.getpid() in tree(os.getpid())
