"""The oracle against transformers, which is its oracle."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.kernels.shared_block.cases import EVEN, random_case
from tests.kernels.shared_block.llama import VOCAB, llama, token_by_token

from predawn.kernels.shape import BlockShape

ORDINARY = BlockShape(dim=48, heads=6, kv_heads=2, head_dim=8, ffn=80, layers=3, repeat=1)
SHARED = replace(ORDINARY, layers=2, repeat=2)
TOKENS = torch.randint(0, VOCAB, (11,), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("shape", [ORDINARY, SHARED], ids=["R=1", "R=2"])
def test_logits_token_by_token_are_those_of_transformers_at_once(shape):
    model = llama(shape)
    at_once = model(TOKENS[None], use_cache=False).logits[0]

    torch.testing.assert_close(token_by_token(model, shape, TOKENS), at_once, rtol=1e-4, atol=1e-4)


def test_one_kv_index_for_both_passes_breaks_a_cache():
    """The published MobileLLM-LS code calls one layer, with one `layer_idx`, twice; without a cache that goes unnoticed."""
    right, published = llama(SHARED), llama(SHARED)
    for index, layer in enumerate(published.model.layers):
        published.model.layers[index] = published.model.layers[index - index % SHARED.repeat]
    at_once = right(TOKENS[None], use_cache=False).logits[0]

    def with_cache(model):
        past, logits = None, []
        for token in TOKENS:
            out = model(token[None, None], past_key_values=past, use_cache=True)
            past = out.past_key_values
            logits.append(out.logits[0, 0])
        return torch.stack(logits)

    torch.testing.assert_close(published(TOKENS[None], use_cache=False).logits[0], at_once)
    torch.testing.assert_close(with_cache(right), at_once, rtol=1e-4, atol=1e-4)
    assert (with_cache(published) - at_once).abs().max() > 0.1 * at_once.abs().max()


def test_a_step_in_double_precision_differs_from_one_in_single_by_rounding_only():
    case = random_case(EVEN, [0, 20])
    single, double = case.eager(torch.float32)[0], case.eager(torch.float64)[0]

    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-5)
    assert not torch.equal(single.double(), double)
