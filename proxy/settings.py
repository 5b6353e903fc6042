"""The shape of predawn.yaml: frozen models, each field with the words that the documentation prints.

`settings_file.py` reads a file into them and reports every error at once; this module knows no files.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

RouteSetting = Literal["chat", "completions", "responses", "embeddings", "messages"]
DEFAULT_ROUTES: tuple[RouteSetting, ...] = ("chat", "completions", "responses", "embeddings")


class Part(BaseModel):
    """A part of the settings: unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LogSettings(Part):
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe level that is logged.")
    format: Literal["json", "text"] = Field("json", description="One JSON object per line, or text for people.")
    requests: bool = Field(False, description="Log a line per request (never a prompt or an answer).")


class ServerSettings(Part):
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8080, ge=0, le=65535, description="Port of the API.")
    admin_host: str = Field("127.0.0.1", description="Address of the admin port.")
    admin_port: int | None = Field(
        None, ge=0, le=65535, description="Port of /metrics and friends; the API's port plus 1000 when absent."
    )
    workers: int = Field(1, ge=1, le=256, description="Processes sharing the port; each has its own admin port.")
    body_limit_mb: float = Field(64, gt=0, description="Largest request body, in MiB; more is answered with 413.")
    drain_timeout_s: float = Field(300, ge=0, description="How long streams may go on after SIGTERM.")
    drain_grace_s: float = Field(5, ge=0, description="How long new requests are still served after SIGTERM, while /ready says 503.")
    keep_alive_comment_s: float = Field(10, gt=0, description="Pause after which a waiting stream gets a `: keep-alive` comment.")
    max_choices: int = Field(128, ge=1, description="Largest `n` a client may ask for; more is refused with 400.")
    max_output_tokens: int | None = Field(None, ge=1, description="Larger `max_tokens` of clients are lowered to this.")
    trusted_proxies: tuple[str, ...] = Field((), description="Networks whose `x-forwarded-*` headers travel on.")
    log: LogSettings = Field(default_factory=lambda: LogSettings())


class TimeoutSettings(Part):
    connect_s: float = Field(5, gt=0, description="Longest wait for a connection.")
    first_byte_s: float = Field(300, gt=0, description="Longest wait for the first byte of an answer.")
    idle_s: float = Field(120, gt=0, description="Longest gap between two pieces of an answer.")
    total_s: float = Field(3600, gt=0, description="Longest time one request may take in all.")


class RetrySettings(Part):
    attempts: int = Field(2, ge=1, le=10, description="Tries in all for one upstream, before any byte was sent.")
    base_s: float = Field(0.25, ge=0, description="First pause; it doubles each time and is drawn at random below that.")
    max_wait_s: float = Field(2, ge=0, description="A longer `retry-after` is handed to the client instead of waited for.")


class BreakerSettings(Part):
    failures: int = Field(8, ge=1, description="Failures in a row that open the breaker.")
    cool_s: float = Field(10, gt=0, description="Pause until one request may try again.")


class UpstreamSettings(Part):
    name: str = Field(description="What the rest of the file calls it.", min_length=1)
    kind: Literal["openai", "litellm", "scripted", "local"] = Field(
        "openai", description="`openai` relays bytes, `litellm` translates, `scripted` is a fake for tests."
    )
    base_url: str | None = Field(None, description="Where the API lives, `/v1` included.")
    api_key: SecretStr | None = Field(None, description="The provider's key; write `${NAME}` to take it from the environment.")
    auth: Literal["bearer", "x-api-key", "api-key", "none"] = Field("bearer", description="The header the key travels in.")
    model: str | None = Field(None, description="Default name of the model at the provider (`litellm`: `anthropic/...`).")
    routes: tuple[RouteSetting, ...] = Field(
        DEFAULT_ROUTES, description="Which of the APIs the provider speaks natively."
    )
    relay: bool | tuple[str, ...] = Field(
        False, description="Relay other `/v1/*` paths: all, none, or those with these prefixes (`/files`)."
    )
    headers: dict[str, SecretStr] = Field(default_factory=dict, description="Headers added to each request.")
    http_proxy: str | None = Field(None, description="HTTP proxy between Predawn and the provider.")
    verify_tls: bool = Field(True, description="Check the provider's certificate.")
    ca_file: Path | None = Field(None, description="Certificates to trust besides the system's.")
    max_connections: int = Field(1000, ge=1, description="Connections kept to the provider at most.")
    stream_usage: bool = Field(
        False, description="Always ask for the usage of streams and hide it from clients that did not."
    )
    done_marker: bool = Field(True, description="A stream without its end marker (`[DONE]`) counts as cut off.")
    timeouts: TimeoutSettings = Field(default_factory=lambda: TimeoutSettings())
    retries: RetrySettings = Field(default_factory=lambda: RetrySettings())
    breaker: BreakerSettings = Field(default_factory=lambda: BreakerSettings())
    script: dict[str, Any] = Field(default_factory=dict, description="`scripted` only: what it answers, how fast, and how it fails.")
    options: dict[str, Any] = Field(default_factory=dict, description="`litellm` only: further arguments of its call.")

    @model_validator(mode="after")
    def _has_an_address(self) -> Self:
        if self.kind == "openai" and not self.base_url:
            raise ValueError("an upstream of kind openai needs a base_url")
        if self.base_url and not self.base_url.startswith(("http://", "https://")):
            raise ValueError("base_url must begin with http:// or https://")
        return self


