"""A model in memory, ready to compute logits."""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from predawn.kernels.engine import decode, kv, prefill
from predawn.kernels.engine.blocks import normalised, prepared, scaled_gain, widened
from predawn.kernels.engine.config import ModelConfig
from predawn.kernels.engine.decoder import Between
from predawn.kernels.engine.kv import KV
from predawn.kernels.engine.rope import HalfSplit, Interleaved, frequencies
from predawn.kernels.engine.rows import MAX_ROWS, Product, choose
from predawn.kernels.engine.weights import ModelWeights


def _frequencies(config: ModelConfig) -> Tensor:
    return frequencies(config.shape.head_dim, config.shape.rope_theta, config.rope_scaling, config.rope_factors)


class _Runner(Protocol):
    """The blocks on a kind of device."""

    arithmetic: str
    fewest_rows: int

    def prepare(self, weight: Tensor) -> Product: ...
    def new_kv(self, pages: int) -> KV: ...
    def prefill(self, x: Tensor, start: int, pages: Tensor, cache: KV, repeat: int) -> Tensor: ...
    def decode(
        self, x: Tensor, positions: Tensor, pages: Tensor, cache: KV, repeat: int, *, between: Between | None
    ) -> Tensor: ...


class Model:
    """Logits of a checkpoint: whole prompts by `prefill`, single tokens of up to many sequences by `decode`.

    A row of `decode` has the same bits whatever else is in the batch. `repeat` runs each block fewer times than it was
    trained for (1 to `config.shape.repeat`); all tokens of a sequence need the same, for each pass reads the keys that
    its own pass wrote. Use it from one thread at a time, with torch's thread count as it was when the model was made.
    """

    def __init__(self, config: ModelConfig, weights: ModelWeights, device: torch.device | str = "cpu") -> None:
        self.config = config
        self.device = torch.device(device)
        self.dtype = weights.embedding.dtype
        with torch.inference_mode():
            inverse = _frequencies(config)
            self._runner: _Runner = (
                _Cpu(config, weights, inverse)
                if self.device.type == "cpu"
                else _Gpu(config, weights, inverse, self.device)
            )
            self._embedding = weights.embedding.to(self.device)
            self._norm = scaled_gain(weights.norm).to(self.device)
            # On a CPU in float32 whatever the rest is: rounded to bfloat16, the two best logits of a sure model tie.
            self._head_dtype = torch.float32 if self.device.type == "cpu" else self.dtype
            self._head = self._runner.prepare(weights.head.to(self._head_dtype))

    def __repr__(self) -> str:
        shape = self.config.shape
        return (
            f"Model({self.config.name or 'unnamed'}, {shape.layers} blocks x {shape.repeat}, dim {shape.dim}, "
            f"{self.dtype}, {self.device}, {self.arithmetic})"
        )

    @property
    def arithmetic(self) -> str:
        """How its products are computed, for `/metrics`: "packed", "tiles" or "row by row"; on a GPU the `Mode`."""
        return self._runner.arithmetic

    def new_kv(self, n_pages: int) -> KV:
        """Empty pages for keys and values; zeros, so that what no token wrote is at least finite."""
        return self._runner.new_kv(n_pages)

    @torch.inference_mode()
    def prefill(
        self,
        tokens: Tensor,
        start: int,
        pages: Tensor,
        kv: KV,
        *,
        repeat: int | None = None,
        want: Literal["last", "all"] = "last",
    ) -> Tensor:
        """Logits `[1 or T, vocab]` float32 after `tokens` `[T]` int64, which stand at `start`, `start + 1`, …

        `pages` `[n]` are the sequence's, enough for `start + T` positions; what they hold from before `start` is
        attended to. Chunks of a prompt give the same logits as the whole, to float32 rounding.
        """
        x = self._runner.prefill(self._embedded(tokens), start, pages.to(self.device), kv, self._passes(repeat))
        return self._logits(x if want == "all" else x[-1:])

    @torch.inference_mode()
    def decode(
        self,
        tokens: Tensor,
        positions: Tensor,
        pages: Tensor,
        kv: KV,
        *,
        repeat: int | None = None,
        between: Between | None = None,
    ) -> Tensor:
        """Logits `[B, vocab]` float32 after one token of each row, at `positions` `[B]`, with `pages` `[B, max_pages]`.

        All rows write their keys and values before any attends. So rows may be consecutive positions of one sequence
        that share its pages, in ascending order: drafts are verified with the very bits that decoding them one by one
        would have. Columns of `pages` beyond a row's own are never read. `between`, on a CPU only, may change the
        hidden states after each pass but the last of a block.
        """
        repeat = self._passes(repeat)
        if tokens.shape[0] <= MAX_ROWS:
            return self._decode(tokens, positions, pages, kv, repeat, between=between)
        parts = zip(tokens.split(MAX_ROWS), positions.split(MAX_ROWS), pages.split(MAX_ROWS), strict=True)
        return torch.cat([self._decode(*part, kv, repeat, between=between) for part in parts])

    def _decode(
        self, tokens: Tensor, positions: Tensor, pages: Tensor, cache: KV, repeat: int, *, between: Between | None
    ) -> Tensor:
        count = tokens.shape[0]
        x = self._embedded(tokens)
        if (spare := self._runner.fewest_rows - count) > 0:
            x = torch.cat([x, x[-1:].expand(spare, -1)])
        return self._logits(self._runner.decode(x, positions, pages, cache, repeat, between=between))[:count]

    def _embedded(self, tokens: Tensor) -> Tensor:
        return widened(self._embedding[tokens.to(self.device)].float(), self.config.shape.eps)

    def _logits(self, x: Tensor) -> Tensor:
        return self._head(normalised(x, self._norm, self._head_dtype)).float()

    def _passes(self, repeat: int | None) -> int:
        most = self.config.shape.repeat
        if repeat is None:
            return most
        if not 1 <= repeat <= most:
            raise ValueError(f"repeat must be between 1 and {most}, the repeat of this model, not {repeat}")
        return repeat


