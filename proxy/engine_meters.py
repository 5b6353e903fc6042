"""The meters of one local engine, kept up to date from what its process tells now and then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from predawn.proxy.meters import Counter, Family, Gauge, Histogram

TOKEN_KINDS: Final = ("prefill", "decode", "lookup")
REQUEST_STATES: Final = ("running", "waiting")
PAGE_STATES: Final = ("used", "total")


class EngineLoad(Protocol):
    """How busy an engine is; tokens are counted from its start."""

    @property
    def running(self) -> int: ...
    @property
    def waiting(self) -> int: ...
    @property
    def pages_used(self) -> int: ...
    @property
    def pages(self) -> int: ...
    @property
    def prefilled(self) -> int: ...
    @property
    def decoded(self) -> int: ...
    @property
    def lookup_accepted(self) -> int: ...
    @property
    def steps(self) -> Mapping[str, tuple[Sequence[int], float]]:
        """`prefill` and `decode` in seconds and `batch` in choices: how often in which bucket, and the sum."""
        ...


class EngineInfo(Protocol):
    """What an engine runs, and how."""

    @property
    def model(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def execution(self) -> str: ...


class EngineFamilies(Protocol):
    """The metrics that engines have; `Metrics` declares them."""

    engine_requests: Family[Gauge]
    engine_kv_pages: Family[Gauge]
    engine_tokens: Family[Counter]
    engine_info: Family[Gauge]
    engine_starts: Family[Counter]
    engine_batch_size: Family[Histogram]
    kernel_step: Family[Histogram]


class EngineMeters:
    """The meters of the engine behind one upstream; all are created at 0.

    While settings are read again an old and a new engine of the same upstream may run side by side. Both count tokens;
    the gauges are those of the one that started last.
    """

    def __init__(self, families: EngineFamilies, upstream: str, latest: dict[str, EngineMeters]) -> None:
        self._upstream = upstream
        self._latest = latest
        self._info = families.engine_info
        self._starts = families.engine_starts.of(upstream)
        self._requests = [families.engine_requests.of(upstream, state) for state in REQUEST_STATES]
        self._pages = [families.engine_kv_pages.of(upstream, state) for state in PAGE_STATES]
        self._batches = families.engine_batch_size.of(upstream)
        self._kernels = families.kernel_step
        self._spreads: dict[str, Histogram] = {"batch": self._batches}
        self._told: dict[str, tuple[Sequence[int], float]] = {}
        """What the engine has told of its steps since its start."""
        self._tokens = [families.engine_tokens.of(upstream, kind) for kind in TOKEN_KINDS]
        self._counted = [0] * len(TOKEN_KINDS)
        """What the engine has told of its tokens since its start."""

    def busy(self, load: EngineLoad) -> None:
        """The engine told how busy it is."""
        counts = [load.prefilled, load.decoded, load.lookup_accepted]
        for meter, count, before in zip(self._tokens, counts, self._counted, strict=True):
            meter.inc(count - before)
        self._counted = counts
        for name, told in load.steps.items():
            if (spread := self._spreads.get(name)) is not None:
                _grow(spread, told, self._told.get(name))
        self._told = dict(load.steps)
        if self._latest.get(self._upstream) is self:
            self._show((load.running, load.waiting), (load.pages_used, load.pages))

    def started(self, info: EngineInfo) -> None:
        """An engine is ready; it counts from 0."""
        self._counted = [0] * len(TOKEN_KINDS)
        self._told = {}
        # prompts go through torch everywhere, single tokens through the fused kernel where there is a GPU
        backends = {"prefill": "torch", "decode": "torch" if info.device.startswith("cpu") else "triton"}
        for kernel, backend in backends.items():
            self._spreads[kernel] = self._kernels.of(kernel, info.dtype, backend)
        self._starts.inc()
        self._latest[self._upstream] = self
        self._forget_info()
        self._info.of(self._upstream, info.model, info.device, info.dtype, info.execution).set(1)

    def lost(self) -> None:
        """There is no engine any more."""
        if self._latest.get(self._upstream) is self:
            self._show((0, 0), (0, 0))
            self._forget_info()

    def _show(self, requests: tuple[int, int], pages: tuple[int, int]) -> None:
        for gauge, value in zip([*self._requests, *self._pages], [*requests, *pages], strict=True):
            gauge.set(value)

    def _forget_info(self) -> None:
        for labels in [labels for labels in self._info.children if labels[0] == self._upstream]:
            del self._info.children[labels]


def _grow(meter: Histogram, told: tuple[Sequence[int], float], before: tuple[Sequence[int], float] | None) -> None:
    """Add what has come since `before`, of an engine that counts in the same buckets."""
    counts, total = told
    if len(counts) != len(meter.counts):
        return
    earlier, earlier_total = before or ([0] * len(counts), 0.0)
    for at, (count, former) in enumerate(zip(counts, earlier, strict=True)):
        meter.counts[at] += count - former
    meter.total += total - earlier_total
