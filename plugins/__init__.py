"""The plugin author's front door: import from here, and nothing heavy is loaded.

A plugin is a class derived from `Plugin` with methods marked `@hookimpl`. `predawn.proxy.hookspecs` lists the hooks.
"""

from predawn.proxy.exchange import (
    Budget,
    Call,
    Chunk,
    ChunkFilter,
    Decision,
    Difficulty,
    Exchange,
    Ledger,
    Reply,
    RequestError,
    Verdict,
)
from predawn.proxy.extensions import (
    Boundary,
    Estimator,
    Evidence,
    Extracted,
    Extractor,
    RegisteredEstimator,
    RegisteredExtractor,
    RegisteredVerifier,
    RegisterEstimator,
    RegisterExtractor,
    RegisterVerifier,
    Step,
    Verifier,
)
from predawn.proxy.hookspecs import CallNext, RegisterRoute, hookimpl
from predawn.proxy.lifespan import App
from predawn.proxy.plugin import Plugin, PluginSettings

__all__ = [
    "App",
    "Boundary",
    "Budget",
    "Call",
    "CallNext",
    "Chunk",
    "ChunkFilter",
    "Decision",
    "Difficulty",
    "Estimator",
    "Evidence",
    "Exchange",
    "Extracted",
    "Extractor",
    "Ledger",
    "Plugin",
    "PluginSettings",
    "RegisterEstimator",
    "RegisterExtractor",
    "RegisterRoute",
    "RegisterVerifier",
    "RegisteredEstimator",
    "RegisteredExtractor",
    "RegisteredVerifier",
    "Reply",
    "RequestError",
    "Step",
    "Verdict",
    "Verifier",
    "hookimpl",
]
