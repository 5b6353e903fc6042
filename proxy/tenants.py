"""The meters of one class of tenants. Classes are few and come from the settings; a tenant of none is `default`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from predawn.proxy.traffic import KNOWN_CODES, OTHER

if TYPE_CHECKING:
    from predawn.proxy.meters import Counter, Family, Histogram

DEFAULT: Final = "default"
USUAL_CODES: Final = (200, 429, 502)


class TenantFamilies(Protocol):
    """The metrics a finished request is counted in by who asked; `Metrics` has them."""

    tenant_requests: Family[Counter]
    tenant_duration: Family[Histogram]
    tenant_ttft: Family[Histogram]
    tenant_tokens: Family[Counter]


class TenantMeters:
    """All are created at 0."""

    __slots__ = ("_codes", "_name", "_requests", "duration", "tokens", "ttft")

    def __init__(self, families: TenantFamilies, name: str) -> None:
        self._name = name
        self._requests = families.tenant_requests
        self.duration = families.tenant_duration.of(name)
        self.ttft = families.tenant_ttft.of(name)
        self.tokens = tuple(families.tenant_tokens.of(name, kind) for kind in ("input", "output"))
        self._codes: dict[int, Counter] = {}
        for code in USUAL_CODES:
            self.requests(code)

    def observe(
        self, code: int, total_s: float, ttft_s: float | None = None, input_tokens: int = 0, output_tokens: int = 0
    ) -> None:
        """Count one finished request: 0.5 µs."""
        self.requests(code).value += 1
        self.duration.observe(total_s)
        if ttft_s is not None:
            self.ttft.observe(ttft_s)
        self.tokens[0].value += input_tokens
        self.tokens[1].value += output_tokens

    def requests(self, code: int) -> Counter:
        """The counter of requests that ended with this status."""
        counter = self._codes.get(code)
        if counter is None:
            label = str(code) if code in KNOWN_CODES else OTHER
            counter = self._codes[code] = self._requests.of(self._name, label)
        return counter
