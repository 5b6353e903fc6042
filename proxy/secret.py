"""The secret of the key digests: from the settings, from `PREDAWN_SECRET`, or from a file beside the SQLite state."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from predawn.proxy.store import sqlite_path
from predawn.proxy.store_errors import StoreError

if TYPE_CHECKING:
    from predawn.proxy.settings import Settings

SHORTEST = 16


def find_secret(settings: Settings, env: Mapping[str, str] = os.environ) -> bytes | None:
    """The secret, or `None` where none was made yet. Blocks; raises `StoreError` for an unusable one."""
    if settings.access.secret is not None:
        return _checked(settings.access.secret.get_secret_value().encode(), "access.secret")
    if value := env.get("PREDAWN_SECRET"):
        return _checked(value.encode("utf-8", "surrogateescape"), "PREDAWN_SECRET")
    file = _file(settings)
    try:
        return _checked(file.read_bytes(), str(file))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise StoreError(f"{file}: {exc.strerror}; this user must be able to read the secret of the keys") from exc


def find_or_make_secret(settings: Settings, env: Mapping[str, str] = os.environ) -> bytes:
    """The secret; the first caller makes the file, others at the same time get the same one. Blocks."""
    if secret := find_secret(settings, env):
        return secret
    file = _file(settings)
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=file.parent)  # made with mode 0600
        try:
            with os.fdopen(descriptor, "wb") as draft:
                draft.write(secrets.token_bytes(32))
                draft.flush()
                os.fsync(draft.fileno())
            with suppress(FileExistsError):
                os.link(name, file)  # appears whole or not at all, and never replaces another's
        finally:
            Path(name).unlink()
        return _checked(file.read_bytes(), str(file))
    except OSError as exc:
        raise StoreError(f"{file}: {exc.strerror}; set PREDAWN_SECRET to 32 random characters instead") from exc


def _file(settings: Settings) -> Path:
    path = sqlite_path(settings.state)
    if path is None:
        raise StoreError(
            "access.secret: keys in PostgreSQL need a secret that all servers share; set it, or PREDAWN_SECRET, "
            'to 32 random characters (python -c "import secrets; print(secrets.token_urlsafe(32))")'
        )
    return path.with_name(path.name + "-secret")


def _checked(secret: bytes, place: str) -> bytes:
    if len(secret) < SHORTEST:
        raise StoreError(f"{place}: a secret has at least {SHORTEST} characters")
    return secret
