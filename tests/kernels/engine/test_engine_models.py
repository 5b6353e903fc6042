"""The engine over real arithmetic: random tiny Llamas, with and without shared blocks."""

import dataclasses
import random

import pytest
import torch
from tests.kernels.engine.random_models import LLAMA, SHARED, VOCAB, random_model
from tests.kernels.engine.toy import alone

from predawn.kernels.engine.engine import Engine
from predawn.kernels.engine.sampling import Sampling
from predawn.kernels.engine.sequence import Token

Answers = dict[tuple[str, int], list[Token]]


@pytest.fixture(
    scope="module",
    params=[(LLAMA, torch.float32), (SHARED, torch.float32), (SHARED, torch.bfloat16)],
    ids=["llama", "shared", "shared bf16"],
)
def model(request):
    shape, dtype = request.param
    return random_model(shape, dtype=dtype)


def make(model, *, pages=64, **options) -> Engine:
    return Engine(model, **{"pages": pages, "max_waiting": 100, "eos_ids": (), "prefill_chunk": 32, **options})


def run(engine: Engine, answers: Answers, steps: int = 10**6) -> None:
    while steps and not engine.idle:
        steps -= 1
        for token in engine.step():
            answers.setdefault((token.request_id, token.index), []).append(token)


def crowd(seed: int, count: int = 7) -> dict[str, tuple[list[int], Sampling]]:
    """Requests of all kinds."""
    pick = random.Random(seed)
    asked = {}
    for number in range(count):
        beginning = pick.choice([[], [9] * 40])
        sampling = Sampling(
            max_tokens=pick.randrange(2, 30),
            temperature=pick.choice([0.0, 0.9]),
            seed=number,
            n=pick.choice([1, 1, 3]),
            logprobs=2,
            repeat=pick.choice([None, None, 1]),
            lookup=pick.random() < 0.5,
            presence_penalty=pick.choice([0.0, 0.3]),
        )
        asked[str(number)] = beginning + [pick.randrange(VOCAB) for _ in range(pick.randrange(1, 50))], sampling
    return asked


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("pages", [64, 9])
def test_joining_and_leaving_never_changes_another_answer_by_a_bit(model, pages, seed) -> None:
    engine, answers, asked = make(model, pages=pages), {}, crowd(seed)
    for name, (prompt, sampling) in asked.items():
        engine.submit(name, prompt, sampling, salt="tenant")
        run(engine, answers, steps=random.Random(name).randrange(6))
        if name == "4":
            engine.cancel("3")
    run(engine, answers)

    for (name, index), tokens in answers.items():
        prompt, sampling = asked[name]
        expected = alone(model, prompt, sampling, index=index, limit=min(pages * 16, 256))
        if name != "3":
            assert len(tokens) == len(expected)
        # Equal log-probabilities to the last bit: the logits were.
        assert [(token.token_id, token.logprob, token.top) for token in tokens] == [
            (choice.token_id, choice.logprob, choice.top) for choice in expected[: len(tokens)]
        ]


def test_pages_run_out_among_them(model) -> None:
    engine, asked = make(model, pages=9), crowd(1)
    for name, (prompt, sampling) in asked.items():
        engine.submit(name, prompt, sampling)
    run(engine, {})

    assert engine.stats().preemptions > 0
    assert engine.stats().free_pages == 9


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_lookup_gives_the_same_tokens_in_fewer_steps(model, temperature) -> None:
    prompt = [5, 6, 7, 8, 9, 10, 11] * 6
    biased = Sampling(
        max_tokens=60, temperature=temperature, seed=3, logprobs=1, logit_bias=dict.fromkeys(range(5, 8), 9.0)
    )
    found, rows = [], []
    for asked in (biased, dataclasses.replace(biased, lookup=True)):
        engine, answers = make(model), {}
        engine.submit("a", prompt, asked)
        run(engine, answers)
        found.append(answers["a", 0])
        rows.append(engine.stats().accepted)

    assert found[0] == found[1]
    assert rows[1] > rows[0] == 0


def test_a_kept_prompt_changes_no_bit(model) -> None:
    engine = make(model)
    asked = Sampling(max_tokens=12, seed=1, logprobs=3)
    prompt = [number % VOCAB for number in range(3, 80)]
    answers: Answers = {}
    for name in ("computed", "kept"):
        engine.submit(name, prompt, asked, salt="tenant")
        run(engine, answers)

    computed, kept = answers["computed", 0], answers["kept", 0]
    assert (computed[0].cached, kept[0].cached) == (0, 64)
    assert [(token.token_id, token.logprob, token.top) for token in computed] == [
        (token.token_id, token.logprob, token.top) for token in kept
    ]


def test_decoding_with_kept_keys_is_computing_everything_again(model) -> None:
    """Cache on = cache off, to rounding: each greedy token has the logits that a prefill of the whole text gives it."""
    engine, answers = make(model), {}
    engine.submit("a", [3, 1, 4, 1, 5], Sampling(max_tokens=40, temperature=0.0, logprobs=0))
    run(engine, answers)
    tokens = answers["a", 0]
    text = [3, 1, 4, 1, 5] + [token.token_id for token in tokens]
    pages = torch.arange(4, dtype=torch.int32)
    logprobs = model.prefill(torch.tensor(text[:-1]), 0, pages, model.new_kv(4), want="all").log_softmax(-1)

    rounding = 1e-4 if model.dtype == torch.float32 else 0.1
    for token, row in zip(tokens, logprobs[4:], strict=True):
        assert row[token.token_id].item() == pytest.approx(token.logprob, abs=rounding)
        assert row.max().item() == pytest.approx(token.logprob, abs=rounding)
