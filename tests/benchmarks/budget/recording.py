"""Each problem's answers are drawn once, and kept as `predawn simulate` reads them (docs/simulate.md).

A record holds `branches`, thought through at the temperature; `direct`, given at once at the temperature; and one of
each kind at temperature 0. The bundled model is asked in its own engine, in several processes; any other over HTTP.
"""

import asyncio
import multiprocessing
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks.budget.problems import Problem
from tests.benchmarks.sleep.journal import Bar, Journal

if TYPE_CHECKING:
    from predawn.kernels.engine.engine import Engine

TEMPERATURE = 0.8
DIRECT = 16
"""Answers given at once to each problem: they are short."""
MOST_TOKENS, MOST_DIRECT_TOKENS = 320, 8
ROWS = 64
"""Answers written side by side in one process."""
BATCH = 4
"""Problems of one errand."""
PAGES = 4096
WINDOW = 32
"""Tokens whose mean log-probability is how sure a stretch is, as in `plugins/sampling`."""
THOUGHT = "</think>"
_EQUATION = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")


@dataclass(frozen=True, slots=True)
class Way:
    """One kind of answer."""

    member: str
    thinking: bool
    count: int
    temperature: float


def ways(samples: int) -> tuple[Way, ...]:
    return (
        Way("branches", True, samples, TEMPERATURE),
        Way("direct", False, min(DIRECT, samples), TEMPERATURE),
        Way("greedy", True, 1, 0.0),
        Way("greedy_direct", False, 1, 0.0),
    )


# -- the bundled model


class Model:
    """The bundled model in this process."""

    def __init__(self, weights: Path) -> None:
        import torch

        from predawn.kernels.engine import checkpoint
        from predawn.kernels.engine.model import Model as Weights

        torch.set_num_threads(1)
        loaded = checkpoint.load(weights)
        assert loaded.chat is not None
        self._tokenizer, self._chat = loaded.tokenizer, loaded.chat
        self._model = Weights(loaded.config, loaded.weights)

    def answer(self, problems: Sequence[Problem], samples: int) -> dict[str, dict[str, Any]]:
        """The records of some problems."""
        found: dict[str, dict[str, Any]] = {one.id: record_of(one) for one in problems}
        for way in ways(samples):
            engine = self._engine()
            for one in problems:
                prompt = self._prompt(one.question, thinking=way.thinking)
                found[one.id]["prompt_tokens"] = len(prompt)
                engine.submit(one.id, prompt, self._sampling(way))
            drawn = self._drawn(engine, {one.id: way.count for one in problems})
            for ident, answers in drawn.items():
                found[ident][way.member] = [self._branch(answer, way) for answer in answers]
        return found

    def _engine(self) -> "Engine":
        from predawn.kernels.engine.engine import Engine

        return Engine(
            self._model, pages=PAGES, max_waiting=BATCH * ROWS, eos_ids=self._tokenizer.eos_ids, max_batch=ROWS
        )

    def _sampling(self, way: Way) -> Any:
        from predawn.kernels.engine.sampling import Sampling

        most = MOST_TOKENS if way.thinking else MOST_DIRECT_TOKENS
        return Sampling(max_tokens=most, temperature=way.temperature, n=way.count, seed=7, logprobs=0)

    def _prompt(self, question: str, *, thinking: bool) -> list[int]:
        said = [{"role": "user", "content": question}]
        text = self._chat.render(said, continue_final=False, add_generation_prompt=True, enable_thinking=thinking)
        return self._tokenizer.encode(text, special=True)

    @staticmethod
    def _drawn(engine: "Engine", counts: Mapping[str, int]) -> dict[str, list[list[Any]]]:
        drawn: dict[str, list[list[Any]]] = {ident: [[] for _ in range(count)] for ident, count in counts.items()}
        while not engine.idle:
            for token in engine.step():
                drawn[token.request_id][token.index].append(token)
        return drawn

    def _branch(self, tokens: list[Any], way: Way) -> dict[str, Any]:
        text = self._tokenizer.decode([one.token_id for one in tokens if one.token_id not in self._tokenizer.eos_ids])
        thought, _, said = text.rpartition(THOUGHT)
        has_ended = tokens[-1].finish == "stop" and (bool(thought) or not way.thinking)
        branch = {"tokens": len(tokens), "text": said.strip() if has_ended else "", "sound": is_sound(thought)}
        if not has_ended:
            branch["finish_reason"] = "length"
        return branch | surety([one.logprob for one in tokens if one.logprob is not None])


