"""A store that is away is told of once."""

import pytest

from predawn.plugins.sleep.outage import Outage
from predawn.proxy.store_errors import StoreError


def test_an_outage_is_told_of_once_and_the_next_one_again(caplog):
    outage = Outage("notes are late")

    for went_well in (False, False, True, False):
        with outage.survived():
            if not went_well:
                raise StoreError("gone")

    assert [record.getMessage() for record in caplog.records] == ["notes are late: gone"] * 2


def test_what_else_goes_wrong_is_raised():
    with pytest.raises(ValueError, match="not the store"), Outage("notes are late").survived():
        raise ValueError("not the store")
