import pytest

from predawn.kernels.engine.sampling import Sampling
from predawn.kernels.engine.sequence import Request, Sequence
from predawn.kernels.engine.throughput import LONGEST_WAIT_S, SHORTEST_WAIT_S, Rate, Throughput


def waiting(number: int, prompt: int, limit: int, n: int = 1) -> list[Sequence]:
    request = Request(
        id=str(number),
        number=number,
        prompt=(0,) * prompt,
        sampling=Sampling(max_tokens=1, n=n),
        repeat=1,
        seed=0,
        limit=limit,
    )
    return [Sequence(request, index, [0] * prompt) for index in range(n)]


def test_a_rate_is_unknown_until_measured() -> None:
    assert Rate().value is None


def test_a_rate_follows_what_is_measured() -> None:
    rate = Rate()
    rate.add(1.0, 10)
    assert rate.value == pytest.approx(0.1)

    for _ in range(500):
        rate.add(3.0, 10)
    assert rate.value == pytest.approx(0.3, rel=0.01)


def test_the_wait_is_the_work_that_waits_at_the_measured_speed() -> None:
    throughput = Throughput()
    throughput.prefill_s.add(0.01, 1)
    throughput.decode_s.add(0.1, 1)
    throughput.answer.add(20, 1)

    # Prompts of 100 tokens, the second shared by two choices; answers of 20 tokens, the last at most 5.
    queue = [*waiting(0, 100, 500), *waiting(1, 100, 500, n=2), *waiting(2, 100, 105)]
    assert throughput.wait_s(queue) == pytest.approx(3 * 1.0 + 3 * 2.0 + 0.5)


def test_the_wait_is_never_absurd() -> None:
    throughput = Throughput()
    assert throughput.wait_s(waiting(0, 10, 20)) == SHORTEST_WAIT_S

    throughput.decode_s.add(1000.0, 1)
    assert throughput.wait_s(waiting(0, 10, 20)) == LONGEST_WAIT_S
