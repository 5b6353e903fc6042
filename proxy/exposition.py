"""The page at `/metrics`: our metrics as their own text, everybody else's by way of prometheus_client.

Whoever renders in a thread still holds the interpreter while it works, and the event loop waits: up to 5 ms each time
it wants to go on. So the page is made in slices, with a pause after each in which the loop gets its turn at once.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Final

from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from predawn.proxy.meters import Metered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client import Metric

    from predawn.proxy.metrics import Metrics

SLICE_CHARS: Final = 40_000
"""Some 350 lines, 0.3 ms."""
PAUSE_S: Final = 0.0002
OPENMETRICS: Final = "application/openmetrics-text"
EOF: Final = "# EOF\n"


class _One(Collector):
    """A registry with a single metric in it."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterator[Metric]:
        yield self._metric


def render(
    metrics: Metrics, accept: str = "", rest: Callable[[], None] | None = None, slice_chars: int = SLICE_CHARS
) -> tuple[bytes, str]:
    """The body and content type of /metrics, in the format that the `Accept` header asks for.

    In a thread beside an event loop give it a `rest`, which is called between slices.
    """
    encode, content_type = choose_encoder(accept)
    openmetrics = content_type.startswith(OPENMETRICS)
    pieces: list[bytes] = []
    for text in _texts(metrics, encode, openmetrics=openmetrics, at_once=slice_chars):
        pieces.append(text.encode())
        if rest is not None:
            rest()
    if openmetrics:
        pieces.append(EOF.encode())
    return b"".join(pieces), content_type


def _texts(metrics: Metrics, encode: Callable[[Collector], bytes], *, openmetrics: bool, at_once: int) -> Iterator[str]:
    held: list[str] = []
    size = 0
    for metric in metrics.registry.collect():
        if isinstance(metric, Metered):
            texts = metric.text(openmetrics=openmetrics)
        else:
            texts = iter((encode(_One(metric)).decode().removesuffix(EOF),))
        for text in texts:
            held.append(text)
            size += len(text)
            if size >= at_once:
                yield "".join(held)
                held.clear()
                size = 0
    yield "".join(held)


pause = partial(time.sleep, PAUSE_S)
"""Long enough for the loop's thread to take the interpreter over; a sleep of 0 gives it back before it can."""
