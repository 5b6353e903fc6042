"""The decode step as torch sees it: an op, with its errors, its fake and its place in a compiled graph."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.kernels.shared_block.cases import EVEN, ODD, Case, each, error, random_case

from predawn.kernels.shared_block import MAX_BATCH, decode_step


def arguments(case: Case) -> tuple:
    return (case.x, case.weights, case.shape, case.k, case.v, case.pages, case.positions, case.cos, case.sin)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("repeat", [None, 1])
def test_on_a_cpu_the_op_is_the_reference(dtype, repeat):
    case = random_case(ODD, [0, 16, 40], dtype)
    expected, k, v = case.eager(dtype, repeat)

    got = decode_step(*arguments(case), repeat=repeat)

    assert got.dtype == torch.float32
    assert torch.equal(got, expected.float())
    assert torch.equal(case.k, k)
    assert torch.equal(case.v, v)


def test_the_op_keeps_the_rules_of_torch():
    case = random_case(EVEN, [0, 16])
    shape = case.shape
    tensors = (case.x, *each(case.weights), case.k, case.v, case.pages, case.positions, case.cos, case.sin)

    op = torch.ops.predawn.shared_block_decode.default
    torch.library.opcheck(op, (*tensors, shape.heads, shape.repeat, shape.repeat, shape.eps))


def test_a_compiled_graph_contains_the_step_unbroken():
    case = random_case(EVEN, [0, 16])
    compiled = torch.compile(lambda *args: decode_step(*args) * 2, fullgraph=True, backend="aot_eager")
    expected, k, v = case.eager(torch.float32)

    got = compiled(*arguments(case))

    assert error(got, 2 * expected) < 1e-6
    assert torch.equal(case.k, k)
    assert torch.equal(case.v, v)


@pytest.mark.parametrize("repeat", [0, 3])
def test_a_model_runs_no_more_passes_than_it_has(repeat):
    case = random_case(EVEN, [3])

    with pytest.raises(ValueError, match="1 to 2 passes expected"):
        decode_step(*arguments(case), repeat=repeat)


def test_a_wrong_argument_is_named():
    case = random_case(EVEN, [3])
    wrong = {
        "x: 1 to 16 rows of 128": replace(case, x=torch.zeros(MAX_BATCH + 1, 128)),
        "x: 1 to 16 rows of 128 expected, got": replace(case, x=torch.zeros(1, 64)),
        "positions: 1 int32": replace(case, positions=case.positions.long()),
        "pages: 1 rows": replace(case, pages=case.pages.repeat(2, 1)),
        "k_cache": replace(case, k=case.k[:1]),
        "v_cache": replace(case, v=case.v.transpose(1, 2)),
        "down: a contiguous": replace(case, weights=replace(case.weights, down=case.weights.down.mT.contiguous().mT)),
    }

    for message, arguments_of in wrong.items():
        with pytest.raises(ValueError, match=message):
            decode_step(*arguments(arguments_of))
