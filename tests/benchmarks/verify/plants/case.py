"""One planted answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Case:
    """An answer, what it answers, and how it is to be read."""

    text: str
    kind: str
    """Which template it came from, for the list of what went wrong."""
    request: Mapping[str, Any] = field(default_factory=dict[str, Any])
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    where: str = "content"
    call: Mapping[str, Any] | None = None
    """The tool call whose arguments `text` is."""
    said: tuple[str, ...] = ()
    """What the model says to forks, or a judge to its questions, one after the other."""
