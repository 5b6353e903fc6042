import dataclasses

import pytest
from tests.kernels.engine.toy import ToyModel, alone

from predawn.kernels.engine.engine import Engine
from predawn.kernels.engine.refusals import ContextOverflow, Overloaded
from predawn.kernels.engine.sampling import Sampling
from predawn.kernels.engine.sequence import Token

GREEDY = Sampling(max_tokens=8, temperature=0.0)
SEEDED = Sampling(max_tokens=8, seed=7)


def make(model=None, *, pages=64, **options) -> Engine:
    options = {"max_waiting": 100, "eos_ids": (), "prefill_chunk": 32, **options}
    return Engine(model or ToyModel(), pages=pages, **options)


def finish(engine: Engine) -> dict[tuple[str, int], list[Token]]:
    """Steps until nothing is left."""
    found: dict[tuple[str, int], list[Token]] = {}
    while not engine.idle:
        for token in engine.step():
            found.setdefault((token.request_id, token.index), []).append(token)
        engine._scheduler.check()
    assert engine.stats().free_pages + len(set(engine._scheduler._prefixes.pages())) == engine.stats().pages
    return found


def ids(tokens: list[Token]) -> list[int]:
    return [token.token_id for token in tokens]


def prompt_of(length: int, start: int = 0) -> list[int]:
    return [(start + 7 * place) % 50 for place in range(length)]


def expected(model, prompt, sampling, **options) -> list[int]:
    return [choice.token_id for choice in alone(model, prompt, sampling, **options)]


@pytest.mark.parametrize("length", [1, 15, 16, 17, 31, 32, 33, 100])
@pytest.mark.parametrize("sampling", [GREEDY, SEEDED])
def test_an_answer_is_that_of_the_model_alone(length, sampling) -> None:
    engine, prompt = make(), prompt_of(length)
    engine.submit("a", prompt, sampling)

    assert ids(finish(engine)["a", 0]) == expected(ToyModel(), prompt, sampling)


def test_an_answer_ends_at_an_end_token_and_says_so() -> None:
    free = expected(ToyModel(), prompt_of(20), SEEDED)
    engine = make(eos_ids=(free[3],))
    engine.submit("a", prompt_of(20), SEEDED)
    tokens = finish(engine)["a", 0]

    assert ids(tokens) == free[: free.index(free[3]) + 1]
    assert [token.finish for token in tokens] == [None] * (len(tokens) - 1) + ["stop"]


def test_an_end_token_can_be_ignored() -> None:
    free = expected(ToyModel(), prompt_of(20), SEEDED)
    engine = make(eos_ids=(free[3],))
    engine.submit("a", prompt_of(20), dataclasses.replace(SEEDED, ignore_eos=True))

    assert ids(finish(engine)["a", 0]) == free


def test_an_answer_ends_at_max_tokens() -> None:
    engine = make()
    engine.submit("a", [1], dataclasses.replace(GREEDY, max_tokens=1))

    [token] = finish(engine)["a", 0]
    assert token.finish == "length"


@pytest.mark.parametrize(("pages", "positions"), [(64, 40), (2, 512)])
def test_an_answer_ends_where_the_context_does(pages, positions) -> None:
    engine = make(ToyModel(max_positions=positions), pages=pages)
    engine.submit("a", prompt_of(10), dataclasses.replace(SEEDED, max_tokens=10_000))
    tokens = finish(engine)["a", 0]

    assert 10 + len(tokens) == engine.max_context == min(positions, pages * 16)
    assert tokens[-1].finish == "length"


def test_a_prompt_without_room_for_an_answer_is_refused() -> None:
    engine = make(pages=2)
    engine.submit("fits", prompt_of(31), GREEDY)

    with pytest.raises(ContextOverflow) as refusal:
        engine.submit("long", prompt_of(32), dataclasses.replace(GREEDY, max_tokens=0))
    assert (refusal.value.prompt_tokens, refusal.value.max_context) == (32, 32)
    assert set(finish(engine)) == {("fits", 0)}


@pytest.mark.parametrize(
    ("prompt", "sampling", "culprit"),
    [
        ([], GREEDY, "prompt"),
        ([50], GREEDY, "prompt"),
        ([-1], GREEDY, "prompt"),
        ([1], dataclasses.replace(GREEDY, max_tokens=0), "max_tokens"),
        ([1], dataclasses.replace(GREEDY, repeat=3), "repeat"),
        ([1], dataclasses.replace(GREEDY, logit_bias={50: 1.0}), "logit_bias"),
    ],
)
def test_a_wrong_parameter_is_named(prompt, sampling, culprit) -> None:
    engine = make()

    with pytest.raises(ValueError, match=f"^{culprit}"):
        engine.submit("a", prompt, sampling)
    assert engine.idle


