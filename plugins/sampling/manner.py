"""How samples are asked for: members that the client did not send, and who refuses them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from predawn.plugins.sampling.voices import Draw

LARGEST_SEED: Final = 2**63 - 1
ENOUGH_REFUSALS: Final = 3
"""Requests refused for them, and none answered with them, after which members of our own are left out."""
TAKEN: Final = -1


@dataclass(frozen=True, slots=True)
class Manner:
    """How the samples of one request differ from the client's own words."""

    temperature: float | None = None
    seed: int | None = None
    """Of sample 0; each further one has the next."""
    is_own_seed: bool = False
    """True if it was drawn here."""
    logprobs: bool = False
    """True if they are asked for although the client did not."""

    @property
    def is_changed(self) -> bool:
        """True if they have a member that the client did not send."""
        return self.temperature is not None or self.is_own_seed or self.logprobs

    def members(self, draw: Draw) -> dict[str, Any]:
        made: dict[str, Any] = {}
        if self.temperature is not None:
            made["temperature"] = self.temperature
        if self.seed is not None:
            made["seed"] = (self.seed + draw.voices[0].index) % (LARGEST_SEED + 1)
        if self.logprobs:
            made["logprobs"] = True
        if len(draw.voices) > 1:
            made["n"] = len(draw.voices)
        return made


class OwnMembers:
    """Which aliases refuse the members that sampling adds."""

    def __init__(self) -> None:
        self._refusals: dict[str, int] = {}

    def refused(self, alias: str) -> None:
        """A request was refused with them, and taken without."""
        if (count := self._refusals.get(alias, 0)) >= 0:
            self._refusals[alias] = count + 1

    def took(self, alias: str) -> None:
        """A request was answered with them."""
        self._refusals[alias] = TAKEN

    def are_refused(self, alias: str) -> bool:
        """True once it is not worth trying."""
        return self._refusals.get(alias, 0) >= ENOUGH_REFUSALS
