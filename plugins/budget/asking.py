"""At start: does each model obey its knob? Found out by asking, because many upstreams take a member and ignore it."""

from __future__ import annotations

import asyncio
import logging
import secrets
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from predawn.plugins import Exchange, RequestError
from predawn.plugins.calls import Heard
from predawn.plugins.knobs import EFFORTS, knows, members_for
from predawn.proxy.upstreams.base import UpstreamError

if TYPE_CHECKING:
    from predawn.plugins import App
    from predawn.plugins.budget.capabilities import Capabilities
    from predawn.plugins.budget.meters import BudgetMeters
    from predawn.proxy.exchange import Effort
    from predawn.proxy.settings import ModelSettings

log = logging.getLogger("predawn.budget")
QUESTIONS: Final = (
    "A train leaves at 9:40 and arrives at 11:15. How many minutes does it take?",
    "Ann is three times as old as Ben, and in five years twice as old. How old is Ben?",
    "How many whole numbers from 1 to 60 can be divided by 3 or by 5?",
)
"""The first is asked at every effort, the others at the lowest and the highest: how much is thought about one question
differs from answer to answer."""
CLEARLY: Final = 1.1
"""What is thought differs by chance, too."""
ROOM: Final = 4096
TIMEOUT_S: Final = 120.0


class Told(NamedTuple):
    """What came of a question, or of several: the sums."""

    status: int
    thought: int
    """Tokens of reasoning, or characters of it where tokens were not told."""
    output: int
    logprobs: bool

    def plus(self, other: Told) -> Told:
        is_told = self.logprobs or other.logprobs
        return Told(self.status, self.thought + other.thought, self.output + other.output, is_told)


class Capacity:
    """Asks every alias that has a knob, one after another, and notes what was found."""

    def __init__(self, app: App, capabilities: Capabilities, meters: BudgetMeters) -> None:
        self._app = app
        self._capabilities = capabilities
        self._meters = meters

    async def ask_all(self, aliases: tuple[str, ...] | None) -> None:
        """Never raises what a call may raise: a model that cannot be asked keeps what the settings declare."""
        for model in self._app.settings.models:
            if model.reasoning == "none" or model.name == "*" or (aliases is not None and model.name not in aliases):
                continue
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    await self._ask(model)
            except (TimeoutError, RequestError, UpstreamError) as exc:
                log.warning("model %s could not be asked what it can do: %s", model.name, exc or "too slow")

    async def _ask(self, model: ModelSettings) -> None:
        told: dict[Effort, Told] = {}
        for effort in knows(model.reasoning):
            told[effort] = await self._try(model, effort, QUESTIONS[0])
        accepted: tuple[Effort, ...] = tuple(
            effort for effort in EFFORTS if effort in told and told[effort].status < 400
        )
        obeys: bool | None = None
        if len(accepted) > 1:
            for effort in (accepted[0], accepted[-1]):
                for question in QUESTIONS[1:]:
                    told[effort] = told[effort].plus(await self._try(model, effort, question))
            obeys = obeyed(told[accepted[0]], told[accepted[-1]])
        elif not accepted:
            obeys = False
        logprobs = any(one.logprobs for one in told.values())
        for effort in accepted:
            self._capabilities.took(model.name, effort)
        self._capabilities.found(model.name, efforts=accepted, obeys=obeys, logprobs=logprobs or None)
        self._meters.knob(model.name, works=obeys is not False)
        if obeys is False:
            log.warning(
                "model %s does not obey `reasoning: %s` (%s): efforts make no difference, and none are asked for",
                model.name,
                model.reasoning,
                ", ".join(f"{effort} {one.status}, {one.thought} thought" for effort, one in told.items()),
            )
        else:
            log.info("model %s takes the efforts %s", model.name, ", ".join(accepted))

    async def _try(self, model: ModelSettings, effort: Effort, question: str) -> Told:
        limit = "max_completion_tokens" if model.reasoning == "reasoning_effort" else "max_tokens"
        request: dict[str, Any] = {
            "model": model.name,
            "messages": [{"role": "user", "content": question}],
            "stream": True,
            limit: ROOM,
            **members_for(model.reasoning, effort, max_tokens=ROOM),
        }
        exchange = Exchange(
            msgspec.json.encode(request),
            id=f"budget_{secrets.token_hex(12)}",
            model=model.name,
            stream=True,
            headers={"Content-Type": "application/json"},
            arrived_at=self._app.clock.now(),
            started=perf_counter(),
        )
        exchange.call_purpose = "probe"
        exchange.wants_usage = True
        heard = Heard()
        try:
            reply = await self._app.send(exchange)
            exchange.status = reply.status
            if reply.ok:
                async for chunk in reply.chunks:
                    heard.saw(chunk)
        finally:
            await exchange.close()
            self._book(exchange, heard)
        if exchange.status in {401, 403, 404, 408, 429} or exchange.status >= 500:
            raise UpstreamError(exchange.upstream, "protocol", f"it answered {exchange.status}")
        thought = heard.usage.reasoning if heard.usage is not None else 0
        return Told(exchange.status, thought or len(heard.reasoning), heard.output_tokens, heard.logprobs is not None)

    def _book(self, exchange: Exchange, heard: Heard) -> None:
        """Tell observers what it cost, as of any other exchange."""
        ledger, usage = exchange.ledger, heard.usage
        ledger.prompt = usage.prompt if usage is not None else 0
        ledger.output = heard.output_tokens
        ledger.estimated = usage is None
        ledger.total_s = perf_counter() - exchange.started
        exchange.decide("budget", "asked what it can do", model=exchange.model)
        self._app.done(exchange)


def obeyed(least: Told, most: Told) -> bool | None:
    """Whether clearly more was thought at the highest accepted effort than at the lowest; `None` if nobody can tell."""
    if least.thought or most.thought:
        return most.thought > CLEARLY * least.thought
    return True if most.output > 1.5 * least.output + 16 else None
