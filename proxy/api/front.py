"""The plain page at `/status` on the admin port: what runs, and where to look further."""

from __future__ import annotations

from html import escape
from importlib.metadata import version
from typing import TYPE_CHECKING

from aiohttp import web

from predawn.proxy.live.assets import HEADERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from predawn.proxy.generation import Generation

STYLE = (
    "body{font:16px/1.5 system-ui;max-width:50em;margin:2em auto;padding:0 1em}"
    "td,th{padding:0 1.5em 0 0;text-align:left}"
)
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
LINKS = ("/", "/metrics", "/health", "/ready", "/version", "/openapi.json")


def page(generation: Generation) -> web.Response:
    """Models, upstreams and plugins of the settings in force; it shows nothing of any request."""
    text = "\n".join(_lines(generation))
    headers = {**HEADERS, "Content-Security-Policy": POLICY, "Cache-Control": "no-store"}
    return web.Response(text=text, content_type="text/html", charset="utf-8", headers=headers)


def _lines(generation: Generation) -> Iterator[str]:
    settings, service = generation.settings, generation.service
    yield f"<!doctype html><html lang=en><title>Predawn</title><style>{STYLE}</style>"
    yield f"<h1>Predawn {escape(version('predawn'))}</h1>"
    yield f"<p>{len(service.conversations)} requests in progress.</p>"
    yield from _table(
        ("model", "upstreams"),
        ((model.name, ", ".join(target.upstream for target in model.all_targets)) for model in settings.models),
    )
    conditions = generation.engines
    yield from _table(
        ("upstream", "kind", "in flight", "state"),
        (
            (
                name,
                station.settings.kind,
                str(station.in_flight),
                conditions.get(name, f"breaker {station.breaker.state}"),
            )
            for name, station in generation.stations.items()
        ),
    )
    yield from _table(("plugin",), ((entry.name,) for entry in settings.plugins))
    yield "<p>" + " · ".join(f"<a href={link}>{link}</a>" for link in LINKS) + "</p></html>"


def _table(headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield "<table><tr>" + "".join(f"<th>{escape(heading)}" for heading in headings)
    for row in rows:
        yield "<tr>" + "".join(f"<td>{escape(cell)}" for cell in row)
    yield "</table>"
