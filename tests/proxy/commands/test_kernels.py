"""`predawn kernels`: plans without torch, compiles with the extra, and refuses in one line what it cannot do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from predawn.proxy.cli import main
from predawn.proxy.commands import kernels

SHAPE = "dim=64,heads=2,kv_heads=1,ffn=64,layers=1,head_dim=32"
CONFIG = {
    "hidden_size": 256, "num_attention_heads": 8, "num_key_value_heads": 4, "intermediate_size": 640,
    "num_hidden_layers": 4, "vocab_size": 1000, "layer_sharing": True, "share_repeat": 2,
}  # fmt: skip
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="the kernels extra is not installed")


def fresh(*arguments: str, code: str = "") -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, after `code`."""
    program = (
        f"import sys\n{code}\nfrom predawn.proxy.cli import main\nstatus = main({list(arguments)})\nsys.exit(status)"
    )
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=110, check=False)


def test_a_plan_of_a_known_shape_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["kernels", "plan", "--shape", "125M", "--gpu", "rtx4060"])
    shown = capsys.readouterr()

    assert status == 0
    assert shown.err == ""
    assert shown.out.startswith("125M: 30 stored blocks x 2 passes, hidden 576, 9 heads (3 KV) of 64")
    assert "sharing against distinct" in shown.out
    assert "predicted, not measured" in shown.out


def test_a_reader_that_has_seen_enough_gets_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    program = "import sys; from predawn.proxy.cli import main; sys.exit(main())"
    words = ["kernels", "plan", "--shape", "125M", "--gpu", "H100"]
    try:
        finished = subprocess.run(
            [sys.executable, "-c", program, *words], stdout=writing, stderr=subprocess.PIPE, timeout=60, check=False
        )
    finally:
        os.close(writing)

    assert (finished.returncode, finished.stderr) == (141, b"")


def test_a_plan_of_a_checkpoint_reads_its_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    status = main(["kernels", "plan", "--model", str(tmp_path), "--gpu", "H100", "--json"])
    plan: dict[str, Any] = json.loads(capsys.readouterr().out)

    assert status == 0
    assert plan["predicted"] is True
    assert (plan["model"]["layers"], plan["model"]["repeat"], plan["model"]["vocabulary"]) == (4, 2, 1000)


def test_options_of_a_plan_reach_it(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--repeat", "3", "--batch", "4", "--context", "64", "--dtype", "fp32", "--tokens", "2e9", "--repeats", "1"]
    main(["kernels", "plan", "--shape", "125M", "--gpu", "L4", "--json", *words])
    plan = json.loads(capsys.readouterr().out)

    assert plan["model"]["repeat"] == 3
    assert plan["workload"] == {"batch": 4, "context": 64, "weight_bytes": 4, "kv_bytes": 4}
    assert plan["training_tokens"] == 2e9
    assert {design["shape"]["repeat"] for design in plan["pareto"]} == {1}


def test_a_plan_can_be_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "plan.png"
    status = main(["kernels", "plan", "--shape", "125M", "--gpu", "L4", "--plot", str(path)])

    assert status == 0
    assert path.stat().st_size > 10_000
    assert f"picture in {path}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--shape", "125M", "--gpu", "H10"], "no GPU 'H10' in the table; nearest: H100"),
        (["--shape", "126M", "--gpu", "H100"], "no shape '126M'; known: 125M"),
        (["--shape", "dim=1", "--gpu", "H100"], "heads, kv_heads, ffn, layers missing"),
        (["--model", "absent", "--gpu", "H100"], "absent: no such folder"),
        (
            ["--shape", "125M", "--gpu", "H100", "--plot", "plan.doc"],
            "plan.doc: the picture must be .png, .svg or .pdf",
        ),
    ],
)
def test_what_cannot_be_planned_is_refused_in_a_line(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["kernels", "plan", *words])
    shown = capsys.readouterr()

    assert status == 1
    assert shown.out == ""
    assert shown.err.startswith("predawn: ")
    assert complaint in shown.err
    assert len(shown.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--gpu", "H100"], "one of the arguments --model --shape is required"),
        (["--shape", "125M"], "the following arguments are required: --gpu"),
        (["--shape", "125M", "--gpu", "H100", "--batch", "0"], "argument --batch: must be 1 to 1,000,000,000, not 0"),
        (["--shape", "125M", "--gpu", "H100", "--context", "many"], "a whole number is expected, not 'many'"),
        (["--shape", "125M", "--gpu", "H100", "--tokens", "nan"], "must be a number of at least 1, not nan"),
        (["--shape", "125M", "--gpu", "H100", "--tokens", "-1"], "must be a number of at least 1"),
    ],
)
def test_bad_options_are_refused(words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["kernels", "plan", *words])

    assert stopped.value.code == 2
    assert complaint in capsys.readouterr().err


def test_planning_needs_neither_torch_nor_triton() -> None:
    finished = fresh(
        "kernels",
        "plan",
        "--shape",
        "125M",
        "--gpu",
        "H100",
        code="sys.modules['torch'] = sys.modules['triton'] = None",
    )

    assert finished.returncode == 0, finished.stderr


def test_without_the_extra_compiling_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kernels, "find_spec", lambda _: None)
    status = main(["kernels", "compile"])

    assert status == 1
    assert capsys.readouterr().err == (
        "predawn: torch and triton not installed; compiling needs the kernels extra: pip install 'predawn[kernels]'\n"
    )


@needs_triton
@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--target", "sm_91"], "no target 'sm_91'; nearest: sm_90"),
        (["--phase", "9"], "no phase 9; there are -1, 0, 1, 2, 3, 4"),
        (["--shape", "9B"], "no shape '9B'"),
        (["--model", "absent"], "absent: no such folder"),
        (["--warps", "3"], "--warps must be 1, 2, 4, 8 or 16, not 3"),
        (["--stages", "0"], "--stages must be 1 to 8, not 0"),
    ],
)
def test_what_cannot_be_compiled_is_refused_before_anything_is(words: list[str], complaint: str) -> None:
    finished = fresh("kernels", "compile", *words)

    assert finished.returncode == 1
    assert finished.stderr.startswith(f"predawn: {complaint}") or complaint in finished.stderr.splitlines()[-1]
    assert finished.stdout == ""


@needs_triton
def test_each_job_is_announced_and_becomes_a_row() -> None:
    words = ("--target", "sm_80", "gfx942", "--shape", SHAPE, "--phase", "2")
    finished = fresh("kernels", "compile", *words, code="import os; os.environ['TRITON_INTERPRET'] = '1'")
    header, *rows = finished.stdout.splitlines()

    assert finished.returncode == 0, finished.stderr
    assert finished.stderr.splitlines() == [
        f"{n} of 2: {target} {SHAPE} bf16 phase 2 …" for n, target in ((1, "sm_80"), (2, "gfx942"))
    ]
    assert header.split() == [
        "target",
        "shape",
        "dtype",
        "phase",
        "registers",
        "spilled",
        "B",
        "shared",
        "B",
        "seconds",
    ]
    assert [row.split()[0] for row in rows[::2]] == ["sm_80", "gfx942"]
    assert "HMMA" in rows[1]
    assert "MFMA" in rows[3]


def test_the_command_line_itself_imports_nothing_heavy() -> None:
    finished = fresh(
        "kernels",
        "plan",
        "--shape",
        "125M",
        "--gpu",
        "H100",
        "--json",
        code="import atexit; atexit.register(lambda: print(*sys.modules, file=sys.stderr))",
    )

    assert {"torch", "triton", "matplotlib", "numpy", "aiohttp"} & set(finished.stderr.split()) == set()