def is_sound(thought: str) -> bool:
    """Whether every equation of a thought is right: `3 + 4 = 7.`"""
    for left, sign, right, result in _EQUATION.findall(thought):
        one, other = int(left), int(right)
        if sign == "/":
            if other == 0 or one % other or one // other != int(result):
                return False
        elif {"+": one + other, "-": one - other, "*": one * other}[sign] != int(result):
            return False
    return True


def surety(logprobs: Sequence[float]) -> dict[str, float]:
    """How sure an answer is on the mean, and in its least sure stretch where it is long enough to have one."""
    if not logprobs:
        return {}
    found = {"mean_logprob": sum(logprobs) / len(logprobs)}
    if len(logprobs) >= WINDOW:
        sums = (sum(logprobs[at : at + WINDOW]) for at in range(len(logprobs) - WINDOW + 1))
        found["worst_logprob"] = min(sums) / WINDOW
    return {name: round(value, 4) for name, value in found.items()}


def record_of(problem: Problem) -> dict[str, Any]:
    return {"id": problem.id, "depth": problem.depth, "question": problem.question, "answer": problem.answer}


_model: Model | None = None


def _load(weights: Path) -> None:
    global _model  # noqa: PLW0603 - one model in each process of the pool
    _model = Model(weights)


def _errand(problems: Sequence[Problem], samples: int) -> dict[str, dict[str, Any]]:
    assert _model is not None
    return _model.answer(problems, samples)


def record(journal: Journal, problems: Sequence[Problem], samples: int, weights: Path) -> None:
    """Have the bundled model answer what is not in the journal."""
    missing = [one for one in problems if one.id not in journal]
    bar = Bar(f"{samples} answers a problem", len(problems), len(problems) - len(missing))
    if not missing:
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count() or 1, context, _load, (weights,)) as pool:
        errands = [pool.submit(_errand, batch, samples) for batch in _batches(missing)]
        try:
            for errand in as_completed(errands):
                _keep(journal, errand)
                bar.step(len(errand.result()))
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _batches(problems: Sequence[Problem]) -> Iterator[Sequence[Problem]]:
    for at in range(0, len(problems), BATCH):
        yield problems[at : at + BATCH]


def _keep(journal: Journal, errand: Future[dict[str, dict[str, Any]]]) -> None:
    for ident, found in errand.result().items():
        journal.add(ident, found)


# -- any other model


async def record_endpoint(
    journal: Journal, problems: Sequence[Problem], samples: int, ask: Any, streams: int = 8
) -> None:
    """Have an endpoint answer what is not in the journal: `ask(question, thinking, temperature, seed)` gives one
    answer as a branch, with `prompt_tokens`."""
    missing = [one for one in problems if one.id not in journal]
    bar = Bar(f"{samples} answers a problem", len(problems), len(problems) - len(missing))
    room = asyncio.Semaphore(streams)

    async def one_of(problem: Problem, way: Way, seed: int) -> dict[str, Any]:
        async with room:
            found: dict[str, Any] = await ask(problem.question, way.thinking, way.temperature, seed)
            return found

    for problem in missing:
        found = record_of(problem)
        for way in ways(samples):
            found[way.member] = await asyncio.gather(*[one_of(problem, way, seed) for seed in range(way.count)])
            found["prompt_tokens"] = found[way.member][0].pop("prompt_tokens", 0)
        journal.add(problem.id, found)
        bar.step()
