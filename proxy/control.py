"""What a client asks of Predawn itself: `x-predawn-*` headers and `extra_body={"predawn": {…}}`, never message text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

PREFIX = "x-predawn-"
_decode = msgspec.json.Decoder().decode
_EMPTY: Mapping[str, Any] = {}


def read_control(headers: Mapping[str, str], body: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Settings of one request by name; what the body says wins over a header.

    `x-predawn-cache: false` is `{"cache": False}`: header values are read as JSON, or as text where they are none.
    """
    found: dict[str, Any] | None = None
    for name, value in headers.items():
        if name[:10].lower() == PREFIX:
            found = found if found is not None else {}
            found[name[10:].lower().replace("-", "_")] = _value(value)
    if body:
        return {**(found or {}), **body}
    return found if found is not None else _EMPTY


def _value(text: str) -> Any:
    try:
        return _decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text
