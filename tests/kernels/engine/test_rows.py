"""Products whose rows do not depend on one another, and how an arithmetic is found that promises it."""

import pytest
import torch
from torch.nn import functional

from predawn.kernels.engine import rows

SHAPES = [(64, 32), (50, 36), (96, 1536), (259, 64)]
KINDS = {"packed": rows._packed, "tiles": rows._tiled, "row by row": rows._row_by_row}
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def weight_of(shape, dtype):
    return torch.randn(shape, generator=torch.Generator().manual_seed(3)).to(dtype)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 16, 17, 40])
def test_every_arithmetic_computes_the_product(kind, shape, count):
    weight, given = weight_of(shape, torch.float32), torch.randn(count, shape[1])

    torch.testing.assert_close(KINDS[kind](weight)(given), functional.linear(given, weight), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_chosen_has_independent_rows(dtype):
    weights = [weight_of(shape, dtype) for shape in SHAPES]
    chosen = rows.choose(weights)

    for weight in weights:
        assert rows.independent(chosen.prepare(weight), weight.shape[1], dtype, chosen.fewest_rows)


@pytest.mark.parametrize("kind", ["tiles", "row by row"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_there_is_without_onednn_is_independent_too(kind, shape, dtype):
    assert rows.independent(KINDS[kind](weight_of(shape, dtype)), shape[1], dtype)


def test_a_product_that_mixes_rows_is_found_out():
    weight = weight_of((8, 8), torch.float32)

    assert not rows.independent(lambda given: functional.linear(given - given.mean() * 1e-7, weight), 8, torch.float32)
    assert not rows.independent(lambda given: functional.linear(given, weight) + len(given) * 1e-5, 8, torch.float32)


def test_without_packed_products_another_arithmetic_is_chosen(monkeypatch):
    def missing(weight):
        raise RuntimeError("not compiled with oneDNN")

    monkeypatch.setattr(rows, "_packed", missing)

    assert rows.choose([weight_of((64, 32), torch.float32)]).name == "tiles"


def test_if_nothing_is_stable_rows_are_computed_one_by_one(monkeypatch):
    monkeypatch.setattr(
        rows, "_packed", lambda weight: lambda given: functional.linear(given, weight) + len(given) * 1e-5
    )
    monkeypatch.setattr(rows, "_tiled", rows._packed)

    assert rows.choose([weight_of((64, 32), torch.float32)]).name == "row by row"


@pytest.mark.parametrize("fewest", [1, 2, 4])
def test_fewer_rows_than_are_stable_are_known(monkeypatch, fewest):
    def product(weight):
        return lambda given: functional.linear(given, weight) + (0 if len(given) >= fewest else 1e-3)

    monkeypatch.setattr(rows, "_packed", lambda weight: lambda given: torch.cat([product(weight)(given)]))
    weight = torch.eye(8)

    assert rows.choose([weight]).fewest_rows == fewest
