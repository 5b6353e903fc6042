"""Networks that are trusted with more than others."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address, ip_network


class Networks:
    """A set of IP networks; `address in networks` is false for what is no address."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = [ip_network(network, strict=False) for network in networks]

    def __bool__(self) -> bool:
        return bool(self._networks)

    def __contains__(self, address: object) -> bool:
        try:
            given = ip_address(str(address))
        except ValueError:
            return False
        return any(given in network for network in self._networks if network.version == given.version)
