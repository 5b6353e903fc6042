"""Whether a request comes from this machine, so that it may be served before any key exists."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit


def stranger(headers: Mapping[str, str], peer: str) -> str | None:
    """Why a request does not come from this machine, in words for the client; `None` if it does.

    A loopback peer may speak for others: a proxy in front of us, or a browser that shows a foreign page. `headers` must
    ignore case.
    """
    if not is_loopback(peer):
        return f"this one came from {peer or 'an unknown address'}"
    for name in ("X-Forwarded-For", "X-Real-Ip"):
        if (value := headers.get(name)) and not all(is_loopback(part.strip()) for part in value.split(",")):
            return "this one came through a proxy"
    if "Forwarded" in headers:
        return "this one came through a proxy"
    if (origin := headers.get("Origin")) and not _is_local_origin(origin):
        return "this one was made by a web page from elsewhere"
    return None


def is_loopback(address: str) -> bool:
    """True for an address that only this machine can have."""
    if address in {"127.0.0.1", "::1"}:
        return True
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback


def _is_local_origin(origin: str) -> bool:
    """True for pages of this machine and programs with a scheme of their own; not for `null`, which any page can be."""
    try:
        parts = urlsplit(origin)
        host = parts.hostname or ""
    except ValueError:
        return False
    if parts.scheme in {"http", "https"}:
        return host == "localhost" or host.endswith(".localhost") or is_loopback(host)
    return bool(parts.scheme)
