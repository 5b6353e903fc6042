"""Which upstream an alias means, as the gate sees it: aliases that share an upstream are one place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from predawn.plugins.sleep.effort import Effort, members_for
from predawn.proxy.traffic import OTHER

if TYPE_CHECKING:
    from predawn.plugins.sleep.prompts import Style
    from predawn.proxy.settings import ModelSettings, PriceSettings, Settings

ANY = "*"


class Places:
    """Looked up by the name that a client uses for a model."""

    def __init__(self, settings: Settings) -> None:
        self._models = {model.name: model for model in settings.models}
        self._local = {one.name for one in settings.upstreams if one.kind == "local" and one.path is None}
        self._engines = {one.name for one in settings.upstreams if one.kind == "local"}
        self._places = _joined(settings)
        self.names = tuple(name for name in self._models if name != ANY)

    @property
    def all(self) -> frozenset[str]:
        return frozenset(self._places.values())

    def of(self, model: str) -> str:
        """The place of an alias: one of the upstreams that serve it, the same for all aliases it shares one with."""
        return self._places.get(model) or self._places.get(ANY) or model

    def place_of(self, upstream: str) -> str:
        """The place that an upstream is part of."""
        for model in self._models.values():
            if any(target.upstream == upstream for target in model.all_targets):
                return self._places[model.name]
        return upstream

    def has(self, model: str) -> bool:
        """True if a request may name this model."""
        return model in self._models or ANY in self._models

    def style_of(self, model: str) -> Style:
        """Terse where the bundled model answers."""
        found = self._found(model)
        is_bundled = found is not None and all(target.upstream in self._local for target in found.all_targets)
        return "terse" if is_bundled else "full"

    def price_of(self, model: str) -> PriceSettings | None:
        found = self._found(model)
        return found.price if found is not None else None

    def less_thought(self, model: str, effort: Effort) -> Mapping[str, Any]:
        """The members of a request that ask a model for so much thought; none where it knows no knob for that."""
        found = self._found(model)
        if found is None:
            return {}
        is_ours = all(target.upstream in self._engines for target in found.all_targets)
        return members_for(found.reasoning, effort, is_ours=is_ours)

    def label_of(self, model: str) -> str:
        """The model as metrics name it: clients cannot make series."""
        return model if model != ANY and model in self._models else OTHER

    def _found(self, model: str) -> ModelSettings | None:
        return self._models.get(model) or self._models.get(ANY)


def _joined(settings: Settings) -> dict[str, str]:
    """Each alias's place: the first upstream of all those that are connected by aliases."""
    place = {upstream.name: upstream.name for upstream in settings.upstreams}

    def root(name: str) -> str:
        while place.setdefault(name, name) != name:
            name = place[name]
        return name

    for model in settings.models:
        first, *others = [root(target.upstream) for target in model.all_targets]
        for other in others:
            place[root(other)] = root(first)
    return {model.name: root(model.all_targets[0].upstream) for model in settings.models}
