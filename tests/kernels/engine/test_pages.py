import pytest

from predawn.kernels.engine.pages import PagePool, pages_for


@pytest.mark.parametrize(("tokens", "pages"), [(0, 0), (1, 1), (16, 1), (17, 2), (32, 2)])
def test_a_page_holds_sixteen_tokens(tokens, pages) -> None:
    assert pages_for(tokens) == pages


def test_a_page_is_free_when_its_last_reader_drops_it() -> None:
    pool = PagePool(2)
    page = pool.take()
    pool.share(page)

    pool.drop(page)
    assert (pool.free, pool.shared(page)) == (1, False)

    pool.drop(page)
    assert pool.free == pool.size == 2


def test_pages_run_out() -> None:
    pool = PagePool(1)
    pool.take()

    with pytest.raises(IndexError):
        pool.take()


@pytest.mark.parametrize("misuse", [PagePool.drop, PagePool.share, PagePool.shared])
def test_a_free_page_cannot_be_used(misuse) -> None:
    with pytest.raises(AssertionError, match="page 0"):
        misuse(PagePool(1), 0)


def test_a_pool_needs_a_page() -> None:
    with pytest.raises(ValueError, match="pages must be at least 1"):
        PagePool(0)


def test_readers_are_counted() -> None:
    pool = PagePool(3)
    first, second = pool.take(), pool.take()
    pool.share(second)

    assert pool.readers() == {first: 1, second: 2}
    assert repr(pool) == "<PagePool 1 of 3 pages free>"
