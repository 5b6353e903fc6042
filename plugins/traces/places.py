"""Who and where an upstream is, in the words of the conventions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from predawn.plugins.traces.otlp import attributes as encoded

if TYPE_CHECKING:
    from predawn.plugins.traces.otlp import Value
    from predawn.proxy.settings import UpstreamSettings

PROVIDERS: Final = {
    "api.openai.com": "openai",
    "openai.azure.com": "azure.ai.openai",
    "services.ai.azure.com": "azure.ai.inference",
    "api.anthropic.com": "anthropic",
    "api.cohere.com": "cohere",
    "api.deepseek.com": "deepseek",
    "generativelanguage.googleapis.com": "gcp.gemini",
    "aiplatform.googleapis.com": "gcp.vertex_ai",
    "api.groq.com": "groq",
    "api.mistral.ai": "mistral_ai",
    "api.perplexity.ai": "perplexity",
    "api.x.ai": "x_ai",
    "amazonaws.com": "aws.bedrock",
}
PREFIXES: Final = {
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "vertex_ai": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}
"""LiteLLM's names where they differ."""


@dataclass(frozen=True, slots=True)
class Place:
    """One upstream."""

    name: str
    encoded: bytes
    """Its attributes, as every call's span has them."""

    @classmethod
    def of(cls, settings: UpstreamSettings) -> Place:
        """Nothing secret: of a URL only host and port."""
        attributes: dict[str, Value] = {"gen_ai.provider.name": "openai", "predawn.upstream": settings.name}
        if settings.base_url:
            url = urlsplit(settings.base_url)
            host = url.hostname or ""
            attributes["server.address"] = host
            attributes["server.port"] = url.port or (443 if url.scheme == "https" else 80)
            attributes["gen_ai.provider.name"] = _by_host(host)
        if settings.kind == "local":
            attributes["gen_ai.provider.name"] = "predawn"
        elif settings.kind == "litellm":
            attributes["gen_ai.provider.name"] = _by_prefix(settings)
        return cls(settings.name, encoded(attributes))


def _by_host(host: str) -> str:
    """Who answers there; `openai`, by the convention, for others that speak its API."""
    return next((name for end, name in PROVIDERS.items() if host == end or host.endswith(f".{end}")), "openai")


def _by_prefix(settings: UpstreamSettings) -> str:
    prefix, slash, _ = (settings.model or "").partition("/")
    return PREFIXES.get(prefix, prefix) if slash else "litellm"  # which provider has a bare name, LiteLLM alone knows
