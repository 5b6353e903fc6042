import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predawn.kernels.engine import protocol
from predawn.kernels.engine.protocol import Ask, Cancel, Ended, Frames, Loading, Open, Piece, Refused, TokenScore, frame

NEWS = [
    Loading("weights"),
    Piece(1, 0, "a", scores=[TokenScore("a", b"a", -0.1, [("b", b"b", -2.0)], 0)]),
    Piece(1, 1, "", "thought", "length"),
    Refused(id=2, status=429, message="busy", retry_after_s=1.5),
    Ended(id=1, prompt=3, cached=0, output=2, reasoning=1),
]
ORDERS = [Open(path="there", threads=2), Ask(1, "chat", b"{}", "tenant"), Cancel(1)]


@given(st.lists(st.integers(1, 40)))
def test_messages_come_through_any_split(sizes):
    data = frame(*NEWS)
    frames = Frames()
    found = []
    while data:
        size = sizes.pop() if sizes else len(data)
        found += protocol.news(frames.feed(data[:size]))
        data = data[size:]

    assert found == NEWS


def test_orders_come_through():
    assert list(protocol.orders(Frames().feed(frame(*ORDERS)))) == ORDERS


def test_what_is_no_message_is_refused():
    with pytest.raises(msgspec.DecodeError):
        list(protocol.news([b"\xc1"]))
    with pytest.raises(msgspec.ValidationError):
        list(protocol.news([msgspec.msgpack.encode(["unheard-of", 1])]))
