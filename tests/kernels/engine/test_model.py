"""Logits of `Model` against transformers, against itself, and bit by bit between batches."""

import dataclasses

import pytest
import torch
from tests.kernels.engine.random_models import LLAMA, SHARED, config_of, pages_for, random_model, weights_of
from tests.kernels.engine.shared_llama import transformers_model

from predawn.kernels.engine.kv import PAGE
from predawn.kernels.engine.model import Model
from predawn.kernels.engine.rope import Llama3Scaling
from predawn.kernels.shape import BlockShape

ODD = BlockShape(dim=36, heads=3, kv_heads=1, head_dim=20, ffn=50, layers=2, repeat=3)
LONG_K = BlockShape(dim=32, heads=2, kv_heads=2, head_dim=16, ffn=1536, layers=1, repeat=2)
SHAPES = {"llama": LLAMA, "shared": SHARED, "odd": ODD, "wide": LONG_K}
LLAMA3 = Llama3Scaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_positions=32)


def tokens_of(count, seed=1):
    return torch.randint(0, 259, (count,), generator=torch.Generator().manual_seed(seed))


def one_by_one(model, tokens, pages, **more):
    """Logits of decoding given tokens after one another."""
    kv = model.new_kv(int(pages.max()) + 1)
    return torch.cat(
        [model.decode(token[None], torch.tensor([at]), pages[None], kv, **more) for at, token in enumerate(tokens)]
    )


def in_one_go(model, tokens, pages, **more):
    return model.prefill(tokens, 0, pages, model.new_kv(int(pages.max()) + 1), want="all", **more)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tied", [True, False])
def test_logits_are_those_of_transformers(shape, tied):
    config = config_of(SHAPES[shape], tied=tied)
    weights = weights_of(config)
    tokens = tokens_of(45)
    with torch.no_grad():
        expected = transformers_model(config, weights)(tokens[None]).logits[0]

    actual = in_one_go(Model(config, weights), tokens, pages_for(45))

    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_llama3_scaling_is_that_of_transformers():
    config = config_of(LLAMA, rope_scaling=LLAMA3)
    weights = weights_of(config)
    tokens = tokens_of(90)
    parameters = {
        "rope_type": "llama3",
        "rope_theta": LLAMA.rope_theta,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    }
    with torch.no_grad():
        expected = transformers_model(config, weights, rope_parameters=parameters)(tokens[None]).logits[0]

    actual = in_one_go(Model(config, weights), tokens, pages_for(90))

    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(in_one_go(random_model(LLAMA), tokens, pages_for(90)), expected, atol=0.1)


@pytest.mark.parametrize("shape", SHAPES)
def test_decoding_with_kept_keys_gives_the_logits_of_the_whole_text(shape):
    model, tokens, pages = random_model(SHAPES[shape]), tokens_of(37), pages_for(37)

    torch.testing.assert_close(one_by_one(model, tokens, pages), in_one_go(model, tokens, pages), rtol=1e-4, atol=1e-4)


def test_one_layer_of_keys_for_both_passes_would_be_wrong():
    """What the published code of MobileLLM does: the second pass overwrites, and reads, the keys of the first."""
    model, tokens, pages = random_model(dataclasses.replace(SHARED, layers=1)), tokens_of(20), pages_for(20)
    kv = model.new_kv(2)
    shared = dataclasses.replace(kv, rows=kv.rows[:1] * 2)
    logits = [model.decode(token[None], torch.tensor([at]), pages[None], shared) for at, token in enumerate(tokens)]

    assert not torch.allclose(torch.cat(logits), in_one_go(model, tokens, pages), atol=0.1)


@pytest.mark.parametrize("cuts", [(16, 32), (1, 2, 3), (7, 8, 30), (36,)])
def test_a_prompt_in_chunks_gives_the_logits_of_the_whole(cuts):
    model, tokens, pages = random_model(), tokens_of(37), pages_for(37)
    kv, bounds = model.new_kv(3), (0, *cuts, 37)
    chunks = [
        model.prefill(tokens[start:end], start, pages, kv, want="all")
        for start, end in zip(bounds, bounds[1:], strict=False)
    ]

    torch.testing.assert_close(torch.cat(chunks), in_one_go(model, tokens, pages), rtol=1e-4, atol=1e-4)


def test_last_is_the_last_row_of_all():
    model, tokens, pages = random_model(), tokens_of(20), pages_for(20)

    last = model.prefill(tokens, 0, pages, model.new_kv(2))

    torch.testing.assert_close(last, in_one_go(model, tokens, pages)[-1:])


