"""A served model of random weights, for tests of the local engine: it says nonsense, but really computes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from predawn.proxy.local_server import LocalServer, serving

THINKING = (
    "{%- for message in messages -%}<|im_start|>{{ message.role }} {{ message.content }}"
    "{%- if message.reasoning_content %}<think>{{ message.reasoning_content }}{% endif %}<|im_end|>{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|im_start|>assistant "
    "{%- if enable_thinking is false -%}</think>{%- elif enable_thinking -%}<think>{%- endif -%}{%- endif -%}"
)


def write_model(folder: Path, *, context: int = 512, template: str = THINKING) -> Path:
    """A checkpoint of two shared blocks whose template can open a thought."""
    from tests.kernels.engine.random_models import write_checkpoint

    write_checkpoint(folder, max_positions=context)
    (folder / "chat_template.jinja").write_text(template)
    return folder


@contextmanager
def served(
    model: Path, folder: Path, *, server: Mapping[str, Any] | None = None, **engine: Any
) -> Iterator[LocalServer]:
    """`predawn serve` in front of it, as model `m`."""
    settings = {
        "upstreams": [{"name": "local", "kind": "local", "path": str(model), "engine": {"threads": 1, **engine}}],
        "models": [{"name": "m", "upstream": "local", "reasoning": "enable_thinking", "prefill": True}],
        "plugins": ["record"],
        "server": {"log": {"format": "text"}, **(server or {})},
    }
    with serving(settings, folder=folder) as running:
        yield running
