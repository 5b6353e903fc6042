"""`warm`: reads the exact prefix that requests will begin with, notes included, into the upstream's prefix cache."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from predawn.plugins.sleep import prompts
from predawn.plugins.sleep.triggers import Key
from predawn.plugins.sleep.work import Work, ended_by
from predawn.proxy.jobs.protocol import Json, StepError

if TYPE_CHECKING:
    from predawn.proxy.jobs.protocol import Steps


@dataclass(frozen=True, slots=True)
class WarmRules:
    """How long a prefix is kept warm."""

    every_s: float = 240.0
    """Providers forget a prefix after five minutes or more without use."""
    most_times: int = 6
    """In a row without a use between them."""
    most_contexts: int = 200


async def warm(steps: Steps, work: Work) -> dict[str, Any]:
    """Prime the prefix cache with one token of output. Returns `outcome`, `prompt_tokens` and `cached_tokens`."""
    try:
        return {"outcome": "done", **await steps.run("warm", partial(_warm, work))}
    except StepError as exc:
        return ended_by(exc)


async def _warm(work: Work) -> Json:
    context = await work.context()
    notes = await work.desk.note(work.subject.tenant, context.notes_id) if context.notes_id is not None else None
    style = work.rules.style
    is_usable = notes is not None and notes.status == "accepted"
    ident, text = (notes.id, notes.text) if notes is not None and is_usable else ("", "")
    messages = prompts.awake(style, context.messages, ident, text, "", is_split=style == "terse")
    if not messages or messages[-1].get("role") != "user":
        messages.append({"role": "user", "content": "."})  # most upstreams refuse a conversation without a last word
    asked = await work.ask(messages, work.options("warm", 1))
    return {"prompt_tokens": asked.prompt_tokens, "cached_tokens": asked.cached_tokens}


@dataclass(frozen=True, slots=True)
class Warmth:
    """A prefix that was primed, and how often since its last use."""

    version: int
    at: float
    times: int


class WarmPrefixes:
    """Which prefixes are warm, as far as this process knows; bounded, the one longest untouched is forgotten."""

    def __init__(self, rules: WarmRules) -> None:
        self._rules = rules
        self._warm: OrderedDict[Key, Warmth] = OrderedDict()

    def __len__(self) -> int:
        return len(self._warm)

    def primed(self, key: Key, version: int, now: float) -> None:
        known = self._warm.pop(key, None)
        times = known.times + 1 if known is not None and known.version == version else 1
        self._warm[key] = Warmth(version, now, times)
        if len(self._warm) > self._rules.most_contexts:
            self._warm.popitem(last=False)

    def used(self, key: Key, now: float) -> None:
        """A request went over the prefix, which warms it as well."""
        known = self._warm.pop(key, None)
        if known is not None:
            self._warm[key] = Warmth(known.version, now, 0)

    def tried(self, key: Key, now: float) -> None:
        """It is going to be primed again, or need not be for now."""
        known = self._warm.pop(key, None)
        if known is not None:
            self._warm[key] = Warmth(known.version, now, known.times)

    def due(self, now: float) -> list[tuple[Key, Warmth]]:
        """Those that cool soon. The ones primed too often without a use are let go."""
        found: list[tuple[Key, Warmth]] = []
        for key, warmth in list(self._warm.items()):
            if now - warmth.at < self._rules.every_s:
                break
            if warmth.times >= self._rules.most_times:
                del self._warm[key]
            else:
                found.append((key, warmth))
        return found

    def drop(self, key: Key) -> None:
        self._warm.pop(key, None)
