"""Starting the small model's server and finding it."""

from __future__ import annotations

import json
import os
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from predawn.proxy.child import Child
from predawn.proxy.local_server import fetch
from predawn.proxy.small_model.download import SetupError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from predawn.proxy.small_model.files import SmallModel

MODEL_ID = "smollm2-135m-instruct"
START_TIMEOUT_S = 120.0
_PROGRAM = Path(__file__).with_name("llama_server.py")


@dataclass(frozen=True, slots=True)
class RunningModel:
    """Where the small model answers."""

    base_url: str
    """`/v1` included."""
    model: str
    child: Child


@contextmanager
def running(
    model: SmallModel,
    *,
    slots: int = 2,
    context: int = 2048,
    embeddings: bool = False,
    chat_template: Path | None = None,
) -> Iterator[RunningModel]:
    """Start the server on a free port, wait until it answers, stop it on the way out."""
    options = [f"--alias={MODEL_ID}", f"--slots={slots}", f"--context={context}", f"--threads={threads()}"]
    options += ["--embeddings"] if embeddings else []
    options += [f"--chat-template={chat_template}"] if chat_template else []
    with tempfile.TemporaryDirectory(prefix="predawn-model-") as folder:
        log, out = Path(folder) / "log", Path(folder) / "address"
        command = [str(model.python), "-P", str(_PROGRAM), str(model.weights), *options]
        with Child(command, log=log, out=out, env=_environment()) as child:
            base_url = f"{_address(child, out)}/v1"
            _check_identity(base_url)
            yield RunningModel(base_url, MODEL_ID, child)


def threads() -> int:
    """Threads for the model: one on a small machine, where the proxy and the client need the other core."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1 if cores <= 2 else min(4, cores // 2)


def _environment() -> dict[str, str]:
    # Threads that spin while they wait make everything else on a small machine ten times slower.
    return {**os.environ, "OMP_WAIT_POLICY": "passive", "PYTHONUNBUFFERED": "1"}


def _address(child: Child, out: Path) -> str:
    """Wait for the address that the server prints when it listens."""
    give_up_at = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < give_up_at:
        text = out.read_text(encoding="utf-8")
        if text.endswith("\n"):
            return text.split()[-1]
        if child.status is not None:
            raise SetupError(f"the model's server ended with status {child.status}:\n{child.tail()}")
        time.sleep(0.05)
    raise SetupError(f"the model's server was not ready after {START_TIMEOUT_S:.0f} s:\n{child.tail()}")


def _check_identity(base_url: str) -> None:
    """Make sure that our model answers there and not another server."""
    try:
        ids = [entry["id"] for entry in json.loads(fetch(f"{base_url}/models", timeout_s=30))["data"]]
    except (OSError, ValueError, KeyError) as exc:
        raise SetupError(f"the model's server at {base_url} does not answer: {exc}") from exc
    if MODEL_ID not in ids:
        raise SetupError(f"{base_url} serves {', '.join(ids) or 'nothing'} instead of {MODEL_ID}")
