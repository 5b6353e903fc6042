"""Chat and embeddings of providers that do not speak OpenAI's API, translated by LiteLLM. The only importer of it.

LiteLLM only translates here. The network is ours (`provider_wire`), and so are errors, timeouts, the end of a stream
and what a client may set: its members reach LiteLLM by name or not at all, since LiteLLM takes addresses, keys and
callbacks from the same place as `temperature`.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import re
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from predawn.proxy.exchange import Reply, RouteName
from predawn.proxy.upstreams.base import UpstreamError, UpstreamRequest
from predawn.proxy.upstreams.litellm_errors import Failures, Teller
from predawn.proxy.upstreams.litellm_shapes import clean_body
from predawn.proxy.upstreams.litellm_stream import LiteLLMStream
from predawn.proxy.upstreams.provider_reply import ProviderError, error_reply, json_reply
from predawn.proxy.wire.headers import to_client
from predawn.proxy.wire.sse import split_events

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from predawn.proxy.clock import Clock
    from predawn.proxy.settings import UpstreamSettings
    from predawn.proxy.upstreams.provider_wire import ProviderTransport, Wire

ROUTES: frozenset[RouteName] = frozenset({"chat", "embeddings"})
# fmt: off
CHAT_MEMBERS = frozenset({
    "messages", "functions", "function_call", "temperature", "top_p", "top_k", "n", "stop", "max_tokens",
    "max_completion_tokens", "modalities", "prediction", "audio", "presence_penalty", "frequency_penalty",
    "logit_bias", "user", "response_format", "seed", "tools", "tool_choice", "parallel_tool_calls", "logprobs",
    "top_logprobs", "reasoning_effort", "verbosity", "safety_identifier", "service_tier", "store",
    "prompt_cache_key", "web_search_options", "thinking",
})
# fmt: on
EMBEDDING_MEMBERS = frozenset({"input", "dimensions", "encoding_format", "user"})
WITHHELD = frozenset({"model", "stream", "stream_options", "metadata", "extra_body", "extra_headers", "extra_query"})
"""Members that are told in another way, or that LiteLLM would take for its own."""
OWN_NETWORK = frozenset({"anthropic", "gemini", "vertex_ai", "vertex_ai_beta", "bedrock", "ollama_chat"})
"""Providers whose code in LiteLLM takes an HTTP client; the others bring their own, and their errors are LiteLLM's."""
OWN_CREDENTIALS = frozenset({"vertex_ai", "vertex_ai_beta", "bedrock", "sagemaker", "sagemaker_chat", "azure", "oci"})
"""Providers that may have no key but a role or an account file."""
TRACE_HEADERS = ("traceparent", "tracestate")
"""What of the client's headers goes on; LiteLLM makes all others."""
MODEL_NAME = re.compile(r"[\w.:/@+-]{1,256}", re.ASCII)
PLACEHOLDER_KEY = "none"
ENVIRONMENT = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it fetches a file at import
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",  # else another one at the first call
    "LITELLM_MODE": "PRODUCTION",  # else it loads a .env file
    "MAX_IMAGE_URL_DOWNLOAD_SIZE_MB": "0",  # else clients choose what this server downloads
}
CALLBACKS = ("input_callback", "success_callback", "failure_callback", "_async_success_callback", "callbacks")
REHEARSAL: dict[str, Any] = {
    "model": "anthropic/none",
    "messages": [{"role": "user", "content": "?"}],
    "mock_response": "!",  # answered by LiteLLM itself; nothing may leave this machine
    "api_base": "http://127.0.0.1:9",
    "api_key": PLACEHOLDER_KEY,
}
MANY_STREAMED = ProviderError(
    400, "This provider cannot stream more than one choice; ask with n=1.", "unsupported_parameter", param="n"
)
"""LiteLLM would translate the first choice of a stream and drop the others."""
_decode = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True)
class Call:
    """One call of LiteLLM."""

    arguments: dict[str, Any]
    extra: dict[str, Any]
    """What the transport adds to the provider's request."""
    owned: bool
    """True if the call goes over our network."""
    usage: bool
    """True if a stream is to tell its usage."""


