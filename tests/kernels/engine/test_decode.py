"""The fast decode step on a CPU against the plain one, which is the oracle of the GPU kernels."""

import dataclasses

import pytest
import torch
from tests.kernels.engine.random_models import LLAMA, SHARED, config_of, pages_for, weights_of
from tests.kernels.engine.test_model import ODD

from predawn.kernels import reference
from predawn.kernels.engine.kv import separate
from predawn.kernels.engine.model import Model


@pytest.mark.parametrize("shape", [LLAMA, SHARED, dataclasses.replace(SHARED, repeat=3), ODD])
@pytest.mark.parametrize("repeat", [None, 1])
def test_a_step_is_the_reference_s(shape, repeat):
    config = config_of(shape)
    weights = weights_of(config)
    model = Model(config, weights)
    mine = model.new_kv(6)
    theirs = separate(shape, 6, torch.float32)
    cos, sin = reference.rope_tables(shape, 40)
    pages = torch.stack([pages_for(33), pages_for(33, first=3)])
    for at in range(33):
        tokens, positions = torch.tensor([at % 7, 3 * at % 11]), torch.tensor([at, max(0, at - 5)], dtype=torch.int32)
        x = reference.decode_step(
            weights.embedding[tokens],
            weights.blocks,
            shape,
            theirs.k,
            theirs.v,
            pages,
            positions,
            cos,
            sin,
            repeat=repeat,
        )
        expected = reference.rms_norm(x, weights.norm, shape.eps) @ weights.head.T

        actual = model.decode(tokens, positions, pages, mine, repeat=repeat)

        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(mine.v, theirs.v, rtol=1e-4, atol=1e-4)


def test_the_path_of_a_gpu_gives_the_same_logits_when_run_on_a_cpu():
    """Prompts in plain torch with half-split pairs, tokens by the registered operator, whose CPU kernel is eager."""
    from predawn.kernels.engine import model as module

    config = config_of(SHARED)
    weights = weights_of(config)
    mine = Model(config, weights)
    other = Model(config, weights)
    other._runner = module._Gpu(config, weights, module._frequencies(config), torch.device("cpu"))
    tokens, pages = torch.arange(30), pages_for(40)
    kvs = mine.new_kv(3), other.new_kv(3)

    expected, actual = (
        model.prefill(tokens, 0, pages, kv, want="all") for model, kv in zip((mine, other), kvs, strict=True)
    )
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
    for at in range(30, 36):
        step = torch.tensor([at]), torch.tensor([at], dtype=torch.int32), pages[None]
        expected, actual = mine.decode(*step, kvs[0]), other.decode(*step, kvs[1])

        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_the_products_of_a_gpu_have_the_same_bits_for_any_number_of_rows():
    """All that decodes beside the kernel is the output projection; here by the same library routine for 1 to 16 rows."""
    from predawn.kernels.engine import model as module

    config = config_of(SHARED)
    weights = weights_of(config)
    runner = module._Gpu(config, weights, module._frequencies(config), torch.device("cpu"))
    product = runner.prepare(torch.randn(300, 64, generator=torch.Generator().manual_seed(1)))
    rows = torch.randn(16, 64, generator=torch.Generator().manual_seed(2))
    whole = product(rows)

    assert runner.arithmetic == "eager"
    for count in (1, 2, 5, 16):
        assert torch.equal(product(rows[:count]), whole[:count])
