"""`Postponed`: everything is closed once, in order, and nothing is lost with another."""

import pytest

from predawn.proxy.postponed import MOST, Postponed


class One:
    def __init__(self, name: int, closed: list[int], *, fails: bool = False) -> None:
        self._name = name
        self._closed = closed
        self._fails = fails

    def close_account(self) -> None:
        if self._fails:
            raise LookupError(f"gone {self._name}")
        self._closed.append(self._name)


def test_accounts_wait_until_somebody_asks() -> None:
    postponed, closed = Postponed(), list[int]()
    for name in range(3):
        postponed.add(One(name, closed))
    before = closed.copy()
    postponed.settle()
    postponed.settle()

    assert ([], [0, 1, 2]) == (before, closed)


def test_no_more_wait_than_may() -> None:
    postponed, closed = Postponed(), list[int]()
    for name in range(MOST + 1):
        postponed.add(One(name, closed))

    assert list(range(MOST)) == closed


def test_one_that_fails_takes_no_other_with_it() -> None:
    postponed, closed = Postponed(), list[int]()
    for name in range(5):
        postponed.add(One(name, closed, fails=name in {1, 3}))
    with pytest.raises(LookupError, match="gone 3") as told:
        postponed.settle()
    postponed.settle()

    assert str(told.value.__context__) == "gone 1"
    assert closed == [0, 2, 4]
