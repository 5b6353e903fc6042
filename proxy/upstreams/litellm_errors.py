"""A failed call of LiteLLM in the proxy's words: from the wire where it is ours, else from LiteLLM's exception."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from predawn.proxy.upstreams.base import UpstreamError
from predawn.proxy.upstreams.litellm_stream import NoEndError
from predawn.proxy.upstreams.provider_reply import ProviderError, error_reply, read_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from predawn.proxy.exchange import Reply
    from predawn.proxy.upstreams.base import Reason
    from predawn.proxy.upstreams.provider_wire import Wire

_PREFIX = re.compile(r"^(?:litellm\.)?\w*(?:Error|Exception|Timeout)\s*[:-]\s*")
_UNSUPPORTED = re.compile(r"does not support parameters: \['(\w+)'")
_MESSAGE_CHARS = 600


@dataclass(frozen=True, slots=True)
class Failures:
    """LiteLLM's exceptions, handed over by its only importer."""

    raised: tuple[type[Exception], ...]
    """All that its calls are known to raise."""
    unsupported: type[Exception]
    timeout: type[Exception]
    """What an HTTP client raises below LiteLLM; so is `connection`."""
    connection: type[Exception]


class Teller:
    """Tells the failures of one upstream's calls."""

    def __init__(self, upstream: str, failures: Failures, secrets: Sequence[str]) -> None:
        self._upstream = upstream
        self.failures = failures
        self._secrets = secrets

    def reply(self, exc: Exception, wire: Wire, *, owned: bool) -> Reply:
        """What to answer when nothing was sent to the client yet. Raises `UpstreamError` where nobody answered."""
        if wire.failure is not None:
            raise UpstreamError(self._upstream, *wire.failure) from exc
        if wire.status:
            return self._from_wire(exc, wire)
        return self._without_wire(exc, owned=owned)

    def _from_wire(self, exc: Exception, wire: Wire) -> Reply:
        """The provider answered, but not with an answer."""
        if 300 <= wire.status < 400:
            message = f"answered {wire.status}, which is not followed: correct its base_url"
            raise UpstreamError(self._upstream, "protocol", message) from exc
        if (error := read_error(bytes(wire.head), wire.status)) is not None:
            return error_reply(self._redacted(error), wire.headers)
        if isinstance(exc, NoEndError) and "event" in wire.headers.get("Content-Type", ""):
            raise UpstreamError(self._upstream, "truncated", str(exc)) from exc
        raise UpstreamError(self._upstream, "protocol", "what it answered is not of its API") from exc

    def _without_wire(self, exc: Exception, *, owned: bool) -> Reply:
        """No request was seen: the translation was refused, or LiteLLM used a network of its own."""
        status: Any = getattr(exc, "status_code", None)
        if owned:  # nothing was sent, so whatever LiteLLM calls it, the request is to blame
            return self.refusal(exc, status if isinstance(status, int) and 400 <= status < 500 else 400)
        if isinstance(exc, self.failures.unsupported):
            return self.refusal(exc, 400)
        if _came_of(exc, self.failures.timeout):
            raise UpstreamError(self._upstream, "timeout_ttft", self._words(exc)) from exc
        if _came_of(exc, self.failures.connection):
            raise UpstreamError(self._upstream, "connect", self._words(exc)) from exc
        if not isinstance(status, int):
            raise UpstreamError(self._upstream, "protocol", self._words(exc)) from exc
        response: Any = getattr(exc, "response", None)
        headers = getattr(exc, "litellm_response_headers", None) or getattr(response, "headers", None) or {}
        return error_reply(ProviderError(status, self._words(exc)), dict(headers))

    def refusal(self, exc: Exception, status: int) -> Reply:
        """LiteLLM would not translate the request."""
        message = self._words(exc)
        param = match[1] if (match := _UNSUPPORTED.search(message)) is not None else None
        if param is not None:
            message += " Leave it out, or let `options: {drop_params: true}` of the upstream drop it."
        error = ProviderError(status, message, "unsupported_parameter" if param else "untranslatable", param=param)
        return error_reply(error, {})

    def lost(self, exc: Exception, wire: Wire) -> UpstreamError:
        """What ended a stream of which the client has seen a part."""
        if wire.failure is not None:
            reason, message = wire.failure
        elif isinstance(exc, NoEndError):
            reason, message = "truncated", str(exc)
        else:
            reason, message = self._reason(exc), self._words(exc)
        return UpstreamError(self._upstream, reason, message, sent_nothing=False)

    def _reason(self, exc: Exception) -> Reason:
        if _came_of(exc, self.failures.timeout):
            return "timeout_idle"
        if _came_of(exc, self.failures.connection):
            return "truncated"
        status: Any = getattr(exc, "status_code", None)
        if status == 429:
            return "429"
        return "5xx" if isinstance(status, int) and status >= 500 else "protocol"

    def _words(self, exc: Exception) -> str:
        """LiteLLM's message without its prefixes, its advice on its own settings, tracebacks and secrets."""
        text = str(exc).strip()
        while (shorter := _PREFIX.sub("", text)) != text:
            text = shorter
        text = text.partition("\n")[0].partition(" To drop these")[0][:_MESSAGE_CHARS]
        return self._redact(text) or type(exc).__name__

    def _redacted(self, error: ProviderError) -> ProviderError:
        return replace(error, message=self._redact(error.message))

    def _redact(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _came_of(exc: BaseException | None, kind: type[Exception]) -> bool:
    """True if `exc` is of a kind, or was raised because of one that is."""
    seen = 0
    while exc is not None and seen < 16 and not isinstance(exc, kind):
        exc, seen = exc.__cause__ or exc.__context__, seen + 1
    return isinstance(exc, kind)
