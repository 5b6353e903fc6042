"""Which class serves which `kind` of upstream; each is imported only when the settings name it."""

from __future__ import annotations

from predawn.proxy.clock import Clock
from predawn.proxy.settings import UpstreamSettings
from predawn.proxy.upstreams.base import Upstream


def create(settings: UpstreamSettings, clock: Clock) -> Upstream:
    """The upstream the settings describe, not opened yet."""
    if settings.kind == "openai":
        from predawn.proxy.upstreams.openai import OpenAIUpstream

        return OpenAIUpstream(settings, clock)
    if settings.kind == "litellm":
        from predawn.proxy.upstreams.litellm import LiteLLMUpstream

        return LiteLLMUpstream(settings, clock)
    if settings.kind == "scripted":
        from predawn.proxy.upstreams.scripted import ScriptedUpstream

        return ScriptedUpstream.from_settings(settings, clock)
    from predawn.proxy.upstreams.local import LocalUpstream

    return LocalUpstream(settings, clock)
