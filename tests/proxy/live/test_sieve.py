from hypothesis import given
from hypothesis import strategies as st

from predawn.proxy.live.sieve import Sieve


@given(most=st.integers(1, 20), turns=st.lists(st.integers(0, 300), min_size=1, max_size=6))
def test_no_turn_lets_more_than_the_most_through(most: int, turns: list[int]) -> None:
    sieve = Sieve(most)
    for came in turns:
        assert sum(sieve.passes() for _ in range(came)) <= most
        sieve.turn()


def test_all_pass_while_they_are_few() -> None:
    sieve = Sieve(8)

    assert [sieve.passes() for _ in range(8)] == [True] * 8


def test_what_passes_is_spread_over_a_turn_like_the_one_before() -> None:
    sieve = Sieve(5)
    for _ in range(50):
        sieve.passes()
    sieve.turn()

    passed = [place for place in range(50) if sieve.passes()]

    assert passed == [0, 10, 20, 30, 40]
