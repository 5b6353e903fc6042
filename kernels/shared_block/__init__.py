"""The fused decode step of weight-shared blocks (MobileLLM, arXiv 2402.14905).

- One stored block is run `repeat` times in a row. Decoding is bound by moving weights, so a second pass over weights
  that are still in a near cache costs less than a second block. The gain is against twice as many distinct blocks.
- One Triton source (`kernel.py`), three ways to use it: a launch per phase, one persistent cooperative launch,
  compilation ahead of time. `choose(device)` picks one and says why; without a GPU it is plain torch
  (`predawn.kernels.reference`).
- The persistent launch fetches block l + 1 into L2 while block l's last pass runs out of L2.
- Each pass has a KV cache of its own, index `l * R + r`. A row's result is the same to the bit in any batch.
"""

from predawn.kernels.shared_block.execution import Execution, choose
from predawn.kernels.shared_block.ops import decode_step
from predawn.kernels.shared_block.tiles import MAX_BATCH

__all__ = ["MAX_BATCH", "Execution", "choose", "decode_step"]
