"""The search: equal size, kernels' tiles, the law's range, and a front that nothing beats."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predawn.kernels.gpus import find
from predawn.kernels.known_shapes import KNOWN_SHAPES, LARGEST, ModelShape
from predawn.kernels.plan import law
from predawn.kernels.plan.search import SIZE_TOLERANCE, TILE, Design, Search, pareto, thinned
from predawn.kernels.roofline import Workload
from predawn.kernels.shape import BlockShape

ANY = BlockShape(64, 1, 1, 64, 64, 1)
DESIGNS = st.lists(
    st.builds(Design, name=st.just(""), shape=st.just(ANY), loss=st.integers(0, 9), step_s=st.integers(0, 9))
)


@pytest.fixture(scope="module", params=["125M", "1B"])
def search(request: pytest.FixtureRequest) -> Search:
    return Search(KNOWN_SHAPES[request.param], find("RTX-4090"), Workload(), 1e10, repeats=(1, 2))


def test_every_shape_has_the_size_and_depth_of_the_model(search: Search) -> None:
    base = search.model.blocks
    sizes = [law.block_parameters(design.shape) / law.block_parameters(base) for design in search.designs()]

    assert len(sizes) > 100
    assert {design.shape.layers for design in search.designs()} == {base.layers}
    assert max(abs(size - 1) for size in sizes) <= SIZE_TOLERANCE


def test_every_shape_fits_the_kernels_and_the_law(search: Search) -> None:
    shapes = [design.shape for design in search.designs()]

    assert all(shape.dim % TILE == 0 and shape.ffn % TILE == 0 for shape in shapes)
    assert all(shape.heads % shape.kv_heads == 0 for shape in shapes)
    assert all(law.FITTED_RATIOS[0] <= law.mlp_ratio(shape) <= law.FITTED_RATIOS[1] for shape in shapes)
    assert len(set(shapes)) == len(shapes)


def test_the_least_loss_is_near_the_laws_optimum(search: Search) -> None:
    best = min(search.designs(), key=lambda design: design.loss)

    assert law.relative_width(best.shape) == pytest.approx(0.08, abs=0.02)
    assert law.mlp_ratio(best.shape) == pytest.approx(1.03, abs=0.3)
    assert best.shape.repeat == 2


def test_references_are_the_model_once_shared_and_distinct(search: Search) -> None:
    once, shared, distinct = (design.shape for design in search.references())

    assert (once.repeat, shared.repeat, distinct.repeat) == (1, 2, 1)
    assert shared.passes == distinct.passes == 2 * once.passes


@given(DESIGNS)
def test_nothing_beats_a_design_of_the_front_and_something_beats_every_other(designs: list[Design]) -> None:
    front = pareto(designs)
    values = {(design.step_s, design.loss) for design in front}

    for design in designs:
        beaten = any(
            step <= design.step_s and loss <= design.loss and (step, loss) != (design.step_s, design.loss)
            for step, loss in values
        )

        assert beaten != ((design.step_s, design.loss) in values)


@given(DESIGNS, st.integers(2, 5))
def test_thinning_keeps_both_ends(designs: list[Design], most: int) -> None:
    kept = thinned(designs, most)

    assert len(kept) == min(most, len(designs))
    assert kept[:1] == designs[:1]
    assert kept[-1:] == designs[-1:]


def test_the_largest_shape_is_searched_in_no_time() -> None:
    largest = BlockShape(LARGEST, LARGEST, LARGEST, 64, LARGEST, LARGEST, 1)
    search = Search(ModelShape("largest", largest), find("H100"), Workload(), 1e30)

    assert len(search.designs()) < 20_000