def test_a_request_id_is_used_once_at_a_time() -> None:
    engine = make()
    engine.submit("a", [1], GREEDY)

    with pytest.raises(ValueError, match="request_id 'a' is in use"):
        engine.submit("a", [1], GREEDY)
    finish(engine)
    engine.submit("a", [1], GREEDY)


def test_choices_share_the_pages_of_their_prompt() -> None:
    engine = make()
    engine.submit("a", prompt_of(40), dataclasses.replace(SEEDED, n=5))
    for _ in range(3):  # the prompt is computed in the second, where each choice gets its first tokens
        engine.step()

    # Two whole pages of the prompt for all, and for each choice a copy of the third with its own tokens.
    assert engine.stats().pages - engine.stats().free_pages == 2 + 5
    assert engine.stats().prefill_tokens == 40


def test_each_step_is_measured_once() -> None:
    engine = make()
    engine.submit("a", prompt_of(40), dataclasses.replace(SEEDED, n=5))
    for _ in range(3):
        engine.step()
    told = engine.stats().steps

    chunks, batches = sum(told["prefill"][0]), sum(told["decode"][0])
    assert told["batch"] == ([0, 0, 0, 0, batches, *([0] * 7)], 5.0 * batches)
    assert told["prefill"][1] > 0
    assert (chunks, batches) == (2, 1)


def test_choices_are_those_of_the_model_alone() -> None:
    engine = make()
    engine.submit("a", prompt_of(40), dataclasses.replace(SEEDED, n=5))
    found = finish(engine)

    for index in range(5):
        assert ids(found["a", index]) == expected(ToyModel(), prompt_of(40), SEEDED, index=index)


def test_choices_beyond_the_batch_come_too() -> None:
    model = ToyModel()
    engine = make(model, max_batch=4)
    engine.submit("many", prompt_of(20), dataclasses.replace(SEEDED, n=11))
    engine.submit("one", prompt_of(20), SEEDED)
    found = finish(engine)

    assert max(model.rows) == 4
    assert ids(found["one", 0]) == ids(found["many", 0])
    assert len({tuple(ids(tokens)) for tokens in found.values()}) == 11


def test_the_prompt_of_many_choices_is_computed_once() -> None:
    engine = make(max_batch=4)
    engine.submit("a", prompt_of(20), dataclasses.replace(SEEDED, n=20))  # four at a time finish together
    finish(engine)

    assert engine.stats().prefill_tokens == 20


def test_many_choices_do_not_starve_a_single_one() -> None:
    engine = make(max_batch=4)
    engine.submit("many", prompt_of(20), dataclasses.replace(SEEDED, n=40, max_tokens=100))
    engine.step()
    engine.submit("one", prompt_of(20), SEEDED)
    steps = 0
    while "one" in engine._requests:
        engine.step()
        steps += 1

    assert steps == 7


def test_a_long_prompt_does_not_hold_up_answers() -> None:
    engine = make()
    engine.submit("answer", prompt_of(10), dataclasses.replace(SEEDED, max_tokens=40))
    engine.step()
    engine.submit("long", prompt_of(300), GREEDY)
    speakers = []
    while "long" not in "".join(speakers):
        speakers.append(" ".join(token.request_id for token in engine.step()))

    assert speakers == ["answer"] * 9 + ["long"]  # 300 tokens in ten chunks of at most 32


def test_a_first_token_does_not_wait_for_everybodys_next() -> None:
    engine = make()
    engine.submit("answer", prompt_of(10), dataclasses.replace(SEEDED, max_tokens=40))
    engine.step()
    speakers = []
    for name in "abc":  # somebody new at each step
        engine.submit(name, prompt_of(10), dataclasses.replace(SEEDED, max_tokens=40))
        speakers.append(" ".join(token.request_id for token in engine.step()))

    assert speakers == ["a answer a", "b", "c answer a b c"]


def test_short_prompts_are_computed_together() -> None:
    engine = make()
    for number in range(5):
        engine.submit(str(number), prompt_of(8, number), GREEDY)

    assert {token.request_id for token in engine.step()} == {"0", "1", "2", "3"}  # 4 × 8 = 32, a chunk


def test_passes_are_chosen_per_request() -> None:
    engine = make()
    one, two = dataclasses.replace(SEEDED, repeat=1), SEEDED
    engine.submit("one", prompt_of(20), one)
    engine.submit("two", prompt_of(20), two)
    found = finish(engine)

    assert ids(found["one", 0]) == expected(ToyModel(), prompt_of(20), one)
    assert ids(found["two", 0]) == expected(ToyModel(), prompt_of(20), two)
    assert ids(found["one", 0]) != ids(found["two", 0])


