"""The seam between the proxy and a provider: `Upstream`, what it is sent, and how it fails."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

from predawn.proxy.exchange import Reply, RouteName

if TYPE_CHECKING:
    from predawn.proxy.engine_meters import EngineMeters

Reason: TypeAlias = Literal[
    "connect", "timeout_ttft", "timeout_idle", "5xx", "429", "truncated", "protocol", "breaker", "crashed"
]


class UpstreamError(Exception):
    """An upstream did not answer as it should; `reason` is a label of `predawn_upstream_errors_total`.

    `sent_nothing` is true where no byte of an answer had arrived, so that another try cannot repeat visible work.
    "crashed" means that the upstream went down with the request inside, which may be the cause: it is not sent there
    again.
    """

    def __init__(self, upstream: str, reason: Reason, message: str, *, sent_nothing: bool = True) -> None:
        super().__init__(f"upstream {upstream!r}: {message}")
        self.upstream = upstream
        self.reason: Reason = reason
        self.message = message
        self.sent_nothing = sent_nothing
        self.is_stale = False
        """True where a connection that was kept proved closed: that tells nothing of the upstream's health."""
        self.retried = False
        """True once our own retries are used up, so that the client's SDK need not add its own."""


@dataclass(slots=True)
class UpstreamRequest:
    """One call to an upstream, ready to send. Not frozen: that would cost 1.5 µs a request."""

    route: RouteName
    method: str
    path: str
    """Below the upstream's base URL, with its query string: `/chat/completions`."""
    model: str
    """The upstream's own name for the model."""
    body: bytes | AsyncIterator[bytes]
    headers: Mapping[str, str]
    """The client's headers that may travel on; credentials and hop-by-hop headers are already gone."""
    stream: bool
    decoded: Callable[[], Mapping[str, Any]]
    """The request as an object, for upstreams that translate."""
    tenant: str = ""
    """Who asks; what one tenant sends must leave no trace in another's answer, its timing included."""


class Upstream(Protocol):
    """A provider of replies. `send` returns once the first bytes of a body are there, or raises `UpstreamError`.

    A status of 400 and above is a reply, not an error: it is relayed unchanged. Each reply's `source` must be closed by
    the caller, who registers `source.aclose` on the exchange's scope.
    """

    @property
    def name(self) -> str: ...

    @property
    def routes(self) -> frozenset[RouteName]:
        """What the upstream speaks natively."""
        ...

    async def open(self) -> None:
        """Get ready to send; called before `/ready` says so."""
        ...

    async def send(self, request: UpstreamRequest) -> Reply: ...

    async def models(self) -> list[str]:
        """Names of the models behind it, as far as it tells; an empty list otherwise."""
        ...

    async def aclose(self) -> None: ...


@runtime_checkable
class EngineUpstream(Protocol):
    """An upstream that answers by an engine of its own, whose health and load can be told."""

    @property
    def condition(self) -> str:
        """`ready`, or why it cannot answer now."""
        ...

    def meter(self, meters: EngineMeters) -> None:
        """Keep these meters up to date from now on; called before `open`."""
        ...
