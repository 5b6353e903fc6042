"""Speaks to `/v1/contexts` of a running server, for `predawn contexts`. HTTP is imported when it is spoken."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_LARGEST = 256 << 20


class ServerError(Exception):
    """What the server refused, or that it did not answer; the message says why."""


class Client:
    """Speaks to `/v1/contexts` of one server. Raises `ServerError` for a key that cannot be one."""

    def __init__(self, base_url: str, key: str | None, *, timeout_s: float = 60.0) -> None:
        if key is not None and not (key.isascii() and key.isprintable()):
            raise ServerError("the client key has characters that no key has; is there a line break in it?")
        self._base_url = base_url
        self._key = key
        self._timeout_s = timeout_s

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The answer's JSON object. Raises `ServerError`."""
        from http.client import HTTPException
        from urllib import request as http
        from urllib.error import HTTPError, URLError

        opener = http.OpenerDirector()  # without redirects: a key is never sent on to where a server points
        for handler in (http.HTTPHandler, http.HTTPSHandler, http.HTTPDefaultErrorHandler, http.HTTPErrorProcessor):
            opener.add_handler(handler())
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        url = f"{self._base_url}/contexts{path}"
        request = http.Request(url, method=method, data=data, headers=headers)  # noqa: S310 - the scheme was checked
        try:
            with opener.open(request, timeout=self._timeout_s) as answer:
                return _object(answer.read(_LARGEST))
        except HTTPError as exc:
            with exc:
                raise ServerError(_refusal(exc.code, exc.read(1 << 20))) from exc
        except (URLError, HTTPException, OSError, ValueError) as exc:
            reason = getattr(exc, "reason", None) or exc
            raise ServerError(
                f"{self._base_url} does not answer ({printable(str(reason).strip())}); is `predawn serve` running?"
            ) from exc


def _object(raw: bytes) -> dict[str, Any]:
    try:
        decoded = json.loads(raw)
    except (ValueError, RecursionError) as exc:
        raise ServerError("the server's answer is no JSON; is this the URL of Predawn?") from exc
    if not isinstance(decoded, dict):
        raise ServerError("the server's answer is no JSON object; is this the URL of Predawn?")
    return decoded


def _refusal(status: int, raw: bytes) -> str:
    try:
        error = json.loads(raw)["error"]
        message, code = str(error["message"]), error.get("code")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return f"the server answered {status}"
    if status in {404, 405} and code in {None, "unknown_url", "not_found", "model_not_found"}:
        message += " Is the plugin `sleep` active?"
    return printable(message)


def printable(text: str) -> str:
    """Without anything that could move the terminal's cursor."""
    return "".join(c if c.isprintable() else "?" for c in text)
