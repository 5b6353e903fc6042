"""Where requests and the engine meet: sessions go in, the engine's tokens come back as news."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

from predawn.kernels.engine import asks
from predawn.kernels.engine.asks import AskError
from predawn.kernels.engine.prompts import Prompter, overflow
from predawn.kernels.engine.protocol import Ask, News, Refused, Stats
from predawn.kernels.engine.refusals import ContextOverflow, Overloaded
from predawn.kernels.engine.sampling import Sampling
from predawn.kernels.engine.session import Call, CountedToken, Session, Speaker, prompt_param

RATE_LIMIT = "rate_limit_exceeded"


class EngineToken(CountedToken, Protocol):
    """A token that tells to which prompt it belongs."""

    @property
    def request_id(self) -> str: ...


class AnyEngine(Protocol):
    """The engine as a desk uses it; see `engine.Engine`."""

    @property
    def idle(self) -> bool: ...
    def submit(
        self, request_id: str, prompt: Sequence[int], sampling: Sampling, *, salt: str | None = None
    ) -> None: ...
    def cancel(self, request_id: str, index: int | None = None) -> None: ...
    def step(self) -> Sequence[EngineToken]: ...
    def stats(self) -> Any: ...


class Desk:
    """Serves requests with one engine. `prepare` may run in another thread than the rest."""

    def __init__(
        self, engine: AnyEngine, prompter: Prompter, speaker: Speaker, *, capacity: int, lookup: bool = False
    ) -> None:
        self._engine = engine
        self._prompter = prompter
        self._speaker = speaker
        self._lookup = lookup
        self._capacity = capacity
        """Prompts that the engine takes when it is idle; more at once could never be taken."""
        self._sessions: dict[str, tuple[Session, int]] = {}
        """By the engine's name for a prompt: whose it is, and which of its prompts."""

    @property
    def idle(self) -> bool:
        """Whether `step` has nothing to do."""
        return self._engine.idle

    def prepare(self, order: Ask) -> tuple[Session, list[Call]] | Refused:
        """Read a request and make its prompts: what takes time and not the engine."""
        try:
            ask = asks.read(order.kind, order.body)
            session = Session(order.id, ask, self._prompter.prompts(ask), self._speaker)
            calls = list(session.calls(self._prompter.context, lookup=self._lookup, salt=order.salt))
            if len(calls) > self._capacity:
                raise AskError(f"At most {self._capacity} prompts can be asked at once.", "prompt")
            return session, calls
        except AskError as exc:
            return refused(order.id, exc)
        except RecursionError:
            return refused(order.id, AskError("The request is nested too deeply.", code="invalid_json"))

    def admit(self, session: Session, calls: Sequence[Call]) -> list[News]:
        """Give a request to the engine; all of its prompts, or none."""
        for place, call in enumerate(calls):
            try:
                self._engine.submit(call.key, call.prompt, call.sampling, salt=call.salt)
            except Overloaded as exc:
                refusal = _overloaded(session.number, exc)
            except ContextOverflow as exc:
                error = overflow(exc.prompt_tokens, exc.max_context, prompt_param(session.ask))
                refusal = refused(session.number, error)
            except ValueError as exc:  # it begins with the parameter's name
                refusal = refused(session.number, AskError(f"{exc}.", str(exc).split(" ", maxsplit=1)[0]))
            else:
                self._sessions[call.key] = (session, place)
                continue
            self.cancel(session.number)
            return [refusal]
        return session.begin()

    def cancel(self, number: int) -> None:
        """Forget a request; what it held is free at once. An unknown one is over already."""
        for key in [key for key, (session, _) in self._sessions.items() if session.number == number]:
            del self._sessions[key]
            self._engine.cancel(key)

    def step(self) -> list[News]:
        """Let the engine work a little; what there is to say then."""
        news: list[News] = []
        for token in self._engine.step():
            key = token.request_id
            if key not in self._sessions:
                continue  # over by a stop string that came in the same step
            session, place = self._sessions[key]
            news += session.hear(place, token, partial(self._engine.cancel, key))
            if session.is_over:
                self.cancel(session.number)
        return news

    def stats(self) -> Stats:
        """How busy the engine is."""
        stats = self._engine.stats()
        return Stats(
            running=stats.running,
            waiting=stats.waiting,
            pages_used=stats.pages - stats.free_pages,
            pages=stats.pages,
            prefilled=stats.prefill_tokens,
            decoded=stats.decode_tokens,
            lookup_accepted=stats.accepted,
            steps=stats.steps,
        )


def refused(number: int, error: AskError) -> Refused:
    """A request that is wrong."""
    return Refused(id=number, status=400, message=error.message, code=error.code, param=error.param)


def _overloaded(number: int, error: Overloaded) -> Refused:
    message = f"The local engine is busy: {error.waiting} requests wait already. Please try again later."
    return Refused(id=number, status=429, message=message, code=RATE_LIMIT, retry_after_s=error.retry_after_s)
