"""Experiment, off by default: noisy trajectories through the shared blocks vote on each token.

A shared block runs twice, and what goes into its second pass is a draft of what comes out. A little noise there gives
another draft; `width` drafts of the same token are computed side by side, and their mean distribution is what gets
sampled. Nothing says yet that this helps; it is here to be measured. The undisturbed trajectory alone leaves keys and
values, so all later tokens read what they would have read without the experiment.
"""

from __future__ import annotations

import math
from collections.abc import Sequence as SequenceOf

import torch
from torch import Tensor

from predawn.kernels.engine.decoder import DecoderModel
from predawn.kernels.engine.kv import KV, PAGE
from predawn.kernels.engine.sampler import uniform
from predawn.kernels.engine.sequence import Sequence

NOISE = 0.05
"""Standard deviation of the noise, in root mean squares of the hidden state it is added to."""


class Vote:
    """Widens one step of one sequence. `scratch` are pages that no sequence has, one for each further trajectory."""

    def __init__(self, model: DecoderModel, kv: KV, scratch: SequenceOf[int]) -> None:
        self._model = model
        self._kv = kv
        self._scratch = scratch

    def __call__(self, logits: Tensor, sequence: Sequence) -> Tensor:
        """The mean distribution, as logits `[vocab]`, of `logits` and of noisy ones after the sequence's newest token.

        The noise depends on (seed, choice, position) alone. The keys of the newest token must have been written.
        """
        request, position = sequence.request, len(sequence.tokens) - 1
        further = self._scratch[: request.sampling.width - 1]
        generator = torch.Generator().manual_seed(int(uniform(request.seed, sequence.index, position) * 2**53))

        def disturb(x: Tensor, _layer: int) -> None:
            noise = torch.randn(x.shape, generator=generator).to(x.device)
            x += NOISE * x.square().mean(-1, keepdim=True).sqrt() * noise

        noisy = self._model.decode(
            torch.tensor(sequence.tokens[-1:] * len(further)),
            torch.full((len(further),), position, dtype=torch.int32),
            self._pages(sequence, position // PAGE, further),
            self._kv,
            repeat=request.repeat,
            between=disturb,
        )
        together = torch.cat([logits[None], noisy]).log_softmax(-1)
        return together.logsumexp(0) - math.log(len(together))

    def _pages(self, sequence: Sequence, last: int, further: SequenceOf[int]) -> Tensor:
        """The sequence's pages for each trajectory, the last one a copy: each writes keys of its own there."""
        for page in further:
            self._kv.k[:, page] = self._kv.k[:, sequence.pages[last]]
            self._kv.v[:, page] = self._kv.v[:, sequence.pages[last]]
        return torch.tensor([[*sequence.pages[:last], page] for page in further], dtype=torch.int32)
