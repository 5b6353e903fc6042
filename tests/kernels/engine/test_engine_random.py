"""Requests that join, leave, are cancelled and lose their pages at random: none is lost, none is changed, no page leaks."""

import random
from dataclasses import dataclass, field

import pytest
from tests.kernels.engine.toy import ToyModel, alone

from predawn.kernels.engine.engine import Engine
from predawn.kernels.engine.refusals import Overloaded
from predawn.kernels.engine.sampling import Sampling

EOS = 3
PAGES = 18


@dataclass
class Asked:
    prompt: list[int]
    sampling: Sampling
    cancelled: set[int] = field(default_factory=set)
    tokens: dict[int, list[int]] = field(default_factory=dict)
    finishes: dict[int, str] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        return len(self.cancelled | set(self.finishes)) == self.sampling.n


class Crowd:
    """Random clients of one engine."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.engine = Engine(
            ToyModel(loops=6), pages=PAGES, max_waiting=4, eos_ids=(EOS,), max_batch=5, prefill_chunk=32
        )
        self.asked: dict[str, Asked] = {}
        self.refused = 0

    def join(self) -> None:
        pick = self.random
        beginning = pick.choice([[7] * 40, [7] * 40, [7, 8, 9] * 12, []])
        prompt = beginning + [pick.randrange(50) for _ in range(pick.randrange(1, 50))]
        sampling = Sampling(
            max_tokens=pick.choice([1, 5, 20, 80]),
            temperature=pick.choice([0.0, 1.0]),
            top_p=pick.choice([1.0, 0.8]),
            seed=pick.randrange(1000),
            n=pick.choice([1, 1, 1, 2, 4]),
            frequency_penalty=pick.choice([0.0, 0.0, 0.7]),
            ignore_eos=pick.random() < 0.3,
            repeat=pick.choice([None, None, 1]),
            lookup=pick.random() < 0.5,
        )
        name = f"{len(self.asked)}"
        try:
            self.engine.submit(name, prompt, sampling, salt=pick.choice([None, "a", "a", "a", "b"]))
        except Overloaded:
            self.refused += 1
        else:
            self.asked[name] = Asked(prompt, sampling)

    def cancel(self) -> None:
        running = [name for name, asked in self.asked.items() if not asked.over]
        if not running:
            return
        name = self.random.choice(running)
        asked = self.asked[name]
        index = self.random.choice([None, *range(asked.sampling.n)])
        self.engine.cancel(name, index)
        asked.cancelled |= (set(range(asked.sampling.n)) if index is None else {index}) - set(asked.finishes)

    def step(self) -> None:
        for token in self.engine.step():
            asked = self.asked[token.request_id]
            assert token.index not in asked.cancelled | set(asked.finishes)
            asked.tokens.setdefault(token.index, []).append(token.token_id)
            if token.finish:
                asked.finishes[token.index] = token.finish

    def verify(self) -> None:
        """Every token ever said is the one that the model alone would have said."""
        for asked in self.asked.values():
            assert asked.over
            for index, tokens in asked.tokens.items():
                expected = alone(
                    ToyModel(loops=6), asked.prompt, asked.sampling, index=index, eos_ids=(EOS,), limit=PAGES * 16
                )
                if index in asked.cancelled:
                    expected = expected[: len(tokens)]

                assert tokens == [choice.token_id for choice in expected]


@pytest.mark.parametrize("seed", [0, 2, 3, 4])
def test_no_page_and_no_answer_is_lost_in_a_thousand_steps(seed) -> None:
    crowd = Crowd(seed)
    for _ in range(1000):
        crowd.random.choices([crowd.join, crowd.cancel, crowd.step], [2, 1, 12])[0]()
        crowd.engine._scheduler.check()
    for _ in range(2000):
        if crowd.engine.idle:
            break
        crowd.step()
        crowd.engine._scheduler.check()

    stats = crowd.engine.stats()
    assert crowd.engine.idle
    assert stats.free_pages + len(set(crowd.engine._scheduler._prefixes.pages())) == PAGES
    assert (stats.running, stats.waiting) == (0, 0)
    assert min(stats.preemptions, stats.accepted, stats.cached_tokens, crowd.refused) > 0
    crowd.verify()
