"""The keys of a checkpoint's configuration, checked as they are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from predawn.kernels.engine.config import LARGEST
from predawn.kernels.engine.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class Keys:
    """What a file says of its model; `fix` is what to do about a key that is missing."""

    def __init__(
        self, path: Path, found: Mapping[str, Any], *, fix: str = "this engine reads Llama configurations"
    ) -> None:
        self.path = path
        self._found = found
        self._fix = fix

    def __contains__(self, key: str) -> bool:
        return self._found.get(key) is not None

    def get(self, key: str, default: Any = None) -> Any:
        found = self._found.get(key)
        return default if found is None else found

    def count(self, key: str, default: int | None = None, most: int = LARGEST) -> int:
        """A positive whole number of plausible size."""
        found = self.get(key, default)
        if found is None:
            raise CheckpointError(self.path, "is missing", tensor=key, fix=self._fix)
        if not isinstance(found, int) or isinstance(found, bool) or not 1 <= found <= most:
            raise CheckpointError(self.path, f"must be a whole number from 1 to {most}, not {found!r:.60}", tensor=key)
        return found

    def number(self, key: str, default: float) -> float:
        """A positive finite number."""
        found = self.get(key, default)
        if not isinstance(found, int | float) or isinstance(found, bool) or not 0 < found < 1e12:
            raise CheckpointError(self.path, f"must be a positive number, not {found!r:.60}", tensor=key)
        return float(found)

    def flag(self, key: str) -> bool:
        found = self.get(key, False)
        if not isinstance(found, bool):
            raise CheckpointError(self.path, f"must be true or false, not {found!r:.60}", tensor=key)
        return found
