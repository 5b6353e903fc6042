"""What the plugin is told: by its settings, and where those are silent by OpenTelemetry's own variables."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote, urlsplit

from pydantic import Field, SecretStr, field_validator

from predawn.plugins import PluginSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_ENDPOINT = "http://localhost:4318"
PATH = "/v1/traces"
_OWN = "OTEL_EXPORTER_OTLP_TRACES_"
_ALL = "OTEL_EXPORTER_OTLP_"


class TracesSettings(PluginSettings):
    endpoint: str | None = Field(
        default=None,
        description="Where OTLP over HTTP is taken; `/v1/traces` is added to a URL without a path. "
        "`OTEL_EXPORTER_OTLP_ENDPOINT`, then `http://localhost:4318`, when absent.",
    )
    headers: dict[str, SecretStr] = Field(
        default_factory=dict, description="Headers to send along; in place of `OTEL_EXPORTER_OTLP_HEADERS`."
    )
    compression: Literal["gzip", "none"] | None = Field(
        default=None, description="`OTEL_EXPORTER_OTLP_COMPRESSION`, then `none`, when absent."
    )
    ratio: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Share of the traces begun here that are kept; `OTEL_TRACES_SAMPLER`, then all, when absent.",
    )
    follow_clients: bool = Field(
        default=True,
        description="Go on with the trace of a client's `traceparent` and do as it says; `false` begins one of our own "
        "and links to the client's.",
    )
    record_content: bool = Field(
        default=False, description="Put requests and replies on the spans, too: `gen_ai.input.messages` and so on."
    )
    max_content_bytes: int = Field(
        default=64 << 10,
        ge=0,
        description="A longer request is left out; of a longer reply only its beginning is kept.",
    )
    max_queue: int = Field(
        default=4096, ge=1, description="Spans that may wait to be sent; what is more is dropped and counted."
    )
    flush_s: float = Field(default=2.0, gt=0, le=60, description="Longest time until a span is sent.")

    @field_validator("endpoint")
    @classmethod
    def _http(cls, value: str | None) -> str | None:
        return value if value is None else _url(value)


@dataclass(frozen=True, slots=True)
class Destination:
    """Where spans go, and how."""

    url: str
    headers: Mapping[str, str]
    compresses: bool
    timeout_s: float
    certificate: str | None
    """File of the authorities to trust; the system's when absent."""

    @property
    def host(self) -> str:
        """For the log: a URL may hold a password."""
        return urlsplit(self.url).hostname or ""

    def __repr__(self) -> str:
        return f"<Destination {self.host}>"


def destination(settings: TracesSettings, env: Mapping[str, str] = os.environ) -> Destination:
    """Raises `ValueError` naming the variable that cannot be used."""

    def told(name: str) -> str:
        return env.get(_OWN + name) or env.get(_ALL + name) or ""

    protocol = told("PROTOCOL")
    if protocol not in ("", "http/protobuf"):
        raise ValueError(f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}; only http/protobuf can be sent")
    if settings.endpoint is not None:
        url = settings.endpoint if urlsplit(settings.endpoint).path.strip("/") else _below(settings.endpoint)
    elif own := env.get(_OWN + "ENDPOINT"):
        url = _url(own)
    else:
        url = _below(_url(env.get(_ALL + "ENDPOINT") or DEFAULT_ENDPOINT))
    headers = {name: value.get_secret_value() for name, value in settings.headers.items()} or pairs(told("HEADERS"))
    for name, value in headers.items():
        if not (name + value).isascii() or not (name + value).isprintable():
            raise ValueError(f"the header {name!r} for the collector must be printable ASCII")
    compression = settings.compression or told("COMPRESSION") or "none"
    if compression not in ("gzip", "none"):
        raise ValueError(f"OTEL_EXPORTER_OTLP_COMPRESSION is {compression!r}; known are gzip and none")
    try:
        timeout_s = float(told("TIMEOUT") or 10_000) / 1000
    except ValueError:
        timeout_s = 0.0
    if not 0 < timeout_s <= 600:
        raise ValueError("OTEL_EXPORTER_OTLP_TIMEOUT must be a number of milliseconds")
    return Destination(url, headers, compression == "gzip", timeout_s, told("CERTIFICATE") or None)


def _url(value: str) -> str:
    url = urlsplit(value)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ValueError("the endpoint must be a URL that begins with http:// or https:// and names a host")
    return value


def _below(base: str) -> str:
    return base.rstrip("/") + PATH


def pairs(text: str) -> dict[str, str]:
    """`a=1,b=2` as OpenTelemetry writes headers and attributes, percent-encoded; what is no pair is left out."""
    found = (item.partition("=") for item in text.split(","))
    return {name.strip(): unquote(value.strip()) for name, equals, value in found if equals and name.strip()}


@dataclass(frozen=True, slots=True)
class Sampler:
    """Which traces are kept. The decision of whoever began a trace is obeyed, unless the environment says otherwise."""

    ratio: float = 1.0
    obeys: bool = True

    def keeps(self, trace_id: int) -> bool:
        """By the lower half of a trace's id, as OpenTelemetry's TraceIdRatioBased: all who see a trace agree."""
        return trace_id & 0xFFFF_FFFF_FFFF_FFFF < round(self.ratio * 2**64)


def sampler(settings: TracesSettings, env: Mapping[str, str] = os.environ) -> Sampler:
    """Raises `ValueError` for variables that cannot be used."""
    if settings.ratio is not None:
        return Sampler(settings.ratio)
    name = env.get("OTEL_TRACES_SAMPLER", "") or "parentbased_always_on"
    kind = name.removeprefix("parentbased_")
    ratios = {"always_on": 1.0, "always_off": 0.0}
    if kind in ratios:
        ratio = ratios[kind]
    elif kind == "traceidratio":
        try:
            ratio = float(env.get("OTEL_TRACES_SAMPLER_ARG", "") or 1.0)
        except ValueError:
            ratio = -1.0
        if not 0 <= ratio <= 1:
            raise ValueError("OTEL_TRACES_SAMPLER_ARG must be a number from 0 to 1")
    else:
        raise ValueError(f"OTEL_TRACES_SAMPLER is {name!r}, which is not known here")
    return Sampler(ratio, obeys=kind != name)


def resource(version: str, instance: str, env: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Who sends: `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`, and what we know of ourselves."""
    told = {"service.name": "predawn", "service.version": version, "service.instance.id": instance}
    told |= pairs(env.get("OTEL_RESOURCE_ATTRIBUTES", ""))
    if name := env.get("OTEL_SERVICE_NAME"):
        told["service.name"] = name
    return told
