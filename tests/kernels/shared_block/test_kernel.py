"""The kernel, as Triton's interpreter runs it on a CPU, against the reference and against itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.kernels.shared_block.cases import EVEN, ODD, PAGE, each, error, identical, random_case

from predawn.kernels.shape import BlockShape, BlockWeights
from predawn.kernels.shared_block.execution import interpreter
from predawn.kernels.shared_block.tiles import TILES

SIXTEEN = [0, 1, 15, 16, 17, 31, 32, 47, 48, 63, 64, 65, 5, 9, 2, 40]
RAGGED = [0, 16, 70]
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
A_FEW_ROUNDINGS = 4 * torch.finfo(torch.float32).eps
"""In fp32 neither is farther off than that, and which one is luckier depends on the machine's BLAS."""
ONE_BLOCK = replace(ODD, layers=1)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("shape", "positions"),
    [(ODD, [33]), (ODD, RAGGED), (EVEN, RAGGED), (EVEN, SIXTEEN)],
    ids=["odd-1", "odd-3", "even-3", "even-16"],
)
def test_the_kernel_is_as_exact_as_eager_code_of_the_same_type(shape, positions, dtype):
    case = random_case(shape, positions, dtype)
    oracle, eager, got = case.eager(), case.eager(dtype), case.kernel()

    for result, ordinary, exact in zip(got, eager, oracle, strict=True):
        assert error(result, exact) <= 1.5 * max(error(ordinary, exact), A_FEW_ROUNDINGS)


def test_weights_and_cache_may_differ_in_type():
    case = random_case(ONE_BLOCK, [20], torch.bfloat16)
    case = replace(case, k=case.k.half(), v=case.v.half())
    oracle, eager, got = case.eager(), case.eager(torch.bfloat16), case.kernel()

    for result, ordinary, exact in zip(got, eager, oracle, strict=True):
        assert error(result, exact) <= 1.5 * error(ordinary, exact)


def test_neither_grid_nor_mode_changes_a_bit():
    case = random_case(ODD, [0, 40], torch.bfloat16)
    expected = case.kernel()

    for grid in (1, 3):
        assert identical(case.kernel(grid=grid), expected)
    assert identical(case.kernel(interpreter("persistent")), expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_batch_does_not_change_a_row(dtype):
    case = random_case(ONE_BLOCK, RAGGED, dtype)
    together, _, _ = case.kernel()

    for b in (0, 2):
        row = case.row(b)
        fewer_columns = replace(row, pages=row.pages[:, : RAGGED[b] // PAGE + 1].contiguous())
        assert torch.equal(fewer_columns.kernel()[0][0], together[b])


def test_two_passes_are_two_blocks_with_the_same_weights():
    case = random_case(ONE_BLOCK, [0, 40], torch.bfloat16)
    tied = BlockWeights(*(stack.repeat_interleave(2, 0) for stack in each(case.weights)))
    two_blocks = replace(case, weights=tied, shape=replace(ODD, layers=2, repeat=1))

    assert identical(two_blocks.kernel(), case.kernel())


def test_rows_of_one_batch_may_be_consecutive_tokens_of_one_sequence():
    case = random_case(ONE_BLOCK, [14, 15, 16])
    case = replace(case, pages=case.pages[:1].expand(3, -1).contiguous())
    together = case.kernel()

    k, v = case.k, case.v
    for b in range(3):
        alone, k, v = replace(case.row(b), k=k, v=v).kernel()
        assert torch.equal(alone[0], together[0][b])
    assert identical((k, v), together[1:])


def test_what_a_row_does_not_own_is_never_read(fresh_memory_is_nan):
    case = random_case(ONE_BLOCK, RAGGED, torch.bfloat16)
    poisoned = replace(case, k=case.k.clone(), v=case.v.clone(), pages=case.pages.clone())
    used = torch.zeros(case.k.shape[1:3], dtype=torch.bool)
    for b, position in enumerate(RAGGED):
        for t in range(position + 1):
            used[case.pages[b, t // PAGE], t % PAGE] = True
        poisoned.pages[b, position // PAGE + 1 :] = 2**30
    for cache in (poisoned.k, poisoned.v):
        cache[:, ~used] = torch.nan
    expected = case.kernel()

    for got in (poisoned.kernel(), poisoned.kernel(interpreter("persistent"))):
        assert torch.equal(got[0], expected[0])
        assert torch.equal(got[1][:, used], expected[1][:, used])
    assert torch.equal(poisoned.eager()[0], case.eager()[0])


@pytest.fixture
def fresh_memory_is_nan():
    """torch fills memory that nothing was written to with NaN."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(1).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def test_each_pass_appends_one_row_to_its_own_cache():
    positions = [0, 15, 16, 31]
    case = random_case(EVEN, positions)
    _, k, v = case.kernel()

    for before, after in ((case.k, k), (case.v, v)):
        changed = (before != after).any(-1).any(-1)
        expected = torch.zeros_like(changed)
        for b, position in enumerate(positions):
            expected[:, case.pages[b, position // PAGE], position % PAGE] = True
        assert torch.equal(changed, expected)


def test_fewer_passes_leave_the_other_passes_caches_alone():
    case = random_case(ODD, [0, 40])
    got, k, v = case.kernel(repeat=1)
    oracle, ok, ov = case.eager(repeat=1)

    assert error(got, oracle) < 1e-6
    assert error(k, ok) < 1e-6
    assert error(v, ov) < 1e-6
    assert torch.equal(k[1::2], case.k[1::2])
    assert not torch.equal(k[0::2], case.k[0::2])
    assert identical(case.kernel(interpreter("persistent"), repeat=1), (got, k, v))


def test_a_residual_beyond_the_range_of_fp16_is_normalised_before_it_is_rounded():
    case = random_case(EVEN, [3], torch.float16, scale=2e5)
    got, _, _ = case.kernel()
    oracle, _, _ = case.eager()

    assert got.abs().max() > 65504
    assert error(got, oracle) < 1e-3


def test_a_residual_near_the_smallest_fp16_keeps_its_digits():
    case = random_case(replace(EVEN, eps=1e-16), [3], torch.float16, scale=1e-6)
    _, k, _ = case.kernel()
    _, exact, _ = case.eager()
    written = k != case.k

    assert error(k[written], exact[written]) < 1e-3


@pytest.mark.parametrize("target", sorted({"sm_80", "sm_120", "gfx942"}))
def test_the_tiles_of_each_class_of_gpu_give_the_same_numbers(target):
    shape = BlockShape(dim=40, heads=2, kv_heads=1, head_dim=24, ffn=56, layers=1, repeat=1)
    case = random_case(shape, [130], torch.bfloat16)
    got, _, _ = case.kernel(replace(interpreter(), tiles=TILES[target]))
    oracle, _, _ = case.eager()
    eager, _, _ = case.eager(torch.bfloat16)

    assert error(got, oracle) <= 1.5 * error(eager, oracle)
