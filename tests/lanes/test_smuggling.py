"""Heads and bodies of which two readers could make different requests: refused by both lanes, and never passed on."""

from __future__ import annotations

import pytest
from tests.acceptance.bare import chat, post
from tests.lanes.lane import Lanes
from tests.lanes.plays import WHOLE
from tests.lanes.seen import Seen
from tests.lanes.thinning import thinned

pytestmark = pytest.mark.asyncio(loop_scope="module")
CHAT = "/v1/chat/completions"
HIDDEN = post(chat(user="smuggled"))
CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(chat()), chat())


def head(*lines: bytes, line: bytes = b"POST /v1/chat/completions HTTP/1.1", end: bytes = b"\r\n") -> bytes:
    return end.join([line, b"Host: localhost", *lines]) + end * 2


def nothing_hidden(seen: Seen) -> bool:
    """True if no provider was asked what was hidden in another request, nor anything that is no request."""
    return not seen.junk and not any(b"smuggled" in asked.body for asked in seen.received)


N = b"%d" % len(chat())
LENGTHS: dict[str, list[bytes]] = {
    "two lengths": [b"Content-Length: " + N, b"Content-Length: 4"],
    "two lengths, the other way": [b"Content-Length: 4", b"Content-Length: " + N],
    "the same length twice": [b"Content-Length: " + N, b"Content-Length: " + N],
    "two lengths in odd case": [b"Content-Length: " + N, b"cOnTeNt-lEnGtH: 4"],
    "a list": [b"Content-Length: 5, 5"],
    "a list of others": [b"Content-Length: " + N + b", 4"],
    "signed": [b"Content-Length: +" + N],
    "negative": [b"Content-Length: -" + N],
    "negative nought": [b"Content-Length: -0"],
    "hex": [b"Content-Length: 0x42"],
    "an underscore": [b"Content-Length: 1_0"],
    "a point": [b"Content-Length: 66.0"],
    "a semicolon": [b"Content-Length: " + N + b";"],
    "a space in it": [b"Content-Length: 6 6"],
    "empty": [b"Content-Length:"],
    "a space": [b"Content-Length: "],
    "a word": [b"Content-Length: many"],
    "quotes": [b'Content-Length: "66"'],
    "arabic digits": ["Content-Length: ٦٦".encode()],
    "huge": [b"Content-Length: 18446744073709551682"],
    "huger": [b"Content-Length: " + b"9" * 100],
    "length and chunks": [b"Content-Length: " + N, b"Transfer-Encoding: chunked"],
    "chunks and length": [b"Transfer-Encoding: chunked", b"Content-Length: " + N],
    "length and identity": [b"Content-Length: " + N, b"Transfer-Encoding: identity"],
    "length and an empty coding": [b"Content-Length: " + N, b"Transfer-Encoding:"],
    "an empty coding": [b"Transfer-Encoding:"],
    "a coding that is none": [b"Transfer-Encoding: xchunked"],
    "a coding with a letter more": [b"Transfer-Encoding: chunkedx"],
    "not last": [b"Transfer-Encoding: chunked, identity"],
    "gzip first": [b"Transfer-Encoding: gzip, chunked"],
    "two codings": [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
    "two codings in one": [b"Transfer-Encoding: chunked, chunked"],
    "identity": [b"Transfer-Encoding: identity"],
    "chunked and another": [b"Transfer-Encoding: chunked", b"Transfer-Encoding: cow"],
    "quoted": [b'Transfer-Encoding: "chunked"'],
    "with a parameter": [b"Transfer-Encoding: chunked;a=b"],
    "vertical tab": [b"Transfer-Encoding:\x0bchunked"],
    "form feed": [b"Transfer-Encoding: \x0cchunked"],
    "a nul behind": [b"Transfer-Encoding: chunked\x00"],
    "no-break space": [b"Transfer-Encoding:\xa0chunked"],
    "space before the colon": [b"Transfer-Encoding : chunked"],
    "tab before the colon": [b"Transfer-Encoding\t: chunked"],
    "length with a space before the colon": [b"Content-Length : " + N],
    "length with a tab before the colon": [b"Content-Length\t: " + N],
    "folded": [b"Transfer-Encoding:\r\n chunked"],
    "folded by a tab": [b"Transfer-Encoding:\r\n\tchunked"],
    "folded length": [b"Content-Length:\r\n " + N],
    "folded onto another": [b"X-A: b\r\n Transfer-Encoding: chunked", b"Content-Length: " + N],
    "folded first": [b" Transfer-Encoding: chunked", b"Content-Length: " + N],
    "a lone cr": [b"X-A: b\rTransfer-Encoding: chunked", b"Content-Length: " + N],
    "a lone lf": [b"X-A: b\nTransfer-Encoding: chunked", b"Content-Length: " + N],
    "a lone lf before a length": [b"Content-Length: 4\nContent-Length: " + N],
    "two crs": [b"X-A: b\r\r\nTransfer-Encoding: chunked", b"Content-Length: " + N],
    "a nul in a value": [b"X-A: a\x00b", b"Content-Length: " + N],
    "a nul in a name": [b"X-\x00A: b", b"Content-Length: " + N],
    "a bell in a value": [b"X-A: a\x07b", b"Content-Length: " + N],
    "del in a value": [b"X-A: a\x7fb", b"Content-Length: " + N],
    "no colon": [b"X-A", b"Content-Length: " + N],
    "no name": [b": b", b"Content-Length: " + N],
    "a space in a name": [b"X A: b", b"Content-Length: " + N],
    "a bracket in a name": [b"X(A): b", b"Content-Length: " + N],
    "8 bits in a name": [b"X-\xe4: b", b"Content-Length: " + N],
    "a utf-8 name like it": ["Transfer‐Encoding: chunked".encode(), b"Content-Length: " + N],
    "an underscore in the name": [b"Transfer_Encoding: chunked", b"Content-Length: " + N],
    "a dotless i": ["Content-Length: 4".replace("L", "ʟ").encode(), b"Content-Length: " + N],
    "a line of 9 KiB": [b"X-A: " + b"a" * 9000, b"Content-Length: " + N],
    "a name of 9 KiB": [b"X" * 9000 + b": a", b"Content-Length: " + N],
    "70 KiB of lines": [*[b"X-%d: " % number + b"a" * 1000 for number in range(70)], b"Content-Length: " + N],
    "200 lines": [*[b"X-%d: a" % number for number in range(200)], b"Content-Length: " + N],
    "empty lines before the length": [b"", b"Content-Length: " + N],
}  # fmt: skip
HARMLESS = {
    "the same length twice", "an underscore in the name", "8 bits in a name", "length and identity", "identity", "gzip first",
    "a line of 9 KiB", "a name of 9 KiB", "70 KiB of lines", "200 lines", "empty lines before the length", "del in a value", "with a parameter", "two codings in one", "empty", "a space",
}  # fmt: skip
"""What may be answered otherwise than by 400, as long as both lanes do the same."""


BODIES = {"sized": chat() + HIDDEN, "chunks": CHUNKS + HIDDEN, "no chunks": b"0\r\n\r\n" + HIDDEN, "bare": HIDDEN}


@pytest.mark.parametrize(("name", "kind"), thinned([*LENGTHS], [*BODIES]))
async def test_no_request_hides_in_another(name: str, kind: str, both: Lanes) -> None:
    lines, body = LENGTHS[name], BODIES[kind]
    sent = head(*lines) + body
    seen = await both.say(sent)
    behind = await both.say(post(chat()) + sent)
    apart = await both.say(post(chat()), head(*lines), body)

    assert behind.answers[0].body == apart.answers[0].body == WHOLE
    if name not in HARMLESS:
        assert nothing_hidden(seen)
        assert seen.statuses[0] in (400, 411, 413, 431, 501)
        assert len(seen.answers) == 1
        assert seen.received == []
        assert not seen.is_open
        assert nothing_hidden(behind)
        assert nothing_hidden(apart)
    assert seen.statuses[:1] == behind.statuses[1:2]


async def test_a_head_of_bare_line_ends_is_no_head(both: Lanes) -> None:
    for sent in (
        head(b"Content-Length: " + N, end=b"\n") + chat(),
        head(b"Content-Length: " + N, end=b"\n").replace(b"HTTP/1.1\n", b"HTTP/1.1\r\n") + chat(),
        head(b"Content-Length: " + N, end=b"\r") + chat(),
        post(chat())[:-66].replace(b"\r\n\r\n", b"\n\n") + chat(),
        post(chat()).replace(b"\r\n\r\n", b"\r\n\n"),
        post(chat()).replace(b"\r\n\r\n", b"\n\r\n"),
        post(chat()).replace(b"\r\n\r\n", b"\r\r\n\n"),
    ):
        seen = await both.say(sent + HIDDEN)

        assert nothing_hidden(seen)
        assert 200 not in seen.statuses


SIZE = b"%x" % len(chat())
CHUNK_TRICKS: dict[str, bytes] = {
    "signed": b"+" + SIZE + b"\r\n" + chat() + b"\r\n0\r\n\r\n",
    "negative": b"-" + SIZE + b"\r\n" + chat() + b"\r\n0\r\n\r\n",
    "prefixed": b"0x" + SIZE + b"\r\n" + chat() + b"\r\n0\r\n\r\n",
    "a space before": b" " + SIZE + b"\r\n" + chat() + b"\r\n0\r\n\r\n",
    "a space behind": SIZE + b" \r\n" + chat() + b"\r\n0\r\n\r\n",
    "a tab behind": SIZE + b"\t\r\n" + chat() + b"\r\n0\r\n\r\n",
    "an underscore": b"4_2\r\n" + chat() + b"\r\n0\r\n\r\n",
    "no size": b"\r\n" + chat() + b"\r\n0\r\n\r\n",
    "no hex": b"zz\r\n" + chat() + b"\r\n0\r\n\r\n",
    "huge": b"ffffffffffffffff" + SIZE + b"\r\n" + chat() + b"\r\n0\r\n\r\n",
    "overflowing": b"1" + b"0" * 14 + SIZE + b"\r\n" + chat() + b"\r\n0\r\n\r\n",
    "a bare lf": SIZE + b"\n" + chat() + b"\r\n0\r\n\r\n",
    "a bare cr": SIZE + b"\r" + chat() + b"\r\n0\r\n\r\n",
    "a bare lf behind the data": SIZE + b"\r\n" + chat() + b"\n0\r\n\r\n",
    "a bare lf at the end": SIZE + b"\r\n" + chat() + b"\r\n0\n\n",
    "a lf in an extension": SIZE + b";a\nb\r\n" + chat() + b"\r\n0\r\n\r\n",
    "a cr in an extension": SIZE + b";a\rb\r\n" + chat() + b"\r\n0\r\n\r\n",
    "a nul in an extension": SIZE + b";a\x00b\r\n" + chat() + b"\r\n0\r\n\r\n",
    "an extension without a name": SIZE + b";\n\r\n" + chat() + b"\r\n0\r\n\r\n",
    "a quote that does not end": SIZE + b';a="\r\n' + chat() + b"\r\n0\r\n\r\n",
    "a long extension": SIZE + b";" + b"a" * 20_000 + b"\r\n" + chat() + b"\r\n0\r\n\r\n",
    "data too long": SIZE + b"\r\n" + chat() + b"xx\r\n0\r\n\r\n",
    "data too short": SIZE + b"\r\n" + chat()[:-2] + b"\r\n0\r\n\r\n",
    "no end of the data": SIZE + b"\r\n" + chat() + b"0\r\n\r\n",
    "two noughts": SIZE + b"\r\n" + chat() + b"\r\n00\r\n\r\n",
    "a bad trailer": SIZE + b"\r\n" + chat() + b"\r\n0\r\nX A: b\r\n\r\n",
    "a length in a trailer": SIZE + b"\r\n" + chat() + b"\r\n0\r\nContent-Length: 500\r\n\r\n",
    "a coding in a trailer": SIZE + b"\r\n" + chat() + b"\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a key in a trailer": SIZE + b"\r\n" + chat() + b"\r\n0\r\nAuthorization: Bearer x\r\nHost: evil\r\n\r\n",
    "a folded trailer": SIZE + b"\r\n" + chat() + b"\r\n0\r\nX: a\r\n b\r\n\r\n",
    "70 KiB of trailers": SIZE + b"\r\n" + chat() + b"\r\n0\r\n" + b"".join(b"X-%d: " % n + b"a" * 1000 + b"\r\n" for n in range(70)) + b"\r\n",
}  # fmt: skip
VALID = {"a space behind", "a tab behind", "two noughts", "a length in a trailer", "a coding in a trailer", "a key in a trailer", "an extension without a name", "a long extension", "70 KiB of trailers", "a quote that does not end", "a folded trailer"}  # fmt: skip


@pytest.mark.parametrize("coded", CHUNK_TRICKS.values(), ids=CHUNK_TRICKS)
async def test_no_request_hides_behind_odd_chunks(coded: bytes, both: Lanes, request: pytest.FixtureRequest) -> None:
    sent = head(b"Transfer-Encoding: chunked") + coded
    seen = await both.say(sent + HIDDEN)
    apart = await both.say(
        head(b"Transfer-Encoding: chunked"),
        *[coded[at : at + 5] for at in range(0, min(len(coded), 300), 5)],
        coded[300:],
    )

    assert not seen.junk
    if request.node.callspec.id not in VALID:
        assert nothing_hidden(seen)
        assert seen.received == []
        assert seen.statuses == apart.statuses == [400]
        assert not seen.is_open
    for asked in seen.received:
        assert asked.body in (chat(), chat(user="smuggled"))
        assert asked.value("authorization") == "Bearer sk-upstream"


LINES: dict[str, bytes] = {
    "an absolute target": b"POST http://localhost/v1/chat/completions HTTP/1.1",
    "an absolute target elsewhere": b"POST http://evil.example/v1/chat/completions HTTP/1.1",
    "credentials in it": b"POST http://a:b@localhost/v1/chat/completions HTTP/1.1",
    "an authority": b"POST localhost:80 HTTP/1.1",
    "connect": b"CONNECT localhost:80 HTTP/1.1",
    "a star": b"OPTIONS * HTTP/1.1",
    "a star of post": b"POST * HTTP/1.1",
    "two spaces": b"POST  /v1/chat/completions  HTTP/1.1",
    "tabs": b"POST\t/v1/chat/completions\tHTTP/1.1",
    "a space in the path": b"POST /v1/chat/comp letions HTTP/1.1",
    "a nul in the path": b"POST /v1/chat/completions\x00 HTTP/1.1",
    "8 bits in the path": b"POST /v1/chat/completions\xff HTTP/1.1",
    "a cr in the path": b"POST /v1/chat/completions\rx HTTP/1.1",
    "no path": b"POST HTTP/1.1",
    "no version": b"POST /v1/chat/completions",
    "small letters": b"post /v1/chat/completions HTTP/1.1",
    "an unknown method": b"SPLICE /v1/chat/completions HTTP/1.1",
    "a method with a comma": b"PO,ST /v1/chat/completions HTTP/1.1",
    "a method with a space before": b" POST /v1/chat/completions HTTP/1.1",
    "a long method": b"P" * 9000 + b" /v1/chat/completions HTTP/1.1",
    "version 1.10": b"POST /v1/chat/completions HTTP/1.10",
    "version 01.1": b"POST /v1/chat/completions HTTP/01.1",
    "version 1,1": b"POST /v1/chat/completions HTTP/1,1",
    "version 9.9": b"POST /v1/chat/completions HTTP/9.9",
    "a word behind": b"POST /v1/chat/completions HTTP/1.1 x",
    "a nul behind": b"POST /v1/chat/completions HTTP/1.1\x00",
    "rtsp": b"DESCRIBE /v1/chat/completions RTSP/1.0",
    "http 2": b"PRI * HTTP/2.0",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}  # fmt: skip


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
async def test_request_lines_are_read_alike(line: bytes, both: Lanes) -> None:
    sent = head(b"Content-Length: " + N, line=line) + chat()
    seen = await both.say(sent)

    assert seen.junk == []
    assert not seen.is_open or 400 not in seen.statuses
    if line.startswith(b"\x16"):
        return  # of another protocol aiohttp says so only where it comes first
    behind = await both.say(post(chat()) + sent)

    assert behind.junk == []
    assert behind.answers[0].body == WHOLE
    assert {asked.line for asked in behind.received} == {"POST /v1/chat/completions"}
    assert seen.statuses == behind.statuses[1:]


async def test_a_body_that_looks_like_a_request_is_a_body(both: Lanes) -> None:
    sly = (
        b'{"model":"m","messages":[]\r\n\r\n,"user":"'
        + HIDDEN.replace(b"\r\n", b"\\r\\n").replace(b'"', b'\\"')
        + b'"\r\n\r\n}'
    )
    seen = await both.say(post(sly), post(sly) + post(chat()))

    assert seen.statuses == [200, 200, 200]
    assert [asked.body for asked in seen.received] == [sly, sly, chat()]


async def test_what_a_refused_body_holds_is_no_request(both: Lanes) -> None:
    """A request that is refused by its head has its body read and dropped, or its connection closed."""
    for refused in (
        post(HIDDEN, "/nowhere"),
        post(HIDDEN, "/v1/models"),
        post(HIDDEN, CHAT + "/x"),
        post(HIDDEN),
        post(b"", "/nowhere", "Transfer-Encoding: chunked") + b"%x\r\n%b\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN),
        post(b"", CHAT, "Content-Length: 3000000") + HIDDEN,
    ):
        for segments in ([refused], [refused[:-20], refused[-20:]]):
            seen = await both.say(*segments)

            assert nothing_hidden(seen)
            assert seen.received == []
            assert len(seen.answers) == 1


async def test_no_log_tells_what_a_malformed_request_held(both: Lanes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    for line in (
        b"Authorization: Bearer sk-sesame\x00",
        b"Authorization : Bearer sk-sesame",
        b"Authorization: Bearer " + b"sk-sesame" * 1000,
    ):
        seen = await both.say(head(line))

        assert seen.statuses == [400]
        assert b"sesame" not in seen.answer.body
    assert "refused a malformed request" in caplog.text
    assert "sesame" not in caplog.text


async def test_a_bad_request_does_not_take_the_one_before_with_it(both: Lanes) -> None:
    for good in (b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", post(chat(), "/v1/chat/completions?a=b"), post(chat())):
        end = good.index(b"\r\n\r\n") + 4
        for cut in range(end - 5, end + 1):
            for bad in (b"\x00", b"\x00\r\n\r\n", b" ", b"FOO\r\n\r\n"):
                seen = await both.say(good[:cut], good[cut:] + bad)

                assert [status // 100 for status in seen.statuses] == [2, 4]
                assert not seen.is_open
