"""The shape of predawn.yaml: frozen models, each field with the words that the documentation prints.

`settings_file.py` reads a file into them and reports every error at once; this module knows no files.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

RouteSetting = Literal["chat", "completions", "responses", "embeddings", "messages"]
DEFAULT_ROUTES: tuple[RouteSetting, ...] = ("chat", "completions", "responses", "embeddings")


_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TRANSPORT_HEADERS = {"connection", "content-length", "host", "te", "trailer", "transfer-encoding", "upgrade"}


def _http_url(value: str) -> str:
    try:
        url = urlsplit(value)
        usable = url.scheme in {"http", "https"} and bool(url.hostname) and url.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("must be a URL that begins with http:// or https:// and names a host")
    return value


HttpUrl: TypeAlias = Annotated[str, AfterValidator(_http_url)]


def _class_name(value: str) -> str:
    if not re.fullmatch("[a-z][a-z0-9_-]{0,31}", value) or value in {"default", "none"}:
        raise ValueError("must be a short word in small letters, and not `default` or `none`")
    return value


TenantClass: TypeAlias = Annotated[str, AfterValidator(_class_name)]


class Part(BaseModel):
    """A part of the settings: unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _without_empty_keys(cls, value: Any) -> Any:
        """A key without a value (`plugins:` with its items commented out) is as good as absent."""
        if not isinstance(value, dict):
            return value
        return {key: item for key, item in value.items() if item is not None or key not in cls.model_fields}


class LogSettings(Part):
    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe level that is logged."
    )
    format: Literal["json", "text"] = Field(default="json", description="One JSON object per line, or text for people.")
    requests: bool = Field(default=False, description="Log a line per request (never a prompt or an answer).")


class TlsSettings(Part):
    """Files in PEM."""

    cert_file: Path = Field(
        description="Certificate of the server, and after it those between it and the authority's; read again at each "
        "reload."
    )
    key_file: Path = Field(description="Its private key; read again at each reload.")
    key_password: SecretStr | None = Field(default=None, description="Opens the private key, if it is encrypted.")

    @field_validator("key_password", mode="before")
    @classmethod
    def _no_password_is_none(cls, value: Any) -> Any:
        """`${NAME:-}` without the variable means no password."""
        return value or None


class ServerSettings(Part):
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8080, ge=0, le=65535, description="Port of the API.")
    admin_host: str = Field(default="127.0.0.1", description="Address of the admin port.")
    admin_port: int | None = Field(
        default=None, ge=0, le=65535, description="Port of /metrics and friends; the API's port plus 1000 when absent."
    )
    admin_key: SecretStr | None = Field(
        default=None,
        min_length=16,
        description="Key that the live page asks everybody for; without one it is shown on the server itself only.",
    )
    workers: int = Field(
        default=1, ge=1, le=256, description="Processes sharing the port; each has its own admin port."
    )
    hang_s: float = Field(
        default=30,
        ge=2,
        description="With several workers: one whose loop stands still for so long is killed and replaced.",
    )
    tls: TlsSettings | None = Field(
        default=None, description="HTTPS on the API's port; plain HTTP when absent. The admin port is always plain."
    )
    body_limit_mb: float = Field(
        default=64, gt=0, description="Largest request body, in MiB; more is answered with 413."
    )
    drain_timeout_s: float = Field(default=300, ge=0, description="How long streams may go on after SIGTERM.")
    drain_grace_s: float = Field(
        default=5, ge=0, description="How long new requests are still served after SIGTERM, while /ready says 503."
    )
    fast_lane: bool = Field(
        default=True,
        description="Relay requests that no plugin touches by the shortest way; off, all take the one with plugins.",
    )
    keep_alive_comment_s: float = Field(
        default=10, gt=0, description="Pause after which a stream that a plugin holds up gets a `: keep-alive` comment."
    )
    max_choices: int = Field(
        default=128, ge=1, description="Largest `n` a client may ask for; more is refused with 400."
    )
    max_output_tokens: int | None = Field(
        default=None, ge=1, description="Larger `max_tokens` of clients are lowered to this."
    )
    trusted_proxies: tuple[str, ...] = Field(
        default=(), description="Networks whose `x-forwarded-*` headers travel on."
    )
    log: LogSettings = Field(default_factory=LogSettings, description="What is logged, and how.")

    @field_validator("admin_key", mode="before")
    @classmethod
    def _no_key_is_none(cls, value: Any) -> Any:
        """`${NAME:-}` without the variable means no key."""
        return value or None

    @field_validator("admin_key")
    @classmethod
    def _can_be_sent(cls, value: SecretStr | None) -> SecretStr | None:
        key = value.get_secret_value() if value is not None else ""
        if not (key.isascii() and key.isprintable()) or key != key.strip():
            raise ValueError("must be ASCII letters, digits and marks, as a header can carry")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            try:
                ipaddress.ip_network(network, strict=False)
            except ValueError as exc:
                raise ValueError("must be addresses or networks such as 10.0.0.0/8") from exc
        return value


