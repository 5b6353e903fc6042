"""Lessons as batches: token ids, and how much each counts in the loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    tokens: Tensor
    """`[B, T]`"""
    learnt: Tensor
    """Flat positions whose next token is learnt."""
    targets: Tensor
    weights: Tensor


def cut(drawn: list[tuple[list[int], list[float]]], tokens: int) -> list[Batch]:
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
