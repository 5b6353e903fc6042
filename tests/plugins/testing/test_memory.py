from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predawn.plugins.testing.memory import Answered

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: 1\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
PLAIN = b"HTTP/1.1 429 Too Many\r\nContent-Length: 5\r\nX-A: 1\r\n\r\nabcde"
CONTINUED = b"HTTP/1.1 100 Continue\r\n\r\n" + PLAIN


@given(data=st.sampled_from([CHUNKED, PLAIN, CONTINUED]), cuts=st.sets(st.integers(1, 60), max_size=10))
def test_an_answer_is_the_same_however_it_is_cut(data: bytes, cuts: set[int]) -> None:
    answered = Answered()
    places = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    for start, end in zip(places, places[1:], strict=False):
        assert not answered.complete
        answered.feed(data[start:end])

    assert answered.complete
    assert answered.body == b"abcde"
    assert answered.headers["x-a"] == "1"
    assert answered.sent == data


@pytest.mark.parametrize("data", [CHUNKED[:-5], PLAIN[:-1], b"HTTP/1.1 200 OK\r\n\r\nabc"])
def test_an_answer_that_was_cut_off_is_not_complete(data: bytes) -> None:
    answered = Answered()
    answered.feed(data)

    assert not answered.complete
