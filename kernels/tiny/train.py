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

from predawn.kernels.shape import BlockShape
from predawn.kernels.tiny import curve, induction, number_line, progress, tokenizer, world
from predawn.kernels.tiny.batches import Batch, cut
from predawn.kernels.tiny.lessons import Curriculum, Piece, lesson
from predawn.kernels.tiny.network import Network, Places

SHAPE = BlockShape(dim=192, heads=4, kv_heads=2, head_dim=64, ffn=512, layers=4, repeat=2, rope_theta=100_000.0)
POSITIONS = 1024
POOL_STEPS = 32
"""Lessons are drawn for so many steps at once and sorted by length, so that batches need little padding."""
SAVE_EVERY = 100
FALLS_FROM = 0.3
"""Part of a run from which the learning rates fall."""
DRILLED_UNTIL = 0.1
"""Part of a run in which half of the lessons are drills."""
SLIPS_FROM = 0.6
"""Part of a run from which worked steps may go wrong."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything a run depends on."""

    seed: int = 1
    steps: int = 3800
    tokens: int = 8192
    """Per step, padding included."""
    muon_rate: float = 0.02
    adam_rate: float = 0.004
    slip: float = 0.08
    """How often a worked step goes wrong, in the last part of the run (`Curriculum.slip`)."""

    def rate(self, step: int) -> float:
        """The learning rates' common factor: up over 100 steps, level, then down to nothing."""
        left = (1 - step / self.steps) / (1 - FALLS_FROM)
        return min(1.0, (step + 1) / 100, max(0.005, left))

    def curriculum(self, step: int) -> Curriculum:
        """Looking up and sums first, and ever deeper stories; plans as the rates fall, slips last."""
        done = step / self.steps
        if done < DRILLED_UNTIL:
            deepest = min(world.DEEPEST, 2 + int(8 * done / DRILLED_UNTIL))
            return Curriculum(deepest, bushy=0.0, drill=70, sums=70, plans=0)
        return Curriculum(plans=16.0 if done >= FALLS_FROM else 0.0, slip=self.slip if done >= SLIPS_FROM else 0.0)


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
            batches += cut(drawn, self._recipe.tokens)
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
        if state["recipe"] != asdict(self.recipe):
            raise ValueError(f"{self._saved} was made with {state['recipe']}: give the same options, or another folder")
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
    parser.add_argument("--steps", type=int, default=3800)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--slip", type=float, default=0.08)
    parser.add_argument("--threads", type=int, default=1, help="one is as fast as two beside other work")
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="do without a C++ compiler")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
