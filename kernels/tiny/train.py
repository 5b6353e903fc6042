"""`python -m predawn.kernels.tiny.train`: make `predawn-tiny` from nothing but a seed.

Matrices learn by Muon, the rest by AdamW; the learning rate stands, then falls. Everything drawn depends on the seed
and the step alone, and each save holds all state, so that a run that was stopped goes on as if it had not been.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own idiom
from torch import Tensor

from predawn.kernels.shape import BlockShape
from predawn.kernels.tiny import curve, induction, number_line, progress, tokenizer, world
from predawn.kernels.tiny.lessons import Curriculum, Piece, lesson
from predawn.kernels.tiny.network import Network, Places

SHAPE = BlockShape(dim=192, heads=4, kv_heads=2, head_dim=64, ffn=512, layers=4, repeat=2, rope_theta=100_000.0)
POSITIONS = 1024
POOL_STEPS = 32
"""Lessons are drawn for so many steps at once and sorted by length, so that batches need little padding."""
SAVE_EVERY = 100
FALLS_FROM = 0.3
"""Part of the first schedule from which the learning rates fall."""
FIRST_SCHEDULE = 2200 / 3520
"""Part of a run for which the first schedule is made; it is left before its end, at `AT_ONCE_FROM`."""
AT_ONCE_FROM = 1920 / 3520
"""Part of a run after which answers one step away are drilled, with the rates at `SECOND_RATE` and falling again."""
SECOND_RATE = 0.5
MORE_AT_ONCE_FROM = 2304 / 3520
"""Part of a run after which they are drilled more, with the rates at `THIRD_RATE`."""
THIRD_RATE = 0.2
LAST_FROM = 2624 / 3520
"""Part of a run after which they are drilled most, with the rates falling from `LAST_RATE` to nothing."""
LAST_RATE = 0.075
SLOW_FROM = 2912 / 3520
"""Part of a run after which they fall more slowly, from `SLOW_RATE`."""
SLOW_RATE = 0.0375


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything a run depends on."""

    seed: int = 1
    steps: int = 3520
    tokens: int = 8192
    """Per step, padding included."""
    muon_rate: float = 0.02
    adam_rate: float = 0.004
    slip: float = 0.08
    """How often a worked step goes wrong, in the last part of the run (`Curriculum.slip`)."""

    def rate(self, step: int) -> float:
        """The learning rates' common factor: up over 100 steps, level, down; and down once more from the half."""
        done = step / self.steps
        if done >= SLOW_FROM:
            return max(0.005, SLOW_RATE * (1 - done) / (1 - SLOW_FROM))
        if done >= LAST_FROM:
            return _between(LAST_RATE, SLOW_RATE, (done - LAST_FROM) / (SLOW_FROM - LAST_FROM))
        if done >= MORE_AT_ONCE_FROM:
            return _between(THIRD_RATE, LAST_RATE, (done - MORE_AT_ONCE_FROM) / (LAST_FROM - MORE_AT_ONCE_FROM))
        if done >= AT_ONCE_FROM:
            return _between(SECOND_RATE, THIRD_RATE, (done - AT_ONCE_FROM) / (MORE_AT_ONCE_FROM - AT_ONCE_FROM))
        left = (1 - done / FIRST_SCHEDULE) / (1 - FALLS_FROM)
        return min(1.0, (step + 1) / 100, max(0.02, left))

    def curriculum(self, step: int) -> Curriculum:
        """Looking up and sums first, deeper and deeper stories, then bushy ones, slips, and answers at once."""
        whole = step / self.steps
        done = whole / FIRST_SCHEDULE
        early = done < 0.15
        return Curriculum(
            deepest=min(8, 2 + int(done * 80)),
            slip=self.slip if done >= 0.6 else 0.0,
            recalling=done >= 0.596,
            bushy=0.7 if done >= 0.465 else 0.0,
            at_once=_at_once(whole),
            drill=0.25 if early else 0.05,
            sums=0.25 if early else 0.1,
        )


