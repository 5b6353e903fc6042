"""What the engine's process is told of the proxy's environment: API keys and other secrets are none of its business."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

NAMES: Final = frozenset(
    [
        *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT"),
        *("LD_LIBRARY_PATH", "LD_PRELOAD", "DYLD_LIBRARY_PATH", "VIRTUAL_ENV", "CC", "XDG_CACHE_HOME", "PREDAWN_CACHE"),
    ]
)
PREFIXES: Final = (
    *("LC_", "PYTHON", "CUDA", "NVIDIA", "NCCL_", "ROCM", "ROCR_", "HIP", "HSA_", "OMP_", "GOMP_", "KMP_", "MKL_"),
    *("OPENBLAS_", "ONEDNN_", "DNNL_", "ATEN_", "TORCH", "PYTORCH_", "TRITON_", "MALLOC_"),
)


def environment(whole: Mapping[str, str]) -> dict[str, str]:
    """What of an environment the engine's process needs."""
    return {name: value for name, value in whole.items() if name in NAMES or name.startswith(PREFIXES)}
