"""What an upstream says when it refuses, fit to be kept: short, in one line, and without secrets."""

from __future__ import annotations

from collections.abc import Iterable

from predawn.proxy.logs import BLOT, redact

MOST_CHARS = 300
MOST_READ = 8 * MOST_CHARS
"""As much is looked at, so that a secret is found that the cut would go through."""


def fit_to_keep(said: str, secrets: Iterable[str] = ()) -> str:
    """The beginning of a text from elsewhere, without credentials and the settings' own `secrets`."""
    text = "".join(mark if mark.isprintable() else " " for mark in said[:MOST_READ])
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, BLOT)
    text = " ".join(redact(text).split())
    return text if len(text) <= MOST_CHARS else f"{text[: MOST_CHARS - 1]}\u2026"
