"""Answers on the wire, in any split."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predawn.proxy.upstreams.answer import LONGEST_CHUNK, MAX_HEAD_BYTES, MOST_CHUNKS, AnswerReader, framed, unchunked

OK = b"HTTP/1.1 200 OK\r\n"
GOOD = {
    "a length": (OK + b"Content-Length: 2\r\n\r\n{}", 200, b"{}", True),
    "no body": (OK + b"Content-Length: 0\r\n\r\n", 200, b"", True),
    "chunks": (
        OK + b"Transfer-Encoding: Chunked\r\n\r\n1;x=y\r\n{\r\n0A\r\n0123456789\r\n0\r\n\r\n",
        200,
        b"{0123456789",
        True,
    ),
    "trailers": (OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Late: 1\r\n\r\n", 200, b"a", True),
    "closing": (OK + b"Connection: close\r\nContent-Length: 2\r\n\r\n{}", 200, b"{}", False),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", 200, b"{}", False),
    "HTTP/1.0 kept": (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}", 200, b"{}", True),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
    "not modified": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304, b"", True),
    "hints first": (
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
        + OK
        + b"Content-Length: 2\r\n\r\n{}",
        200,
        b"{}",
        True,
    ),
    "a hint that says it is empty": (
        b"HTTP/1.1 103 Early Hints\r\nContent-Length: 0\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\n{}",
        200,
        b"{}",
        True,
    ),
    "no reason": (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\n{}", 200, b"{}", True),
}
BAD = {
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "another version": b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\n",
    "two lengths": OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n",
    "a length twice": OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n",
    "both framings": OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
    "both framings, turned": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n",
    "a negative length": OK + b"Content-Length: -1\r\n\r\n",
    "a signed length": OK + b"Content-Length: +1\r\n\r\n",
    "no length": OK + b"Content-Length: many\r\n\r\n",
    "a length beyond all": OK + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "a coding": OK + b"Transfer-Encoding: gzip\r\n\r\n",
    "a coding in chunks": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    "a coding that only looks like chunks": OK + b"Transfer-Encoding: chunked\t\r\n\r\n1\r\na\r\n0\r\n\r\n",
    "a hint with a body": b"HTTP/1.1 199 x\r\nContent-Length: 1\r\n\r\nx" + OK + b"Content-Length: 2\r\n\r\n{}",
    "a hint in chunks": b"HTTP/1.1 199 x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"
    + OK
    + b"Content-Length: 2\r\n\r\n{}",
    "chunked twice": OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a folded header": OK + b"X: a\r\n b\r\n\r\n",
    "a space before the colon": OK + b"Content-Length : 2\r\n\r\n",
    "bare line feeds": b"HTTP/1.1 200 OK\nContent-Length: 2\n\n",
    "a zero byte": OK + b"X: a\0b\r\n\r\n",
    "switching": b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "a small status": b"HTTP/1.1 099 What\r\n\r\n",
    "a huge header": OK + b"X: " + b"x" * MAX_HEAD_BYTES + b"\r\n\r\n",
    "many headers": OK + b"X: xxxxxxxxxxxxxxxx\r\n" * 4000 + b"\r\n",
    "many empty headers": OK + b"X:\r\n" * 20000 + b"Content-Length: 2\r\n\r\n{}",
    "hints without end": b"HTTP/1.1 103 Early Hints\r\nLink: xxxxxxxxxxxxxxxxxxxx\r\n\r\n" * 2000,
}


STREAM = OK + b"transfer-encoding: chunked\r\n\r\n"


def read(*pieces: bytes) -> tuple[AnswerReader, bytes]:
    reader, body = AnswerReader(), b""
    for piece in pieces:
        reader.feed(piece)
        body += b"".join(reader.pieces)
        reader.pieces = []
        if reader.fault is not None:
            break
    return reader, body


def skimmed(*pieces: bytes) -> tuple[AnswerReader, bytes, int]:
    """Read as a connection does: what is one whole chunk is not fed. The last is how many were not."""
    reader, body, unfed = AnswerReader(), b"", 0
    for piece in pieces:
        if reader.is_between and (at := framed(piece)):
            body += piece[at:-2]
            unfed += 1
            continue
        reader.feed(piece)
        body += b"".join(reader.pieces)
        reader.pieces = []
        if reader.fault is not None:
            break
    return reader, body, unfed


def connected(*pieces: bytes, reader: AnswerReader | None = None) -> tuple[AnswerReader, bytes, int]:
    """Read as a connection does: the parser gets what cannot be read without. The last is how often it did."""
    reader = reader or AnswerReader()
    body, fed = b"", 0
    for piece in pieces:
        if reader.is_between and (at := framed(piece)):
            body += piece[at:-2]
            continue
        if not (reader.read_on(piece) if reader.head is not None else reader.read_first(piece)):
            reader.feed(piece)
            fed += 1
        body += b"".join(reader.pieces)
        reader.pieces = []
        if reader.fault is not None:
            break
    return reader, body, fed


def state(reader: AnswerReader) -> tuple[bool, bool, str | None]:
    return reader.is_over, reader.is_reusable, reader.fault


@st.composite
def splits(draw, data):
    cuts = sorted(draw(st.sets(st.integers(1, max(len(data) - 1, 1)), max_size=12)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True) if start < end]


@pytest.mark.parametrize("answer", GOOD.values(), ids=GOOD)
@given(data=st.data())
def test_an_answer_is_read_alike_in_any_split(answer, data):
    wire, status, body, is_reusable = answer
    reader, read_body = read(*data.draw(splits(wire)))

    assert reader.head is not None
    assert (status, body, True, is_reusable, None) == (
        reader.head.status,
        read_body,
        reader.is_over,
        reader.is_reusable,
        reader.fault,
    )
    assert b"X-Late" not in dict(reader.head.headers)
    assert b"Link" not in dict(reader.head.headers)


@pytest.mark.parametrize("wire", BAD.values(), ids=BAD)
@given(data=st.data())
def test_what_could_be_read_in_two_ways_is_refused_in_any_split(wire, data):
    reader, body = read(*data.draw(splits(wire)))

    assert (True, None, b"", False) == (reader.fault is not None, reader.head, body, reader.is_over)


@given(st.binary(max_size=60).map(lambda noise: noise.replace(b"H", b"")))
def test_a_fault_quotes_nothing(noise):
    reader, _ = read(b"secret", OK + b"X: " + noise)

    assert "secret" not in str(reader.fault)


@given(st.lists(st.binary(max_size=80), max_size=5))
def test_no_bytes_whatever_raise(pieces):
    read(OK, *pieces)


def test_one_reader_reads_one_answer_after_another():
    reader = AnswerReader()
    seen = []
    for number in range(3):
        reader.start(is_to_head=False)
        reader.feed(OK + b"X: %d\r\nContent-Length: 1\r\n\r\n%d" % (number, number))
        assert reader.head is not None
        seen.append((reader.head.get(b"x"), reader.pieces, reader.is_reusable))

    assert [(b"0", [b"0"], True), (b"1", [b"1"], True), (b"2", [b"2"], True)] == seen


@pytest.mark.parametrize("more", [OK + b"Content-Length: 2\r\n\r\n[]", b"H", b"x", b"garbage\r\n\r\n"])
@pytest.mark.parametrize("whole", [GOOD["a length"][0], GOOD["chunks"][0], GOOD["no content"][0]])
def test_bytes_behind_an_answer_are_no_part_of_it_and_end_the_connection(whole, more):
    alone, body = read(whole)
    reader, body_with_more = read(whole + more)

    assert reader.head is not None
    assert (body, True, False, None) == (body_with_more, reader.is_over, reader.is_reusable, reader.fault)
    assert alone.is_reusable


def test_an_answer_to_head_has_no_body_and_ends_the_connection():
    reader = AnswerReader()
    reader.start(is_to_head=True)
    reader.feed(OK + b"Content-Length: 5\r\n\r\n")

    assert (True, False, []) == (reader.is_over, reader.is_reusable, reader.pieces)


def test_a_body_without_a_length_goes_on_until_the_end():
    reader, body = read(OK + b"X: 1\r\n\r\nall", b" of", b" it")

    assert (b"all of it", False, True) == (body, reader.is_over, reader.ends_by_closing)


@pytest.mark.parametrize("framing", [b"Content-Length: 9\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_a_body_with_an_end_of_its_own_does_not_end_by_closing(framing):
    reader, _ = read(OK + framing + b"\r\n")

    assert (False, False) == (reader.is_over, reader.ends_by_closing)


@pytest.mark.parametrize("endless", [b"X-Late: 1\r\n", b"x"], ids=["trailers", "one trailer"])
def test_trailers_without_end_are_refused(endless):
    pieces = [endless * 1000] * (MAX_HEAD_BYTES // len(endless * 1000) + 2)
    reader, body = read(OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n", *pieces)

    assert (b"a", True, False) == (body, reader.fault is not None, reader.is_over)


def test_chunk_sizes_that_come_alone_are_no_fault():
    chunk = [b"1\r\n", b"a\r\n"] * (MAX_HEAD_BYTES // 2)
    reader, body = read(OK + b"Transfer-Encoding: chunked\r\n\r\n", *chunk)

    assert (MAX_HEAD_BYTES // 2, None) == (len(body), reader.fault)


def test_a_bad_chunk_spoils_nothing_that_came_before():
    reader, body = read(OK + b"Transfer-Encoding: chunked\r\n\r\n8\r\ndata: {}\r\nzz\r\n")

    assert (b"data: {}", True) == (body, reader.fault is not None)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"timeout=5", 5),
        (b"timeout=5, max=100", 5),
        (b'max=100,Timeout = "75"', 75),
        (b"max=5", None),
        (b"notimeout=5", None),
        (b"timeout=", None),
    ],
)
def test_an_upstream_may_say_how_long_it_keeps_a_connection(header, expected):
    reader, _ = read(OK + b"KEEP-alive: " + header + b"\r\nContent-Length: 0\r\n\r\n")

    assert reader.head is not None
    assert expected == reader.head.kept_s


def test_events_are_told_by_their_type():
    events, _ = read(OK + b"content-TYPE: text/event-stream; charset=utf-8\r\n\r\n")
    other, _ = read(OK + b"Content-Type: application/json\r\n\r\n")

    assert events.head is not None
    assert other.head is not None
    assert (True, False, b"application/json", None) == (
        events.head.is_events,
        other.head.is_events,
        other.head.get(b"content-type"),
        other.head.get(b"x"),
    )


def chunk(data: bytes, size: bytes = b"%x") -> bytes:
    return (size % len(data) if b"%" in size else size) + b"\r\n" + data + b"\r\n"


SIZES = {16**n + more for n in range(3) for more in range(-2, 3)} | {LONGEST_CHUNK - 7}


@pytest.mark.parametrize("size", sorted(SIZES - {-1, 0}))
def test_a_whole_chunk_is_known_by_its_size(size):
    for digits in (b"%x", b"%X"):
        data = chunk(b"x" * size, digits)
        at = framed(data)

        assert b"x" * size == data[at:-2]
        assert at == len(b"%x\r\n" % size)


@pytest.mark.parametrize("size", [LONGEST_CHUNK - 6, LONGEST_CHUNK, 1 << 20])
def test_a_long_chunk_is_for_the_parser(size):
    assert framed(chunk(b"x" * size)) == 0


def test_no_other_size_is_taken_for_that_of_a_whole_chunk():
    for length in range(600):
        lines = [line for size in range(length + 2) if len(line := b"%x\r\n" % size) + 2 <= length]
        taken = [line for line in lines if framed(line + b"x" * (length - len(line) - 2) + b"\r\n")]

        assert [line for line in lines if line != b"0\r\n" and len(line) + int(line, 16) + 2 == length] == taken


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n",
        b"0\r\n\r\n",
        b"00\r\n\r\n",
        b"-1\r\nxx\r\n",
        b"1\r\nxx\r\n",
        b"2\r\nxx\n\n",
        b"2\nxxx\r\n",
        b"02\r\nxx\r\n",
        b" 2\r\nxx\r\n",
        b"2 \r\nxx\r\n",
        b"2;x\r\nxx\r\n",
        b"0x2\r\nxx\r\n",
        chunk(b"x" * 0xAB, b"aB"),
        chunk(b"a") * 2,
        chunk(b"a") + b"0\r\n\r\n",
        chunk(b"a")[:-1],
    ],
)
def test_what_is_not_just_one_plain_chunk_is_for_the_parser(data):
    assert framed(data) == 0


@pytest.mark.parametrize(
    "first",
    [
        b"+2\r\nab\r\n",
        b"0x2\r\nab\r\n",
        b"0_2\r\nab\r\n",
        b"1_0\r\n" + b"x" * 16 + b"\r\n",
        b"02\r\nab\r\n",
        b" 2\r\nab\r\n",
        b"2 \r\nab\r\n",
        b"2\nab\r\n",
        b"2;a=b\r\nab\r\n",
        b"-2\r\nab\r\n",
        b"\r\nab\r\n",
        b"g\r\nab\r\n",
        b"2\r\r\nab\r\n",
        b"2\r\nabc\r\n",
        b"2\r\nab\n\n",
        b"2\r\nabxx",
        b"00001\r\na\r\n",
        b"10000\r\n" + b"x" * 0x10000 + b"\r\n",
        b"0\r\n\r\n",
        b"00\r\n\r\n",
    ],
)
@pytest.mark.parametrize("second", [chunk(b"ab"), b"0\r\n\r\n", b""])
def test_chunks_that_are_framed_in_another_way_are_for_the_parser(first, second):
    if (first, second) == (b"0\r\n\r\n", b""):
        assert unchunked(first) == ([], True)
    else:
        assert unchunked(first + second) is None
        assert unchunked(chunk(b"ab") + first + second) is None


def test_whole_chunks_are_told_with_what_ends_them():
    plain = [b"x" * size for size in (1, 0xA, 0xFF, 0x100, 0xFFF, 0x1000, 0xFFFF)]
    for digits in (b"%x", b"%X"):
        wire = b"".join(chunk(payload, digits) for payload in plain)

        assert unchunked(wire) == (plain, False)
        assert unchunked(wire + b"0\r\n\r\n") == (plain, True)
        assert unchunked(wire[:-1]) is None
        assert unchunked(wire + b"0\r\n\r\n0\r\n\r\n") is None
    assert unchunked(b"") == ([], False)
    assert unchunked(chunk(b"a") * MOST_CHUNKS) == ([b"a"] * MOST_CHUNKS, False)
    assert unchunked(chunk(b"a") * (MOST_CHUNKS + 2)) is None


TAKEN_FOR_CHUNKS = (
    b"5\r\nhello\r\n",
    b"hello\r\n" + b"x" * 14,
    b"a",
    b"\r\n",
    b"0\r\n\r\n",
    b"1\r\na\r\n0\r\n\r\n",
    b"x" * 300,
)
LAST = (
    b"0\r\n\r\n",
    b"00;a=b\r\n\r\n",
    b"0\r\nX-Late: 1\r\n\r\n",
    b"0\r\n5: x\r\n\r\n",
    b"zz\r\n",
    b"0\r\n\r\n1\r\na\r\n",
    b"",
)
SIZES = (b"%x", b"%X", b"0%x", b"%x;q=1", b"%x ", b'%x;q="5"')


@given(data=st.data())
def test_chunks_that_are_not_fed_are_read_as_those_that_are(data):
    chunks = [
        chunk(payload, data.draw(st.sampled_from((b"%x", *SIZES))))
        for payload in data.draw(st.lists(st.sampled_from(TAKEN_FOR_CHUNKS), max_size=6))
    ]
    last = data.draw(st.sampled_from(LAST))
    wire = b"".join([OK, b"Transfer-Encoding: chunked\r\n\r\n", *chunks, last])
    bounds = [len(wire) - len(last) - sum(map(len, chunks[at:])) for at in range(len(chunks) + 1)]
    near = st.builds(lambda bound, by: min(max(bound + by, 0), len(wire)), st.sampled_from(bounds), st.integers(-4, 12))
    cuts = sorted(data.draw(st.sets(st.one_of(st.sampled_from(bounds), near), max_size=16)))
    reads = [wire[start:end] for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True) if start < end]
    by_parser, body = read(*reads)
    reader, skimmed_body, _ = skimmed(*reads)
    without, its_body, _ = connected(*reads)

    assert (body, state(by_parser)) == (skimmed_body, state(reader))
    assert (body, state(by_parser)) == (its_body, state(without))

    if without.is_reusable:  # whatever read it is ready for the next, on either way
        for _ in range(2):
            without.start(is_to_head=False)
            _, its_body, _ = connected(OK + b"Transfer-Encoding: chunked\r\n\r\n", *chunks, LAST[0], reader=without)
            _, body = read(OK + b"Transfer-Encoding: chunked\r\n\r\n", *chunks, LAST[0])

            assert (body, (True, True, None)) == (its_body, state(without))


@pytest.mark.parametrize(
    ("reads", "fed"),
    [
        ([STREAM + b"1\r\na\r\n", b"1\r\nb\r\n", b"0\r\n\r\n"], 0),
        ([STREAM, b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n"], 0),
        ([STREAM + b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n"], 0),
        ([STREAM + b"1\r\na", b"\r\n", b"1\r\nb\r\n", b"0\r\n\r\n"], 3),
        ([STREAM + b"1\r\na\r\n", b"1;x\r\nb\r\n", b"0\r\n\r\n"], 2),
        ([STREAM, b"1\r\na\r\n", b"1\r\nb\r\n0\r\n", b"\r\n"], 2),
    ],
)
def test_a_stream_is_read_without_the_parser_until_something_unusual_comes(reads: list[bytes], fed: int) -> None:
    reader, body, times = connected(*reads)

    assert (b"ab", (True, True, None), fed) == (body, state(reader), times)
    assert reader.head is not None
    assert [(b"transfer-encoding", b"chunked")] == reader.head.headers


@pytest.mark.parametrize("late", [b"x", b"HTTP/1.1 200 OK\r\n", b"\r\n", b"0\r\n\r\n"])
def test_what_comes_behind_a_stream_spoils_the_connection(late: bytes) -> None:
    behind, _, _ = connected(STREAM, b"1\r\na\r\n0\r\n\r\n" + late)
    by_parser, _ = read(STREAM, b"1\r\na\r\n0\r\n\r\n" + late)
    after, _, _ = connected(STREAM, b"1\r\na\r\n0\r\n\r\n")
    after.feed(late)

    assert state(by_parser) == state(behind)
    assert after.is_over
    assert after.is_reusable is (late == b"\r\n")  # an empty line before an answer is allowed for


def test_a_chunk_within_a_chunk_is_none_wherever_the_reads_end():
    head, wire = (
        OK + b"Transfer-Encoding: chunked\r\n\r\n",
        chunk(b"a") + chunk(b"hello\r\n" + b"x" * 14) + b"0\r\n\r\n",
    )
    for cuts in combinations(range(len(wire) + 1), 3):
        reads = [wire[start:end] for start, end in zip((0, *cuts), (*cuts, len(wire)), strict=True) if start < end]
        reader, body, _ = skimmed(head, *reads)
        without, its_body, _ = connected(head, *reads)

        assert (body, state(reader)) == (its_body, state(without)), reads
        assert (b"ahello\r\n" + b"x" * 14, (True, True, None)) == (body, state(reader)), reads


@pytest.mark.parametrize(
    "reads",
    [
        [b"1\r\na\r\n", b"1", b"5\r\nhello\r\n"],
        [b"1\r\na\r\n1", b"5\r\nhello\r\n"],
        [b"1\r\na", b"\r\n1", b"5\r\nhello\r\n"],
        [b"1\r\na\r", b"\n1", b"5\r\nhello\r\n"],
        [b"1\r\na\r\n", b"15;q=", b"5\r\nhello\r\n"],
        [b"1\r\na\r\n", b"15\r\n", b"5\r\nhello\r\n"],
        [b"1\r\na\r\n", b"0\r\n", b"5\r\nhello\r\n"],
        [b"1\r\na\r\n0\r\n", b"5\r\nhello\r\n"],
        [b"1\r\na\r\n0\r\nX-Late: 1\r\n", b"5\r\nhello\r\n"],
        [b"5\r\nhello\r\n"],
    ],
)
def test_what_only_looks_like_a_chunk_is_fed(reads):
    """A size of which a part came before, a chunk within a chunk, trailers, and what comes before any chunk."""
    reads = [OK + b"Transfer-Encoding: chunked\r\n\r\n", *reads]
    by_parser, body = read(*reads)
    reader, skimmed_body, unfed = skimmed(*reads)

    assert (body, state(by_parser), 0) == (skimmed_body, state(reader), unfed)


def test_chunks_that_come_one_by_one_are_not_fed():
    reader, body, unfed = skimmed(
        OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
        *(chunk(b"b"), chunk(b"c")[:2], chunk(b"c")[2:], chunk(b"d"), chunk(b"e") * 2, chunk(b"f"), b"0\r\n\r\n"),
    )

    assert (b"abcdeef", 3, (True, True, None)) == (body, unfed, state(reader))


def test_a_new_answer_begins_with_nothing_left_of_the_last():
    reader, _, _ = skimmed(OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(b"a"), chunk(b"b"), b"0\r\n\r\n")
    reader.start(is_to_head=False)
    reader.feed(OK + b"Content-Length: 6\r\n\r\n")

    assert not reader.is_between
    reader.feed(chunk(b"c"))
    assert ([chunk(b"c")], (True, True, None)) == (reader.pieces, state(reader))