class LiteLLMUpstream:
    """Sends requests to whatever provider the model's name begins with; implements `Upstream`."""

    def __init__(self, settings: UpstreamSettings, clock: Clock) -> None:
        self.settings = settings
        self.name = settings.name
        self.routes: frozenset[RouteName] = ROUTES & frozenset(settings.routes)
        self._clock = clock
        self._key = settings.api_key.get_secret_value() if settings.api_key is not None else None
        self._headers = {name: value.get_secret_value() for name, value in settings.headers.items()}
        self._teller: Teller | None = None
        self._litellm: Any = None
        self._http: Any = None
        self._transport: ProviderTransport | None = None
        self._providers: dict[str, str] = {}

    async def open(self) -> None:
        """Import LiteLLM off the event loop, which takes seconds. Raises `ModuleNotFoundError` if it is absent."""
        self._litellm = await asyncio.to_thread(_load, self.name)
        from predawn.proxy.upstreams.provider_wire import ProviderTransport

        secrets = [secret for secret in (self._key, *self._headers.values()) if secret and len(secret) > 3]
        handler = importlib.import_module("litellm.llms.custom_httpx.http_handler").AsyncHTTPHandler
        self._transport = ProviderTransport(self.settings)
        self._http = handler(transport=self._transport, follow_redirects=False)
        self._teller = Teller(self.name, _failures(self._litellm), secrets)

    async def aclose(self) -> None:
        if self._transport is not None:
            await self._http.close()
            await self._transport.close_session()
            self._transport = self._http = self._teller = None

    async def models(self) -> list[str]:
        """Nothing: LiteLLM knows price lists, not what a key may use."""
        return []

    async def send(self, request: UpstreamRequest) -> Reply:
        if self._teller is None:
            raise RuntimeError(f"upstream {self.name!r} is not open")
        from predawn.proxy.upstreams.provider_wire import Wire, current_wire

        try:
            body = await _members(request)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            return error_reply(ProviderError(400, f"The request body is not valid JSON: {exc}", "invalid_json"), {})
        if request.stream and isinstance(body.get("n"), int) and body["n"] > 1:
            return error_reply(MANY_STREAMED, {})
        try:
            provider = self._provider(request.model)
        except self._teller.failures.raised as exc:
            return self._teller.refusal(exc, 404)
        call = self._call(request, provider, body)
        wire = Wire(call.extra, _end_marks(provider, request.model))
        token = current_wire.set(wire)
        handed_over = False
        try:
            if request.stream and request.route == "chat":
                reply = await self._stream(call, wire)
            else:
                reply = await self._whole(call, wire, request.route)
            handed_over = True
        except self._teller.failures.raised as exc:
            reply = self._teller.reply(exc, wire, owned=call.owned)
        finally:
            current_wire.reset(token)
            if not handed_over:
                wire.close()
        return reply

    async def _whole(self, call: Call, wire: Wire, route: RouteName) -> Reply:
        function = self._litellm.acompletion if route == "chat" else self._litellm.aembedding
        with _unlogged(self._litellm):
            answer = await function(**call.arguments)
        return json_reply(200, wire.headers, clean_body(answer.model_dump(mode="json", warnings=False)))

    async def _stream(self, call: Call, wire: Wire) -> Reply:
        assert self._teller is not None
        timeouts = self.settings.timeouts
        source: LiteLLMStream | None = None
        try:
            async with asyncio.timeout(timeouts.first_byte_s):
                with _unlogged(self._litellm):
                    answer = await self._litellm.acompletion(**call.arguments, **_streaming(call.usage))
                _mute(answer)
                source = LiteLLMStream(
                    self.name,
                    answer,
                    wire,
                    self._teller,
                    usage=call.usage,
                    idle_s=None if call.owned else timeouts.idle_s,
                    needs_end=self.settings.done_marker,
                )
                await source.start()
                handed_over, source = source, None
        except TimeoutError as exc:
            raise UpstreamError(self.name, "timeout_ttft", f"no answer within {timeouts.first_byte_s:g} s") from exc
        finally:
            if source is not None:
                await source.aclose()
        headers = to_client(wire.headers)
        headers["Content-Type"] = "text/event-stream; charset=utf-8"
        return Reply(200, headers, source=handed_over, split=split_events)

    def _call(self, request: UpstreamRequest, provider: str, body: dict[str, Any]) -> Call:
        """The settings' `options`, the client's members over them, and over both what is fixed."""
        known = CHAT_MEMBERS if request.route == "chat" else EMBEDDING_MEMBERS
        extra = {name: value for name, value in body.items() if name not in known and name not in WITHHELD}
        owned = provider in OWN_NETWORK
        timeouts = self.settings.timeouts
        headers = {**_trace_of(request.headers), **self.settings.options.get("extra_headers", {}), **self._headers}
        fixed = {
            "model": request.model,
            "api_base": self._base(provider),
            "api_key": self._key or (None if provider in OWN_CREDENTIALS else PLACEHOLDER_KEY),
            "timeout": timeouts.total_s if owned else timeouts.first_byte_s,
            "num_retries": 0,
            "max_retries": 0,
            "extra_headers": headers or None,
            "client": self._http if owned else None,
            "extra_body": None if owned else extra or None,
        }
        if request.route == "chat":
            fixed["_skip_mcp_handler"] = True  # else tools make it import, and perhaps act as, an MCP client
        members = {name: body[name] for name in known & body.keys()}
        arguments = {**self.settings.options, **members}
        arguments.update({name: value for name, value in fixed.items() if value is not None})
        return Call(arguments, extra if owned else {}, owned, _asks_usage(body))

    def _base(self, provider: str) -> str | None:
        """The base URL as LiteLLM wants it, which for Anthropic is without its `/v1`."""
        base = self.settings.base_url
        if provider == "anthropic":  # named even by default, since LiteLLM would look into the environment
            return (base or "https://api.anthropic.com").rstrip("/").removesuffix("/v1")
        return base.rstrip("/") if base is not None else None

    def _provider(self, model: str) -> str:
        """LiteLLM's name of the provider. Raises `ValueError` for a name that could lead the key astray.

        Where an alias is `*` the client writes the name, and some providers take an address in its place.
        """
        provider = self._providers.get(model)
        if provider is None:
            if not MODEL_NAME.fullmatch(model) or ".." in model or "//" in model:
                raise ValueError(f"{model[:100]!r} is not the name of a model")
            provider = str(self._litellm.get_llm_provider(model=model)[1])
            own = self.settings.model
            if own is not None and provider != str(self._litellm.get_llm_provider(model=own)[1]):
                raise ValueError(f"{model[:100]!r} is not of the provider of {own!r}")
            if len(self._providers) < 256:
                self._providers[model] = provider
        return provider

    def __repr__(self) -> str:
        return f"<LiteLLMUpstream {self.name!r} {'open' if self._teller is not None else 'closed'}>"


