"""A model whose logits depend on every key it should read and on nothing else, and a decoder without any scheduling."""

from __future__ import annotations

import torch
from torch import Tensor

from predawn.kernels.engine.config import ModelConfig
from predawn.kernels.engine.kv import KV, PAGE
from predawn.kernels.engine.pages import pages_for
from predawn.kernels.engine.sampler import Choice, Draw, sample, uniform
from predawn.kernels.engine.sampling import Sampling
from predawn.kernels.shape import BlockShape

POISON = -1


class ToyModel:
    """Keys are hashes of (token, position, and the call that wrote them); logits are a hash of all keys in order.

    The call counts, since no model promises the same bits for a prompt cut elsewhere, or for a prompt and decoded tokens: an engine
    that computes a sequence in another way than before gets other logits here. Arithmetic is int64 and exact.
    """

    def __init__(self, vocab: int = 50, max_positions: int = 512, repeat: int = 2, loops: int = 0) -> None:
        shape = BlockShape(dim=1, heads=1, kv_heads=1, head_dim=1, ffn=1, layers=1, repeat=repeat)
        self.config = ModelConfig(shape=shape, vocab=vocab, max_positions=max_positions, tied=True, dtype=torch.float32)
        self.loops = loops
        """If set, the token so many places before is very likely to come again."""
        self.rows: list[int] = []
        self.chunks: list[int] = []

    def new_kv(self, n_pages: int) -> KV:
        size = (1, n_pages, PAGE, 1, 1)
        return KV(torch.full(size, POISON), torch.full(size, POISON), None)

    def prefill(self, tokens: Tensor, start: int, pages: Tensor, kv: KV, *, repeat=None, want="last") -> Tensor:
        assert want == "last"
        self.chunks.append(len(tokens))
        for offset, token in enumerate(tokens.tolist()):
            self._write(kv, pages, start + offset, token, mixed(start, len(tokens)))
        return self._logits(kv, pages, start + len(tokens) - 1, repeat)[None]

    def decode(self, tokens: Tensor, positions: Tensor, pages: Tensor, kv: KV, *, repeat=None, between=None) -> Tensor:
        assert positions.dtype == pages.dtype == torch.int32
        self.rows.append(len(tokens))
        for token, position, row in zip(tokens.tolist(), positions.tolist(), pages, strict=True):
            self._write(kv, row, position, token, 0)
        return torch.stack(
            [self._logits(kv, row, position, repeat) for position, row in zip(positions.tolist(), pages, strict=True)]
        )

    def _write(self, kv: KV, pages: Tensor, position: int, token: int, origin: int) -> None:
        page = int(pages[position // PAGE])
        kv.k[0, page, position % PAGE] = mixed(token, position, origin)
        kv.v[0, page, position % PAGE] = token

    def _logits(self, kv: KV, pages: Tensor, position: int, repeat: int | None) -> Tensor:
        held = pages[: pages_for(position + 1)].long()
        keys = kv.k[0, held].flatten()[: position + 1]
        tokens = kv.v[0, held].flatten()[: position + 1]
        assert POISON not in tokens, "read what was never written"
        history = (keys * (2 * torch.arange(position + 1) + 1)).sum() + 1_000_003 * (repeat or self.config.shape.repeat)
        bits = (history + torch.arange(self.config.vocab)) * 0x9E3779B97F4A7C1
        logits = ((bits ^ (bits >> 29)) * 0xBF58476D1CE4E5B % 4096).float() / 512
        if self.loops and position + 1 >= self.loops:
            logits[tokens[position + 1 - self.loops]] += 8.0
        return logits


def mixed(*numbers: int) -> int:
    """One 40-bit number from several."""
    value = 0x2545F491
    for number in numbers:
        value = (value ^ (number + 0x9E3779B9)) * 0x5851F42D4C957F2D % 2**61
        value ^= value >> 17
    return value % 2**40


def alone(
    model,
    prompt: list[int],
    sampling: Sampling,
    *,
    index: int = 0,
    chunk: int = 32,
    eos_ids: tuple[int, ...] = (),
    limit: int = 512,
) -> list[Choice]:
    """What choice `index` should be: its own pages, one row at a time, no engine. `sampling.seed` must be set unless greedy."""
    kv = model.new_kv(pages_for(limit))
    pages = torch.arange(pages_for(limit), dtype=torch.int32)
    for start in range(0, len(prompt), chunk):
        part = torch.tensor(prompt[start : start + chunk])
        logits = model.prefill(part, start, pages, kv, repeat=sampling.repeat, want="last")
    tokens, choices = list(prompt), []
    while True:
        number = 0.0 if sampling.seed is None else uniform(sampling.seed, index, len(tokens))
        own = tokens[len(prompt) :]
        [choice] = sample(logits, [Draw(sampling, number, {token: own.count(token) for token in own})])
        choices.append(choice)
        tokens.append(choice.token_id)
        ended = choice.token_id in eos_ids and not sampling.ignore_eos
        if ended or len(choices) == sampling.max_tokens or len(tokens) == limit:
            return choices
        where = torch.tensor([len(tokens) - 1], dtype=torch.int32)
        logits = model.decode(torch.tensor(tokens[-1:]), where, pages[None], kv, repeat=sampling.repeat)
