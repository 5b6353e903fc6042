"""The roofline: it says what arithmetic says, and its limits are where they must be."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predawn.kernels.gpus import GPUS, Gpu, find
from predawn.kernels.known_shapes import KNOWN_SHAPES, ModelShape
from predawn.kernels.roofline import (
    ASSUMED,
    Workload,
    block_bytes,
    compare,
    fits_cache,
    kv_token_bytes,
    launched,
    persistent,
)
from predawn.kernels.shape import BlockShape

SMALL = KNOWN_SHAPES["125M"]
NO_WAITING = replace(ASSUMED, barrier_us=0.0, launch_us=0.0)
SHAPES = st.builds(
    BlockShape,
    dim=st.integers(1, 64).map(lambda n: 64 * n),
    heads=st.just(8),
    kv_heads=st.sampled_from([1, 2, 4, 8]),
    head_dim=st.sampled_from([32, 64, 128]),
    ffn=st.integers(1, 128).map(lambda n: 64 * n),
    layers=st.integers(1, 60),
    repeat=st.integers(1, 4),
)
WORK = st.builds(Workload, batch=st.integers(1, 300), context=st.integers(1, 50_000))


def test_a_block_has_the_bytes_of_its_matrices() -> None:
    work = Workload()
    matrices = 576 * (9 + 2 * 3) * 64 + 9 * 64 * 576 + 3 * 576 * 1536

    assert block_bytes(SMALL.blocks, work) == 2 * matrices
    assert kv_token_bytes(SMALL.blocks, work) == 2 * 3 * 64 * 2


def test_without_overheads_and_kv_distinct_blocks_take_their_bytes_over_bandwidth() -> None:
    gpu, work = find("RTX-4060"), Workload(context=0)
    distinct = replace(SMALL, blocks=replace(SMALL.blocks, layers=60, repeat=1), vocabulary=0)
    bytes_over_bandwidth = 60 * block_bytes(SMALL.blocks, work) / 0.272e12

    assert persistent(distinct, gpu, work, NO_WAITING).seconds == pytest.approx(bytes_over_bandwidth)


@pytest.mark.parametrize(
    ("name", "gpu", "gain"),
    [
        ("125M", "H100", 1.00),  # barriers take longer than memory
        ("125M", "RTX-4090", 1.08),
        ("125M", "RTX-4060", 1.78),
        ("350M", "RTX-4090", 1.86),
        ("350M", "RTX-4060", 1.00),  # a block of 19.7 MB does not survive in 24 MB
    ],
)
def test_predictions_are_those_of_the_documentation(name: str, gpu: str, gain: float) -> None:
    assert compare(KNOWN_SHAPES[name], find(gpu), Workload()).gain == pytest.approx(gain, abs=0.005)


@given(SHAPES, st.sampled_from(GPUS), WORK)
def test_sharing_lies_between_the_blocks_once_and_blocks_of_their_own(
    shape: BlockShape, gpu: Gpu, work: Workload
) -> None:
    model = ModelShape("any", shape)
    for way in ("persistent", "launched"):
        found = compare(model, gpu, work, way)

        assert found.once.seconds <= found.shared.seconds * (1 + 1e-9)
        assert found.shared.seconds <= found.distinct.seconds * (1 + 1e-9)
        assert 1 - 1e-9 <= found.gain <= shape.repeat + 1e-9


@given(SHAPES, st.sampled_from(GPUS), WORK)
def test_more_work_never_takes_less_time(shape: BlockShape, gpu: Gpu, work: Workload) -> None:
    model = ModelShape("any", shape)
    for run in (persistent, launched):
        seconds = run(model, gpu, work).seconds

        assert run(model, gpu, replace(work, batch=work.batch * 2)).seconds >= seconds
        assert run(model, gpu, replace(work, context=work.context * 2)).seconds >= seconds
        assert run(replace(model, vocabulary=model.vocabulary * 2), gpu, work).seconds >= seconds


@given(SHAPES, st.sampled_from(GPUS), WORK)
def test_nothing_is_faster_than_its_bytes(shape: BlockShape, gpu: Gpu, work: Workload) -> None:
    kv = shape.passes * kv_token_bytes(shape, work) * work.context * work.batch
    least = (shape.layers * block_bytes(shape, work) + kv) / (gpu.memory_tb_s * 1e12)

    assert persistent(ModelShape("any", shape), gpu, work).seconds >= least * (1 - 1e-9)


@given(SHAPES, WORK)
def test_a_block_beyond_the_cache_gains_nothing(shape: BlockShape, work: Workload) -> None:
    gpu = replace(find("H100"), cache_mb=1e-6)

    assert not fits_cache(shape, gpu, work)
    assert compare(ModelShape("any", shape), gpu, work).gain == pytest.approx(1)


def test_kv_and_batches_eat_the_gain() -> None:
    gpu = find("RTX-4060")
    gains = [compare(SMALL, gpu, Workload(batch, context)).gain for batch, context in ((1, 128), (4, 2048), (64, 8192))]

    assert gains == sorted(gains, reverse=True)
    assert gains[0] > 1.7
    assert gains[-1] < 1.02


def test_what_sets_the_time_is_named() -> None:
    assert compare(SMALL, find("H100"), Workload()).shared.limit == "latency"
    assert compare(SMALL, find("RTX-4060"), Workload()).distinct.limit == "memory"
    assert compare(KNOWN_SHAPES["1B"], find("H100"), Workload()).shared.limit == "cache"
    assert compare(SMALL, replace(find("H100"), tflops=0.1), Workload()).shared.limit == "maths"
    assert compare(SMALL, find("H100"), Workload(16, 32_768)).shared.limit == "kv"


def test_without_prefetch_fetches_and_barriers_add_up() -> None:
    gpu, work = find("MI300X"), Workload(context=1)
    model = replace(SMALL, blocks=replace(SMALL.blocks, layers=1, repeat=1), vocabulary=0)
    fetch_and_barriers = block_bytes(SMALL.blocks, work) / 5.3e12 + 5e-6

    assert persistent(model, gpu, work).seconds == pytest.approx(fetch_and_barriers, rel=1e-3)
