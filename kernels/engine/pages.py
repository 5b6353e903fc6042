"""KV pages by number: which are free, and how many sequences read each."""

from __future__ import annotations

from predawn.kernels.engine.kv import PAGE


def pages_for(tokens: int) -> int:
    """How many pages hold so many tokens."""
    return -(-tokens // PAGE)


class PagePool:
    """Counts the readers of each page; a page without readers is free.

    A page with one reader may be written; one with several must be copied first. Nothing here touches a tensor.
    """

    def __init__(self, pages: int) -> None:
        if pages < 1:
            raise ValueError(f"pages must be at least 1, not {pages}")
        self._readers = [0] * pages
        self._free = list(range(pages - 1, -1, -1))  # popped from the end: low numbers first

    def __repr__(self) -> str:
        return f"<PagePool {self.free} of {len(self._readers)} pages free>"

    @property
    def size(self) -> int:
        """Pages in all."""
        return len(self._readers)

    @property
    def free(self) -> int:
        """Pages without readers."""
        return len(self._free)

    def take(self) -> int:
        """A free page, now with one reader; IndexError if there is none."""
        page = self._free.pop()
        assert self._readers[page] == 0, f"page {page} was free and read"
        self._readers[page] = 1
        return page

    def share(self, page: int) -> None:
        """One more reader for a page that has some."""
        assert self._readers[page] > 0, f"page {page} is free and cannot be shared"
        self._readers[page] += 1

    def drop(self, page: int) -> None:
        """One reader less; the last one frees the page."""
        assert self._readers[page] > 0, f"page {page} dropped more often than taken"
        self._readers[page] -= 1
        if not self._readers[page]:
            self._free.append(page)

    def readers(self) -> dict[int, int]:
        """Pages in use, and how many read each."""
        return {page: count for page, count in enumerate(self._readers) if count}

    def shared(self, page: int) -> bool:
        """Whether several read this page, so that none of them may write it."""
        assert self._readers[page] > 0, f"page {page} is free"
        return self._readers[page] > 1