class TimeoutSettings(Part):
    connect_s: float = Field(default=5, gt=0, description="Longest wait for a connection.")
    first_byte_s: float = Field(default=300, gt=0, description="Longest wait for the first byte of an answer.")
    idle_s: float = Field(default=120, gt=0, description="Longest gap between two pieces of an answer.")
    total_s: float = Field(default=3600, gt=0, description="Longest time one request may take in all.")


class RetrySettings(Part):
    attempts: int = Field(
        default=2, ge=1, le=10, description="Tries in all for one upstream, before any byte was sent."
    )
    base_s: float = Field(
        default=0.25, ge=0, description="First pause; it doubles each time and is drawn at random below that."
    )
    max_wait_s: float = Field(
        default=2, ge=0, description="A longer `retry-after` is handed to the client instead of waited for."
    )


class BreakerSettings(Part):
    failures: int = Field(default=8, ge=1, description="Failures in a row that open the breaker.")
    cool_s: float = Field(default=10, gt=0, description="Pause until one request may try again.")


class EngineSettings(Part):
    """How the local engine runs; what is absent is chosen for the machine."""

    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="Where it computes.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="Of weights and arithmetic; `auto` is the checkpoint's own."
    )
    threads: int | None = Field(default=None, ge=1, le=512, description="Of the CPU; half of its cores when absent.")
    context: int | None = Field(
        default=None, ge=16, description="Tokens of prompt and answer together; the model's own limit when absent."
    )
    kv_memory_mb: float | None = Field(
        default=None,
        gt=0,
        description="Memory for keys and values; what a full batch needs when absent, at most 512 or one context.",
    )
    max_batch: int = Field(default=16, ge=1, le=256, description="Requests that are worked on side by side.")
    max_waiting: int = Field(default=64, ge=0, description="Requests that may wait; more are refused with 429.")
    prefill_chunk: int = Field(
        default=256, ge=16, multiple_of=16, description="Prompt tokens computed between two steps of the others."
    )
    hang_s: float = Field(
        default=30,
        gt=0,
        description="An engine that gives no sign of life for so long is killed and started again; longer than any one "
        "step takes.",
    )
    lookup: bool = Field(
        default=False, description="Draft from n-grams seen before where a request does not say (`lookup`)."
    )
    width: int = Field(
        default=1,
        ge=1,
        le=16,
        description="Experiment, on a CPU: most trajectories a request may let vote on each token (`width`).",
    )


