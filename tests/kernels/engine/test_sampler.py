import dataclasses
import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from predawn.kernels.engine.sampler import Choice, Draw, sample, uniform
from predawn.kernels.engine.sampling import Sampling

PLAIN = Sampling(max_tokens=1)


def random_logits(rows: int, vocab: int, seed: int = 0, scale: float = 3.0) -> torch.Tensor:
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * scale


def drawn(logits: torch.Tensor, number: float, counts=None, **wishes) -> int:
    [choice] = sample(logits[None], [Draw(dataclasses.replace(PLAIN, **wishes), number, counts or {})])
    return choice.token_id


def frequencies(logits: torch.Tensor, draws: int = 4000, **wishes) -> dict[int, float]:
    """How often each token comes when the draws are spread evenly over [0, 1)."""
    sampling = dataclasses.replace(PLAIN, **wishes)
    numbers = [(number + 0.5) / draws for number in range(draws)]
    choices = sample(logits.expand(draws, -1).contiguous(), [Draw(sampling, number, {}) for number in numbers])
    return {token: count / draws for token, count in Counter(choice.token_id for choice in choices).items()}


def filtered(logits: torch.Tensor, temperature=1.0, top_p=1.0, top_k=0, min_p=0.0) -> dict[int, float]:
    """The distribution that sampling should follow, by sorting."""
    likely = (logits.double() / temperature).softmax(-1)
    order = likely.argsort(descending=True).tolist()
    kept = [token for token in order if likely[token] >= min_p * likely[order[0]]][: top_k or None]
    total = sum(float(likely[token]) for token in kept)
    nucleus, mass = [], 0.0
    for token in kept:
        nucleus.append(token)
        mass += float(likely[token])
        if mass >= top_p * total:
            break
    return {token: float(likely[token]) / mass for token in nucleus}


@pytest.mark.parametrize("vocab", [7, 200, 3000])
@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 2.5},
        {"top_p": 0.7},
        {"top_p": 0.999},
        {"top_k": 5},
        {"top_k": 100},
        {"top_k": 2000, "top_p": 0.9},
        {"top_k": 2**64, "top_p": 0.9},
        {"min_p": 0.05},
        {"min_p": 1e-6, "top_k": 300, "top_p": 0.95, "temperature": 1.3},
    ],
)
def test_draws_follow_the_filtered_distribution(vocab, filters) -> None:
    logits = random_logits(1, vocab, seed=vocab)[0]
    expected = filtered(logits, **filters)
    found = frequencies(logits, **filters)

    assert set(found) <= set(expected)
    # Evenly spread draws miss a token's share by less than one draw on either side.
    assert max(abs(found.get(token, 0.0) - share) for token, share in expected.items()) < 2 / 4000


def test_every_token_of_a_flat_distribution_can_be_drawn() -> None:
    vocab = 2500

    assert set(frequencies(torch.zeros(vocab), draws=vocab)) == set(range(vocab))


def test_tokens_without_probability_are_never_drawn() -> None:
    logits = torch.full((3000,), -300.0)
    logits[:70] = 0.0

    assert set(frequencies(logits)) == set(range(70))
    assert drawn(logits, math.nextafter(1.0, 0.0)) < 70


@pytest.mark.parametrize(
    "wishes", [{"temperature": 0.0}, {"top_k": 1}, {"top_p": 0.0}, {"min_p": 1.0}, {"temperature": 1e-4}]
)
def test_the_likeliest_token_is_taken_when_nothing_else_is_left(wishes) -> None:
    logits = random_logits(1, 300)[0]

    assert drawn(logits, 0.999, **wishes) == int(logits.argmax())