def _between(first: float, last: float, part: float) -> float:
    return first + (last - first) * part


def _at_once(done: float) -> float:
    if done >= LAST_FROM:
        return 0.75
    if done >= MORE_AT_ONCE_FROM:
        return 0.6
    return 0.45 if done >= AT_ONCE_FROM else 0.0


@dataclass(frozen=True, slots=True)
class Batch:
    tokens: Tensor
    """`[B, T]`"""
    learnt: Tensor
    """Flat positions whose next token is learnt."""
    targets: Tensor
    weights: Tensor


class Lessons:
    """Batches by step number."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._encode = tokenizer.build()
        self._pool: list[Batch] = []
        self._pool_number = -1

    def batch(self, step: int) -> Batch:
        number, place = divmod(step, POOL_STEPS)
        if number != self._pool_number:
            self._pool, self._pool_number = self._draw(number), number
        return self._pool[place]

    def _draw(self, number: int) -> list[Batch]:
        random = Random(f"{self._recipe.seed}/{number}")
        curriculum = self._recipe.curriculum(number * POOL_STEPS)
        batches: list[Batch] = []
        while len(batches) < POOL_STEPS:
            drawn = [self.encoded(lesson(random, curriculum)) for _ in range(1024)]
            drawn.sort(key=lambda row: len(row[0]), reverse=True)
            batches += _cut(drawn, self._recipe.tokens)
        random.shuffle(batches)
        return batches[:POOL_STEPS]

    def encoded(self, pieces: list[Piece]) -> tuple[list[int], list[float]]:
        """Token ids and each one's weight as a target."""
        ids: list[int] = []
        weights: list[float] = []
        for piece, encoding in zip(pieces, self._encode.encode_batch([piece.text for piece in pieces]), strict=True):
            ids += encoding.ids
            weights += [piece.weight] * len(encoding.ids)
        return ids, weights


def _cut(drawn: list[tuple[list[int], list[float]]], tokens: int) -> list[Batch]:
    """Batches of at most `tokens`, padding included, from rows sorted longest first; the short rest is left."""
    batches, start = [], 0
    for end in range(1, len(drawn)):
        if (end + 1 - start) * len(drawn[start][0]) > tokens:
            batches.append(padded(drawn[start:end]))
            start = end
    return batches


def padded(rows: list[tuple[list[int], list[float]]]) -> Batch:
    """Rows of ids and weights as one batch; what pads them is not learnt."""
    length = max(len(ids) for ids, _ in rows)
    tokens = torch.zeros(len(rows), length, dtype=torch.long)
    weights = torch.zeros(len(rows), length)
    for row, (ids, wanted) in enumerate(rows):
        tokens[row, : len(ids)] = torch.tensor(ids)
        weights[row, : len(ids)] = torch.tensor(wanted)
    flat = weights[:, 1:].flatten()
    learnt = flat.nonzero().squeeze(1)
    return Batch(tokens[:, :-1].contiguous(), learnt, tokens[:, 1:].flatten()[learnt], flat[learnt])


