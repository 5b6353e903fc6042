from __future__ import annotations

from tests.fixtures.translation import case, claude, google

__all__ = ["case", "claude", "google"]
