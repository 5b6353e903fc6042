"""A context before it is one: what a client hands in, or what discovery found, cut into parts and links."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from predawn.plugins.sleep import prefix
from predawn.plugins.sleep.contexts import Message, Part, SleepOptions, Source

_MARKS = (".", "!", "?", ":", ";", "\u3002", "\uff01", "\uff1f")


@dataclass(frozen=True, slots=True)
class Draft:
    """The content of a context, with everything that is derived from it alone."""

    id: str
    source: Source
    model: str
    namespace: str
    messages: tuple[Message, ...]
    """The stable content."""
    parts: tuple[Part, ...]
    """Of the stable content and of the live rest."""
    links: tuple[bytes, ...]
    """One for each stable message."""
    tokens: int
    encoded: str
    """The stable content as JSON."""
    options: SleepOptions = field(default_factory=SleepOptions)
    expires_at: float | None = None

    @classmethod
    def of(
        cls,
        tenant: str,
        messages: Sequence[Message],
        *,
        id: str = "",  # noqa: A002 - the API's own name
        source: Source = "registered",
        model: str = "",
        namespace: str = "",
        live: object = None,
        options: SleepOptions | None = None,
        expires_at: float | None = None,
    ) -> Draft:
        """Cut a content into parts. Without an id it is named by its content, so that all machines name it alike."""
        stable = prefix.first_live(messages, live)
        kept = tuple(messages[:stable])
        parts = [prefix.part(message, live=at >= stable) for at, message in enumerate(messages)]
        links = tuple(prefix.chain(tenant, namespace, model, kept))
        return cls(
            id=id or name_of(links[-1]),
            source=source,
            model=model,
            namespace=namespace,
            messages=kept,
            parts=tuple(parts),
            links=links,
            tokens=sum(part.tokens for part in parts[:stable]),
            encoded=msgspec.json.encode(kept).decode(),
            options=options or SleepOptions(),
            expires_at=expires_at,
        )

    @property
    def size(self) -> int:
        """Bytes of the stable content as it is kept."""
        return len(self.encoded.encode())

    @property
    def digest(self) -> bytes:
        return self.links[-1]


def name_of(digest: bytes) -> str:
    """The id of a context that nobody named."""
    return f"ctx_{digest.hex()[:24]}"


def continues(earlier: Sequence[Part], messages: Sequence[Message], parts: Sequence[Part]) -> bool:
    """True if a content begins with all of an earlier one, so that what was found out about that still holds.

    The last text may have grown by whole sentences or lines: "Ann has 3" does not begin "Ann has 30".
    """
    known = [part for part in earlier if not part.live]
    if not known or len(known) > len(messages):
        return False
    if any(old.digest != new.digest for old, new in zip(known[:-1], parts, strict=False)):
        return False
    last, at = known[-1], len(known) - 1
    return last.digest == parts[at].digest or _has_grown(last, messages[at])


def _has_grown(earlier: Part, message: Message) -> bool:
    text, length = prefix.plain_text(message), earlier.characters
    if text is None or length is None or len(text) <= length:
        return False
    begun, whole = text[:length], text[:length].rstrip()
    between = text[len(whole) : len(text) - len(text[len(whole) :].lstrip())]
    ends = "\n" in between or (between and whole.endswith(_MARKS))
    return bool(ends) and prefix.part({"role": message.get("role"), "content": begun}).digest == earlier.digest


def encode_parts(parts: Sequence[Part]) -> list[list[Any]]:
    """Parts as the store keeps them."""
    return [[part.role, part.digest.hex(), part.tokens, part.live, part.characters] for part in parts]


def decode_parts(stored: Sequence[Sequence[Any]]) -> tuple[Part, ...]:
    """Parts as `encode_parts` made them."""
    return tuple(
        Part(role, bytes.fromhex(digest), tokens, live, characters) for role, digest, tokens, live, characters in stored
    )


def decode_options(stored: Mapping[str, Any]) -> SleepOptions:
    """Options as the store keeps them; what another version of Predawn wrote there is left out."""
    return SleepOptions(**{name: value for name, value in stored.items() if name in SleepOptions.__slots__})