class Run:
    """A run in a folder: its network, its optimisers, how far it is."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        self.recipe, self.folder, self.step = recipe, folder, 0
        torch.manual_seed(recipe.seed)
        self.lessons = Lessons(recipe)
        encode = tokenizer.build()
        self.network = Network(SHAPE, encode.get_vocab_size())
        induction.lay(self.network)
        number_line.lay(self.network, encode.encode(" ".join(["", *map(str, range(world.LARGEST + 1))])).ids)
        matrices = [p for name, p in self.network.named_parameters() if p.dim() == 2 and name != "embed"]
        others = [p for name, p in self.network.named_parameters() if p.dim() == 1 or name == "embed"]
        self.optimisers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(matrices, lr=recipe.muon_rate, weight_decay=0.1),
            torch.optim.AdamW(others, lr=recipe.adam_rate, betas=(0.9, 0.98), weight_decay=0.0),
        ]
        self.places = Places.table(SHAPE, POSITIONS)
        self.log = folder / "log.jsonl"

    @property
    def _saved(self) -> Path:
        return self.folder / "run.pt"

    def restore(self) -> bool:
        """Go on from the folder's last save, if it has one. `ValueError` where it was made by another recipe."""
        if not self._saved.exists():
            return False
        state: dict[str, Any] = torch.load(self._saved, weights_only=True)
        ours, theirs = asdict(self.recipe), state["recipe"]
        if {**ours, "steps": 0, "slip": 0} != {**theirs, "steps": 0, "slip": 0}:
            raise ValueError(f"{self._saved} was made with {theirs}: give the same options, or another folder")
        self.step = state["step"]
        self.network.load_state_dict(state["network"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        return True

    def save(self) -> None:
        """Write all state; a crash while writing leaves the last save whole."""
        state = {
            "recipe": asdict(self.recipe),
            "step": self.step,
            "network": self.network.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
        }
        part = self._saved.with_suffix(".part")
        torch.save(state, part)
        part.replace(self._saved)

    def learn(self) -> float:
        """One step; its loss."""
        batch = self.lessons.batch(self.step)
        factor = self.recipe.rate(self.step)
        for optimiser, rate in zip(self.optimisers, (self.recipe.muon_rate, self.recipe.adam_rate), strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * factor
            optimiser.zero_grad(set_to_none=True)
        logits = self.network(batch.tokens, self.places, batch.learnt)
        losses = F.cross_entropy(logits, batch.targets, reduction="none")
        loss = (losses * batch.weights).sum() / batch.weights.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
        self.step += 1
        return float(loss.detach())


def main(arguments: list[str] | None = None) -> int:
    """Train, saving as it goes; Ctrl-C saves and stops."""
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    options.folder.mkdir(parents=True, exist_ok=True)
    recipe = Recipe(seed=options.seed, steps=options.steps, slip=options.slip)
    run = Run(recipe, options.folder)
    if run.restore():
        print(f"going on at step {run.step} of {run.recipe.steps}", file=sys.stderr)
    if options.compile:
        for block in run.network.blocks:
            block.compile(dynamic=True)
    try:
        _train(run)
    except KeyboardInterrupt:
        print(f"\nstopped at step {run.step}; the same command goes on", file=sys.stderr)
        return 130
    finally:
        run.save()
    return 0


def _train(run: Run) -> None:
    shown = progress.Bar(run.recipe.steps)
    smooth, started, tokens = 0.0, time.monotonic(), 0
    while run.step < run.recipe.steps:
        batch_tokens = run.lessons.batch(run.step).tokens.numel()
        loss = run.learn()
        tokens += batch_tokens
        smooth = loss if not smooth else 0.98 * smooth + 0.02 * loss
        rate = tokens / (time.monotonic() - started)
        shown.draw(run.step, f"loss {smooth:.4f} · {rate:,.0f} tokens/s")
        if run.step % SAVE_EVERY == 0 or run.step == run.recipe.steps:
            run.save()
            line = {"step": run.step, "loss": round(smooth, 5), "tokens_per_s": round(rate), **progress.check(run)}
            with run.log.open("a") as log:
                log.write(json.dumps(line) + "\n")
            if find_spec("matplotlib") is not None:
                curve.draw(run.log, run.folder / "curve.png")
            shown.note(" · ".join(f"{name} {value:g}" for name, value in line.items()))


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m predawn.kernels.tiny.train", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("results/tiny"), help="where the run is kept")
    parser.add_argument("--steps", type=int, default=3520)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--slip", type=float, default=0.08)
    parser.add_argument("--threads", type=int, default=1, help="one is as fast as two beside other work")
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="do without a C++ compiler")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
