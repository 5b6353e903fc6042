"""Spans on their way out: a bounded queue that drops rather than grows, sent in batches as OTLP over HTTP."""

from __future__ import annotations

import asyncio
import gzip
import logging
import random
import ssl
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import aiohttp

from predawn.plugins.traces import otlp
from predawn.proxy.resilience import retry_after_s

if TYPE_CHECKING:
    from collections.abc import Mapping

    from predawn.plugins.traces.settings import Destination
    from predawn.proxy.clock import Clock
    from predawn.proxy.meters import Counter

log = logging.getLogger("predawn.traces")
BATCH: Final = 512
"""Spans in one request."""
BATCH_BYTES: Final = 4 << 20
"""In one request, unless a single span is larger: with what was said on them spans are long, and collectors refuse
requests of more than 20 MB or so."""
MOST_BYTES: Final = 64 << 20
"""That may wait, however few spans they are."""
TRIES: Final = 5
BASE_S: Final = 0.5
MOST_PAUSE_S: Final = 10.0
CLOSE_S: Final = 5.0
"""How long shutdown waits for the last spans."""
AGAIN: Final = frozenset({429, 502, 503, 504})
LONGEST_ANSWER: Final = 64 << 10
"""Bytes of a collector's answer that are read."""


class Sent(NamedTuple):
    """How an export ended."""

    ok: bool
    again: bool = False
    """Worth another try."""
    retry_after_s: float | None = None
    rejected: int = 0
    why: str = ""


class Exporter(Protocol):
    """Whoever takes `ExportTraceServiceRequest`s."""

    async def export(self, body: bytes) -> Sent: ...

    async def aclose(self) -> None: ...


class Queue:
    """Never blocks who adds; what does not fit is dropped, newest first, so that a burst keeps its beginning."""

    def __init__(
        self,
        resource: Mapping[str, otlp.Value],
        version: str,
        counters: Mapping[str, Counter],
        *,
        limit: int,
        flush_s: float,
    ) -> None:
        self._resource = resource
        self._version = version
        self._exported, self._dropped, self._failed = (counters[name] for name in ("exported", "dropped", "failed"))
        self._limit = limit
        self._flush_s = flush_s
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        """Of those that wait."""
        self._sending: list[bytes] = []
        self._some = asyncio.Event()
        self._full = asyncio.Event()
        self._complaints = 0

    def __len__(self) -> int:
        return len(self._waiting) + len(self._sending)

    def add(self, spans: list[bytes]) -> None:
        """Take all spans of an exchange, or none."""
        size = sum(map(len, spans))
        if len(self._waiting) + len(spans) > self._limit or self._bytes + size > MOST_BYTES:
            self._dropped.inc(len(spans))
            return
        self._waiting += spans
        self._bytes += size
        self._some.set()
        if len(self._waiting) >= BATCH or self._bytes >= BATCH_BYTES:
            self._full.set()

    async def run(self, exporter: Exporter, clock: Clock) -> None:
        """Send what arrives, forever."""
        while True:
            await self._some.wait()
            try:
                async with asyncio.timeout(self._flush_s):
                    await self._full.wait()
            except TimeoutError:
                pass
            await self.flush(exporter, clock)

    async def flush(self, exporter: Exporter, clock: Clock) -> None:
        """Send all that waits, in batches."""
        while self._waiting or self._sending:
            if not self._sending:
                self._sending = self._batch()
            await self._send(exporter, clock)
            self._sending = []
        self._some.clear()
        self._full.clear()

    def _batch(self) -> list[bytes]:
        """The oldest, as many as one request may hold."""
        batch: list[bytes] = []
        size = 0
        while self._waiting and len(batch) < BATCH and (not batch or size + len(self._waiting[0]) <= BATCH_BYTES):
            batch.append(self._waiting.popleft())
            size += len(batch[-1])
        self._bytes -= size
        return batch

    async def _send(self, exporter: Exporter, clock: Clock) -> None:
        body = otlp.request(self._resource, self._version, self._sending)
        count, sent = len(self._sending), Sent(ok=False)
        for used in range(1, TRIES + 1):
            sent = await exporter.export(body)
            if sent.ok:
                self._exported.inc(max(count - sent.rejected, 0))
                self._failed.inc(min(sent.rejected, count))
                if sent.rejected:
                    self._complain(f"{sent.rejected} of {count} spans were rejected")
                return
            if not sent.again or used == TRIES:
                break
            pause_s = random.uniform(0.5, 1) * min(BASE_S * 2**used, MOST_PAUSE_S)  # noqa: S311 - jitter
            await clock.sleep(min(sent.retry_after_s or pause_s, MOST_PAUSE_S))
        self._failed.inc(count)
        self._complain(sent.why)

    def _complain(self, why: str) -> None:
        """At powers of two: a collector that is down must not flood the log."""
        self._complaints += 1
        if not self._complaints & (self._complaints - 1):
            log.warning("spans are lost: %s (%d times so far)", why, self._complaints)

    async def close(self, exporter: Exporter, clock: Clock) -> None:
        """Send the rest, within reason."""
        try:
            async with asyncio.timeout(CLOSE_S):
                await self.flush(exporter, clock)
        except TimeoutError:
            self._failed.inc(len(self))
            log.warning("%d spans are lost: they were not taken within %g s of the end", len(self), CLOSE_S)


class HttpExporter:
    """Sends to one collector; implements `Exporter`."""

    def __init__(self, destination: Destination, clock: Clock) -> None:
        self._destination = destination
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None

    async def export(self, body: bytes) -> Sent:
        to = self._destination
        headers = {**to.headers, "Content-Type": "application/x-protobuf", "User-Agent": "predawn-traces"}
        if to.compresses:
            body = await asyncio.to_thread(gzip.compress, body, 1)  # without the interpreter's lock
            headers["Content-Encoding"] = "gzip"
        try:
            async with self._opened().post(to.url, data=body, headers=headers, allow_redirects=False) as response:
                told = await response.content.read(LONGEST_ANSWER)
                if 200 <= response.status < 300:  # 200 by the book; some services say 202 or 204
                    return Sent(ok=True, rejected=otlp.rejected(told))
                why = f"{to.host} answered {response.status}"  # what it said may quote what it was sent
                after_s = retry_after_s(response.headers, self._clock)
                return Sent(ok=False, again=response.status in AGAIN, retry_after_s=after_s, why=why)
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            return Sent(ok=False, again=True, why=f"{to.host} cannot be reached: {type(exc).__name__}")

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            to = self._destination
            trusted = ssl.create_default_context(cafile=to.certificate) if to.certificate else True
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=1, ssl=trusted),
                timeout=aiohttp.ClientTimeout(total=to.timeout_s),
            )
        return self._session

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()