def test_log_probabilities_come_with_the_tokens() -> None:
    asked = dataclasses.replace(SEEDED, logprobs=3)
    engine = make()
    engine.submit("a", prompt_of(20), asked)
    tokens = finish(engine)["a", 0]

    assert [(token.token_id, token.logprob, token.top) for token in tokens] == [
        (choice.token_id, choice.logprob, choice.top) for choice in alone(ToyModel(), prompt_of(20), asked)
    ]
    assert len(tokens[0].top) == 3


def test_requests_without_a_seed_differ() -> None:
    engine = make()
    for name in "ab":
        engine.submit(name, prompt_of(5), Sampling(max_tokens=30))
    found = finish(engine)

    assert ids(found["a", 0]) != ids(found["b", 0])


def test_an_answer_that_is_continued_is_a_prompt_like_any_other() -> None:
    begun = prompt_of(20) + expected(ToyModel(), prompt_of(20), SEEDED)[:5]
    engine = make(ToyModel())
    engine.submit("rest", begun, SEEDED)

    assert ids(finish(engine)["rest", 0]) == expected(ToyModel(), begun, SEEDED)
    assert engine.stats().prefill_tokens == 25


def test_cancelling_frees_pages_at_once() -> None:
    engine = make()
    engine.submit("a", prompt_of(40), dataclasses.replace(SEEDED, n=3))
    engine.submit("b", prompt_of(100), SEEDED)
    for _ in range(3):
        engine.step()

    engine.cancel("b")
    assert engine.stats().free_pages == 64 - 2 - 3
    engine.cancel("a", 1)
    assert engine.stats().free_pages == 64 - 2 - 2
    engine.cancel("a")
    assert engine.stats().free_pages == 64
    assert engine.idle
    assert engine.step() == []


def test_a_choice_cancelled_while_it_computes_the_prompt_leaves_it_to_the_next() -> None:
    engine = make()
    engine.submit("a", prompt_of(40), dataclasses.replace(SEEDED, n=2))
    engine.step()
    engine.cancel("a", 0)

    assert ids(finish(engine)["a", 1]) == expected(ToyModel(), prompt_of(40), SEEDED, index=1)


def test_cancelling_what_is_not_there_is_ignored() -> None:
    engine = make()
    engine.cancel("a")
    engine.submit("a", [1], GREEDY)
    engine.cancel("a", 5)

    assert len(finish(engine)["a", 0]) == 8


def test_overload_is_refused_with_the_time_the_queue_will_take() -> None:
    now = [0.0]
    model = ToyModel()

    def tick() -> float:
        now[0] += 0.5  # each measurement takes so long, whatever it measures
        return now[0]

    engine = make(model, max_waiting=2, max_batch=1, clock=tick)
    engine.submit("running", prompt_of(10), dataclasses.replace(GREEDY, max_tokens=200))
    for _ in range(50):
        engine.step()
    for name in "ab":
        engine.submit(name, prompt_of(10), dataclasses.replace(GREEDY, max_tokens=20))

    with pytest.raises(Overloaded) as refusal:
        engine.submit("c", prompt_of(10), GREEDY)
    # Half a second for a prompt of 10 tokens and for each of 20 tokens, two times.
    assert refusal.value.retry_after_s == pytest.approx(2 * (0.5 + 20 * 0.5))
    assert (engine.stats().refused, engine.stats().waiting) == (1, 2)
    assert set(finish(engine)) == {("running", 0), ("a", 0), ("b", 0)}


def test_requests_that_find_a_place_in_the_batch_do_not_wait() -> None:
    engine = make(max_waiting=0, max_batch=3)
    for name in "abc":
        engine.submit(name, prompt_of(10), GREEDY)

    with pytest.raises(Overloaded, match="0 requests are waiting"):
        engine.submit("d", prompt_of(10), GREEDY)


def test_requests_wait_in_order() -> None:
    engine = make(max_batch=1)
    for name in "abc":
        engine.submit(name, prompt_of(5), GREEDY)
    order = []
    while not engine.idle:
        order += [token.request_id for token in engine.step()]

    assert order == ["a"] * 8 + ["b"] * 8 + ["c"] * 8