class UpstreamSettings(Part):
    name: str = Field(description="What the rest of the file calls it.", min_length=1)
    kind: Literal["openai", "litellm", "scripted", "local"] = Field(
        default="openai",
        description="`openai` relays bytes, `litellm` translates, `local` runs a model on this machine, `scripted` is "
        "a fake for tests.",
    )
    base_url: HttpUrl | None = Field(default=None, repr=False, description="Where the API lives, `/v1` included.")
    api_key: SecretStr | None = Field(
        default=None, description="The provider's key; write `${NAME}` to take it from the environment."
    )
    auth: Literal["bearer", "x-api-key", "api-key", "none"] = Field(
        default="bearer", description="The header the key travels in."
    )
    model: str | None = Field(
        default=None, description="Default name of the model at the provider (`litellm`: `anthropic/...`)."
    )
    routes: tuple[RouteSetting, ...] = Field(
        default=DEFAULT_ROUTES, description="Which of the APIs the provider speaks natively."
    )
    relay: bool | tuple[str, ...] = Field(
        default=False, description="Relay other `/v1/*` paths: all, none, or those with these prefixes (`/files`)."
    )
    headers: dict[str, SecretStr] = Field(default_factory=dict, description="Headers added to each request.")
    http_proxy: HttpUrl | None = Field(
        default=None, repr=False, description="HTTP proxy between Predawn and the provider."
    )
    verify_tls: bool = Field(default=True, description="Check the provider's certificate.")
    ca_file: Path | None = Field(default=None, description="Certificates to trust besides the system's.")
    max_connections: int = Field(default=1000, ge=1, description="Connections kept to the provider at most.")
    stream_usage: bool = Field(
        default=False, description="Always ask for the usage of streams and hide it from clients that did not."
    )
    done_marker: bool = Field(default=True, description="A stream without its end marker (`[DONE]`) counts as cut off.")
    timeouts: TimeoutSettings = Field(default_factory=TimeoutSettings, description="How long to wait.")
    retries: RetrySettings = Field(default_factory=RetrySettings, description="When to try again.")
    breaker: BreakerSettings = Field(
        default_factory=BreakerSettings, description="When to leave a failing provider alone."
    )
    path: Path | None = Field(
        default=None, description="`local` only: a model's folder or GGUF file; the bundled `predawn-tiny` when absent."
    )
    engine: EngineSettings = Field(default_factory=EngineSettings, description="`local` only: how the model is run.")
    script: dict[str, Any] = Field(
        default_factory=dict, repr=False, description="`scripted` only: what it answers, how fast, and how it fails."
    )
    options: dict[str, Any] = Field(
        default_factory=dict, repr=False, description="`litellm` only: further arguments of its call."
    )

    @field_validator("api_key")
    @classmethod
    def _empty_is_none(cls, value: SecretStr | None) -> SecretStr | None:
        """`${NAME:-}` without the variable means no key, not an empty one."""
        if value is None or not value.get_secret_value():
            return None
        if not value.get_secret_value().isascii() or not value.get_secret_value().isprintable():
            raise ValueError("must consist of printable ASCII characters; is there a line break at its end?")
        return value

    @field_validator("relay")
    @classmethod
    def _are_paths(cls, value: bool | tuple[str, ...]) -> bool | tuple[str, ...]:
        if isinstance(value, tuple) and not all(prefix.startswith("/") for prefix in value):
            raise ValueError("a prefix begins with /, such as /files")
        return value

    @field_validator("headers")
    @classmethod
    def _can_be_sent(cls, value: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, secret in value.items():
            if not _HEADER_NAME.fullmatch(name):
                raise ValueError("a header's name consists of letters, digits and hyphens")
            if name.lower() in _TRANSPORT_HEADERS:
                raise ValueError(f"{name} belongs to the connection and cannot be set")
            if not secret.get_secret_value().isprintable():
                raise ValueError(f"the value of {name} contains a line break or another control character")
        return value

    @model_validator(mode="after")
    def _has_an_address(self) -> Self:
        if self.kind == "openai" and not self.base_url:
            raise ValueError("an upstream of kind openai needs a base_url")
        return self


class TargetSettings(Part):
    upstream: str = Field(description="Name of an upstream.")
    model: str | None = Field(default=None, description="The model's name there; the alias itself when absent.")
    weight: float = Field(default=1, gt=0, description="Share of the traffic among the targets.")


class PriceSettings(Part):
    input_usd_per_mtok: float = Field(default=0, ge=0, description="Dollars per million prompt tokens.")
    output_usd_per_mtok: float = Field(default=0, ge=0, description="Dollars per million output tokens.")
    cached_input_usd_per_mtok: float | None = Field(
        default=None, ge=0, description="Dollars per million cached prompt tokens."
    )


class ModelSettings(Part):
    name: str = Field(description="What clients ask for; `*` takes any name.", min_length=1)
    upstream: str | None = Field(default=None, description="Name of the upstream, where there is just one.")
    model: str | None = Field(
        default=None, description="The model's name at that upstream; the alias itself when absent."
    )
    targets: tuple[TargetSettings, ...] = Field(default=(), description="Several upstreams sharing the alias.")
    fallbacks: tuple[str, ...] = Field(default=(), description="Aliases tried in this order when all targets fail.")
    reasoning: Literal["none", "reasoning_effort", "enable_thinking", "thinking_budget", "thinking_token_budget"] = (
        Field(default="none", description="The knob by which effort reaches the model.")
    )
    prefill: bool = Field(default=False, description="The upstream continues a last assistant message.")
    shared_prefill: bool = Field(
        default=False,
        description="The upstream reads a prompt once for all `n` choices; samples are then drawn with `n`.",
    )
    price: PriceSettings | None = Field(default=None, description="What tokens cost, for spend limits and the ledger.")
    max_output_tokens: int | None = Field(
        default=None, ge=1, description="Larger `max_tokens` of clients are lowered to this."
    )

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
    """One entry of `plugins`; its settings are checked against the plugin's own class when that is loaded."""

    name: str = Field(description="Name of an installed plugin.", min_length=1)
    settings: dict[str, Any] = Field(
        default_factory=dict, repr=False, description="What the plugin itself understands."
    )

    @model_validator(mode="before")
    @classmethod
    def _from_short_form(cls, value: Any) -> Any:
        """Accept `- name` and `- name: {…}` besides the entry itself."""
        if isinstance(value, str):
            return {"name": value}
        if not isinstance(value, dict) or value.keys() & {"name", "settings"}:
            return value
        if len(value) != 1:
            raise ValueError("one entry names one plugin: `- name` or `- name: {key: value}`")
        ((name, options),) = value.items()
        if options is not None and not isinstance(options, dict):
            raise ValueError(f"the settings of '{name}' must be a mapping of keys to values")
        return {"name": name, "settings": options or {}}


class AccessSettings(Part):
    keys: Literal["auto", "required", "off"] = Field(
        default="auto",
        description="`auto`: keys are required once one exists; until then only loopback clients are served.",
    )
    secret: SecretStr | None = Field(
        default=None, description="Secret of the key digests; a random one is kept beside the state when absent."
    )
    limits_url: str | None = Field(
        default=None, repr=False, description="Redis for limits shared by several servers; memory when absent."
    )
    tenant_classes: dict[TenantClass, tuple[str, ...]] = Field(
        default_factory=dict,
        max_length=8,
        description="Classes of tenants for metrics, `gold: [acme, umbrella]`; a tenant of none is `default`.",
    )

    @field_validator("tenant_classes")
    @classmethod
    def _each_tenant_once(cls, classes: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        tenants = [tenant for each in classes.values() for tenant in each]
        twice = sorted({tenant for tenant in tenants if tenants.count(tenant) > 1})
        if twice:
            raise ValueError(f"tenants in more than one class: {', '.join(twice)}")
        return classes


class JobSettings(Part):
    in_servers: bool = Field(
        default=True, description="Servers do jobs themselves; `false` leaves all of them to `predawn worker`."
    )
    concurrency: int = Field(default=2, ge=1, le=256, description="Jobs of one queue that a process does side by side.")
    keep_finished_h: float = Field(
        default=24, gt=0, description="Hours until a finished job is forgotten; until then its id is not used again."
    )


def default_state(env: Mapping[str, str] = os.environ) -> str:
    """`$PREDAWN_STATE`, or `predawn/state.db` in the user's state folder."""
    if chosen := env.get("PREDAWN_STATE"):
        return chosen
    base = env.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return str(Path(base) / "predawn" / "state.db")


class Settings(Part):
    server: ServerSettings = Field(default_factory=ServerSettings, description="How to listen and to stop.")
    state: str = Field(
        default_factory=default_state,
        repr=False,
        description="Path of the SQLite file, or a SQLAlchemy URL (`postgresql+asyncpg://…`).",
    )
    jobs: JobSettings = Field(
        default_factory=JobSettings, description="Background work of plugins; nothing runs unless one asks for it."
    )
    access: AccessSettings = Field(default_factory=AccessSettings, description="Who may ask.")
    upstreams: tuple[UpstreamSettings, ...] = Field(default=(), description="Where answers come from.")
    models: tuple[ModelSettings, ...] = Field(default=(), description="What clients may ask for.")
    plugins: tuple[PluginEntry, ...] = Field(default=(), description="Active plugins, in the order in which they run.")
    allow_plugins: tuple[str, ...] | None = Field(
        default=None,
        description="Only these third-party plugins may be named in `plugins`; any installed one when absent.",
    )
