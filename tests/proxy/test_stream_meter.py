"""`StreamMeter` looks at the last reads first and forgets the rest late: what it says does not depend on that."""

from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.proxy.test_whole_events import pieces

from predawn.proxy.exchange import RouteName
from predawn.proxy.stream_meter import MOST_NOTED, TAIL_BYTES, StreamMeter
from predawn.proxy.wire.openai import has_ended, usage_of_tail

DONE = b"data: [DONE]\n\n"
USED = b'data: {"choices":[],"usage":{"prompt_tokens":%d,"completion_tokens":2}}\n\n'
EVENTS = st.lists(
    st.sampled_from(
        [
            b'data: {"choices":[{"delta":{"content":"data: [DONE]"}}]}\n\n',
            b'data: {"choices":[{"delta":{"content":"\\ndata: {\\"usage\\":{\\"prompt_tokens\\":9}}"}}],"usage":null}\n\n',
            b'data: {"error":{"message":"no"}}\n\n',
            USED % 1,
            USED % 2,
            (USED % 3).replace(b"\n", b"\r\n"),
            DONE,
            DONE.replace(b"\n", b"\r\n"),
            b" data: [DONE]\n\n",
            b"x" + DONE,
            b": c\n\n",
        ]
    ),
    max_size=7,
)
STREAMS = EVENTS.map(b"".join)


def metered(*reads: bytes, route: RouteName = "chat") -> StreamMeter:
    meter = StreamMeter(route)
    for read in reads:
        meter.saw(read)
    return meter


@given(STREAMS, st.lists(st.integers(0, 999), max_size=12), st.sampled_from(["chat", "completions", "embeddings"]))
def test_usage_and_end_are_found_in_any_split(stream: bytes, cuts: list[int], route: RouteName) -> None:
    meter = metered(*pieces(stream, cuts), route=route)

    assert (usage_of_tail(stream), has_ended(stream, route)) == (meter.usage, meter.has_ended)


@given(EVENTS, st.data(), st.sampled_from(["chat", "responses", "messages"]))
def test_events_that_are_noted_count_like_those_that_are_seen(
    reads: list[bytes], data: st.DataObject, route: RouteName
) -> None:
    meter, noting = metered(*reads, route=route), StreamMeter(route)
    for number, read in enumerate(reads):
        if number == 0 or data.draw(st.booleans()):  # a stream opens with an event that is seen
            noting.saw(read)
        else:
            noting.chunks.append(b"%x\r\n%b\r\n" % (len(read), read))
            noting.times.append(perf_counter())
    noting.count()
    told = (noting.reads, noting.events, noting.tail, noting.usage, noting.has_ended)

    assert (meter.reads, meter.events, meter.tail, meter.usage, meter.has_ended) == told
    assert noting.first_at <= noting.last_at
    assert noting.max_gap_s <= noting.last_at - noting.first_at


def test_times_that_are_noted_are_measured_by() -> None:
    meter = StreamMeter()
    for at in (5.0, 5.5, 7.0, 7.25):
        meter.chunks.append(b"a\r\ndata: {}\n\n\r\n")
        meter.times.append(at)
    meter.count()

    assert (5.0, 7.25, 1.5, 0.75) == (meter.first_at, meter.last_at, meter.max_gap_s, meter.mean_gap_s)


@pytest.mark.parametrize("size", [1, 7, 100, TAIL_BYTES - 1, TAIL_BYTES, TAIL_BYTES + 1, 3 * TAIL_BYTES])
def test_of_a_long_stream_the_end_is_kept_and_little_else(size: int) -> None:
    stream = b"".join(b"data: %d\n\n" % number for number in range(12_000))
    meter = metered(*(stream[at : at + size] for at in range(0, len(stream), size)))

    assert stream.endswith(meter.tail)
    assert TAIL_BYTES <= len(meter.tail) <= 2 * TAIL_BYTES + size


def test_a_pause_before_the_first_bytes_is_not_the_first() -> None:
    meter = StreamMeter()
    meter.last_at = 3.0
    meter.saw(b"data: {}\n\n", 5.0)
    meter.saw(b"data: {}\n\n", 5.5)

    assert (5.0, 5.5, 0.5) == (meter.first_at, meter.last_at, meter.max_gap_s)


@pytest.mark.parametrize("size", [2, 20, 300, 4000])
def test_of_what_is_noted_enough_is_kept_and_little_else(size: int) -> None:
    meter, stream = StreamMeter("chat"), b""
    for number in range(30_000 // size):
        event = b"%d" % (number % 10) * (size - 2) + b"\n\n"
        stream += event
        meter.chunks.append(b"%x\r\n%b\r\n" % (size, event))
        meter.times.append(float(number))
        if len(meter.chunks) == MOST_NOTED:
            meter.count()

            assert stream.endswith(meter.tail)
            assert len(meter.tail) >= min(len(stream), TAIL_BYTES)
            assert len(meter.tail) <= 2 * (2 * TAIL_BYTES + MOST_NOTED * size)


@given(st.lists(st.integers(0, 3 * TAIL_BYTES), max_size=20))
def test_whatever_the_sizes_of_reads_enough_is_kept(sizes: list[int]) -> None:
    meter, stream = StreamMeter("chat"), b""
    for number, size in enumerate(sizes):
        read = bytes([number]) * size
        meter.saw(read)
        stream += read

        assert stream.endswith(meter.tail)
        assert len(meter.tail) >= min(len(stream), TAIL_BYTES)


def test_usage_far_before_the_end_is_found_while_it_is_kept() -> None:
    comments = [b": still there\n\n"] * 400

    assert metered(USED % 5, *comments, DONE).usage == usage_of_tail(USED % 5)
    assert metered(USED % 5, *comments * 4, DONE).usage is None
