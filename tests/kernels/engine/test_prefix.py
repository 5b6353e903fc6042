from array import array

import pytest

from predawn.kernels.engine.pages import PagePool
from predawn.kernels.engine.prefix import PrefixCache


def kept(*prompts, pages=20, salt="tenant"):
    """A cache that knows these prompts, whose own requests are over; and its pool."""
    pool = PagePool(pages)
    cache = PrefixCache(pool, chunk=32)
    for prompt in prompts:
        own = [pool.take() for _ in range(-(-len(prompt) // 16))]
        cache.keep(cache.keys(salt, 2, prompt), own)
        for page in own:
            pool.drop(page)
    return cache, pool


def matched(cache, prompt, salt="tenant", repeat=2):
    return cache.match(cache.keys(salt, repeat, prompt))


def test_whole_chunks_of_a_known_beginning_are_shared() -> None:
    prompt = list(range(70))
    cache, pool = kept(prompt)
    assert pool.free == 16

    found = matched(cache, prompt[:68] + [9, 9])
    assert sorted(found) == sorted(cache.pages())
    assert all(pool.shared(page) for page in found)


def test_the_last_token_of_a_prompt_is_always_computed() -> None:
    prompt = list(range(65))
    cache, _ = kept(prompt)

    assert len(matched(cache, prompt)) == 4
    assert len(matched(cache, prompt[:64])) == 2


@pytest.mark.parametrize(
    ("salt", "repeat", "change"), [("other", 2, 0), ("tenant", 1, 0), ("tenant", 2, 1), ("2/tenant", 2, 0)]
)
def test_another_salt_number_of_passes_or_text_shares_nothing(salt, repeat, change) -> None:
    prompt = list(range(70))
    cache, pool = kept(prompt)

    assert matched(cache, [prompt[0] + change, *prompt[1:]], salt, repeat) == []
    assert pool.free == 16


def test_a_known_chunk_is_kept_once() -> None:
    prompt = list(range(40))
    cache, pool = kept(prompt, prompt, [*prompt, 1])

    assert pool.free == 18
    assert len(list(cache.pages())) == 2


def test_the_least_recently_used_chunk_goes_first_and_the_end_of_a_text_before_its_beginning() -> None:
    one, other = list(range(65)), list(range(100, 165))
    cache, pool = kept(one, other)
    for page in matched(cache, one):
        pool.drop(page)

    order = []
    while cache.evict():
        order.append((len(matched(cache, one)), len(matched(cache, other))))
    assert order == [(4, 0), (4, 0), (2, 0), (0, 0)]


def test_pages_that_a_sequence_reads_are_not_freed() -> None:
    prompt = list(range(40))
    cache, pool = kept(prompt)
    found = matched(cache, prompt)

    assert cache.evict()
    assert not cache.evict()
    assert pool.readers() == dict.fromkeys(found, 1)


def test_no_salt_can_pass_for_another_one_and_the_tokens_after_it() -> None:
    cache, _ = kept()
    spelt = b"A" * 127 + b"/"
    tail = list(range(33))

    assert cache.keys("a", 2, [*array("I", spelt), *tail])[1] != cache.keys("a/" + "A" * 127, 2, tail)[0]
