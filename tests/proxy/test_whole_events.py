"""`WholeEvents` and `NamedEventWatch`: what they say does not depend on how a stream is split."""

from hypothesis import given
from hypothesis import strategies as st

from predawn.proxy.relay import WholeEvents
from predawn.proxy.wire.openai import NamedEventWatch

EVENTS = st.lists(
    st.sampled_from(
        [
            b'data: {"a":1}\n\n',
            b'data: {"a":2}\r\n\r\n',
            b": c\n\n",
            b"event: x\ndata: 1\ndata: 2\n\n",
            b"\n\n",
            b"data: 3\r\r",
        ]
    ),
    max_size=8,
).map(b"".join)


def pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(stream) + 1) for cut in cuts})
    return [stream[start:end] for start, end in zip([0, *places], [*places, len(stream)], strict=True) if start < end]


@given(EVENTS, st.binary(max_size=5), st.lists(st.integers(0, 999), max_size=12))
def test_bytes_go_on_in_order_and_stop_between_events(stream: bytes, rest: bytes, cuts: list[int]) -> None:
    gate = WholeEvents()
    passed = b""
    for piece in pieces(stream + rest, cuts):
        passed += gate.feed(piece)

        assert not passed or passed.endswith((b"\n\n", b"\n\r\n", b"\r\r"))
    assert passed + gate.rest() == stream + rest


def test_a_huge_event_is_not_held_back() -> None:
    gate = WholeEvents()

    assert len(gate.feed(b"data: " + b"x" * 100_000)) > 100_000
    assert gate.feed(b"end\n\n") == b"end\n\n"


@given(st.lists(st.integers(0, 9999), max_size=12), st.sampled_from(["event: response.completed\n", ""]))
def test_the_name_of_the_last_event_is_found_wherever_it_is_split(cuts: list[int], name: str) -> None:
    stream = (
        f'event: a\ndata: {{"type":"a"}}\n\n{name}data: {{"type":"response.completed","response":{{}}}}\n\n'.encode()
    )
    watch = NamedEventWatch("responses")
    for piece in pieces(stream, cuts):
        watch.saw(piece)

    assert watch.ended


@given(st.lists(st.integers(0, 9999), max_size=12))
def test_what_is_said_is_no_end(cuts: list[int]) -> None:
    stream = rb'data: {"type":"delta","delta":"event: response.completed \"type\":\"response.completed\" "}' + b"\n\n"
    watch = NamedEventWatch("responses")
    watch.saw(b"event: delta\n")
    for piece in pieces(stream, cuts):
        watch.saw(piece)

    assert not watch.ended
