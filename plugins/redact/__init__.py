"""`redact`: masks secrets in answers, and in requests if asked to, however an answer is cut into chunks."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from predawn.plugins import ChunkFilter, Exchange, Plugin, PluginSettings, RequestError, hookimpl
from predawn.plugins.redact.answer import AnswerFilter, Masking
from predawn.plugins.redact.rules import BUILT_IN, Rule, compile_rule
from predawn.proxy.exchange import RouteName
from predawn.proxy.wire.text import request_texts

__all__ = ["PatternSettings", "RedactPlugin", "RedactSettings"]

_ANSWERS: frozenset[RouteName] = frozenset({"chat", "completions", "responses", "messages"})
_REQUESTS: frozenset[RouteName] = frozenset({"chat", "completions", "responses", "messages", "embeddings"})


class PatternSettings(BaseModel):
    """One kind of text to mask."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="Name of a built-in pattern, or what to call your own.", min_length=1)
    pattern: str | None = Field(default=None, description="Regular expression; absent for a built-in pattern.")
    replacement: str | None = Field(default=None, description="What the client sees instead; `[name]` when absent.")

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    def compile(self, timeout_s: float) -> Rule:
        """Raises `ValueError` naming the pattern and what is wrong with it."""
        replacement = f"[{self.name}]" if self.replacement is None else self.replacement
        if self.pattern is not None:
            return compile_rule(self.name, self.pattern, replacement, timeout_s=timeout_s)
        if self.name not in BUILT_IN:
            raise ValueError(f"{self.name!r} is not built in ({', '.join(BUILT_IN)}); give it a pattern")
        built_in = BUILT_IN[self.name]
        return compile_rule(self.name, built_in.pattern, replacement, check=built_in.check)


class RedactSettings(PluginSettings):
    patterns: tuple[PatternSettings, ...] = Field(
        default=tuple(PatternSettings(name=name) for name in ("email", "credit_card", "iban", "api_key")),
        description="What to mask; of matches that begin at the same character the earlier pattern wins.",
        min_length=1,
    )
    requests: bool = Field(default=False, description="Mask what clients write, too, before the upstream sees it.")
    max_match: int = Field(
        default=256, ge=16, le=4096, description="Longest match, in characters; no more is ever held back."
    )
    match_timeout_s: float = Field(
        default=0.05, gt=0, description="Longest search with one of your own patterns; beyond it the answer fails."
    )
    _rules: tuple[Rule, ...] = PrivateAttr(default=())

    @model_validator(mode="after")
    def _compile(self) -> Self:
        self._rules = tuple(pattern.compile(self.match_timeout_s) for pattern in self.patterns)
        return self

    @property
    def rules(self) -> tuple[Rule, ...]:
        return self._rules


class RedactPlugin(Plugin[RedactSettings]):
    """Masks configured patterns in the text of answers; put it last among the plugins that filter chunks."""

    settings_type: ClassVar[type[PluginSettings]] = RedactSettings

    @property
    def unused_hooks(self) -> frozenset[str]:
        return frozenset() if self.settings.requests else frozenset({"on_request"})

    @hookimpl
    async def on_request(self, exchange: Exchange) -> None:
        """Mask the client's text, if the settings say so."""
        if not self.settings.requests or exchange.route not in _REQUESTS:
            return
        masking = self._masking(exchange, "masked request")
        try:
            found = [(span.path, masking.whole(span)) for span in request_texts(exchange.request, exchange.route)]
        except RecursionError as exc:
            raise RequestError(400, "The request body is nested too deeply.", code="invalid_json") from exc
        changes = [(path, value) for path, value in found if value is not None]
        if not changes:
            return
        request = exchange.edit()
        for path, value in changes:
            owner: Any = request
            for key in path[:-1]:
                owner = owner[key]
            owner[path[-1]] = value

    @hookimpl
    def chunk_filter(self, exchange: Exchange) -> ChunkFilter | None:
        """Mask the answer's text, lane by lane."""
        if exchange.route not in _ANSWERS:
            return None
        return AnswerFilter(self._masking(exchange, "masked answer"), exchange.route)

    def _masking(self, exchange: Exchange, what: str) -> Masking:
        return Masking(self.settings.rules, self.settings.max_match, exchange, what)
