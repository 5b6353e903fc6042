"""A store that is away for long is told of once, not every time that it is asked."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from predawn.proxy.store_errors import StoreError

log = logging.getLogger("predawn.sleep")


class Outage:
    """Lets a task that asks again and again get over a store that cannot be asked."""

    def __init__(self, consequence: str) -> None:
        self._consequence = consequence
        self._lasts = False

    @contextmanager
    def survived(self) -> Iterator[None]:
        """Log the first `StoreError` since the last time that all went well; raise none."""
        try:
            yield
        except StoreError as exc:
            if not self._lasts:
                log.warning("%s: %s", self._consequence, exc)
            self._lasts = True
        else:
            self._lasts = False