async def _members(request: UpstreamRequest) -> dict[str, Any]:
    """The request to translate: a copy, since LiteLLM writes into what it is given."""
    body = request.body
    if not isinstance(body, bytes):
        body = b"".join([piece async for piece in body])
    members = _decode(body) if body else dict(request.decoded())
    return members if isinstance(members, dict) else {}


def _trace_of(headers: Mapping[str, str]) -> dict[str, str]:
    """Whose trace the call belongs to, if that is told in words that a header may hold."""
    told = {name: headers.get(name, "") for name in TRACE_HEADERS}
    return {name: value for name, value in told.items() if value and value.isascii() and value.isprintable()}


def _end_marks(provider: str, model: str) -> tuple[bytes, ...]:
    """LiteLLM says `stop` of each chunk of Gemini's, so that only the wire tells a whole answer from a broken one."""
    of_google = provider == "gemini" or (provider in ("vertex_ai", "vertex_ai_beta") and "gemini" in model)
    return (b'"finishReason"', b'"blockReason"') if of_google else ()


def _asks_usage(body: Mapping[str, Any]) -> bool:
    options = body.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def _streaming(usage: bool) -> dict[str, Any]:
    return {"stream": True, "stream_options": {"include_usage": True}} if usage else {"stream": True}


def _load(upstream: str) -> Any:
    """Import LiteLLM with everything off that is not translation."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if "LITELLM_LOG" not in os.environ:
        for name in ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # its errors quote prompts
    try:
        litellm: Any = importlib.import_module("litellm")
    except ModuleNotFoundError as exc:
        if exc.name != "litellm":
            raise
        message = f"upstream {upstream!r} is of kind litellm, which is not installed: pip install 'predawn[litellm]'"
        raise ModuleNotFoundError(message, name="litellm") from exc
    litellm.suppress_debug_info = True
    litellm.telemetry = False
    litellm.REPEATED_STREAMING_CHUNK_LIMIT = sys.maxsize  # a hundred equal chunks are an answer, not a fault
    # Most of the first call's 0.4 s is spent on tokenizers and imports; it is spent here instead.
    litellm.completion(**REHEARSAL)
    return litellm


def _failures(litellm: Any) -> Failures:
    """LiteLLM's own errors descend from the OpenAI SDK's; the others are what has been seen to slip through it."""
    slipped = (ValueError, TypeError, LookupError, AttributeError, RuntimeError, AssertionError)
    base = importlib.import_module("openai").OpenAIError
    httpx: Any = importlib.import_module("httpx")
    return Failures(
        raised=(base, httpx.HTTPError, *slipped),
        unsupported=litellm.UnsupportedParamsError,
        timeout=httpx.TimeoutException,
        connection=httpx.TransportError,
    )


@contextmanager
def _unlogged(litellm: Any) -> Iterator[None]:
    """Tell LiteLLM that the call is one of its own: it then starts no logging worker and calls back nobody."""
    for name in CALLBACKS:
        getattr(litellm, name, []).clear()  # parts of it register themselves when they are imported
    try:
        internal: Any = importlib.import_module("litellm._internal_context").is_internal_call
    except (ModuleNotFoundError, AttributeError):
        yield
        return
    token = internal.set(True)
    try:
        yield
    finally:
        internal.reset(token)


def _mute(stream: Any) -> None:
    """Keep a stream from logging its end, which builds the whole answer a second time."""
    log = getattr(stream, "logging_obj", None)
    if log is not None:
        log.dispatch_success_handlers = log.dispatch_failure_handlers = _nothing


async def _nothing(*_: Any, **__: Any) -> None:
    """Takes the place of LiteLLM's loggers."""
