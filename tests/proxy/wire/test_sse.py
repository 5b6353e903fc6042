import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predawn.proxy.wire.sse import MAX_EVENT_BYTES, EventSplitter, EventTooLargeError, event_chunk, split_events

LINES = st.lists(
    st.sampled_from([b"data: {}", b"data: [DONE]", b"event: x", b": note", b"id: 7", b"data:a"]), min_size=1
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@st.composite
def streams(draw):
    events = []
    for lines in draw(st.lists(LINES, max_size=6)):
        end = draw(ENDS)
        events.append(end.join(lines) + end + end)
    return events


def cut(data: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted(p % (len(data) + 1) for p in places), len(data)]
    return [data[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]


@given(streams(), st.lists(st.integers(0, 500), max_size=12))
def test_events_do_not_depend_on_how_the_bytes_were_split(events, places):
    whole = EventSplitter()
    expected = [*whole.feed(b"".join(events)), whole.rest()]
    splitter = EventSplitter()

    got = [event for piece in cut(b"".join(events), places) for event in splitter.feed(piece)] + [splitter.rest()]

    assert expected == got


@given(st.binary(max_size=400), st.lists(st.integers(0, 500), max_size=12))
def test_joining_the_events_gives_every_byte_back(data, places):
    splitter = EventSplitter()

    got = b"".join(b"".join(splitter.feed(piece)) for piece in cut(data, places)) + splitter.rest()

    assert data == got


def test_a_long_event_is_searched_once_however_many_pieces_it_has():
    splitter = EventSplitter()
    began = time.process_time()
    for _ in range(4096):
        splitter.feed(b"x" * 256)

    assert splitter.feed(b"\n\n") == [b"x" * (4096 * 256) + b"\n\n"]
    assert time.process_time() - began < 0.7


def test_an_endless_event_is_refused():
    splitter = EventSplitter()

    with pytest.raises(EventTooLargeError):
        for _ in range(40):
            splitter.feed(b"x" * (MAX_EVENT_BYTES // 32))


def test_a_chunk_knows_its_name_its_data_and_whether_it_is_the_last():
    chunk = event_chunk(b'event: message_stop\r\ndata: {"type":\r\ndata: "message_stop"}\r\n\r\n')

    assert ("message_stop", {"type": "message_stop"}, True) == (chunk.event, chunk.data, chunk.is_last)


def test_done_is_the_last_chunk_and_has_no_data():
    chunk = event_chunk(b"data: [DONE]\n\n")

    assert (None, True) == (chunk.data, chunk.is_last)


async def test_what_follows_the_last_blank_line_is_still_given_out():
    class Source:
        async def __aiter__(self):
            yield b"data: 1\n\nda"
            yield b"ta: [DONE]"

        async def aclose(self):
            pass

    raws = [chunk.raw async for chunk in split_events(Source())]

    assert [b"data: 1\n\n", b"data: [DONE]"] == raws
