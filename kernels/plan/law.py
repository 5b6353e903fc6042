"""Predicted loss of a shape: a conditional scaling law, and what a repeat is worth.

**The law** is that of "Scaling Laws Meet Model Architecture: Toward Inference-Efficient LLMs" (Bian, Yu,
Venkataraman, Park; arXiv 2510.18245, equation 3, multiplicative form), with `d` the hidden size, `N` the parameters
of the blocks, `r` the ratio of MLP to attention parameters:

    L = (a0 + a1·ln(d/√N) + a2·√N/d) · (b0 + b1·ln r + b2/r) · L_opt(N, D)

Both sets of coefficients are theirs, from section 5.1. They fitted decoders of 80M to 1B block parameters with r from
0.5 to 5, four query heads per KV head, a depth fixed for each size, and 100 training tokens per parameter. They found
**no law for grouped queries**: loss moves irregularly with them, so here they change decode time and not loss.

**L_opt** is what the law leaves open; they searched for it by training. Here it is the Chinchilla law with the
coefficients of Hoffmann et al. (arXiv 2203.15556), which come from another corpus and tokenizer. So compare losses of
one table with each other; do not expect one in training.

**Repeats** are not in either law. "How Much Is One Recurrence Worth?" (Schwethelm, Rückert, Kaissis; arXiv
2604.21106, table 2) fits `N_eff = N_once + R^φ·N_rec` with φ = 0.46 (0.41 to 0.53). Using it inside L_opt, and the
stored N in the shape term, is **this project's combination**; nobody has trained models to test it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from predawn.kernels.shape import BlockShape

TOKENS_PER_PARAMETER = 100
"""Training tokens per block parameter in the law's runs."""
RECURRENCE_EXPONENT = 0.46
FITTED_PARAMETERS = (80e6, 3e9)
"""The smallest size the law was fitted on, and the largest it was tried on."""
FITTED_RATIOS = (0.5, 5.0)
FITTED_GROUP = 4
ERROR = 0.01
"""Root of the law's mean squared error on sizes it was not fitted on, in nats: 1e-4 squared."""


@dataclass(frozen=True, slots=True)
class ArchitectureLaw:
    """The two factors of equation 3, and the sizes they were fitted on."""

    fitted_on: str
    a0: float
    a1: float
    a2: float
    b0: float
    b1: float
    b2: float

    def width_factor(self, relative_width: float) -> float:
        """`relative_width` is d/√N."""
        return self.a0 + self.a1 * math.log(relative_width) + self.a2 / relative_width

    def ratio_factor(self, ratio: float) -> float:
        """`ratio` is MLP parameters over attention parameters."""
        return self.b0 + self.b1 * math.log(ratio) + self.b2 / ratio

    @property
    def best_width(self) -> float:
        """d/√N of the least loss."""
        return self.a2 / self.a1

    @property
    def best_ratio(self) -> float:
        """MLP-to-attention ratio of the least loss."""
        return self.b2 / self.b1


SMALL = ArchitectureLaw("80M, 145M and 297M", 2.697, 0.0974, 0.0078, 0.3870, 0.0063, 0.0065)
LARGE = ArchitectureLaw("1B", 2.319, 0.238, 0.0176, 0.5104, 0.0051, 0.0062)


def law_for(parameters: float) -> ArchitectureLaw:
    """The fit to use for a size; its authors advise one made at about a third of it. √3 B lies between their tests."""
    return SMALL if parameters < math.sqrt(3) * 1e9 else LARGE


@dataclass(frozen=True, slots=True)
class SizeLaw:
    """Loss of the best shape of a size: E + A/N^a + B/D^b, in nats."""

    floor: float
    parameter_scale: float
    parameter_exponent: float
    token_scale: float
    token_exponent: float

    def loss(self, parameters: float, tokens: float) -> float:
        """Of `parameters` trained on `tokens`."""
        for_size: float = self.parameter_scale / parameters**self.parameter_exponent
        for_data: float = self.token_scale / tokens**self.token_exponent
        return self.floor + for_size + for_data


CHINCHILLA = SizeLaw(1.69, 406.4, 0.34, 410.7, 0.28)


def block_parameters(shape: BlockShape) -> int:
    """Stored parameters of all blocks, without embeddings: the law's N."""
    return shape.layers * shape.block_params


def mlp_ratio(shape: BlockShape) -> float:
    """MLP parameters over attention parameters: the law's r."""
    return 3 * shape.ffn / (shape.qkv_rows + shape.attention_width)


def relative_width(shape: BlockShape) -> float:
    """Hidden size over the root of the block parameters: the law's d/√N."""
    return shape.dim / math.sqrt(block_parameters(shape))


def effective_parameters(shape: BlockShape) -> float:
    """How many parameters of its own a plain decoder of the same loss would have: N·R^φ."""
    return float(block_parameters(shape) * shape.repeat**RECURRENCE_EXPONENT)


def predicted_loss(shape: BlockShape, tokens: float) -> float:
    """Loss in nats after `tokens` of training; see the module for what it is made of."""
    law = law_for(block_parameters(shape))
    factor = law.width_factor(relative_width(shape)) * law.ratio_factor(mlp_ratio(shape))
    return factor * CHINCHILLA.loss(effective_parameters(shape), tokens)


def outside_the_fit(shape: BlockShape) -> list[str]:
    """In words, where a shape lies beyond what the law was fitted on; empty if nowhere."""
    found = []
    parameters, ratio = block_parameters(shape), mlp_ratio(shape)
    if not FITTED_PARAMETERS[0] * 0.9 <= parameters <= FITTED_PARAMETERS[1] * 1.1:
        found.append(f"{parameters / 1e6:.0f}M block parameters (fitted 80M to 3B)")
    if not FITTED_RATIOS[0] <= ratio <= FITTED_RATIOS[1]:
        found.append(f"an MLP-to-attention ratio of {ratio:.2f} (fitted {FITTED_RATIOS[0]} to {FITTED_RATIOS[1]})")
    if (group := shape.heads // shape.kv_heads) != FITTED_GROUP:
        found.append(f"{group} query heads per KV head (fitted {FITTED_GROUP})")
    return found
