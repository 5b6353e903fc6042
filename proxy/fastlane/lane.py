"""Which requests may take the fast lane, and what is known of their way beforehand; for one version of the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from predawn.proxy.exchange import RequestError
from predawn.proxy.fastlane.heads import Heads
from predawn.proxy.fastlane.legs import Leg, Onward
from predawn.proxy.fastlane.transit import Transit
from predawn.proxy.resilience import choose
from predawn.proxy.wire.openai import read_head, refuse_two_models, upstream_body

if TYPE_CHECKING:
    from predawn.proxy.fastlane.heads import Plan
    from predawn.proxy.fastlane.transit import ClientSide
    from predawn.proxy.models import Model
    from predawn.proxy.service import Service


class Way:
    """The way of one alias: the legs to the upstreams that are asked first."""

    __slots__ = ("_legs", "_targets", "model", "output_limit")

    def __init__(self, model: Model) -> None:
        tier = model.sender.tiers[0]
        self.model = model
        self.output_limit = tier.output_limit
        self._targets = list(tier.targets)
        self._legs = [Leg(model, target) for target in tier.targets]

    @staticmethod
    def is_open(model: Model) -> bool:
        """True if no plugin acts on the alias, and nothing between here and its upstreams is unusual."""
        return model.pipeline.is_plain and all(Leg.is_open(target) for target in model.sender.tiers[0].targets)

    def choose(self) -> Leg | None:
        """Whom to ask; `None` while a breaker is not closed, for probing is the full lane's business."""
        legs = self._legs
        for leg in legs:
            if leg.station.breaker.state != "closed":
                return None
        if len(legs) == 1:
            return legs[0]
        chosen = choose(self._targets, set())
        return next((leg for leg in legs if leg.target is chosen), None)


class Lane:
    """Admits requests; those it does not admit are nobody's yet."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._access = service.access
        self._limit = service.settings.server.max_choices
        self._ways = {model.name: Way(model) for model in service.models if Way.is_open(model)}
        self._named = frozenset(model.name for model in service.models)
        largest = int(service.settings.server.body_limit_mb * (1 << 20))
        self.heads = Heads(service.access, service.trusted, service.tools.clock, largest)

    @property
    def is_open(self) -> bool:
        """True if any alias may take it."""
        return bool(self._ways)

    def admit(self, door: ClientSide, plan: Plan, body: bytes, began: float) -> Transit | None:
        """The request on its way, not begun yet; `None` if it is for the full lane, which also refuses."""
        try:
            head = read_head(body)
        except RequestError:
            return None
        name = head.model
        way = self._ways.get(name)
        if way is None and name not in self._named:
            way = self._ways.get("*")
        if way is None or head.predawn is not None or (head.n is not None and head.n > self._limit):
            return None
        leg = way.choose()
        identity, route = plan.identity, plan.route.name
        if leg is None or route not in leg.upstream.routes:
            return None
        model, lease = way.model, None
        if (key := identity.key) is not None:
            try:
                if key.models is not None:
                    refuse_two_models(body)
                    self._access.check_model(identity, name)
            except RequestError:
                return None
        if plan.varying and any(name.lower() in leg.upstream.overrides for name, _ in plan.varying):
            return None
        onward = plan.legs.get(leg)
        if onward is None:
            onward = plan.legs[leg] = Onward(leg, plan, self._service.tools.metrics)
        onward_name = leg.model_for(name)
        outgoing, hides = body, False
        if head.stream and (model.asks_usage or identity.needs_usage) and route in ("chat", "completions"):
            options = head.stream_options
            hides = options is None or options.include_usage is not True
        if hides or onward_name != name or way.output_limit is not None:
            outgoing = upstream_body(body, head, model=onward_name, ask_usage=hides, output_limit=way.output_limit)
        if identity.is_limited:  # last, for nothing may fail with a lease in hand
            try:
                lease = self._access.reserve_now(identity, model.price, body, model.wanted_output(head))
            except RequestError:
                return None
            if lease is None:
                return None
        return Transit(door, self._service, plan, leg, onward, head, body, outgoing, lease, began, hides)
