"""What clients may ask for: aliases, each with its pipeline of plugins and the upstreams behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from predawn.proxy.clock import Clock
from predawn.proxy.dispatch import Hooks, Pipeline
from predawn.proxy.exchange import Exchange, Reply, RequestError
from predawn.proxy.problems import unknown
from predawn.proxy.resilience import Sender, Station, Target, Tier, UpstreamMeters
from predawn.proxy.settings import ModelSettings, PriceSettings, Settings, TimeoutSettings
from predawn.proxy.spend import cost_usd

if TYPE_CHECKING:
    from predawn.proxy.wire.openai import Head

ANY = "*"


@dataclass(frozen=True, slots=True)
class Model:
    """One alias, ready to serve."""

    name: str
    settings: ModelSettings
    sender: Sender
    pipeline: Pipeline
    timeouts: TimeoutSettings
    asks_usage: bool
    """True where usage is asked of the upstream whoever the client is."""
    expects_end: bool
    """True where a stream without its end mark was cut off."""

    @property
    def price(self) -> PriceSettings | None:
        return self.settings.price

    def wanted_output(self, head: Head) -> int | None:
        """The most tokens that all the answers a request asks for may have together; `None` if nobody says."""
        wanted = head.output_limit or self.settings.max_output_tokens
        return wanted if wanted is None or head.n is None else wanted * max(head.n, 1)

    def price_of(self, prompt: int, cached: int, output: int) -> float:
        """Dollars for these tokens; 0 without a price."""
        return cost_usd(self.settings.price, prompt, cached, output)


class Models:
    """All aliases of one version of the settings."""

    def __init__(
        self, settings: Settings, stations: Mapping[str, Station], hooks: Hooks, clock: Clock, meters: UpstreamMeters
    ) -> None:
        self._settings = settings
        self._stations = stations
        tiers = {model.name: self._tier(model) for model in settings.models}
        self._models: dict[str, Model] = {}
        for model in settings.models:
            chain = tuple(tiers[name] for name in (model.name, *_fallbacks(model, settings)))
            sender = Sender(chain, clock, meters, model.price)
            own = [target.station.settings for target in chain[0].targets]
            pipeline = hooks.pipeline(model.name, sender.send)
            asks = pipeline.wants_usage or any(upstream.stream_usage for upstream in own)
            self._models[model.name] = Model(
                model.name,
                model,
                sender,
                pipeline,
                own[0].timeouts,
                asks,
                all(upstream.done_marker for upstream in own),
            )

    def _tier(self, model: ModelSettings) -> Tier:
        targets = tuple(
            Target(
                self._stations[target.upstream],
                target.model or self._stations[target.upstream].settings.model,
                target.weight,
            )
            for target in model.all_targets
        )
        limits = [x for x in (model.max_output_tokens, self._settings.server.max_output_tokens) if x is not None]
        return Tier(model.name, targets, min(limits, default=None))

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models.values())

    @property
    def names(self) -> list[str]:
        """The aliases, without the one for any name."""
        return [name for name in self._models if name != ANY]

    @property
    def any(self) -> Model | None:
        """The alias that takes any name, if there is one."""
        return self._models.get(ANY)

    def find(self, name: str) -> Model:
        """The alias a client named. Raises `RequestError` 404 with the nearest names."""
        model = self._models.get(name) or self._models.get(ANY)
        if model is None:
            raise RequestError(
                404, f"{unknown('model', name[:200], self.names)}.", code="model_not_found", param="model"
            )
        return model

    def bare(self, name: str) -> Model:
        """The same as `find`, with no plugin acting on it."""
        model = self.find(name)
        return replace(model, pipeline=Pipeline.bare(model.sender.send))

    async def send(self, exchange: Exchange) -> Reply:
        """Send an exchange upstream without any plugin."""
        return await self.find(exchange.model).sender.send(exchange)


def _fallbacks(model: ModelSettings, settings: Settings) -> tuple[str, ...]:
    """The aliases to try after this one: its fallbacks, then theirs, each once."""
    by_name = {other.name: other for other in settings.models}
    seen: dict[str, None] = {model.name: None}
    waiting = list(model.fallbacks)
    while waiting:
        name = waiting.pop(0)
        if name in by_name and name not in seen:
            seen[name] = None
            waiting += by_name[name].fallbacks
    return tuple(seen)[1:]