class TargetSettings(Part):
    upstream: str = Field(description="Name of an upstream.")
    model: str | None = Field(None, description="The model's name there; the alias itself when absent.")
    weight: float = Field(1, gt=0, description="Share of the traffic among the targets.")


class PriceSettings(Part):
    input_usd_per_mtok: float = Field(0, ge=0, description="Dollars per million prompt tokens.")
    output_usd_per_mtok: float = Field(0, ge=0, description="Dollars per million output tokens.")
    cached_input_usd_per_mtok: float | None = Field(None, ge=0, description="Dollars per million cached prompt tokens.")


class ModelSettings(Part):
    name: str = Field(description="What clients ask for; `*` takes any name.", min_length=1)
    upstream: str | None = Field(None, description="Name of the upstream, where there is just one.")
    model: str | None = Field(None, description="The model's name at that upstream; the alias itself when absent.")
    targets: tuple[TargetSettings, ...] = Field((), description="Several upstreams sharing the alias.")
    fallbacks: tuple[str, ...] = Field((), description="Aliases tried in this order when all targets fail.")
    reasoning: Literal["none", "reasoning_effort", "enable_thinking", "thinking_budget", "thinking_token_budget"] = Field(
        "none", description="The knob by which effort reaches the model."
    )
    prefill: bool = Field(False, description="The upstream continues a last assistant message.")
    price: PriceSettings | None = Field(None, description="What tokens cost, for spend limits and the ledger.")
    max_output_tokens: int | None = Field(None, ge=1, description="Larger `max_tokens` of clients are lowered to this.")

    @model_validator(mode="after")
    def _has_a_target(self) -> Self:
        if bool(self.upstream) == bool(self.targets):
            raise ValueError("a model needs either an upstream or targets")
        return self

    @property
    def all_targets(self) -> tuple[TargetSettings, ...]:
        if self.targets:
            return self.targets
        assert self.upstream is not None
        return (TargetSettings(upstream=self.upstream, model=self.model, weight=1),)


class PluginEntry(Part):
    """One entry of `plugins`: the name and its raw settings, checked against the plugin's own class when it is loaded."""

    name: str
    settings: dict[str, Any]


class AccessSettings(Part):
    keys: Literal["auto", "required", "off"] = Field(
        "auto", description="`auto`: keys are required once one exists; until then only loopback clients are served."
    )
    secret: SecretStr | None = Field(
        None, description="Secret of the key digests; a random one is kept beside the state when absent."
    )
    limits_url: str | None = Field(None, description="Redis for limits shared by several servers; memory when absent.")


def default_state() -> str:
    """`$PREDAWN_STATE`, or `predawn/state.db` in the user's state folder."""
    if chosen := os.environ.get("PREDAWN_STATE"):
        return chosen
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return str(Path(base) / "predawn" / "state.db")


class Settings(Part):
    server: ServerSettings = Field(default_factory=lambda: ServerSettings())
    state: str = Field(
        default_factory=default_state, description="Path of the SQLite file, or a SQLAlchemy URL (`postgresql+asyncpg://…`)."
    )
    access: AccessSettings = Field(default_factory=lambda: AccessSettings())
    upstreams: tuple[UpstreamSettings, ...] = Field((), description="Where answers come from.")
    models: tuple[ModelSettings, ...] = Field((), description="What clients may ask for.")
    plugins: tuple[PluginEntry, ...] = Field((), description="Active plugins, in the order in which they run.")
    allow_plugins: tuple[str, ...] | None = Field(
        None, description="Only these third-party plugins may be named in `plugins`; any installed one when absent."
    )

    @field_validator("plugins", mode="before")
    @classmethod
    def _plugin_entries(cls, value: Any) -> Any:
        """Accept `- name`, `- name: {…}` and the entries themselves."""
        if not isinstance(value, (list, tuple)):
            return value
        return [_plugin_entry(item) for item in value]


def _plugin_entry(item: Any) -> Any:
    if isinstance(item, str):
        return {"name": item, "settings": {}}
    if isinstance(item, dict) and len(item) == 1:
        ((name, options),) = item.items()
        if name not in {"name", "settings"} and (options is None or isinstance(options, dict)):
            return {"name": name, "settings": options or {}}
    return item
