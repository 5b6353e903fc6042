"""The engine's decode speed against transformers' `generate`, on the same weights: `run.py --parts engine`.

Greedy answers of a fixed length to short prompts, so that nearly all the time is decoding. In each round both do the same work
one after the other, and a gain is taken within a round. Seconds are CPU seconds of one thread, so other work on the machine counts little.

- batch 1, 4, 16: that many requests, all there from the start
- arriving: 16 requests of different lengths, at random times within what transformers needs for one of them. transformers serves them
  one by one as they come, and, reported beside it, in batches of whatever has come when the last batch was done.
"""

import random
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from tests.benchmarks.kernels.contenders import Ours, Theirs, Work, agreement, model_folder, quartiles
from tests.benchmarks.kernels.figures import AtLeast, Figures

SEED = 20
BATCHES = (1, 4, 16)
PROMPT_TOKENS, NEW_TOKENS = 24, 64
ARRIVALS = 16
BAR_ALONE, BAR_ARRIVING = 1.5, 3.0


def works_of(batch: int, vocab: int) -> list[Work]:
    """So many requests of one length."""
    pick = random.Random(SEED)
    return [Work([pick.randrange(vocab) for _ in range(PROMPT_TOKENS)], NEW_TOKENS) for _ in range(batch)]


def arriving(vocab: int, within_s: float) -> list[Work]:
    """Requests of different lengths that come at random times."""
    pick = random.Random(SEED)
    return [
        Work(
            [pick.randrange(vocab) for _ in range(pick.randrange(12, 49))],
            pick.randrange(32, 97),
            pick.uniform(0, within_s),
        )
        for _ in range(ARRIVALS)
    ]


def cpu_s(call: Callable[[], Any]) -> float:
    """CPU seconds of a call."""
    began = time.process_time()
    call()
    return time.process_time() - began


def run(rounds: int) -> Figures:
    """All cases. The bars are the medians of batch 1 and of the requests that arrive."""
    import torch

    torch.set_num_threads(1)
    with model_folder() as (folder, name):
        ours, theirs = Ours(folder), Theirs(folder)
    figures = Figures(
        settings={
            "model": name,
            "dtype": "float32",
            "rounds": rounds,
            "threads": 1,
            "prompt": PROMPT_TOKENS,
            "new": NEW_TOKENS,
        }
    )
    figures.seeds["prompts and arrivals"] = SEED
    figures.notes.append(
        "Requests arrive on a clock that advances by the CPU time of the work, and jumps when there is none."
    )
    for batch in BATCHES:
        _batch(figures, ours, theirs, works_of(batch, ours.config.vocab), rounds)
    _arriving(figures, ours, theirs, rounds)
    return figures


def _batch(figures: Figures, ours: Ours, theirs: Theirs, works: Sequence[Work], rounds: int) -> None:
    same = agreement(ours.generate(works), theirs.generate(works))  # also warms both
    pairs = [(cpu_s(lambda: ours.generate(works)), cpu_s(lambda: theirs.generate(works))) for _ in range(rounds)]
    tokens = sum(work.new_tokens for work in works)
    gain = _add(figures, f"batch {len(works)}", tokens, pairs, same)
    if len(works) == 1:
        figures.bars["engine at batch 1"] = AtLeast(gain, BAR_ALONE, "× transformers")


def _arriving(figures: Figures, ours: Ours, theirs: Theirs, rounds: int) -> None:
    one = works_of(1, ours.config.vocab)
    works = arriving(ours.config.vocab, median(cpu_s(lambda: theirs.generate(one)) for _ in range(3)))
    tokens = sum(work.new_tokens for work in works)
    found = [
        (ours.serve(works), theirs.serve(works, together=False), theirs.serve(works, together=True))
        for _ in range(rounds)
    ]
    for place, rival in ((1, "one by one"), (2, "in static batches")):
        pairs = [(served[0].makespan_s, served[place].makespan_s) for served in found]
        gain = _add(
            figures,
            f"{ARRIVALS} arriving, transformers {rival}",
            tokens,
            pairs,
            agreement(found[0][0].answers, found[0][place].answers),
        )
        if place == 1:
            figures.bars[f"engine at {ARRIVALS} requests arriving"] = AtLeast(
                gain, BAR_ARRIVING, "× transformers one by one"
            )
    names = ("ours", "transformers one by one", "transformers in static batches")
    figures.details["latency_s"] = {
        name: median(served[place].latency_s for served in found) for place, name in enumerate(names)
    }


def _add(figures: Figures, case: str, tokens: int, pairs: Sequence[tuple[float, float]], same: float) -> float:
    gains = quartiles([theirs / ours for ours, theirs in pairs])
    row = {
        "case": case,
        "ours_tokens_per_s": tokens / median(ours for ours, _ in pairs),
        "transformers_tokens_per_s": tokens / median(theirs for _, theirs in pairs),
        "gain": gains["median"],
        "gain_low": gains["low"],
        "gain_high": gains["high"],
        "same_tokens": same,
    }
    figures.rows.append(row)
    print(
        f"  {case}: {row['ours_tokens_per_s']:.0f} against {row['transformers_tokens_per_s']:.0f} tokens/s, "
        f"{gains['median']:.2f}× ({gains['low']:.2f}–{gains['high']:.2f}), {same:.0%} of the tokens the same",
        flush=True,
    )
    return gains["median"]
