"""The files of the page, as they lie in `page/`, with the headers that keep a browser from doing anything else."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from aiohttp import web

TYPES: Final[Mapping[str, str]] = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS: Final[Mapping[str, str]] = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Server": "predawn",
}
"""On everything that the live page sends."""


@dataclass(frozen=True, slots=True)
class Asset:
    """One file of the page."""

    body: bytes
    content_type: str
    tag: str


@cache
def assets() -> Mapping[str, Asset]:
    """By the path they are asked for: `/` and `/live/NAME`. Read once, a hundred kilobytes at most."""
    found = {}
    for path in sorted((Path(__file__).parent / "page").iterdir()):
        if (content_type := TYPES.get(path.suffix)) is not None:
            body = path.read_bytes()
            tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
            found["/" if path.name == "index.html" else f"/live/{path.name}"] = Asset(body, content_type, tag)
    return found


def answer(asset: Asset, if_none_match: str | None) -> web.Response:
    """The file, or that it has not changed. A browser asks each time, so that a new version is shown at once."""
    headers = {**HEADERS, "Content-Security-Policy": POLICY, "Cache-Control": "no-cache", "ETag": asset.tag}
    if if_none_match is not None and asset.tag in if_none_match:
        return web.Response(status=304, headers=headers)
    return web.Response(body=asset.body, headers={**headers, "Content-Type": asset.content_type})
