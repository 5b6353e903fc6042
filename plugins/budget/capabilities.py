"""What each alias can do, as the settings declare it and as a probe found it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from predawn.plugins.knobs import knows

if TYPE_CHECKING:
    from predawn.proxy.exchange import Effort
    from predawn.proxy.settings import ModelSettings, Settings

ANY: Final = "*"
BELIEVED: Final = 3
"""Requests that must show that a model cannot do something: one may have been refused for what its client wrote."""


@dataclass(frozen=True, slots=True)
class Capability:
    """What an alias understands."""

    knob: str = "none"
    """`models[].reasoning` of the settings."""
    efforts: tuple[Effort, ...] = ()
    """Accepted efforts; none for a model that does not reason."""
    logprobs: bool | None = None
    """Whether answers bring log probabilities; `None` while nobody has tried."""
    obeys: bool | None = None
    """Whether the knob changes how much is thought; `None` while nobody has tried."""

    @property
    def is_reasoning(self) -> bool:
        """Only such models profit from being allowed to think long."""
        return bool(self.efforts) and self.obeys is not False


class Capabilities:
    """Looked up by the alias that serves a request."""

    def __init__(self, settings: Settings) -> None:
        local = {one.name for one in settings.upstreams if one.kind == "local"}
        self._known = {model.name: _declared(model, local) for model in settings.models}
        self._doubts: dict[tuple[str, str], int] = {}
        self._proven: set[tuple[str, str]] = set()

    def of(self, alias: str) -> Capability:
        return self._known.get(alias) or self._known.get(ANY) or _NOTHING

    def found(self, alias: str, **what: object) -> None:
        """Note what a probe has shown."""
        self._known[alias] = replace(self.of(alias), **what)  # type: ignore[arg-type]

    def took(self, alias: str, effort: Effort) -> None:
        """Note that a request with this effort was taken: should another be refused, that is not for the effort."""
        self._proven.add((alias, effort))

    def refused(self, alias: str, effort: Effort) -> None:
        """Note that a request was taken only without its effort: said often enough, the effort is asked for no more."""
        if self._is_believed(alias, effort):
            self.found(alias, efforts=tuple(one for one in self.of(alias).efforts if one != effort))

    def told_logprobs(self, alias: str, *, came: bool) -> None:
        """Note whether an answer brought log probabilities; once they came, one without them proves nothing."""
        if came:
            self._proven.add((alias, "logprobs"))
            self.found(alias, logprobs=True)
        elif (alias, "logprobs") not in self._proven:
            self.found(alias, logprobs=False)

    def refused_logprobs(self, alias: str) -> None:
        """Note that a request for them was refused, which may have other reasons."""
        if self._is_believed(alias, "logprobs"):
            self.found(alias, logprobs=False)

    def _is_believed(self, alias: str, what: str) -> bool:
        if (alias, what) in self._proven:
            return False
        doubts = self._doubts[alias, what] = self._doubts.get((alias, what), 0) + 1
        return doubts >= BELIEVED


_NOTHING: Final = Capability()


def _declared(model: ModelSettings, local: set[str]) -> Capability:
    efforts = knows(model.reasoning)
    is_ours = all(target.upstream in local for target in model.all_targets)
    if model.reasoning == "reasoning_effort" and not is_ours:
        # all know these three; the others are refused by many, and a probe finds out
        efforts = ("low", "medium", "high")
    return Capability(model.reasoning, efforts, True if is_ours else None)
