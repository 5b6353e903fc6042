"""From the settings' `plugins` to instances: the built-in list, entry points, the allow-list, checked settings."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any

import pluggy
from pydantic import ValidationError

from predawn.proxy.dispatch import PluginError
from predawn.proxy.hookspecs import Spec
from predawn.proxy.plugin import Plugin
from predawn.proxy.problems import Problem, explain, unknown
from predawn.proxy.settings import PluginEntry, Settings

GROUP = "predawn.plugins"
BUILT_IN = {
    "record": "predawn.plugins.record:RecordPlugin",
    "cache": "predawn.plugins.cache:CachePlugin",
    "redact": "predawn.plugins.redact:RedactPlugin",
    "sleep": "predawn.plugins.sleep:SleepPlugin",
    "budget": "predawn.plugins.budget:BudgetPlugin",
    "sampling": "predawn.plugins.sampling:SamplingPlugin",
    "verify": "predawn.plugins.verify:VerifyPlugin",
    "traces": "predawn.plugins.traces:TracesPlugin",
}


@dataclass(frozen=True, slots=True)
class Found:
    """A plugin that could be named in the settings."""

    name: str
    origin: str
    """`built-in`, or the distribution that brings it: `predawn-shout 1.2`."""
    target: str
    """`module:Class`."""

    def load(self) -> type[Plugin[Any]]:
        """Import the class; raises `PluginError` naming the plugin and what is wrong with it."""
        module_name, _, attribute = self.target.partition(":")
        try:
            loaded = getattr(importlib.import_module(module_name), attribute or "", None)
        except ImportError as exc:
            raise PluginError(f"plugin {self.name!r} ({self.origin}) cannot be imported: {exc}") from exc
        if not (isinstance(loaded, type) and issubclass(loaded, Plugin)):
            raise PluginError(f"plugin {self.name!r} ({self.origin}): {self.target} is not a subclass of Plugin")
        return loaded


def find() -> dict[str, Found]:
    """Every plugin there is, by name; a third party cannot take a built-in name."""
    found = {name: Found(name, "built-in", target) for name, target in BUILT_IN.items()}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        found.setdefault(entry.name, Found(entry.name, _distribution(entry), entry.value))
    return found


def _distribution(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else "unknown distribution"


def part_of(plugin: str, module: str) -> ModuleType:
    """A module inside a built-in plugin, for a command that shows what the plugin does."""
    return importlib.import_module(f"{BUILT_IN[plugin].partition(':')[0]}.{module}")


def check(entries: Sequence[PluginEntry], allowed: Sequence[str] | None = None) -> list[Problem]:
    """What is wrong with the `plugins` of a settings file; places are `("plugins", index, name, …)`."""
    found = find()
    problems: list[Problem] = []
    for index, entry in enumerate(entries):
        if not entry.name:
            continue  # the entry itself is broken, which has been said already
        where = ("plugins", index, entry.name)
        if entry.name not in found:
            problems.append(Problem(where, unknown("plugin", entry.name, found)))
        elif allowed is not None and found[entry.name].origin != "built-in" and entry.name not in allowed:
            problems.append(Problem(where, f"plugin '{entry.name}' is not in allow_plugins"))
        else:
            problems += _check_one(found[entry.name], entry, where)
    return problems


def _check_one(found: Found, entry: PluginEntry, where: tuple[str | int, ...]) -> list[Problem]:
    try:
        found.load().settings_type.model_validate(entry.settings)
    except PluginError as exc:
        return [Problem(where, str(exc))]
    except ValidationError as exc:
        return explain(exc, where, model=found.load().settings_type, data=entry.settings)
    return []


def create(entry: PluginEntry, found: Found) -> Plugin[Any]:
    """An instance with its checked settings; raises `PluginError`."""
    kind = found.load()
    try:
        settings = kind.settings_type.model_validate(entry.settings)
    except ValidationError as exc:
        told = "; ".join(str(problem) for problem in explain(exc, model=kind.settings_type, data=entry.settings))
        raise PluginError(f"plugin {entry.name!r}: {told}") from exc
    try:
        return kind(settings)
    except (ValueError, TypeError, OSError) as exc:
        raise PluginError(f"plugin {entry.name!r} cannot start: {exc}") from exc


def load(settings: Settings) -> pluggy.PluginManager:
    """Create and register the plugins of the settings, in their order. Raises `PluginError`."""
    found = find()
    instances: list[tuple[str, Plugin[Any]]] = []
    for entry in settings.plugins:
        if problems := check([entry], settings.allow_plugins):
            raise PluginError("; ".join(problem.message for problem in problems))
        instances.append((entry.name, create(entry, found[entry.name])))
    return register(instances)


def register(plugins: Sequence[tuple[str, Plugin[Any]]]) -> pluggy.PluginManager:
    """A plugin manager holding these instances under these names. Raises `PluginError` for a name given twice."""
    pm = pluggy.PluginManager("predawn")
    pm.add_hookspecs(Spec)
    for name, plugin in reversed(plugins):  # pluggy calls the last one registered first
        try:
            pm.register(plugin, name=name)
        except (ValueError, pluggy.PluginValidationError) as exc:
            raise PluginError(f"plugin {name!r} cannot be registered: {exc}") from exc
    return pm
