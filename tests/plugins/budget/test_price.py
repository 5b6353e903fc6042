"""The shadow price holds a mean: after a cold start, after the mix flips, with many requests on their way."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.benchmarks.budget.traffic import EASY, HARD, SAME, USUAL, Site, mean_tokens

from predawn.plugins.budget.price import MOST_CREDIT, MOST_DEBT, Price


@pytest.mark.parametrize("in_flight", [1, 8])
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("first", "then", "target"), [(USUAL, HARD, 800), (HARD, USUAL, 800), (SAME, HARD, 150)])
def test_the_mean_is_within_five_percent_after_500_requests_and_again_after_a_flip(
    first, then, target, seed, in_flight
):
    site = Site(target, seed=seed, in_flight=in_flight)
    cold, flipped = site.serve(first, 500), site.serve(then, 500)

    assert mean_tokens(cold) == pytest.approx(target, rel=0.05)
    assert mean_tokens(flipped) == pytest.approx(target, rel=0.05)


def test_where_more_tokens_gain_nothing_less_is_spent_than_may_be():
    site = Site(100_000, seed=1)

    assert mean_tokens(site.serve(EASY, 500)) < 50_000


@pytest.mark.parametrize(("tokens", "sign"), [(300, 1), (30, -1)])
def test_spending_beyond_the_target_raises_the_price_and_saving_lowers_it(tokens, sign):
    price = Price(100)
    before = price.now
    for _ in range(20):
        price.expect(tokens)
        price.settle(tokens, tokens)

    assert sign * price.now > sign * before


def test_a_price_knows_of_requests_that_are_on_their_way():
    price = Price(100)
    before = price.now
    for _ in range(10):
        price.expect(400)

    assert price.now > before


def test_a_request_that_does_not_count_leaves_no_debt():
    price = Price(100)
    price.expect(500)
    price.withdraw(500)

    assert price.debt == 0


def test_where_nothing_can_be_chosen_the_price_stays_where_it_was():
    price = Price(100)
    for _ in range(100_000):
        price.saw([])
        price.expect(5000)
        price.settle(5000, 5000)

    assert price.now < 1


def test_requests_without_a_choice_do_not_widen_what_prices_make_a_difference():
    price = Price(100)
    price.saw([1e-4, 1e-3])
    for _ in range(100_000):
        price.saw([])
        price.expect(0)
        price.settle(0, 0)

    assert 1e-5 < price.now < 1e-2


@given(st.lists(st.tuples(st.floats(0, 1e9), st.floats(0, 1e9)), max_size=200), st.floats(1e-3, 1e7))
def test_a_price_stays_a_positive_number_whatever_requests_cost(costs, target):
    price = Price(target)
    for tokens, expected in costs:
        price.saw([expected / 1e9])
        price.expect(expected)
        price.settle(tokens, expected)

        assert math.isfinite(price.now)
        assert price.now > 0
        assert -MOST_CREDIT <= price.debt <= MOST_DEBT
