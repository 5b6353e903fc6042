"""Prompt pages that outlive their request, for requests that begin with the same tokens.

Off unless a request brings a salt: a prompt that is answered sooner tells that someone sent its beginning before, so
only requests of the same salt (a tenant) share. Whole prefill chunks are shared, never parts: a chunk cut elsewhere has
other bits, and the cache must not change an answer.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from hashlib import blake2b

from predawn.kernels.engine.kv import PAGE
from predawn.kernels.engine.pages import PagePool


class PrefixCache:
    """Pages of computed prompt chunks, by the keys that `keys` gives; the least recently used goes first."""

    def __init__(self, pool: PagePool, chunk: int) -> None:
        if chunk < PAGE or chunk % PAGE:
            raise ValueError(f"prefill_chunk must be a multiple of {PAGE}, not {chunk}")
        self._pool = pool
        self._chunk = chunk
        self._chunks: OrderedDict[bytes, tuple[int, ...]] = OrderedDict()

    def keys(self, salt: str, repeat: int, prompt: Sequence[int]) -> tuple[bytes, ...]:
        """For each whole chunk of a prompt a hash of salt, passes and all tokens up to the chunk's end.

        The chunk that ends the prompt has none: it must be computed, for the logits.
        """
        name = salt.encode()
        # with its length: a salt must not pass for a shorter one that is followed by tokens
        running = blake2b(b"%d/%d/%b" % (repeat, len(name), name), digest_size=16)
        found = []
        for end in range(self._chunk, len(prompt), self._chunk):
            running.update(array("I", prompt[end - self._chunk : end]).tobytes())
            found.append(running.digest())
        return tuple(found)

    def match(self, keys: Sequence[bytes]) -> list[int]:
        """The pages of the longest known beginning, with one more reader each."""
        found: list[bytes] = []
        for key in keys:
            if key not in self._chunks:
                break
            found.append(key)
        for key in reversed(found):  # a chunk is useless without those before it, so they are the more recently used
            self._chunks.move_to_end(key)
        pages = [page for key in found for page in self._chunks[key]]
        for page in pages:
            self._pool.share(page)
        return pages

    def keep(self, keys: Sequence[bytes], pages: Sequence[int]) -> None:
        """Becomes a reader of the chunks of a computed prompt, whose pages these are."""
        per_chunk = self._chunk // PAGE
        for place, key in enumerate(keys):
            if key not in self._chunks:
                self._chunks[key] = tuple(pages[place * per_chunk : (place + 1) * per_chunk])
                for page in self._chunks[key]:
                    self._pool.share(page)

    def evict(self) -> bool:
        """Forgets one chunk; its pages are free unless a sequence reads them. False if there was none."""
        if not self._chunks:
            return False
        for page in self._chunks.popitem(last=False)[1]:
            self._pool.drop(page)
        return True

    def pages(self) -> Iterator[int]:
        """Every page it reads."""
        for pages in self._chunks.values():
            yield from pages
