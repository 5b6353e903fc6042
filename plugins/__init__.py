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
from predawn.proxy.hookspecs import CallNext, RegisterRoute, hookimpl
from predawn.proxy.lifespan import App
from predawn.proxy.plugin import Plugin, PluginSettings

__all__ = [
    "App",
    "Budget",
    "Call",
    "CallNext",
    "Chunk",
    "ChunkFilter",
    "Decision",
    "Difficulty",
    "Exchange",
    "Ledger",
    "Plugin",
    "PluginSettings",
    "RegisterRoute",
    "Reply",
    "RequestError",
    "Verdict",
    "hookimpl",
]
