"""HTTPS on the API's port: what the server shows to clients, read again at each reload.

Connections keep the certificate they began with. A renewed one comes into force as a whole new context, which each
handshake is pointed to: loading it into the old context would keep a certificate of another kind of key beside it.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from pathlib import Path

    from predawn.proxy.settings import TlsSettings


class TlsError(OSError):
    """Certificate or key cannot be used; the text names the setting, the file and what to do."""


class Certificate:
    """What a server shows to its clients."""

    def __init__(self, settings: TlsSettings) -> None:
        self._current = load(settings)
        self.context = load(settings)
        """For the sockets; it stays the same for as long as they are open."""
        self.context.sni_callback = self._choose

    def _choose(self, handshake: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        """Called in each handshake, whether the client names a host or not."""
        handshake.context = self._current

    def renew(self, loaded: ssl.SSLContext) -> None:
        """Show this one from the next handshake on."""
        self._current = loaded


def load(settings: TlsSettings) -> ssl.SSLContext:
    """A context of the two files, for TLS 1.2 and later and HTTP/1.1. Raises `TlsError`."""
    _readable(settings.cert_file, "cert_file")
    _readable(settings.key_file, "key_file")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    secret = settings.key_password.get_secret_value() if settings.key_password is not None else None
    asked = False

    def password() -> str:  # without one OpenSSL would ask the terminal
        nonlocal asked
        asked = True
        return secret or ""

    try:
        context.load_cert_chain(settings.cert_file, settings.key_file, password)
    except (ssl.SSLError, ValueError, OSError) as exc:
        _explain(settings, exc, locked=asked)
    return context


def _readable(path: Path, setting: str) -> None:
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as exc:
        raise TlsError(exc.errno, f"server.tls.{setting}: {path}: {exc.strerror or exc}") from exc


def _explain(settings: TlsSettings, exc: Exception, *, locked: bool) -> NoReturn:
    cert, key = settings.cert_file, settings.key_file
    reason = getattr(exc, "reason", None)
    if reason == "KEY_VALUES_MISMATCH":
        text = f"server.tls.key_file: {key} is not the key of the certificate in {cert}; name the pair that was issued"
    elif locked and settings.key_password is None:
        text = f"server.tls.key_file: {key} is encrypted; set server.tls.key_password, best from the environment"
    elif locked:
        text = f"server.tls.key_password: does not open {key}"
    elif b"-----BEGIN CERTIFICATE" not in cert.read_bytes():
        text = f"server.tls.cert_file: {cert} holds no certificate in PEM; `openssl x509 -inform der` converts one"
    elif b"PRIVATE KEY-----" not in key.read_bytes():
        text = f"server.tls.key_file: {key} holds no private key in PEM"
    else:
        text = f"server.tls: {cert} with {key} cannot be used: {reason or exc}"
    raise TlsError(0, text) from exc
