"""Answers that one read brings whole and that are read without the parser: it would have read them alike."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from predawn.proxy.fastlane.answer_head import opening_of_stream
from predawn.proxy.upstreams import answer_head, header_line
from predawn.proxy.upstreams.answer import LONGEST_HEAD, PATIENCE, AnswerReader
from predawn.proxy.wire.client_lines import for_client

OK = b"HTTP/1.1 200 OK\r\n"
PLAIN = OK + b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"


READS = 5
"""With these its lines are known, its head or shape is kept, used, and has a pattern, which is used."""


@pytest.fixture(autouse=True)
def nothing_is_known(monkeypatch):
    monkeypatch.setattr(answer_head, "WORTH_A_PATTERN", 2)
    header_line.known.clear()
    answer_head.kept.clear()
    answer_head.shapes.clear()


def by_parser(data):
    reader = AnswerReader()
    reader.feed(data)
    return reader


def seen(reader):
    """All that a reader tells of an answer; whether a chunk may follow, only once there was one."""
    assert reader.head is not None
    lines, says = reader.head.for_client or for_client(reader.head.headers)
    head = (
        reader.head.status,
        reader.head.headers,
        b"".join(lines),
        says & ~(header_line.HAS_LENGTH | header_line.IS_CHUNKED),
    )
    is_between = reader.is_between and bool(reader.pieces)
    return *head, b"".join(reader.pieces), reader.is_over, reader.is_reusable, is_between, reader.fault


def is_read_as_by_the_parser(data, reader=None):
    """Whether it is read without the parser, which then agrees, at each of `READS` times."""
    reader = reader or AnswerReader()
    for _ in range(READS):
        reader.start(is_to_head=False)
        if not reader.read_first(data):
            assert (None, [], False, False) == (reader.head, reader.pieces, reader.is_over, reader.is_reusable)
            return False
        assert seen(by_parser(data)) == seen(reader)
    return True


LINES = [
    b"Content-Type: application/json",
    b"content-type:text/event-stream; charset=utf-8",
    b"x-request-id: 0123456789abcdef",
    b"X-REQUEST-ID: abc \t",
    b"openai-processing-ms: 12",
    b"x-predawn-upstream: liar",
    b"Date: Sun, 22 Nov 2026 21:31:05 GMT",
    b"Server: uvicorn",
    b"Set-Cookie: a=b; Path=/",
    b"Connection: keep-alive",
    b"connection: Keep-Alive\t",
    b"Keep-Alive: timeout=5",
    b"Content-Encoding: gzip",
    b"content-encoding: IDENTITY",
    b"X: ",
    b"X:",
    b"X:\t \t",
    b"X: \xc3\xa9 \x80\xff",
    b'X: :"a, b":',
    b"!#$%&'*+-.^_`|~09: all of a token",
    b"TE: trailers",
    b"Content-Lengt: 5",
    b"Content-Length-: 5",
]
"""Read without the parser, one of each name."""
ODD_LINES = [
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: identity",
    b"transfer-encoding:",
    b"Connection: close",
    b"Connection: keep-alive, close",
    b"Connection: keep-alive, X",
    b"Connection:",
    b"Connection: keep-aliv",
    b"Connection: upgrade",
    b"Proxy-Connection: close",
    b"proxy-connection: keep-alive",
    b"Upgrade: h2c",
    b"Trailer: X",
    b"Content-Length: 2",
    b"content-length: 0",
    b"Content-Length: 3",
    b"X : a",
    b"X\t: a",
    b" X: a",
    b"\tfolded",
    b" folded: b",
    b"",
    b": a",
    b":",
    b"X",
    b"X\x80: a",
    b"X(: a",
    b"X: a\0b",
    b"X: a\x7fb",
    b"X: a\x01b",
    b"X: a\nY: b",
    b"X: a\rY: b",
    b"X: a\n b",
    b"X: a\r",
    b"X: a\n",
    b"\nX: a",
]
"""Never read without the parser; most of them are faults."""
LENGTHS = [b"Content-Length: %d", b"content-length:%d", b"CONTENT-LENGTH:\t %d \t"]
ODD_LENGTHS = [
    b"Content-Length: +%d",
    b"Content-Length: -%d",
    b"Content-Length: 0%d",
    b"Content-Length: %d0",
    b"Content-Length: %d, %d",
    b"Content-Length: %d %d",
    b"Content-Length: 0x%d",
    b"Content-Length: %d.0",
    b"Content-Length: %d;",
    b"Content-Length : %d",
    b"Content-Length: _%d",
    b"Content-Length: \xb2%d",
    b"Content-Length: 1%022d",
    b"Content-Length:",
]
STATUSES = [b"HTTP/1.1 200 OK", b"HTTP/1.1 404 Not Found", b"HTTP/1.1 599 ", b"HTTP/1.1 205 Reset Content"]
ODD_STATUSES = [
    b"HTTP/1.1 200",
    b"HTTP/1.1 204 No Content",
    b"HTTP/1.1 304 Not Modified",
    b"HTTP/1.1 100 Continue",
    b"HTTP/1.1 101 Switching Protocols",
    b"HTTP/1.1 099 What",
    b"HTTP/1.1 600 What",
    b"HTTP/1.1 2000 OK",
    b"HTTP/1.1 20 OK",
    b"HTTP/1.1  200 OK",
    b"HTTP/1.1 +20 OK",
    b"HTTP/1.1 200\tOK",
    b"HTTP/1.1 200 OK\0",
    b"HTTP/1.1 200 O\nK",
    b"HTTP/1.1 200 OK\r",
    b"HTTP/1.0 200 OK",
    b"HTTP/1.2 200 OK",
    b"HTTP/2.0 200 OK",
    b"http/1.1 200 OK",
    b" HTTP/1.1 200 OK",
    b"\r\nHTTP/1.1 200 OK",
    b"ICY 200 OK",
    b"",
]


def answer(status, lines, length, body, at=0):
    told = length.replace(b"%d", b"%d" % len(body))
    return b"\r\n".join([status, *lines[:at], told, *lines[at:]]) + b"\r\n\r\n" + body


@pytest.mark.parametrize("line", LINES)
def test_a_plain_line_is_read_without_the_parser(line):
    assert is_read_as_by_the_parser(answer(STATUSES[0], [line], LENGTHS[0], b"{}"))


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("status", STATUSES)
def test_a_plain_answer_is_read_without_the_parser(status, length):
    assert is_read_as_by_the_parser(answer(status, [], length, b"{}"))


@pytest.mark.parametrize("at", [0, 1])
@pytest.mark.parametrize("line", ODD_LINES)
def test_a_line_that_frames_or_could_be_read_in_two_ways_is_for_the_parser(line, at):
    assert not is_read_as_by_the_parser(answer(STATUSES[0], [line], LENGTHS[0], b"{}", at))


@pytest.mark.parametrize("length", ODD_LENGTHS)
def test_a_length_in_no_plain_digits_is_for_the_parser(length):
    assert not is_read_as_by_the_parser(answer(STATUSES[0], [], length, b"{}"))


@pytest.mark.parametrize("status", ODD_STATUSES)
def test_another_status_line_is_for_the_parser(status):
    assert not is_read_as_by_the_parser(answer(status, [], LENGTHS[0], b"{}"))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n\r\n",
        b"{}",
        OK,
        OK + b"\r\n{}",
        PLAIN[:-1],
        PLAIN + b"\n",
        PLAIN + b"H",
        PLAIN + PLAIN,
        OK + b"Content-Length: 0\r\n\r\n",
        OK + b"Content-Type: a\r\nContent-Type: b\r\nContent-Length: 2\r\n\r\n{}",
        PLAIN.replace(b"\r\n", b"\n"),
        PLAIN.replace(b"\r\n\r\n", b"\n\n"),
        PLAIN.replace(b"\r\n\r\n", b"\r\n\n"),
        OK + b"X: " + b"x" * LONGEST_HEAD + b"\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 100 Continue\r\n\r\n" + PLAIN,
        CHUNKED[:-1],
        CHUNKED + b"\r\n",
        CHUNKED.replace(b"chunked", b"chunked\t"),
        CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Length: 2\r\n\r\n", 1),
        CHUNKED.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n", 1),
        CHUNKED.replace(b"0\r\n\r\n", b"0\r\nX: a\r\n\r\n"),
    ],
)
def test_what_is_not_just_one_whole_answer_is_for_the_parser(data):
    assert not is_read_as_by_the_parser(data)


@pytest.mark.parametrize(
    "line", [b"Transfer-Encoding: chunked", b"transfer-encoding:CHUNKED", b"transfer-encoding:  chunked "]
)
@pytest.mark.parametrize("body", [b"2\r\n{}\r\n0\r\n\r\n", b"0\r\n\r\n", b"1\r\n{\r\n1\r\n}\r\n", b""])
def test_whole_chunks_are_read_without_the_parser(line, body):
    assert is_read_as_by_the_parser(OK + line + b"\r\n\r\n" + body)


def test_only_what_comes_first_is_read_without_the_parser():
    begun, over, to_head = AnswerReader(), AnswerReader(), AnswerReader()
    begun.feed(b"HTTP/1.1 103 Early Hints\r\n\r\n")
    assert over.read_first(PLAIN)
    to_head.start(is_to_head=True)

    assert [False] * 3 == [reader.read_first(PLAIN) for reader in (begun, over, to_head)]


WAYS = ("whole", "fed", "split", "chunked")


@given(st.lists(st.sampled_from(WAYS), min_size=2, max_size=6))
@example(["fed", "whole", "fed", "whole"])
def test_a_parser_that_did_not_see_an_answer_is_ready_for_the_next(ways):
    reader = AnswerReader()
    for way in ways:
        reader.start(is_to_head=False)
        data = CHUNKED if way == "chunked" else PLAIN
        if way == "whole":
            assert reader.read_first(data)
        else:
            at = 30 if way == "split" else 0
            reader.feed(data[:at])
            reader.feed(data[at:])

        assert seen(by_parser(data)) == seen(reader)


def test_a_connection_whose_heads_are_new_each_time_is_left_to_the_parser():
    few, many = AnswerReader(), AnswerReader()
    wholes = []
    for number in range(PATIENCE + 4):
        few.start(is_to_head=False)
        many.start(is_to_head=False)
        one, other = b"x: %d" % number, b"y: %d" % number
        first = few.read_first(answer(STATUSES[0], [one], LENGTHS[0], b"{}"))
        wholes.append((first, many.read_first(answer(STATUSES[0], [b"Z" + one, other], LENGTHS[0], b"{}"))))

    assert [(True, True)] * PATIENCE + [(True, False)] * 4 == wholes


def test_a_connection_whose_answers_come_in_parts_is_left_to_the_parser():
    reader = AnswerReader()
    wholes = []
    for data in [PLAIN[:-1]] * PATIENCE + [PLAIN]:
        reader.start(is_to_head=False)
        wholes.append(reader.read_first(data))

    assert [False] * (PATIENCE + 1) == wholes


def test_answers_that_are_not_worth_it_now_and_then_do_not_wear_out_patience():
    reader = AnswerReader()
    wholes = []
    for number in range(4 * PATIENCE):
        news = [b"x: %d" % number, b"y: %d" % number] if number % 2 else []
        reader.start(is_to_head=False)
        wholes.append(reader.read_first(answer(STATUSES[0], news, LENGTHS[0], b"{}")))

    assert [True] * 4 * PATIENCE == wholes


def test_bytes_behind_a_whole_answer_end_the_connection():
    reader = AnswerReader()
    assert reader.read_first(PLAIN)
    reader.feed(b"H")

    assert (True, False) == (reader.is_over, reader.is_reusable)


def mutated(data):
    """The same with a few bytes put in, taken out or exchanged, mostly such as mean something."""
    pieces = st.sampled_from([b"\r\n", b"\r", b"\n", b" ", b"\t", b":", b"\0", b",", b"0", b"1", b"+", b"X", b"\x80"])
    change = st.tuples(st.integers(0, len(data)), st.integers(0, 2), st.one_of(pieces, st.binary(max_size=2)))

    def change_all(changes):
        made = data
        for at, drop, put in changes:
            made = made[:at] + put + made[at + drop :]
        return made

    return st.lists(change, max_size=3).map(change_all)


@given(data=st.data())
def test_no_answer_is_read_otherwise_than_by_the_parser(data):
    lines = data.draw(st.lists(st.sampled_from(LINES * 3 + ODD_LINES), max_size=5))
    length = data.draw(st.sampled_from(LENGTHS * 12 + ODD_LENGTHS + [b"Transfer-Encoding: chunked"] * 24))
    body = data.draw(st.sampled_from([b"{}", b"", b"{}\n", b"\r\n\r\n", b"\xff" * 20, b"2\r\n{}\r\n0\r\n\r\n"]))
    at = data.draw(st.integers(0, 5))
    whole = answer(data.draw(st.sampled_from(STATUSES * 12 + ODD_STATUSES)), lines, length, body, at)
    reader = AnswerReader()
    if data.draw(st.booleans()):  # it expects another like it
        is_read_as_by_the_parser(whole, reader)

    is_read_as_by_the_parser(data.draw(mutated(whole)), reader)


def test_lines_that_never_come_again_are_not_kept_for_ever():
    for number in range(2000):
        lines = [b"x: %d" % number]
        assert AnswerReader().read_first(answer(STATUSES[0] + b" %d" % number, lines, LENGTHS[0], b"{}"))

    assert 0 < len(header_line.known) <= header_line.MOST_KEPT
    assert 0 < len(header_line._statuses) <= header_line.MOST_KEPT
    assert AnswerReader().read_first(answer(STATUSES[0], [b"x: " + b"x" * 1000], LENGTHS[0], b"{}"))
    assert max(map(len, header_line.known)) <= header_line.LONGEST_KEPT


def test_only_heads_whose_lines_have_all_come_before_are_kept():
    kept = []
    for number in (0, 0, 1, 2, 0):
        head = answer(STATUSES[0], [LINES[1], b"Age: %d" % number], b"Transfer-Encoding: chunked", b"")
        assert AnswerReader().read_first(head)
        kept.append(head.partition(b"\r\n\r\n")[0] in answer_head.kept)

    assert [False, True, False, False, True] == kept


def test_heads_that_are_kept_are_not_kept_for_ever():
    for number in [*range(2 * answer_head.MOST_KEPT)] * 2:
        assert AnswerReader().read_first(answer(STATUSES[0], [b"x: %d" % number], b"Transfer-Encoding: chunked", b""))
    for _ in range(3):
        assert AnswerReader().read_first(PLAIN)

    assert not any(b"Length" in block for block in answer_head.kept)
    assert 0 < len(answer_head.kept) <= answer_head.MOST_KEPT


@pytest.mark.parametrize("rest", [b"", b"\r\n", b"\n\n{}", b"\r\n{}"])
def test_a_head_that_is_kept_is_known_only_whole(rest):
    assert is_read_as_by_the_parser(CHUNKED)
    block = CHUNKED.partition(b"\r\n\r\n")[0]
    assert block in answer_head.kept

    assert not AnswerReader().read_first(block + rest)


def test_what_a_stream_opens_with_is_kept_with_its_head():
    heads = []
    for _ in range(4):
        reader = AnswerReader()
        assert reader.read_first(OK + b"\r\n".join([LINES[4], LINES[1], b"Transfer-Encoding: chunked"]) + b"\r\n\r\n")
        assert reader.head is not None
        assert reader.head.for_client is not None
        opening = reader.head.opening or opening_of_stream(reader.head, reader.head.for_client[0])
        heads.append((reader.head, opening))

    assert len({opening for _, opening in heads}) == 1
    assert heads[-1][0] is heads[-2][0] is not heads[0][0]
    assert heads[-1][0].opening == heads[0][1]
    assert heads[0][1].startswith(OK + LINES[4] + b"\r\n")
    assert heads[0][1].lower().count(b"content-type:") == 1


@pytest.mark.parametrize("at", range(4))
def test_of_heads_with_an_id_of_their_own_the_rest_is_kept(at):
    others = [LINES[1], LINES[4], b"Transfer-Encoding: chunked"]
    openings = []
    for number in range(6):
        lines = [*others[:at], b"X-Request-ID: %d" % number, *others[at:]]
        data = OK + b"\r\n".join(lines) + b"\r\n\r\n2\r\n{}\r\n"
        assert is_read_as_by_the_parser(data)
        reader = AnswerReader()
        assert reader.read_first(data)
        assert reader.head is not None
        assert reader.head.shape in answer_head.shapes.values()
        lines, _ = reader.head.for_client
        reader.head.shape, shape = None, reader.head.shape
        expected = opening_of_stream(reader.head, lines)
        reader.head.shape = shape
        openings.append(
            (opening_of_stream(reader.head, lines), expected, b"\r\nx-upstream-request-id: %d\r\n" % number)
        )

    assert all(opening == expected and line in opening for opening, expected, line in openings)
    assert len(answer_head.shapes) == 1
    assert not answer_head.kept
    assert not any(b"request" in line.lower() for line in header_line.known)


@pytest.mark.parametrize(
    "lines",
    [
        [b"x-request-id: 1", b"x-request-id: 2"],
        [b"X-Request-ID: 1", b"Date: now", b"x-request-id: 1"],
        [b"x-request-id: a\tb"],
        [b"x-request-id:  1"],
        [b"x-request-id: 1 "],
        [b"x-request-id:"],
        [b"x-request-id : 1"],
        [b"x-a: 1", b" x-request-id: 1"],
        [b"x-request-id: 1", b" 2"],
        [b"x-request-id: 1\n"],
        [b"x-request-id: 1\x7f"],
        [b"x-request-id: \xe9"],
    ],
)
def test_an_odd_id_is_read_as_by_the_parser(lines):
    is_read_as_by_the_parser(answer(STATUSES[0], lines, b"Transfer-Encoding: chunked", b"2\r\n{}\r\n"))

    assert not answer_head.shapes


def test_a_shape_is_read_by_a_pattern_where_it_comes_again():
    reader = AnswerReader()
    heads = []
    for number in range(READS + 2):
        reader.start(is_to_head=False)
        lines = [b"Date: it is %d" % number, LINES[1], b"x-request-id: %d" % number]
        data = answer(STATUSES[0], lines, LENGTHS[0], b"{%*b}" % (number, b""), at=2)
        assert reader.read_first(data)
        assert seen(by_parser(data)) == seen(reader)
        heads.append(reader.head)
    (shape,) = answer_head.shapes.values()

    assert [head.shape for head in heads] == [None, None, *[shape] * READS]
    block = data.partition(b"\r\n\r\n")[0]
    assert shape.read(block) is not None
    assert shape.read(block + b"\r\nX: a") is None


@pytest.fixture
def expecting():
    """Makes a reader that expects another answer of the same shape as this one."""

    def make(whole):
        reader = AnswerReader()
        assert is_read_as_by_the_parser(whole, reader)
        (shape,) = answer_head.shapes.values()
        assert shape.read(whole.partition(b"\r\n\r\n")[0]) is not None
        assert reader.head is not None
        assert reader.head.shape is shape
        return reader

    return make


@pytest.mark.parametrize("expects", [True, False])
@pytest.mark.parametrize("length", ODD_LENGTHS)
def test_a_length_in_no_plain_digits_is_for_the_parser_where_the_shape_is_known(expecting, length, expects):
    lines = [b"x-request-id: 1"]
    reader = expecting(answer(STATUSES[0], lines, LENGTHS[0], b"{}"))

    assert not is_read_as_by_the_parser(
        answer(STATUSES[0], lines, length, b"{}"), reader if expects else AnswerReader()
    )


@pytest.mark.parametrize("other", [b"X: axb*c?[d]", b"X: a.bbc?[d]", b"X: a.b*[d]", b"X: a.b*c?d", b"x: a.b*c?[d]"])
def test_only_its_own_lines_differ_in_a_shape(expecting, other):
    own = b"x-request-id: 1"
    reader = expecting(answer(STATUSES[0], [own, b"X: a.b*c?[d]"], LENGTHS[0], b"{}"))

    assert is_read_as_by_the_parser(answer(STATUSES[0], [own, other], LENGTHS[0], b"{}"), reader)


def test_heads_of_one_shape_do_not_share_what_is_their_own(expecting):
    expecting(answer(STATUSES[0], [b"Date: now", b"x-request-id: 0"], LENGTHS[0], b"{}"))
    readers = [AnswerReader() for _ in range(3)]
    for number, reader in enumerate(readers):
        lines = [b"Date: at %d" % number, b"x-request-id: %d" % number]
        assert reader.read_first(answer(STATUSES[0], lines, LENGTHS[0], b"{}"))

    heads = [reader.head for reader in readers]
    assert [head.for_client[0][-1] for head in heads] == [b"x-upstream-request-id: %d\r\n" % n for n in range(3)]
    assert [head.get(b"date") for head in heads] == [b"at 0", b"at 1", b"at 2"]


def test_a_reader_asks_the_shape_it_expects_first(expecting, monkeypatch):
    whole = answer(STATUSES[0], [b"x-request-id: 1"], LENGTHS[0], b"{}")
    reader = expecting(whole)
    monkeypatch.setattr("predawn.proxy.upstreams.answer.read_head", lambda _: pytest.fail("it looked further"))
    reader.start(is_to_head=False)

    assert reader.read_first(whole)


@pytest.mark.parametrize("own", [[], [b"Date: now"], [b"x-request-id: 50%s"], [b"x-request-id: 1", b"Date: now"]])
def test_a_stream_opens_with_all_its_lines_whatever_is_in_them(own):
    heads = []
    for _ in range(READS):
        reader = AnswerReader()
        lines = [LINES[1], *own, b"Via: 50% of %s", b"Cache-Control: private"]
        assert reader.read_first(answer(STATUSES[0], lines, b"Transfer-Encoding: chunked", b"", at=1))
        heads.append(reader.head)
    first, *others = [opening_of_stream(head, head.for_client[0]) for head in heads]

    assert b"\r\nVia: 50% of %s\r\n" in first
    assert {first} == set(others)
    assert (heads[-1].shape is None) == (not own)


def test_a_shape_that_came_seldom_has_no_pattern():
    head = answer(STATUSES[0], [b"x-request-id: 1"], b"Transfer-Encoding: chunked", b"")
    for _ in range(3):
        assert AnswerReader().read_first(head)
    (shape,) = answer_head.shapes.values()

    assert shape.read(head.partition(b"\r\n\r\n")[0]) is None


def test_shapes_are_not_kept_for_ever():
    for number in [*range(2 * answer_head.MOST_KEPT)] * 2:
        lines = [b"x: %d" % number, b"x-request-id: %d" % number]
        assert AnswerReader().read_first(answer(STATUSES[0], lines, b"Transfer-Encoding: chunked", b""))
        assert AnswerReader().read_first(answer(STATUSES[0], lines, LENGTHS[0], b"{}"))

    assert 0 < len(answer_head.shapes) <= answer_head.MOST_KEPT


def test_what_a_stream_opens_with_tells_its_own_status():
    openings = []
    for status in (b"HTTP/1.1 200 OK", b"HTTP/1.1 201 Created") * 2:
        reader = AnswerReader()
        assert reader.read_first(answer(status, [LINES[1]], b"Transfer-Encoding: chunked", b""))
        assert reader.head is not None
        openings.append(reader.head.opening or opening_of_stream(reader.head, [b"X: a\r\n"]))

    assert [b"HTTP/1.1 200 OK", b"HTTP/1.1 201 Created"] * 2 == [line.partition(b"\r\n")[0] for line in openings]


def test_the_lines_for_the_client_say_once_what_the_relay_must_know():
    headers = [(b"Content-Type", b"text/event-stream"), (b"content-type", b"a"), (b"Connection", b"X")]

    assert ([b"Content-Type: text/event-stream\r\n", b"content-type: a\r\n"], 5) == for_client(headers)
