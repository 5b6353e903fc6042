import math

import pytest

from predawn.kernels.engine.sampling import Sampling


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", 0),
        ("n", 0),
        ("n", 129),
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_p", 1.1),
        ("top_k", -1),
        ("min_p", -0.5),
        ("frequency_penalty", 2.5),
        ("presence_penalty", -2.5),
        ("width", 0),
        ("logprobs", 21),
        ("logprobs", -1),
        ("repeat", 0),
        ("repeat", 3),
        ("logit_bias", {3: 101.0}),
        ("logit_bias", {100: 1.0}),
        ("logit_bias", {-1: 1.0}),
    ],
)
def test_nonsense_is_refused_by_name(field, value) -> None:
    sampling = Sampling(**{"max_tokens": 5, field: value})

    with pytest.raises(ValueError, match=f"^{field}"):
        sampling.check(vocab=100, repeat=2)


def test_the_limits_themselves_are_allowed() -> None:
    Sampling(
        max_tokens=1,
        n=128,
        temperature=0.0,
        top_p=0.0,
        top_k=10**9,
        min_p=1.0,
        logprobs=20,
        repeat=2,
        logit_bias={99: -100.0},
    ).check(vocab=100, repeat=2)


def test_fewer_tokens_than_log_probabilities_are_refused() -> None:
    with pytest.raises(ValueError, match="logprobs must be between 0 and 7, not 8"):
        Sampling(max_tokens=1, logprobs=8).check(vocab=7, repeat=1)


@pytest.mark.parametrize(
    ("sampling", "greedy"),
    [
        (Sampling(max_tokens=1), False),
        (Sampling(max_tokens=1, temperature=0.0), True),
        (Sampling(max_tokens=1, temperature=1e-9), True),
        (Sampling(max_tokens=1, top_k=1), True),
        (Sampling(max_tokens=1, temperature=1e-3), False),
    ],
)
def test_greedy_is_no_temperature_or_one_candidate(sampling, greedy) -> None:
    assert sampling.greedy is greedy
