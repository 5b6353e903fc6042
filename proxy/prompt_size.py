"""How many tokens a prompt may have, where nobody has counted them."""

from __future__ import annotations

import re

BYTES_PER_TOKEN = 4
"""Rough size of a token, for prompts whose usage nobody reported."""
TOKENS_PER_MEDIUM = 1000
_DATA_URL = re.compile(rb"base64,[A-Za-z0-9+/=\\]{64,}")


def estimated_prompt_tokens(body: bytes) -> int:
    """A guess at a prompt's tokens: a token for each four bytes, and a flat thousand for an image or a sound."""
    size = len(body)
    media = 0
    if b"base64," in body:
        for match in _DATA_URL.finditer(body):
            media += 1
            size -= match.end() - match.start()
    return size // BYTES_PER_TOKEN + media * TOKENS_PER_MEDIUM
