"""What a plugin's `lifespan` hook is given: the parts of the running server it may use."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from predawn.proxy.live.board import Board

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from predawn.proxy.clock import Clock
    from predawn.proxy.exchange import Exchange, Reply
    from predawn.proxy.extensions import RegisteredEstimator, RegisteredExtractor, RegisteredVerifier
    from predawn.proxy.jobs.protocol import JobEngine
    from predawn.proxy.metrics import Metrics
    from predawn.proxy.settings import Settings
    from predawn.proxy.store import Store
    from predawn.proxy.tasks import Tasks


@dataclass(frozen=True, slots=True)
class App:
    """The running server as a plugin sees it."""

    settings: Settings
    clock: Clock
    metrics: Metrics
    tasks: Tasks
    store: Callable[[], Awaitable[Store]]
    """Opens the durable store on first use; nothing is imported or created before."""
    send: Callable[[Exchange], Awaitable[Reply]]
    """Sends an exchange upstream with retries and fallbacks, around no plugin."""
    done: Callable[[Exchange], None]
    """Tells observers of an exchange that a plugin made and sent itself, once it is closed and its ledger written."""
    jobs: Callable[[], Awaitable[JobEngine]]
    """Opens the durable jobs on first use; register yours before the `yield`, they begin when all plugins are open."""
    verifiers: Mapping[str, RegisteredVerifier] = field(default_factory=dict[str, "RegisteredVerifier"])
    """What plugins registered, by name; complete before the first `lifespan`."""
    estimators: Mapping[str, RegisteredEstimator] = field(default_factory=dict[str, "RegisteredEstimator"])
    extractors: Mapping[str, RegisteredExtractor] = field(default_factory=dict[str, "RegisteredExtractor"])
    live: Board = field(default_factory=Board)
    """Where a plugin offers rows for the live page."""