def test_pages_may_lie_anywhere():
    model, tokens = random_model(), tokens_of(40)
    scattered = torch.tensor([5, 0, 3], dtype=torch.int32)

    assert torch.equal(in_one_go(model, tokens, scattered), in_one_go(model, tokens, pages_for(40)))
    assert torch.equal(one_by_one(model, tokens, scattered), one_by_one(model, tokens, pages_for(40)))


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def crowd(request):
    """A model, and 16 sequences of it: their tokens, pages, lengths, and the logits each gets alone."""
    model = random_model(SHARED, dtype=getattr(torch, request.param))
    lengths = [1, 2, 15, 16, 17, 17, 17, 31, 33, 48, 60, 5, 5, 64, 9, 40]
    texts = [tokens_of(length + 1, seed=length + 100 * row) for row, length in enumerate(lengths)]
    pages = torch.stack([pages_for(80, first=5 * row) for row in range(16)])
    kv = model.new_kv(80)
    for text, own in zip(texts, pages, strict=True):
        model.prefill(text[:-1], 0, own, kv)
    last = torch.stack([text[-1] for text in texts])
    alone = [
        model.decode(last[row, None], torch.tensor([length]), pages[row, None], kv)
        for row, length in enumerate(lengths)
    ]
    return model, last, torch.tensor(lengths), pages, kv, torch.cat(alone)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8, 11, 16])
def test_a_row_has_the_same_bits_in_any_batch(crowd, size):
    model, last, positions, pages, kv, alone = crowd
    for seed in range(5):
        rows = torch.randperm(16, generator=torch.Generator().manual_seed(seed))[:size]

        together = model.decode(last[rows], positions[rows], pages[rows], kv)

        assert torch.equal(together, alone[rows])


def test_more_rows_than_a_batch_have_the_same_bits(crowd):
    model, last, positions, pages, kv, alone = crowd
    rows = torch.arange(16).repeat(2)[:23]

    assert torch.equal(model.decode(last[rows], positions[rows], pages[rows], kv), alone[rows])


def test_padded_page_columns_and_what_nobody_wrote_are_never_read(crowd):
    model, last, positions, pages, kv, alone = crowd
    poisoned = model.new_kv(81)
    for layer, rows in enumerate(poisoned.rows):
        rows.fill_(torch.nan)
        for own, length in zip(pages.tolist(), positions.tolist(), strict=True):
            written = [own[at // PAGE] * PAGE + at % PAGE for at in range(length)]
            rows[written] = kv.rows[layer][written]
    padded = torch.cat([pages, torch.full((16, 3), 80, dtype=torch.int32)], 1)

    assert torch.equal(model.decode(last, positions, padded, poisoned), alone)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_drafts_as_rows_of_one_batch_have_the_bits_of_decoding_one_by_one(dtype):
    model, tokens, pages = random_model(dtype=dtype), tokens_of(40), pages_for(40)
    expected = one_by_one(model, tokens, pages)
    kv = model.new_kv(3)
    parts = [
        model.decode(
            tokens[at : at + 7], torch.arange(at, min(at + 7, 40)), pages.expand(len(tokens[at : at + 7]), -1), kv
        )
        for at in range(0, 40, 7)
    ]

    assert torch.equal(torch.cat(parts), expected)


def test_fewer_repeats_are_a_shallower_model():
    """With R = 1 of 2, the model is the plain one of the stored blocks; each pass keeps its own layer of keys."""
    config = config_of(SHARED)
    weights = weights_of(config)
    plain = dataclasses.replace(config, shape=dataclasses.replace(SHARED, repeat=1))
    tokens, pages = tokens_of(30), pages_for(30)
    expected = in_one_go(Model(plain, weights), tokens, pages)
    model = Model(config, weights)

    torch.testing.assert_close(in_one_go(model, tokens, pages, repeat=1), expected)
    torch.testing.assert_close(one_by_one(model, tokens, pages, repeat=1), expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(in_one_go(model, tokens, pages), expected, atol=0.1)


@pytest.mark.parametrize("repeat", [0, 3, -1])
def test_more_repeats_than_the_model_was_trained_with_are_refused(repeat):
    model = random_model(SHARED)

    with pytest.raises(ValueError, match="between 1 and 2"):
        model.prefill(tokens_of(3), 0, pages_for(3), model.new_kv(1), repeat=repeat)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_comes_close_to_float32(dtype):
    exact, tokens, pages = random_model(), tokens_of(30), pages_for(30)
    expected = in_one_go(exact, tokens, pages)
    half = random_model(dtype=dtype)

    for actual in (in_one_go(half, tokens, pages), one_by_one(half, tokens, pages)):
        assert (actual - expected).std() < 0.05 * expected.std()


@pytest.fixture
def two_threads():
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("length", [0, 592])
@pytest.mark.usefixtures("two_threads")
def test_threads_do_not_change_bits_between_batches(dtype, length):
    """Wide enough that torch divides elementwise work of 16 rows among threads, but not that of one row."""
    wide = BlockShape(dim=520, heads=36, kv_heads=18, head_dim=62, ffn=2500, layers=1, repeat=2)
    model = random_model(wide, dtype=dtype, max_positions=600)
    kv, shared = model.new_kv(16 + length // PAGE), torch.arange(16, 16 + length // PAGE, dtype=torch.int32)
    if length:
        model.prefill(tokens_of(length), 0, shared, kv)
    pages = torch.stack([torch.cat([shared, torch.tensor([row], dtype=torch.int32)]) for row in range(16)])
    tokens, positions = tokens_of(16), torch.full((16,), length)
    together = model.decode(tokens, positions, pages, kv)
    some = [0, 7, 15]
    alone = [model.decode(tokens[row, None], positions[:1], pages[row, None], kv) for row in some]

    assert torch.equal(torch.cat(alone), together[some])
