"""What is known beforehand of the way to one upstream: for an alias, and for the heads that go there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from predawn.proxy.upstreams.openai import OpenAIUpstream

if TYPE_CHECKING:
    from predawn.proxy.fastlane.heads import Plan
    from predawn.proxy.metrics import Metrics
    from predawn.proxy.models import Model
    from predawn.proxy.resilience import Target
    from predawn.proxy.traffic import AnswerMeters


class Leg:
    """From here to one upstream that serves an alias."""

    __slots__ = ("model", "name", "pool", "station", "target", "upstream")

    def __init__(self, model: Model, target: Target) -> None:
        upstream = target.station.upstream
        assert isinstance(upstream, OpenAIUpstream)
        assert upstream.pool is not None
        self.model = model
        self.target = target
        self.station = target.station
        self.upstream = upstream
        self.pool = upstream.pool
        self.name = upstream.name

    @staticmethod
    def is_open(target: Target) -> bool:
        """True if the upstream takes requests by our own client."""
        upstream = target.station.upstream
        return isinstance(upstream, OpenAIUpstream) and upstream.pool is not None

    def model_for(self, asked: str) -> str:
        """The upstream's own name for the model a client asked for."""
        return self.target.model or (asked if self.model.name == "*" else self.model.name)


class Onward:
    """What requests with one head have in common on one leg."""

    __slots__ = ("after_length", "before_length", "own_lines", "streamed", "whole")

    def __init__(self, leg: Leg, plan: Plan, metrics: Metrics) -> None:
        self.before_length, self.after_length = leg.upstream.head_around_length(plan.route.path, plan.headers)
        """The request's head on both sides of the body's length."""
        self.own_lines = b"x-predawn-upstream: %b\r\nServer: predawn\r\nx-request-id: " % leg.name.encode()
        names = (plan.route.name, leg.model.name, leg.name, plan.identity.tenant)
        self.whole = metrics.plain_answers(*names, stream=False)
        """Where answers that do not stream are counted."""
        self.streamed: AnswerMeters | None = None
        """Where those are counted that do; made when the first has ended."""
