"""Who is this machine itself, while no keys exist: loopback peers that nobody speaks through."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address

FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Real-IP")
OWN_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})


def stranger(headers: Mapping[str, str], peer: str) -> str | None:
    """Why a request without a key does not come from this machine, or `None` if it does.

    A reverse proxy on this machine makes every client a loopback peer, and a web page may point a name of its own at
    127.0.0.1; so forwarding headers and foreign host names count as strangers.
    """
    if not _is_loopback(peer):
        return f"the request comes from {peer or 'an unknown address'}, not from this machine"
    if any(name in headers for name in FORWARDED):
        return "the request was forwarded for another client"
    host = headers.get("Host", "localhost")
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    if name.lower() not in OWN_NAMES and not name.startswith("127."):
        return f"the request was sent to the name {name[:100]!r}, not to localhost"
    return None


def _is_loopback(peer: str) -> bool:
    try:
        address = ip_address(peer.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return address.is_loopback or bool(mapped is not None and mapped.is_loopback)
