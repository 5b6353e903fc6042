"""Which tiers a request can be told apart by: those that come to something different for its model and its client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from predawn.plugins.budget.nominal import nominal_tokens
from predawn.plugins.budget.settings import TierSettings
from predawn.plugins.knobs import nearest

if TYPE_CHECKING:
    from predawn.plugins.budget.capabilities import Capability


class Terms(NamedTuple):
    """What there is to decide about a request."""

    capability: Capability
    decides_effort: bool
    """False where the client does."""
    can_sample: bool
    """False without the plugin `sampling`, and where the client asks for several choices itself."""
    can_verify: bool


class Menus:
    """Made once for all requests of the same terms."""

    def __init__(self, tiers: Sequence[TierSettings]) -> None:
        self._tiers = tuple(tiers)
        self._made: dict[Terms, tuple[TierSettings, ...]] = {}

    def of(self, terms: Terms) -> tuple[TierSettings, ...]:
        """The tiers in the order of the settings, each as it really is; at least one."""
        menu = self._made.get(terms)
        if menu is None:
            menu = self._made[terms] = _distinct([_real(tier, terms) for tier in self._tiers])
        return menu

    def alike(self, terms: Terms) -> frozenset[str]:
        """The tiers that think no more than the cheapest one."""
        menu = self.of(terms)
        return frozenset(tier.name for tier in menu if tier.effort == menu[0].effort)


def _real(tier: TierSettings, terms: Terms) -> TierSettings:
    """A tier without what cannot be done."""
    effort = tier.effort
    if effort is not None:
        accepted = terms.capability.efforts if terms.decides_effort and terms.capability.is_reasoning else ()
        effort = nearest(effort, accepted)
    changes: dict[str, Any] = {"effort": effort}
    if not terms.can_sample:
        changes |= {"samples": 1, "rounds": 1}
    if not terms.can_verify:
        changes["verify"] = False
    return tier.model_copy(update=changes)


def _distinct(tiers: Sequence[TierSettings]) -> tuple[TierSettings, ...]:
    """Of equal tiers the first, up to the difficulty that the last of them reaches."""
    kept: list[TierSettings] = []
    for tier in tiers:
        if kept and _come_to(kept[-1]) == _come_to(tier):
            kept[-1] = kept[-1].model_copy(update={"below": tier.below})
        else:
            kept.append(tier)
    return tuple(kept)


def _come_to(tier: TierSettings) -> tuple[Any, ...]:
    return (tier.effort, tier.max_output_tokens, tier.samples, tier.rounds, tier.verify, tier.deadline_s)


def nominal(tiers: Sequence[TierSettings]) -> dict[str, float]:
    """What each tier is thought to cost."""
    return {tier.name: nominal_tokens(tier) for tier in tiers}
