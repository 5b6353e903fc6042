import pytest

from predawn.kernels.engine.pages import PagePool
from predawn.kernels.engine.prefix import PrefixCache
from predawn.kernels.engine.sampling import Sampling
from predawn.kernels.engine.scheduler import Scheduler
from predawn.kernels.engine.sequence import Request, Sequence


class Bench:
    """A scheduler over a pool, without a model."""

    def __init__(self, pages: int, max_batch: int = 4) -> None:
        self.pool = PagePool(pages)
        self.copies: list[tuple[int, int]] = []
        self.scheduler = Scheduler(
            self.pool, PrefixCache(self.pool, 32), lambda *pair: self.copies.append(pair), max_batch=max_batch
        )
        self.arrivals = 0

    def add(self, length: int, n: int = 1) -> list[Sequence]:
        prompt = tuple(range(length))
        request = Request(
            id=str(self.arrivals), number=self.arrivals, prompt=prompt, sampling=Sampling(max_tokens=99, n=n), repeat=1, seed=0,
            limit=length + 99,
        )  # fmt: skip
        request.choices = [Sequence(request, index, list(prompt)) for index in range(n)]
        self.arrivals += 1
        self.scheduler.add(request)
        return list(request.choices)

    def computed(self, sequence: Sequence, own: int = 1) -> None:
        """Its prompt is computed, and it has so many tokens of its own, all but the newest computed."""
        sequence.tokens += [0] * own
        sequence.computed = len(sequence.tokens) - 1
        self.scheduler.check()


def test_an_admitted_sequence_has_pages_for_all_its_tokens() -> None:
    bench = Bench(pages=10)
    [sequence] = bench.add(40)
    bench.scheduler.admit()

    assert (len(sequence.pages), bench.pool.free) == (3, 7)
    assert bench.scheduler.prompting() == [sequence]


def test_each_active_sequence_is_left_a_page_to_grow() -> None:
    bench = Bench(pages=6)
    first, second = *bench.add(33), *bench.add(33)
    bench.scheduler.admit()

    assert (len(first.pages), len(second.pages)) == (3, 0)  # three are free, but one is the first's


def test_nobody_overtakes_a_request_that_does_not_fit() -> None:
    bench = Bench(pages=6)
    bench.add(33)
    large, small = *bench.add(50), *bench.add(1)
    bench.scheduler.admit()

    assert bench.scheduler.waiting == [large, small]


def test_choices_wait_for_the_one_that_computes_their_prompt() -> None:
    bench = Bench(pages=10)
    first, second, other = *bench.add(20, n=2), *bench.add(20)
    bench.scheduler.admit()
    assert bench.scheduler.active == [first, other]

    bench.computed(first)
    second.tokens.append(0)
    bench.scheduler.admit()
    assert bench.scheduler.active == [first, second, other]
    assert second.pages[0] == first.pages[0]
    assert bench.copies == [(first.pages[1], second.pages[1])]
    assert second.computed == 20
    bench.scheduler.check()


def test_a_prompt_of_whole_pages_needs_no_copy() -> None:
    bench = Bench(pages=10)
    first, second = bench.add(32, n=2)
    bench.scheduler.admit()
    bench.computed(first)
    second.tokens.append(0)
    bench.scheduler.admit()

    assert second.pages[:2] == first.pages[:2]
    assert bench.copies == []
    bench.scheduler.check()


def test_the_youngest_gives_way_to_the_oldest() -> None:
    bench = Bench(pages=4)
    oldest, youngest = *bench.add(16), *bench.add(16)
    bench.scheduler.admit()
    bench.computed(oldest)
    bench.computed(youngest)
    assert bench.scheduler.batch() == [oldest, youngest]
    assert bench.pool.free == 0

    oldest.tokens += [0] * 16
    oldest.computed += 16
    assert bench.scheduler.batch() == [oldest]
    assert (bench.scheduler.waiting, bench.scheduler.preemptions) == ([youngest], 1)
    assert (youngest.pages, youngest.computed) == ([], 0)
    bench.scheduler.check()


def test_the_youngest_gives_way_to_no_one_but_itself() -> None:
    bench = Bench(pages=3)
    oldest, youngest = *bench.add(16), *bench.add(16)
    bench.scheduler.admit()
    bench.computed(oldest)
    bench.computed(youngest)
    bench.scheduler.batch()

    assert bench.scheduler.active == [oldest]  # both wanted a second page, there was one
    bench.scheduler.check()


def test_a_step_takes_first_choices_before_second_ones() -> None:
    bench = Bench(pages=40, max_batch=3)
    many = bench.add(10, n=5)
    [single] = bench.add(10)
    bench.scheduler.admit()
    for sequence in (many[0], single):
        bench.computed(sequence)
    for sequence in many[1:]:
        sequence.tokens.append(0)
    bench.scheduler.admit()

    assert bench.scheduler.active == [*many[:4], single]  # one more of the many than can decode
    assert bench.scheduler.batch() == [many[0], single, many[1]]


def test_drafts_take_only_pages_that_nobody_will_need() -> None:
    bench = Bench(pages=4)
    [sequence] = bench.add(10)
    bench.scheduler.admit()
    bench.computed(sequence)

    assert bench.scheduler.stretch(sequence, 30) == 30
    assert bench.scheduler.stretch(sequence, 100) == 3 * 16 - 10
    assert bench.pool.free == 1


def test_removing_frees_what_no_sibling_reads() -> None:
    bench = Bench(pages=10)
    first, second = bench.add(40, n=2)
    bench.scheduler.admit()
    bench.computed(first)
    second.tokens.append(0)
    bench.scheduler.admit()
    assert bench.pool.free == 10 - 2 - 2

    bench.scheduler.remove(first)
    assert bench.pool.free == 10 - 2 - 1
    bench.scheduler.remove(second)
    assert bench.pool.free == 10
    assert second.request.choices == []


@pytest.mark.parametrize(("arrived", "queued"), [(0, 0), (2, 0), (3, 1)])
def test_requests_that_fit_into_the_batch_are_not_queued(arrived, queued) -> None:
    bench = Bench(pages=10, max_batch=2)
    for _ in range(arrived):
        bench.add(5, n=3)

    assert bench.scheduler.queued_requests() == queued
    assert bench.scheduler.waiting_requests == arrived
