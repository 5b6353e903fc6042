"""One model, twice: in our engine and in transformers, both on one thread and with the same greedy answers to give."""

import os
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.evidence import CHECKOUT

MODEL = "PREDAWN_BENCH_MODEL"
"""Environment variable that names another model's folder."""
BUNDLED = CHECKOUT / "kernels" / "tiny" / "weights"


@dataclass(frozen=True, slots=True)
class Work:
    """One request: answered greedily, to exactly so many tokens."""

    prompt: list[int]
    new_tokens: int
    arrives_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Served:
    """How a server got through requests that arrived over time; seconds are its own CPU's."""

    makespan_s: float
    """From the first arrival to the last token."""
    latency_s: float
    """Median, from a request's arrival to its last token."""
    answers: list[list[int]]


@contextmanager
def model_folder() -> Iterator[tuple[Path, str]]:
    """The model to measure, and what to call it: the bundled one, or random weights of its shape until it exists."""
    chosen = Path(os.environ.get(MODEL, BUNDLED))
    if (chosen / "model.safetensors").exists():
        yield chosen, "bundled" if chosen == BUNDLED else chosen.name
        return
    if MODEL in os.environ:
        raise SystemExit(f"{MODEL}: there is no model.safetensors in {chosen}")
    from tests.kernels.engine.random_models import write_checkpoint

    from predawn.kernels.tiny.train import SHAPE

    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(Path(folder) / "random", SHAPE, vocab=1000, max_positions=1024)
        yield Path(folder) / "random", "random weights of the bundled model's shape"


class Ours:
    """The engine."""

    def __init__(self, folder: Path) -> None:
        import torch

        from predawn.kernels.engine import checkpoint
        from predawn.kernels.engine.model import Model

        self.checkpoint = checkpoint.load(folder, dtype=torch.float32)  # as transformers gets it
        self.config = self.checkpoint.config
        self._model = Model(self.config, self.checkpoint.weights)

    def __repr__(self) -> str:
        return repr(self._model)

    def generate(self, works: Sequence[Work], *, lookup: bool = False) -> list[list[int]]:
        """All at once."""
        return self.serve([Work(work.prompt, work.new_tokens) for work in works], lookup=lookup).answers

    def serve(self, works: Sequence[Work], *, lookup: bool = False) -> Served:
        """Requests join as they arrive, on a clock that advances by the CPU time of the work."""
        from predawn.kernels.engine.engine import Engine
        from predawn.kernels.engine.pages import pages_for
        from predawn.kernels.engine.sampling import Sampling

        pages = sum(pages_for(len(work.prompt) + work.new_tokens) for work in works)
        engine = Engine(self._model, pages=pages, max_waiting=len(works), eos_ids=())
        coming = sorted(range(len(works)), key=lambda place: works[place].arrives_s)
        answers: list[list[int]] = [[] for _ in works]
        done_s = [0.0] * len(works)
        now_s = first_s = works[coming[0]].arrives_s
        while coming or not engine.idle:
            if engine.idle:
                now_s = max(now_s, works[coming[0]].arrives_s)
            began = time.process_time()
            while coming and works[coming[0]].arrives_s <= now_s:
                work = works[place := coming.pop(0)]
                sampling = Sampling(max_tokens=work.new_tokens, temperature=0.0, lookup=lookup)
                engine.submit(str(place), work.prompt, sampling)
            tokens = engine.step()
            now_s += time.process_time() - began
            for token in tokens:
                answers[int(token.request_id)].append(token.token_id)
                done_s[int(token.request_id)] = now_s
        return _served(works, done_s, first_s, answers)


class Theirs:
    """transformers' `generate` on the same weights as a plain Llama."""

    def __init__(self, folder: Path) -> None:
        from predawn.kernels.engine.untie import untie

        with warnings.catch_warnings(), tempfile.TemporaryDirectory() as plain:
            warnings.simplefilter("ignore")
            import torch
            from transformers import LlamaForCausalLM

            untie(folder, Path(plain) / "plain")
            self._model = LlamaForCausalLM.from_pretrained(Path(plain) / "plain", dtype=torch.float32).eval()

    def generate(self, works: Sequence[Work]) -> list[list[int]]:
        """All at once, prompts padded on the left, each answer cut to the length asked for."""
        import torch

        longest = max(len(work.prompt) for work in works)
        padding = [longest - len(work.prompt) for work in works]
        ids = torch.tensor([[0] * pad + work.prompt for pad, work in zip(padding, works, strict=True)])
        mask = torch.tensor([[0] * pad + [1] * (longest - pad) for pad in padding])
        most = max(work.new_tokens for work in works)
        with torch.inference_mode():
            found = self._model.generate(
                ids,
                attention_mask=mask,
                do_sample=False,
                max_new_tokens=most,
                min_new_tokens=most,
                pad_token_id=0,
                eos_token_id=None,
            )
        return [row[longest:].tolist()[: work.new_tokens] for row, work in zip(found, works, strict=True)]

    def serve(self, works: Sequence[Work], *, together: bool) -> Served:
        """One request after the other; or `together`, whatever has come by the time the last batch is done."""
        coming = sorted(range(len(works)), key=lambda place: works[place].arrives_s)
        answers: list[list[int]] = [[] for _ in works]
        done_s = [0.0] * len(works)
        now_s = first_s = works[coming[0]].arrives_s
        while coming:
            now_s = max(now_s, works[coming[0]].arrives_s)
            come = sum(works[place].arrives_s <= now_s for place in coming)
            batch, coming = coming[: come if together else 1], coming[come if together else 1 :]
            began = time.process_time()
            found = self.generate([works[place] for place in batch])
            now_s += time.process_time() - began
            for place, answer in zip(batch, found, strict=True):
                answers[place], done_s[place] = answer, now_s
        return _served(works, done_s, first_s, answers)


def _served(works: Sequence[Work], done_s: Sequence[float], first_s: float, answers: list[list[int]]) -> Served:
    latencies = sorted(done - work.arrives_s for done, work in zip(done_s, works, strict=True))
    return Served(max(done_s) - first_s, latencies[len(latencies) // 2], answers)


def agreement(ours: Sequence[Sequence[int]], theirs: Sequence[Sequence[int]]) -> float:
    """The share of tokens before the first that differs; rounding parts greedy texts at near-ties."""
    total = same = 0
    for one, other in zip(ours, theirs, strict=True):
        total += len(one)
        pairs = zip(one, other, strict=True)
        same += next((place for place, (left, right) in enumerate(pairs) if left != right), len(one))
    return same / total


def quartiles(values: Sequence[float]) -> Mapping[str, float]:
    """Median and quartiles of a few ratios."""
    from statistics import median, quantiles

    low, _, high = quantiles(values, n=4) if len(values) > 1 else (values[0],) * 3
    return {"median": median(values), "low": low, "high": high}