def test_running_out_of_pages_changes_no_answer() -> None:
    model = ToyModel()
    engine = make(model, pages=9)
    asked = dataclasses.replace(SEEDED, max_tokens=70)
    for name in "abcd":
        engine.submit(name, prompt_of(20, ord(name)), asked)
    found = finish(engine)

    assert engine.stats().preemptions > 0
    for name in "abcd":
        assert ids(found[name, 0]) == expected(ToyModel(), prompt_of(20, ord(name)), asked)


def test_choices_that_lost_their_pages_share_those_of_a_sibling_again() -> None:
    engine = make(pages=12)
    engine.submit("older", prompt_of(20), dataclasses.replace(SEEDED, max_tokens=60))
    asked = dataclasses.replace(SEEDED, max_tokens=70, n=2)
    engine.submit("a", prompt_of(40), asked)
    found = finish(engine)

    assert engine.stats().preemptions > 0
    assert engine.stats().prefill_tokens == 20 + 40
    for index in range(2):
        assert ids(found["a", index]) == expected(ToyModel(), prompt_of(40), asked, index=index)


@pytest.mark.parametrize("sampling", [GREEDY, SEEDED, dataclasses.replace(SEEDED, frequency_penalty=1.0)])
def test_lookup_changes_the_pace_and_no_token(sampling) -> None:
    plain = dataclasses.replace(sampling, max_tokens=120, logprobs=2)
    steps, tokens = [], []
    for asked in (plain, dataclasses.replace(plain, lookup=True)):
        model = ToyModel(loops=9)
        engine = make(model)
        engine.submit("a", prompt_of(40), asked)
        tokens.append(finish(engine)["a", 0])
        steps.append(len(model.rows))

    assert tokens[0] == tokens[1]
    assert steps[1] < steps[0] == 119
    assert engine.stats().drafted >= engine.stats().accepted == steps[0] - steps[1]


def test_lookup_of_the_first_token_drafts_from_the_prompt() -> None:
    model = ToyModel(loops=9)
    engine = make(model)
    engine.submit("a", prompt_of(9) * 3, dataclasses.replace(GREEDY, max_tokens=30, lookup=True))
    engine.step()
    engine.step()

    assert engine.stats().accepted > 0


def test_drafts_leave_room_in_the_batch_for_everyone() -> None:
    model = ToyModel(loops=5)
    engine = make(model, max_batch=6)
    for name in "abcd":
        engine.submit(name, prompt_of(5) * 4, dataclasses.replace(GREEDY, max_tokens=60, lookup=True))
    found = finish(engine)

    assert max(model.rows) == 6
    assert {len(tokens) for tokens in found.values()} == {60}


def test_prompts_of_one_salt_are_computed_once() -> None:
    found, engine = {}, make()
    for name in "abc":
        engine.submit(name, prompt_of(70) + [ord(name) % 50], SEEDED, salt="tenant")
        found[name] = finish(engine)[name, 0]

    assert [found[name][0].cached for name in "abc"] == [0, 64, 64]
    assert engine.stats().cached_tokens == 128
    for name in "abc":
        assert ids(found[name]) == expected(ToyModel(), prompt_of(70) + [ord(name) % 50], SEEDED)


@pytest.mark.parametrize(
    "second",
    [
        {"salt": "other"},
        {"salt": None},
        {"salt": "tenant", "sampling": dataclasses.replace(SEEDED, repeat=1)},
        {"salt": "tenant", "prompt": prompt_of(70, start=1)},
        {"salt": "tenant", "prompt": prompt_of(32)},
    ],
)
def test_nothing_else_shares_a_prompt(second) -> None:
    engine = make()
    engine.submit("a", prompt_of(70), SEEDED, salt="tenant")
    finish(engine)
    asked = {"prompt": prompt_of(70), "sampling": SEEDED} | second
    engine.submit("b", asked.pop("prompt"), asked.pop("sampling"), **asked)

    assert finish(engine)["b", 0][0].cached == 0


def test_kept_prompts_give_way_to_requests() -> None:
    engine = make(pages=8)
    engine.submit("a", prompt_of(100), SEEDED, salt="tenant")
    finish(engine)
    assert engine.stats().free_pages == 2

    engine.submit("b", prompt_of(100, start=3), SEEDED)
    assert ids(finish(engine)["b", 0]) == expected(ToyModel(), prompt_of(100, start=3), SEEDED)


def test_a_chunk_is_made_of_whole_pages() -> None:
    with pytest.raises(ValueError, match="prefill_chunk must be a multiple of 16, not 40"):
        make(prefill_chunk=40)


def test_it_shows_its_state() -> None:
    engine = make()
    engine.submit("a", [1], GREEDY)

    assert repr(engine) == "<Engine <Scheduler 0 active, 1 waiting, 64 pages free>>"
