"""What a client asks of Predawn itself: `x-predawn-*` headers and `extra_body={"predawn": {…}}`, never message text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

_decode = msgspec.json.Decoder().decode
_EMPTY: Mapping[str, Any] = {}


def read_control(headers: Sequence[tuple[str, str]], body: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Settings of one request by name; what the body says wins over a header.

    `headers` come without their prefix, in lower case. Values are read as JSON, or as text where they are none:
    `x-predawn-cache: false` is `{"cache": False}`.
    """
    if not headers:
        return body or _EMPTY
    return {**{name.replace("-", "_"): _value(value) for name, value in headers}, **(body or {})}


def _value(text: str) -> Any:
    try:
        return _decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text
