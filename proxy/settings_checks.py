"""What one part of the settings demands of another: names that exist, ports that are free, fallbacks that end.

Works on plain data, so that these problems are shown together with those of single fields; whatever has the wrong type
is skipped here, for it has been reported already.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from predawn.proxy.problems import Problem, Where, nearest, unknown
from predawn.proxy.settings import ServerSettings

Name: TypeAlias = tuple[Where, str]
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


def crossed(data: Mapping[str, Any]) -> Iterator[Problem]:
    """Problems between parts of the settings."""
    yield from _twice(_names(data, "upstreams"))
    yield from _twice(_names(data, "models"))
    yield from _twice(_plugin_names(data))
    yield from _patterns(data)
    yield from _missing_upstreams(data)
    yield from _missing_fallbacks(data)
    yield from _fallback_cycles(data)
    yield from _ports(data)
    yield from _own_address(data)
    yield from _wrong_kind(data)


def _items(data: Mapping[str, Any], part: str) -> Iterator[tuple[Where, Mapping[str, Any]]]:
    """The mappings in the list `part`, each with its place."""
    value = data.get(part)
    if isinstance(value, (list, tuple)):
        yield from (((part, index), item) for index, item in enumerate(value) if isinstance(item, Mapping))


def _words(where: Where, value: Any) -> Iterator[Name]:
    """The texts in a list, each with its place."""
    if isinstance(value, (list, tuple)):
        yield from (((*where, index), item) for index, item in enumerate(value) if isinstance(item, str))


def _names(data: Mapping[str, Any], part: str) -> list[Name]:
    items = ((where, item.get("name")) for where, item in _items(data, part))
    return [((*where, "name"), name) for where, name in items if isinstance(name, str)]


def _plugin_names(data: Mapping[str, Any]) -> list[Name]:
    found = list(_words(("plugins",), data.get("plugins")))
    for where, item in _items(data, "plugins"):
        if isinstance(item.get("name"), str):
            found.append(((*where, "name"), item["name"]))
        elif len(item) == 1:
            name = str(next(iter(item)))
            found.append(((*where, name), name))
    return sorted(found, key=lambda name: name[0][1])


def _twice(names: list[Name]) -> Iterator[Problem]:
    first: dict[str, Where] = {}
    for where, name in names:
        if name in first:
            yield Problem(where, f"the name '{name}' is already taken by {Problem(first[name][:2], '').place}")
        first.setdefault(name, where)


def _patterns(data: Mapping[str, Any]) -> Iterator[Problem]:
    for where, name in _names(data, "models"):
        if "*" in name and name != "*":
            yield Problem(where, f"'{name}' is no pattern: `*` alone takes any name, and other names are literal")


def _upstream_references(data: Mapping[str, Any]) -> Iterator[Name]:
    for where, model in _items(data, "models"):
        if isinstance(name := model.get("upstream"), str):
            yield (*where, "upstream"), name
        for (_, index), target in _items(model, "targets"):
            if isinstance(name := target.get("upstream"), str):
                yield (*where, "targets", index, "upstream"), name


def _missing_upstreams(data: Mapping[str, Any]) -> Iterator[Problem]:
    known = {name for _, name in _names(data, "upstreams")}
    for where, name in _upstream_references(data):
        if name not in known:
            yield Problem(where, unknown("upstream", name, known))


def _missing_fallbacks(data: Mapping[str, Any]) -> Iterator[Problem]:
    aliases = {name for _, name in _names(data, "models")}
    upstreams = {name for _, name in _names(data, "upstreams")}
    for where, model in _items(data, "models"):
        for place, name in _words((*where, "fallbacks"), model.get("fallbacks")):
            if name == model.get("name"):
                yield Problem(place, f"'{name}' cannot fall back to itself")
            elif name in aliases:
                continue
            elif name in upstreams and not nearest(name, aliases):
                yield Problem(place, f"'{name}' is an upstream; fallbacks name models, so add a model that uses it")
            else:
                yield Problem(place, unknown("model", name, aliases))


def _fallback_cycles(data: Mapping[str, Any]) -> Iterator[Problem]:
    edges: dict[str, list[str]] = {}
    places: dict[str, Where] = {}
    for where, model in _items(data, "models"):
        if isinstance(alias := model.get("name"), str):
            edges[alias] = [name for _, name in _words((), model.get("fallbacks")) if name != alias]
            places[alias] = (*where, "fallbacks")
    reported: set[str] = set()
    for alias in edges:
        cycle = _cycle_from(alias, edges)
        if cycle and reported.isdisjoint(cycle):
            reported.update(cycle)
            yield Problem(places[alias], "fallbacks go round in a circle: " + " → ".join([*cycle, alias]))


def _cycle_from(start: str, edges: Mapping[str, list[str]]) -> list[str] | None:
    """A way from `start` along fallbacks back to it, or `None`."""
    ways, seen = [[start]], set[str]()
    while ways:
        way = ways.pop()
        for name in edges.get(way[-1], ()):
            if name == start:
                return way
            if name not in seen:
                seen.add(name)
                ways.append([*way, name])
    return None


def _ports(data: Mapping[str, Any]) -> Iterator[Problem]:
    server = data.get("server") if isinstance(data.get("server"), Mapping) else {}
    assert isinstance(server, Mapping)
    defaults = ServerSettings()
    port, workers = server.get("port", defaults.port), server.get("workers", defaults.workers)
    if not isinstance(port, int) or not isinstance(workers, int) or port == 0:
        return
    given = server.get("admin_port")
    admin = port + 1000 if given is None else given
    if not isinstance(admin, int) or admin == 0:
        return
    last = admin + workers - 1  # each worker has an admin port of its own
    if last > 65535:
        yield Problem(
            ("server", "port" if given is None else "admin_port"),
            f"admin ports would reach {last}; the last possible is 65535",
        )
    if admin <= port <= last:
        yield Problem(("server", "admin_port"), f"the admin ports {admin} to {last} include the API's port {port}")


def _own_address(data: Mapping[str, Any]) -> Iterator[Problem]:
    """An upstream that is this very server would call itself until connections run out."""
    server = data.get("server")
    port = server.get("port") if isinstance(server, Mapping) else None
    own = ServerSettings().port if port is None else port
    for where, upstream in _items(data, "upstreams"):
        try:
            url = urlsplit(str(upstream.get("base_url") or ""))
            loops = url.hostname in _LOOPBACK and url.port == own
        except ValueError:
            continue
        if loops:
            yield Problem((*where, "base_url"), "this is Predawn's own address; name the server behind it")


def _wrong_kind(data: Mapping[str, Any]) -> Iterator[Problem]:
    for where, upstream in _items(data, "upstreams"):
        kind = upstream.get("kind", "openai")
        for key, owner in (("script", "scripted"), ("options", "litellm"), ("path", "local"), ("engine", "local")):
            if upstream.get(key) and kind != owner:
                yield Problem((*where, key), f"only upstreams of kind {owner} have this key")
        if kind == "local":
            for key in ("base_url", "api_key", "headers", "http_proxy", "relay"):
                if upstream.get(key):
                    yield Problem((*where, key), "an upstream of kind local sends nothing anywhere")
