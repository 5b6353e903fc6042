"""Who may look at the live page's data: this machine while there is no admin key, and whoever has the key if there is.

The page itself holds nothing and is given to anybody; what it shows comes by requests that pass here. A page from
elsewhere that is open in the same browser must get nothing: not by a form or a script of its own (own header, same
origin), nor by making its name point at this machine (`Host`).
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from predawn.proxy.exchange import RequestError
from predawn.proxy.strangers import is_loopback, stranger

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import SecretStr

OWN_HEADER = "x-predawn-live"
KEY_HEADER = "x-predawn-admin-key"
_FIX = "Set server.admin_key to look from elsewhere."


def check(headers: Mapping[str, str], peer: str, key: SecretStr | None) -> None:
    """Let a request for data pass, or raise 401 or 403. `headers` ignore case."""
    _check_origin(headers)
    if key is not None:
        _check_key(headers.get(KEY_HEADER), key.get_secret_value())
        return
    if (why := stranger(headers, peer)) is not None:
        raise _forbidden(f"Without an admin key this is shown on the server itself only; {why}. {_FIX}")
    if not _is_local(headers.get("Host", "")):
        raise _forbidden("Without an admin key this is shown under the name localhost only.")


def check_own(headers: Mapping[str, str]) -> None:
    """Raise 403 for what no script of our own page has sent; other pages' scripts may not set this header."""
    if headers.get(OWN_HEADER) != "1":
        raise _forbidden(f"Send the header {OWN_HEADER}: 1.")


def _check_origin(headers: Mapping[str, str]) -> None:
    site = headers.get("Sec-Fetch-Site")
    if site is not None and site not in {"same-origin", "none"}:
        raise _forbidden("Only the page itself may ask for this.")
    origin = headers.get("Origin")
    if origin is not None and _place(origin) != headers.get("Host", "").lower():
        raise _forbidden("Only the page itself may ask for this: Origin and Host differ.")


def _check_key(given: str | None, key: str) -> None:
    if given is None or not hmac.compare_digest(given.encode("utf-8", "replace"), key.encode("utf-8", "replace")):
        message = "The admin key is needed." if given is None else "This is not the admin key."
        raise RequestError(401, message, type="authentication_error", code="admin_key_required")


def _place(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None


def _is_local(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return name == "localhost" or name.endswith(".localhost") or is_loopback(name)


def _forbidden(message: str) -> RequestError:
    return RequestError(403, message, type="permission_error", code="live_page_forbidden")
