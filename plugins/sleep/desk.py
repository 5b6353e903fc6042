"""What the jobs need of the shelf, and no more. `shelf.Shelf` is one; `MemoryDesk` is its twin for trying jobs out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any, Protocol

from predawn.plugins.sleep.contexts import (
    Anticipated,
    Context,
    ContextState,
    Estimate,
    Notes,
    NotesStatus,
    Progress,
    Spent,
)
from predawn.proxy.clock import Clock


@dataclass(frozen=True, slots=True)
class Subject:
    """What a job is about: one version of one context of one tenant, and which attempt at it this is."""

    tenant: str
    context_id: str
    version: int
    attempt: int = 1

    def as_json(self) -> dict[str, Any]:
        return {"tenant": self.tenant, "context": self.context_id, "version": self.version, "attempt": self.attempt}

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Subject:
        return cls(arguments["tenant"], arguments["context"], arguments["version"], arguments["attempt"])

    def ident(self, *what: object) -> str:
        """32 characters for something of this subject: the same each time, and different for everything else."""
        digest = blake2b(digest_size=16)
        for part in (self.tenant, self.context_id, self.version, self.attempt, *what):
            encoded = str(part).encode("utf-8", "surrogatepass")
            digest.update(len(encoded).to_bytes(8, "big") + encoded)
        return digest.hexdigest()


class Desk(Protocol):
    """Every call names the tenant, and finds or changes nothing of another one's. A `Shelf` is a desk as it stands, and
    has the contracts."""

    async def get(self, tenant: str, context_id: str) -> Context | None: ...

    async def claim(
        self,
        tenant: str,
        context_id: str,
        version: int,
        state: ContextState,
        *,
        of: Collection[ContextState],
        job_ids: Collection[str] = (),
    ) -> bool: ...

    async def add_job(self, tenant: str, context_id: str, version: int, job_id: str) -> bool: ...

    async def report(self, tenant: str, context_id: str, version: int, progress: Progress) -> bool: ...

    async def lineage(self, tenant: str, context_id: str, version: int) -> Sequence[Version]: ...

    async def note(self, tenant: str, notes_id: str) -> Notes | None: ...

    async def notes(
        self, tenant: str, context_id: str, *, version: int | None = None, status: NotesStatus | None = None
    ) -> list[Notes]: ...

    async def add_notes(self, tenant: str, notes: Notes) -> bool: ...

    async def judge(self, tenant: str, notes: Notes) -> bool: ...

    async def drop_candidates(self, tenant: str, notes_ids: Collection[str]) -> None: ...

    async def verdicts(self, tenant: str, model: str) -> tuple[int, int]: ...

    async def anticipated(self, tenant: str, context_id: str, version: int | None = None) -> list[Anticipated]: ...

    async def add_anticipated(self, tenant: str, found: Sequence[Anticipated]) -> int: ...

    async def observe(self, tenant: str, context_id: str, model: str, kind: str, value: float) -> None: ...

    async def estimate(self, tenant: str, context_id: str, model: str, kind: str) -> Estimate | None: ...

    async def decide(self, tenant: str, context_id: str, version: int, decision: Mapping[str, Any]) -> None: ...

    async def decision(self, tenant: str, context_id: str) -> Mapping[str, Any] | None: ...

    async def spend(self, tenant: str, spent: Spent, *, at: float | None = None) -> Spent: ...

    async def spent(self, tenant: str, *, at: float | None = None) -> Spent: ...


class Version(Protocol):
    """A version of a context, and its accepted notes if there are any."""

    @property
    def version(self) -> int: ...

    @property
    def notes_id(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class _Version:
    version: int
    notes_id: str | None


@dataclass(slots=True)
class MemoryDesk:
    """A desk in memory; what is in it is there to be looked at."""

    clock: Clock
    contexts: dict[tuple[str, str], Context] = field(default_factory=dict[tuple[str, str], Context])
    written: dict[tuple[str, str], Notes] = field(default_factory=dict[tuple[str, str], Notes])
    questions: dict[tuple[str, str], Anticipated] = field(default_factory=dict[tuple[str, str], Anticipated])
    estimates: dict[tuple[str, str, str, str], Estimate] = field(
        default_factory=dict[tuple[str, str, str, str], Estimate]
    )
    decisions: dict[tuple[str, str], Mapping[str, Any]] = field(
        default_factory=dict[tuple[str, str], Mapping[str, Any]]
    )
    days: dict[tuple[str, int], Spent] = field(default_factory=dict[tuple[str, int], Spent])
    shown: list[Progress] = field(default_factory=list[Progress])
    jobs: dict[tuple[str, str], list[str]] = field(default_factory=dict[tuple[str, str], list[str]])

    def put(self, context: Context) -> None:
        self.contexts[context.tenant, context.id] = context

    async def get(self, tenant: str, context_id: str) -> Context | None:
        return self.contexts.get((tenant, context_id))

    async def claim(
        self,
        tenant: str,
        context_id: str,
        version: int,
        state: ContextState,
        *,
        of: Collection[ContextState],
        job_ids: Collection[str] = (),
    ) -> bool:
        context = self._present(tenant, context_id, version)
        if context is None or context.state not in of:
            return False
        self.put(replace(context, state=state, progress=replace(context.progress, state=state)))
        for job_id in job_ids:
            await self.add_job(tenant, context_id, version, job_id)
        return True

    async def add_job(self, tenant: str, context_id: str, version: int, job_id: str) -> bool:  # noqa: ARG002 - any version
        if (tenant, context_id) not in self.contexts:
            return False
        known = self.jobs.setdefault((tenant, context_id), [])
        if job_id not in known:
            known.append(job_id)
        return True

    async def report(self, tenant: str, context_id: str, version: int, progress: Progress) -> bool:
        context = self._present(tenant, context_id, version)
        if context is None:
            return False
        self.shown.append(progress)
        self.put(replace(context, state=progress.state, progress=progress))
        return True

    async def note(self, tenant: str, notes_id: str) -> Notes | None:
        return self.written.get((tenant, notes_id))

    async def notes(
        self, tenant: str, context_id: str, *, version: int | None = None, status: NotesStatus | None = None
    ) -> list[Notes]:
        found = [one for (of, _), one in self.written.items() if of == tenant and one.context_id == context_id]
        found = [one for one in found if version in (None, one.version) and status in (None, one.status)]
        return sorted(found, key=lambda one: (-one.made_at, one.id))

    async def add_notes(self, tenant: str, notes: Notes) -> bool:
        known = self.written.get((tenant, notes.id))
        if (tenant, notes.context_id) not in self.contexts:
            return False
        if known is None or known.status == "candidate":
            self.written[tenant, notes.id] = notes
        return True

    async def judge(self, tenant: str, notes: Notes) -> bool:
        context = self._present(tenant, notes.context_id, notes.version)
        if context is None:
            self.written[tenant, notes.id] = replace(notes, status="rejected")
            return False
        if notes.status == "accepted":
            for one in await self.notes(tenant, notes.context_id, status="accepted"):
                self.written[tenant, one.id] = replace(one, status="stale")
            self.put(replace(context, notes_id=notes.id))
        self.written[tenant, notes.id] = notes
        return True

    async def drop_candidates(self, tenant: str, notes_ids: Collection[str]) -> None:
        for key in [(tenant, notes_id) for notes_id in notes_ids]:
            if key in self.written and self.written[key].status == "candidate":
                del self.written[key]

    async def verdicts(self, tenant: str, model: str) -> tuple[int, int]:
        found = [one.status for (of, _), one in self.written.items() if of == tenant and one.model == model]
        return found.count("accepted") + found.count("stale"), found.count("rejected")

    async def lineage(self, tenant: str, context_id: str, version: int) -> Sequence[Version]:
        found = [await self.notes(tenant, context_id, version=number) for number in range(version, 0, -1)]
        ready = [[one for one in notes if one.status in ("accepted", "stale")][:1] for notes in found]
        return [_Version(version - at, notes[0].id if notes else None) for at, notes in enumerate(ready)]

    async def anticipated(self, tenant: str, context_id: str, version: int | None = None) -> list[Anticipated]:
        found = [one for (of, _), one in self.questions.items() if of == tenant and one.context_id == context_id]
        return [one for one in found if version in (None, one.version)]

    async def add_anticipated(self, tenant: str, found: Sequence[Anticipated]) -> int:
        kept = [one for one in found if (tenant, one.context_id) in self.contexts]
        self.questions.update({(tenant, one.id): one for one in kept})
        return len(kept)

    async def observe(self, tenant: str, context_id: str, model: str, kind: str, value: float) -> None:
        known = self.estimates.get((tenant, context_id, model, kind), Estimate(0, 0.0))
        mean = known.mean + (value - known.mean) / (known.count + 1)
        self.estimates[tenant, context_id, model, kind] = Estimate(known.count + 1, mean)

    async def estimate(self, tenant: str, context_id: str, model: str, kind: str) -> Estimate | None:
        return self.estimates.get((tenant, context_id, model, kind))

    async def decide(self, tenant: str, context_id: str, version: int, decision: Mapping[str, Any]) -> None:  # noqa: ARG002 - the newest counts
        self.decisions[tenant, context_id] = decision

    async def decision(self, tenant: str, context_id: str) -> Mapping[str, Any] | None:
        return self.decisions.get((tenant, context_id))

    async def spend(self, tenant: str, spent: Spent, *, at: float | None = None) -> Spent:
        known = await self.spent(tenant, at=at)
        total = Spent(known.tokens + spent.tokens, known.nano_usd + spent.nano_usd, known.calls + spent.calls)
        self.days[tenant, self._day(at)] = total
        return total

    async def spent(self, tenant: str, *, at: float | None = None) -> Spent:
        return self.days.get((tenant, self._day(at)), Spent())

    def _day(self, at: float | None) -> int:
        return int((self.clock.now() if at is None else at) // 86_400)

    def _present(self, tenant: str, context_id: str, version: int) -> Context | None:
        context = self.contexts.get((tenant, context_id))
        return context if context is not None and context.version == version else None
