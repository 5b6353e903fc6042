"""The store of `budget`: outcomes, prices and days. Each statement about a tenant names it, and what comes back is
compared with it again. Methods raise `StoreError`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any, Final

from predawn.plugins.budget.features import KINDS, NAMES, SKETCH
from predawn.plugins.budget.outcomes import WEIGHTS, Outcome

if TYPE_CHECKING:
    from predawn.plugins.budget.ceilings import Place
    from predawn.plugins.budget.prices import Standing
    from predawn.proxy.store import Store

_SHAPES: Final = ("width", "depth", "open")


class Shelf:
    """Everything that budget keeps."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def write(self, outcomes: Sequence[Outcome], prices: Sequence[Standing], days: Mapping[Place, int]) -> None:
        """Write what is new, in one transaction: outcomes replace those of the same exchange, tokens are added."""
        from predawn.proxy.tables import budget_days, budget_outcomes, budget_prices

        async with self._store.begin() as connection:
            if outcomes:
                insert = self._store.insert(budget_outcomes)
                key = [budget_outcomes.c.tenant, budget_outcomes.c.exchange_id]
                fresh = {name: insert.excluded[name] for name in ("quality", "hardness", "source")}
                newest = {(one.tenant, one.exchange_id): _row(one) for one in outcomes}
                statement = insert.on_conflict_do_update(index_elements=key, set_=fresh)
                await connection.execute(statement, list(newest.values()))
            for standing in prices:
                row = standing._asdict()
                insert = self._store.insert(budget_prices).values(**row)
                key = [budget_prices.c.tenant, budget_prices.c.model]
                rest = {name: value for name, value in row.items() if name not in {"tenant", "model"}}
                await connection.execute(insert.on_conflict_do_update(index_elements=key, set_=rest))
            for place, tokens in days.items():
                insert = self._store.insert(budget_days).values(**place._asdict(), tokens=tokens)
                key = [budget_days.c.day, budget_days.c.tenant, budget_days.c.key_id]
                more = {"tokens": budget_days.c.tokens + insert.excluded.tokens}
                await connection.execute(insert.on_conflict_do_update(index_elements=key, set_=more))

    async def outcomes(self, tenant: str, model: str, most: int) -> list[Outcome]:
        """The newest outcomes of a tenant's requests to a model, oldest first."""
        from predawn.proxy.tables import budget_outcomes as table

        query = (
            table.select()
            .where(table.c.tenant == tenant, table.c.model == model)
            .order_by(table.c.at.desc(), table.c.exchange_id)
            .limit(most)
        )
        async with self._store.read() as connection:
            rows = (await connection.execute(query)).mappings().all()
        read = [_outcome(row) for row in reversed(rows) if row["tenant"] == tenant and row["model"] == model]
        return [outcome for outcome in read if outcome is not None]

    async def outcome(self, tenant: str, exchange_id: str) -> Outcome | None:
        """One outcome of a tenant's."""
        from predawn.proxy.tables import budget_outcomes as table

        query = table.select().where(table.c.tenant == tenant, table.c.exchange_id == exchange_id)
        async with self._store.read() as connection:
            row = (await connection.execute(query)).mappings().first()
        return _outcome(row) if row is not None and row["tenant"] == tenant else None

    async def busiest(self, most: int) -> list[tuple[str, str]]:
        """Maintenance: tenants and models whose requests ended last."""
        from sqlalchemy import func, select

        from predawn.proxy.tables import budget_outcomes as table

        query = (
            select(table.c.tenant, table.c.model)
            .group_by(table.c.tenant, table.c.model)
            .order_by(func.max(table.c.at).desc())
            .limit(most)
        )
        async with self._store.read() as connection:
            return [(row.tenant, row.model) for row in (await connection.execute(query)).all()]

    async def prices(self) -> list[Mapping[str, Any]]:
        """Maintenance: all prices, as they stood when they were written."""
        from predawn.proxy.tables import budget_prices as table

        async with self._store.read() as connection:
            return [dict(row) for row in (await connection.execute(table.select())).mappings().all()]

    async def spent(self, day: date) -> list[tuple[str, str, int]]:
        """Maintenance: what all tenants and keys have spent on a day, on all machines."""
        from predawn.proxy.tables import budget_days as table

        query = table.select().where(table.c.day == day)
        async with self._store.read() as connection:
            return [(row.tenant, row.key_id, row.tokens) for row in (await connection.execute(query)).all()]

    async def clear(self, older_than: float, before: date) -> None:
        """Maintenance: delete old outcomes, prices that nobody asked for since, and days, of all tenants."""
        from predawn.proxy.tables import budget_days, budget_outcomes, budget_prices

        async with self._store.begin() as connection:
            await connection.execute(budget_outcomes.delete().where(budget_outcomes.c.at < older_than))
            await connection.execute(budget_prices.delete().where(budget_prices.c.at < older_than))
            await connection.execute(budget_days.delete().where(budget_days.c.day < before))

    async def trim(self, tenant: str, model: str, most: int) -> None:
        """Maintenance: of a tenant's requests to a model, keep the newest outcomes only."""
        from sqlalchemy import select

        from predawn.proxy.tables import budget_outcomes as table

        own = (table.c.tenant == tenant, table.c.model == model)
        oldest = select(table.c.at).where(*own).order_by(table.c.at.desc()).offset(most - 1).limit(1)
        async with self._store.begin() as connection:
            at = await connection.scalar(oldest)
            if at is not None:
                await connection.execute(table.delete().where(*own, table.c.at < at))


def _row(outcome: Outcome) -> dict[str, Any]:
    return {
        "tenant": outcome.tenant,
        "exchange_id": outcome.exchange_id,
        "model": outcome.model,
        "at": outcome.at,
        "tier": outcome.tier,
        "tokens": outcome.tokens,
        "difficulty": outcome.difficulty,
        "quality": outcome.quality,
        "hardness": outcome.hardness,
        "source": outcome.source,
        "look": {
            "kind": outcome.kind,
            "shape": outcome.shape,
            "values": [round(value, 4) for value in outcome.values],
            "sketch": list(outcome.sketch),
        },
    }


def _outcome(row: Mapping[Any, Any]) -> Outcome | None:
    """An outcome as it was written; `None` for one of another version that cannot be read."""
    look: Any = row["look"]
    if not isinstance(look, dict) or look.get("kind") not in KINDS or look.get("shape") not in _SHAPES:
        return None
    values, sketch = look.get("values"), look.get("sketch")
    if not isinstance(values, list) or not isinstance(sketch, list) or row["source"] not in WEIGHTS:
        return None
    if len(values) != len(NAMES) or len(sketch) > SKETCH or not all(isinstance(one, (int, float)) for one in values):
        return None
    return Outcome(
        exchange_id=row["exchange_id"],
        tenant=row["tenant"],
        model=row["model"],
        kind=look["kind"],
        shape=look["shape"],
        values=tuple(map(float, values)),
        sketch=tuple(one for one in sketch if type(one) is int),
        difficulty=row["difficulty"],
        tier=row["tier"],
        tokens=row["tokens"],
        at=row["at"],
        quality=row["quality"],
        hardness=row["hardness"],
        source=row["source"],
    )
