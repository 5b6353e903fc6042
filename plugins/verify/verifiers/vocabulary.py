"""Sets of words, written as one reads them."""

from __future__ import annotations


def words_of(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


def list_of(text: str) -> tuple[str, ...]:
    """The words of a text, in their order."""
    return tuple(text.split())