wishes = st.builds(
    Sampling,
    max_tokens=st.just(1),
    temperature=st.sampled_from([0.0, 0.3, 1.0, 1.7]),
    top_p=st.sampled_from([0.3, 0.9, 0.999, 1.0]),
    top_k=st.sampled_from([0, 0, 1, 5, 90]),
    min_p=st.sampled_from([0.0, 0.0, 0.1, 1e-7]),
    logprobs=st.sampled_from([None, None, 0, 3]),
    frequency_penalty=st.sampled_from([0.0, 0.5]),
    logit_bias=st.sampled_from([{}, {3: 5.0, 70: -100.0}]),
)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(wishes, st.floats(0, 1, exclude_max=True)), min_size=1, max_size=9),
    st.sampled_from([80, 1000, 1501]),
    st.sampled_from([0.2, 3.0]),
    st.integers(0, 5),
)
def test_a_row_is_sampled_as_if_it_were_alone(asked, vocab, scale, seed) -> None:
    logits = random_logits(len(asked), vocab, seed, scale)
    draws = [Draw(sampling, number, {1: 2, 5: 1}) for sampling, number in asked]
    together = sample(logits, draws)

    assert together == [sample(logits[row : row + 1].clone(), [draw])[0] for row, draw in enumerate(draws)]


def test_logits_are_left_as_they_are() -> None:
    logits = random_logits(2, 50)
    before = logits.clone()
    sampling = dataclasses.replace(PLAIN, logit_bias={1: 5.0}, presence_penalty=1.0, logprobs=2)
    sample(logits, [Draw(sampling, 0.5, {2: 1})] * 2)

    assert torch.equal(logits, before)


def test_log_probabilities_are_those_of_the_model_itself() -> None:
    logits = random_logits(1, 90)
    sampling = dataclasses.replace(PLAIN, temperature=0.1, top_k=3, logit_bias={7: 100.0}, logprobs=4)
    [choice] = sample(logits, [Draw(sampling, 0.5, {})])
    expected = logits[0].log_softmax(-1)

    assert choice.token_id == 7
    assert choice.logprob == expected[7].item()
    assert choice.top == tuple((token, expected[token].item()) for token in expected.topk(4).indices.tolist())


def test_without_top_only_the_chosen_log_probability_is_reported() -> None:
    logits = random_logits(2, 90)
    asked = dataclasses.replace(PLAIN, temperature=0.0, logprobs=0)
    first, second = sample(logits, [Draw(asked, 0.0, {}), Draw(dataclasses.replace(asked, logprobs=None), 0.0, {})])

    assert (first.logprob is None, first.top) == (False, ())
    assert second == Choice(int(logits[1].argmax()))


def test_penalties_count_what_was_generated() -> None:
    logits = torch.tensor([1.0, 0.9, 0.0])

    assert drawn(logits, 0.0, {0: 1}, temperature=0.0, presence_penalty=0.05) == 0
    assert drawn(logits, 0.0, {0: 1}, temperature=0.0, presence_penalty=0.2) == 1
    assert drawn(logits, 0.0, {0: 3}, temperature=0.0, frequency_penalty=0.05) == 1
    assert drawn(logits, 0.0, {0: 1, 1: 9}, temperature=0.0, frequency_penalty=0.2) == 0
    assert drawn(logits, 0.0, {0: 1, 1: 9, 2: 9}, temperature=0.0, frequency_penalty=-0.2) == 1


def test_a_bias_forbids_and_forces() -> None:
    logits = random_logits(1, 40)[0]
    best = int(logits.argmax())

    assert drawn(logits, 0.3, temperature=0.0, logit_bias={best: -100.0}) != best
    assert drawn(logits, 0.3, logit_bias={11: 100.0}) == 11


def test_a_draw_depends_on_seed_choice_and_position_alone() -> None:
    places = [(seed, choice, position) for seed in (-1, 0, 2**64 - 1) for choice in range(8) for position in range(64)]
    numbers = [uniform(*place) for place in places]

    assert numbers == [uniform(*place) for place in places]
    assert len(set(numbers)) == len(numbers)
    assert all(0.0 <= number < 1.0 for number in numbers)
    assert abs(sum(numbers) / len(numbers) - 0.5) < 0.03