class _Cpu:
    """Products chosen for their independent rows; keys beside values; rotary pairs as neighbours."""

    def __init__(self, config: ModelConfig, weights: ModelWeights, inverse: Tensor) -> None:
        self._shape = config.shape
        self._dtype = weights.embedding.dtype
        blocks = weights.blocks
        kinds = [blocks.qkv[0], blocks.o[0], blocks.gate_up[0].flatten(0, 1), blocks.down[0], weights.head.float()]
        self._chosen = choose(kinds)
        self.arithmetic, self.fewest_rows = self._chosen.name, self._chosen.fewest_rows
        self._blocks = tuple(prepared(blocks, config.shape, self.prepare, interleave=True))
        self._rotation = Interleaved(inverse, config.max_positions)

    def prepare(self, weight: Tensor) -> Product:
        return self._chosen.prepare(weight)

    def new_kv(self, pages: int) -> KV:
        return kv.side_by_side(self._shape, pages, self._dtype)

    def prefill(self, x: Tensor, start: int, pages: Tensor, cache: KV, repeat: int) -> Tensor:
        return prefill.prefill(
            x, start, pages, cache, blocks=self._blocks, rotation=self._rotation, shape=self._shape, repeat=repeat
        )

    def decode(
        self, x: Tensor, positions: Tensor, pages: Tensor, cache: KV, repeat: int, *, between: Between | None
    ) -> Tensor:
        step = decode.planned(positions, pages, self._rotation)
        return decode.decode(x, step, cache, blocks=self._blocks, shape=self._shape, repeat=repeat, between=between)


class _Gpu:
    """Prompts by torch, single tokens by the shared-block kernel."""

    fewest_rows = 1

    def __init__(self, config: ModelConfig, weights: ModelWeights, inverse: Tensor, device: torch.device) -> None:
        from predawn.kernels.shared_block import choose

        self._shape = config.shape
        self._device = device
        self.arithmetic: str = choose(device).mode
        blocks = weights.blocks
        self._weights = type(blocks)(**{name: getattr(blocks, name).to(device) for name in blocks.__slots__})
        self._blocks = tuple(prepared(self._weights, config.shape, self.prepare, interleave=False))
        self._rotation = HalfSplit(inverse, config.max_positions, device)

    def prepare(self, weight: Tensor) -> Product:
        weight = weight.to(self._device)

        def product(rows: Tensor) -> Tensor:
            """Never of fewer than MAX_ROWS rows: the library chooses its routine by their number, and so their bits."""
            spare = max(0, MAX_ROWS - rows.shape[0])
            return functional.linear(functional.pad(rows, (0, 0, 0, spare)), weight)[: rows.shape[0]]

        return product

    def new_kv(self, pages: int) -> KV:
        return kv.separate(self._shape, pages, self._weights.qkv.dtype, self._device)

    def prefill(self, x: Tensor, start: int, pages: Tensor, cache: KV, repeat: int) -> Tensor:
        return prefill.prefill(
            x, start, pages, cache, blocks=self._blocks, rotation=self._rotation, shape=self._shape, repeat=repeat
        )

    def decode(
        self, x: Tensor, positions: Tensor, pages: Tensor, cache: KV, repeat: int, *, between: Between | None
    ) -> Tensor:
        from predawn.kernels.shared_block import decode_step

        if between is not None:
            raise ValueError("between the passes of the fused kernel nothing can be changed; use a CPU")
        turned = decode_step(
            x[:, :-1].contiguous(),
            self._weights,
            self._shape,
            cache.k,
            cache.v,
            pages.to(self._device, torch.int32),
            positions.to(self._device, torch.int32),
            self._rotation.cos,
            self._rotation.sin,
            repeat=repeat,
        )
        return widened(turned, self._shape.eps)
