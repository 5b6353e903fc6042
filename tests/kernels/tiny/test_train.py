from dataclasses import replace

import pytest
import torch

from predawn.kernels.tiny import batches, train
from predawn.kernels.tiny.network import Network, Places
from predawn.kernels.tiny.train import Recipe, Run

SMALL = replace(train.SHAPE, dim=96, heads=2, kv_heads=1, head_dim=32, ffn=64, layers=2)
RECIPE = Recipe(steps=20, tokens=1024)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(train, "SHAPE", SMALL)
    monkeypatch.setattr(train, "POOL_STEPS", 4)


def test_no_token_sees_what_comes_after_it():
    torch.manual_seed(0)
    network, places = Network(SMALL, 50), Places.table(SMALL, 16)
    tokens = torch.randint(0, 50, (1, 12))
    other = tokens.clone()
    other[0, 7:] = (other[0, 7:] + 1) % 50
    before, after = (network.hidden(one, places) for one in (tokens, other))

    assert torch.equal(before[:, :7], after[:, :7])
    assert not torch.equal(before[:, 7:], after[:, 7:])


def test_a_loss_falls(small, tmp_path):
    run = Run(RECIPE, tmp_path)
    losses = [run.learn() for _ in range(20)]

    assert losses[-1] < losses[0] - 0.5


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(small, tmp_path):
    straight = Run(RECIPE, tmp_path / "straight")
    expected = [straight.learn() for _ in range(6)]
    stopped = Run(RECIPE, tmp_path)
    first = [stopped.learn() for _ in range(3)]
    stopped.save()
    resumed = Run(RECIPE, tmp_path)

    assert resumed.restore()
    assert first + [resumed.learn() for _ in range(3)] == expected


def test_another_recipe_does_not_go_on_with_a_run(small, tmp_path):
    Run(RECIPE, tmp_path).save()

    with pytest.raises(ValueError, match="made with"):
        Run(replace(RECIPE, seed=2), tmp_path).restore()


def test_an_empty_folder_is_a_new_run(small, tmp_path):
    assert not Run(RECIPE, tmp_path).restore()


def test_the_longest_lessons_are_among_the_batches():
    rows = [([1] * length, [1.0] * length) for length in range(40, 4, -1)]
    found = batches.cut(rows, 200)

    assert found[0].tokens.shape[1] == 39
    assert all(batch.tokens.numel() <= 200 for batch in found)


def test_padding_is_not_learnt():
    batch = batches.padded([([1, 2, 3], [0.0, 1.0, 1.0]), ([4, 5], [0.0, 2.0])])

    assert batch.targets.tolist() == [2, 3, 5]
    assert batch.weights.tolist() == [1.0, 1.0, 2.0]


def test_the_rate_rises_stands_and_falls():
    recipe = Recipe(steps=1000)

    assert [recipe.rate(step) for step in (0, 99, 300, 650, 999)] == pytest.approx([0.01, 1.0, 1.0, 0.5, 0.005])


def test_drills_come_first_then_plans_and_slips_last():
    recipe = Recipe(steps=1000)
    first, middle, last = (recipe.curriculum(step) for step in (0, 299, 900))

    assert first.sums + first.drill > middle.sums + middle.drill
    assert (first.deepest, middle.deepest) == (2, 8)
    assert first.plans == middle.plans == 0 < last.plans
    assert (first.slip, middle.slip, last.slip) == (0.0, 0.0, recipe.slip)
