"""The prices in force: one for each mean that is to be kept, whoever's it is."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from predawn.plugins.budget.price import Price

if TYPE_CHECKING:
    from predawn.plugins.budget.settings import BudgetSettings


class Standing(NamedTuple):
    """A price as it is kept."""

    tenant: str
    model: str
    target: float
    base: float
    debt: float
    mean: float
    requests: int
    at: float


class Prices:
    """Bounded: the one unused for longest is forgotten, and begins again from what the store had at the start."""

    def __init__(self, settings: BudgetSettings) -> None:
        self._settings = settings
        self._prices: OrderedDict[tuple[str, str], Price] = OrderedDict()
        self._kept: dict[tuple[str, str], Mapping[str, Any]] = {}
        self._changed: dict[tuple[str, str], None] = {}

    def load(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take what the store has; prices that are in force already stay."""
        most = self._settings.learning.tenants
        newest = sorted(rows, key=lambda row: -row["at"])[:most]
        self._kept = {(row["tenant"], row["model"]): row for row in newest}

    def of(self, tenant: str, alias: str) -> Price | None:
        """The price for a request; `None` where no mean is to be kept."""
        if self._settings.policy != "marginal":
            return None
        target = self._settings.target_of(alias)
        if target is None:
            return None
        key = (tenant if self._settings.target_per == "tenant" else "", alias)
        price = self._prices.get(key)
        if price is None:
            price = self._prices[key] = self._begun(key, target)
            if len(self._prices) > self._settings.learning.tenants:
                self._prices.popitem(last=False)
        else:
            self._prices.move_to_end(key)
        self._changed[key] = None
        return price

    def _begun(self, key: tuple[str, str], target: float) -> Price:
        kept = self._kept.get(key)
        if kept is None:
            return Price(target)
        if kept["target"] != target:  # an old debt against another target is none
            return Price(target, base=kept["base"])
        price = Price(target, base=kept["base"], debt=kept["debt"], count=kept["requests"])
        price.mean = kept["mean"]
        return price

    def take_changed(self, now: float) -> list[Standing]:
        """The prices that were asked for since the last time, to be written."""
        changed, self._changed = self._changed, {}
        return [
            Standing(*key, price.target, price.base, price.debt, price.mean, price.count, now)
            for key in changed
            if (price := self._prices.get(key)) is not None
        ]

    def __len__(self) -> int:
        return len(self._prices)
