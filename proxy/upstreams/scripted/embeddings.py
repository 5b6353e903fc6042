"""Embeddings in OpenAI's words: https://platform.openai.com/docs/api-reference/embeddings."""

from __future__ import annotations

import base64
import random
import struct
from typing import TYPE_CHECKING, Any

from predawn.proxy.upstreams.scripted.reading import texts_in, whole_number
from predawn.proxy.upstreams.scripted.speech import Ask, Speech

if TYPE_CHECKING:
    from collections.abc import Mapping

DIMENSIONS = 8


def understand(request: Mapping[str, Any]) -> Ask:
    return Ask(model=str(request.get("model", "")), texts=tuple(texts_in(request.get("input"))))


def whole(request: Mapping[str, Any], speech: Speech) -> dict[str, Any]:
    given = request.get("input")
    inputs = given if isinstance(given, list) and given and isinstance(given[0], str | list) else [given]
    size = whole_number(request.get("dimensions")) or DIMENSIONS
    as_base64 = request.get("encoding_format") == "base64"
    tokens = {"prompt_tokens": speech.prompt_tokens, "total_tokens": speech.prompt_tokens}
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": _vector(repr(item), size, as_base64=as_base64)}
            for index, item in enumerate(inputs)
        ],
        "model": speech.model,
        "usage": {**tokens, **speech.replaced_usage},
    }


def _vector(text: str, size: int, *, as_base64: bool) -> list[float] | str:
    """Equal texts have equal vectors, of single precision as on the wire."""
    draw = random.Random(text)  # noqa: S311 - a made-up vector
    packed = struct.pack(f"<{size}f", *(draw.uniform(-1, 1) for _ in range(size)))
    return base64.b64encode(packed).decode() if as_base64 else list(struct.unpack(f"<{size}f", packed))
