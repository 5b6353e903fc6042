import dataclasses

import pytest
import torch
from tests.kernels.engine.random_models import LLAMA, SHARED, random_model

from predawn.kernels.engine.engine import Engine
from predawn.kernels.engine.sampling import Sampling

WIDE = Sampling(max_tokens=20, seed=5, logprobs=1, width=4)
PLAIN = dataclasses.replace(WIDE, width=1)


@pytest.fixture(scope="module")
def model():
    return random_model(SHARED)


def answers(model, *asked, pages=64, **options):
    """Of each request, given the same prompt at once: tokens with their log-probabilities."""
    engine = Engine(model, **{"pages": pages, "max_waiting": 9, "eos_ids": (), "most_width": 4, **options})
    for place, sampling in enumerate(asked):
        engine.submit(str(place), list(range(30)), sampling)
    found = [[] for _ in asked]
    while not engine.idle:
        for token in engine.step():
            found[int(token.request_id)].append((token.token_id, token.logprob))
    assert engine.stats().free_pages == pages
    return found, engine.stats()


def test_the_experiment_is_off_unless_switched_on(model) -> None:
    with pytest.raises(ValueError, match="^width is an experiment that is switched off"):
        answers(model, WIDE, most_width=1)


def test_noise_needs_two_passes_to_go_between(model) -> None:
    with pytest.raises(ValueError, match="^width must be 1 where blocks run once"):
        answers(model, dataclasses.replace(WIDE, repeat=1))
    with pytest.raises(ValueError, match="^width must be 1 where blocks run once"):
        answers(random_model(LLAMA), WIDE)


def test_no_more_trajectories_than_allowed(model) -> None:
    with pytest.raises(ValueError, match="^width must be between 1 and 4, not 5"):
        answers(model, dataclasses.replace(WIDE, width=5))


def test_a_vote_moves_probabilities_a_little(model) -> None:
    [[wide, plain], _] = answers(model, WIDE, PLAIN)

    assert wide[0] == plain[0]  # the prompt's own, without a vote
    assert 0 < abs(wide[1][1] - plain[1][1]) < 1


def test_without_noise_all_trajectories_agree(model, monkeypatch) -> None:
    monkeypatch.setattr("predawn.kernels.engine.width.NOISE", 0.0)
    [[wide, plain], _] = answers(model, WIDE, PLAIN)

    assert [token for token, _ in wide] == [token for token, _ in plain]
    assert [logprob for _, logprob in wide] == pytest.approx([logprob for _, logprob in plain], abs=1e-5)


def test_a_vote_is_the_same_in_any_company(model) -> None:
    [[alone], _] = answers(model, WIDE)
    [together, _] = answers(model, PLAIN, WIDE, dataclasses.replace(WIDE, seed=6), PLAIN)
    [crowded, stats] = answers(model, PLAIN, *[WIDE] * 3, pages=8)

    assert together[1] == alone
    assert together[0] == together[3] != together[1]
    assert stats.preemptions > 0
    assert crowded[1:] == [alone] * 3


def test_the_rest_of_a_text_reads_undisturbed_keys(model) -> None:
    engine = Engine(model, pages=8, max_waiting=1, eos_ids=(), most_width=4)
    engine.submit("a", list(range(30)), dataclasses.replace(WIDE, temperature=0.0))
    text = list(range(30))
    for _ in range(12):
        text += [token.token_id for token in engine.step()]
    [sequence] = engine._scheduler.active
    pages = torch.tensor([sequence.pages], dtype=torch.int32)
    plain = model.new_kv(8)
    model.prefill(torch.tensor(text[:30]), 0, torch.arange(8, dtype=torch.int32), plain)
    for place, token in enumerate(text[30 : sequence.computed], 30):
        model.decode(torch.tensor([token]), torch.tensor([place]), torch.arange(8, dtype=torch.int32)[None], plain)

    held = pages[0].long()
    assert torch.equal(
        engine._kv.k[:, held].flatten(1, 2)[:, : sequence.computed],
        plain.k[:, : len(held)].flatten(1, 2)[:, : sequence.computed],
    )
