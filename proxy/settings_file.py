"""From a file, or the environment, to `Settings`; every error is reported at once, with its line.

settings = load(Path("predawn.yaml"))
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

from pydantic import ValidationError

from predawn.proxy.problems import Problem, SettingsError, explain, nearest, unknown
from predawn.proxy.settings import PluginEntry, Settings, default_state
from predawn.proxy.settings_checks import crossed
from predawn.proxy.settings_yaml import MAX_BYTES, Document, parse

__all__ = ["Problem", "SettingsError", "explain", "load", "nearest", "read", "unknown", "validate"]

PluginCheck: TypeAlias = Callable[[Sequence[PluginEntry], Sequence[str] | None], Iterable[Problem]]
"""`loading.check`: given `plugins` and `allow_plugins`, what is wrong; places are `("plugins", index, name, key…)`."""

BUNDLED: Final[dict[str, Any]] = {
    "upstreams": [{"name": "local", "kind": "local"}],
    "models": [{"name": "predawn-tiny", "upstream": "local", "reasoning": "reasoning_effort", "prefill": True}],
}
"""What is served where nothing else is named."""


def load(
    path: Path | None,
    env: Mapping[str, str] = os.environ,
    *,
    check_plugins: PluginCheck | None = None,
    raw: bytes | None = None,
) -> Settings:
    """The settings in the file, or for `None` what the environment says. Raises `SettingsError` with all problems.

    `raw` is what the file held when somebody else read it; then it is not opened.
    """
    if path is None:
        source, document = "environment", Document(data=_from_environment(env))
    else:
        source, document = str(path), parse(contents(path) if raw is None else raw, env)
    found = list(document.problems)
    known = {problem.where for problem in found}
    if not found or known != {()}:  # what is no YAML at all says nothing about its parts
        found += [
            problem for problem in validate(document.data, check_plugins=check_plugins) if problem.where not in known
        ]
    if found:
        located = [document.located(problem) for problem in found]
        raise SettingsError(source, sorted(located, key=lambda problem: problem.line or 0))
    return Settings.model_validate({"state": default_state(env), **document.data})


def read(path: Path, env: Mapping[str, str] = os.environ) -> Document:
    """The file as data with line numbers. Raises `SettingsError` when it cannot be opened."""
    return parse(contents(path), env)


def contents(path: Path) -> bytes:
    """What the file holds. Raises `SettingsError` when it cannot be opened, or is too large to be one."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as exc:
        raise SettingsError(str(path), [Problem((), exc.strerror or "cannot be read")]) from exc
    if len(raw) > MAX_BYTES:
        raise SettingsError(str(path), [Problem((), f"larger than {MAX_BYTES >> 10} KiB; this is no settings file")])
    return raw


def validate(data: Any, *, check_plugins: PluginCheck | None = None) -> list[Problem]:
    """Everything that is wrong with settings given as plain data; an empty list means that `Settings` accepts them."""
    problems: list[Problem] = []
    try:
        Settings.model_validate(data)
    except ValidationError as exc:
        problems = explain(exc, model=Settings, data=data)
    if isinstance(data, Mapping):
        places = {problem.where for problem in problems}
        problems += [problem for problem in crossed(data) if problem.where not in places]
        if check_plugins is not None:
            allowed = data.get("allow_plugins")
            names = [name for name in allowed if isinstance(name, str)] if isinstance(allowed, (list, tuple)) else None
            problems += check_plugins(_plugin_entries(data.get("plugins")), names)
    return problems


def _plugin_entries(items: Any) -> list[PluginEntry]:
    """The entries that can be read, also when another part of the settings is wrong; a broken one keeps its place."""
    entries: list[PluginEntry] = []
    for item in items if isinstance(items, (list, tuple)) else ():
        try:
            entries.append(PluginEntry.model_validate(item))
        except ValidationError:
            entries.append(PluginEntry.model_construct(name="", settings={}))
    return entries


def _from_environment(env: Mapping[str, str]) -> dict[str, Any]:
    """One upstream for any model name where `OPENAI_BASE_URL` is set; else the bundled model, on this machine.

    A key alone reaches nobody: it must not be spent at a provider that nobody named.
    """
    base_url = env.get("OPENAI_BASE_URL")
    if not base_url:
        return BUNDLED
    upstream = {"name": "default", "kind": "openai", "base_url": base_url, "api_key": env.get("OPENAI_API_KEY") or None}
    return {"upstreams": [upstream], "models": [{"name": "*", "upstream": "default"}]}
