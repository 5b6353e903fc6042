"""Which changes of the settings a running process cannot follow: what it was started with, and listens on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from predawn.proxy.settings import Settings

FOLLOWED: Final = frozenset(
    {"admin_key", "keep_alive_comment_s", "log", "max_choices", "max_output_tokens", "tls", "trusted_proxies"}
)
"""Parts of `server` that a reload changes; of `tls` that it is there at all needs a start."""


def fixed(old: Settings, new: Settings) -> list[str]:
    """The names of the settings that differ and take effect at the next start only."""
    changed = [
        f"server.{name}"
        for name in type(new.server).model_fields
        if name not in FOLLOWED and getattr(old.server, name) != getattr(new.server, name)
    ]
    if (old.server.tls is None) != (new.server.tls is None):
        changed.append("server.tls")
    if old.state != new.state:
        changed.append("state")
    return changed
