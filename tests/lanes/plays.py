"""What providers answer, by the name that a request's `x-play` gives."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping, Sequence

from tests.lanes.upstream import Play, Scene, Step

USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10, "prompt_tokens_details": {"cached_tokens": 2}}
WHOLE = json.dumps(
    {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "real",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello there"}, "finish_reason": "stop"}],
        "usage": USAGE,
        "made_up": [1, {"kept": None}],
    }
).encode()
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = EVENTS + b"Transfer-Encoding: chunked\r\n\r\n"
ERROR = b'{"error": {"message": "no", "type": "x", "param": null, "code": "upstream_said_no"}}'
DONE = b"data: [DONE]\n\n"


def event(text: str | None, finish: str | None = None, *, end: bytes = b"\n\n") -> bytes:
    delta = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + json.dumps({"id": "c1", "choices": [choice], "model": "real"}).encode() + end


def usage_event(end: bytes = b"\n\n") -> bytes:
    return b"data: " + json.dumps({"id": "c1", "choices": [], "usage": USAGE}).encode() + end


STREAM = [event("hel"), event("lo"), event(None, "stop")]


def sized(body: bytes, head: bytes = OK) -> bytes:
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def chunked(*pieces: bytes) -> list[bytes]:
    return [CHUNKED, *[chunk(piece) for piece in pieces], b"0\r\n\r\n"]


def cut(data: bytes, size: int) -> list[bytes]:
    """The same bytes in pieces of this size."""
    return [data[at : at + size] for at in range(0, len(data), size)]


def status(line: bytes, body: bytes = ERROR, *lines: bytes) -> bytes:
    head = b"HTTP/1.1 " + line + b"\r\nContent-Type: application/json\r\n" + b"".join(b"%b\r\n" % x for x in lines)
    return sized(body, head)


WAITS = (b"retry-after: 0", b"retry-after-ms: 0", b"retry-after: soon", b"retry-after: -5", b"retry-after: 14")


def _statuses() -> dict[str, Sequence[Play]]:
    made: dict[str, Sequence[Play]] = {}
    for code in (
        299,
        400,
        401,
        403,
        404,
        405,
        408,
        409,
        413,
        420,
        422,
        429,
        499,
        500,
        501,
        502,
        503,
        504,
        529,
        599,
        999,
    ):
        made[f"status {code}"] = [[status(b"%d Said So" % code, ERROR, b"X-Kept: yes", b"x-request-id: theirs")]]
        made[f"once {code}"] = [[status(b"%d Said So" % code)], [sized(WHOLE)]]
        made[f"wait {code}"] = [[status(b"%d Wait" % code, ERROR, line)] for line in WAITS] + [[sized(WHOLE)]]
        made[f"once {code} stream"] = [[status(b"%d Said So" % code)], chunked(*STREAM, DONE)]
    for code in (301, 302, 303, 307, 308):
        made[f"redirect {code}"] = [[status(b"%d Moved" % code, b"", b"Location: http://127.0.0.1:1/")]]
    return made


CRLF = [event("hel", end=b"\r\n\r\n"), event("lo", end=b"\r\n\r\n"), b"data: [DONE]\r\n\r\n"]
PLAYS: Mapping[str, Sequence[Play]] = {
    **_statuses(),
    "whole": [[sized(WHOLE)]],
    "whole in two": [[sized(WHOLE)[:100], sized(WHOLE)[100:]]],
    "whole in pieces": [cut(sized(WHOLE), 7)],
    "whole chunked": [
        [OK + b"Transfer-Encoding: chunked\r\n\r\n", chunk(WHOLE[:50]) + chunk(WHOLE[50:]), b"0\r\n\r\n"]
    ],
    "whole until close": [[OK + b"Connection: close\r\n\r\n", WHOLE, Step.CLOSE]],
    "whole of http 1.0": [[OK.replace(b"1.1", b"1.0") + b"\r\n" + WHOLE, Step.CLOSE]],
    "whole, then closed": [[sized(WHOLE, OK + b"Connection: close\r\n"), Step.CLOSE]],
    "whole, closed unannounced": [[sized(WHOLE), Step.CLOSE]],
    "whole with headers": [
        [
            sized(
                WHOLE,
                OK
                + b"Set-Cookie: a=b\r\nConnection: keep-alive, X-Private\r\nX-Private: 1\r\nKeep-Alive: timeout=5\r\n"
                b"x-request-id: theirs\r\nServer: secret\r\nX-Twice: 1\r\nX-Twice: 2\r\nx-ratelimit-limit-requests: 9\r\n"
                b"openai-organization: org\r\nopenai-processing-ms: 5\r\nAlt-Svc: h3\r\nTrailer: X-T\r\n"
                b"X-Predawn-Evil: 1\r\nx-predawn-upstream: theirs\r\nX-Latin: caf\xe9\r\nX-Utf: caf\xc3\xa9\r\nX-Empty:\r\nX-Spaces:  \t a b \t\r\n",
            )
        ]
    ],
    "whole with odd headers": [
        [
            sized(
                WHOLE,
                OK + b"Set-Cookie: a=b\r\nConnection: Keep-Alive\r\nKeep-Alive: timeout=5\r\nx-request-id: theirs\r\n"
                b"SERVER: secret\r\ndate: then\r\nX-Twice: 1\r\nX-Twice: 2\r\nOpenAI-Processing-MS: 5\r\nalt-svc: h3\r\n"
                b"X-Predawn-Upstream: theirs\r\nX-Latin: caf\xe9\r\nX-Empty:\r\nX-Spaces:  \t a b \t\r\nVary: *\r\n"
                b"Strict-Transport-Security: max-age=1\r\nx-should-retry: true\r\nretry-after: 5\r\nContent-Language: de\r\n",
            )
        ]
    ],
    "stream with odd headers": [
        [
            CHUNKED[:-2]
            + b"Content-Type: text/x\r\ncache-control: max-age=9\r\nX-ACCEL-BUFFERING: yes\r\nX-Kept: 1\r\n"
            b"x-request-id: theirs\r\nSet-Cookie: a=b\r\nContent-Language: de\r\n\r\n",
            *chunked(*STREAM, DONE)[1:],
        ]
    ],
    "early hints": [[b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + sized(WHOLE)]],
    "early hints apart": [[b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 102 Processing\r\n\r\n", sized(WHOLE)]],
    "early hints for a stream": [[b"HTTP/1.1 100 Continue\r\n\r\n", *chunked(*STREAM, DONE)]],
    "no json": [[sized(b"hello", b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n")]],
    "no type": [[sized(WHOLE, b"HTTP/1.1 200 OK\r\n")]],
    "nothing": [[sized(b"")]],
    "201": [[sized(WHOLE, OK.replace(b"200 OK", b"201 Created"))]],
    "204": [[b"HTTP/1.1 204 No Content\r\nX-Kept: yes\r\n\r\n"]],
    "204 with a length": [[b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"]],
    "204 for a stream": [[b"HTTP/1.1 204 No Content\r\nContent-Type: text/event-stream\r\n\r\n"]],
    "304": [[b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"]],
    "giant": [[OK + b'Content-Length: 4000000\r\n\r\n{"a":"', *([b"x" * 100_000] * 30), Step.CLOSE]],
    "giant whole": [[sized(b'{"a":"' + b"x" * 2_999_992 + b'"}')]],
    "a long line": [[sized(WHOLE, OK + b"X-Long: " + b"l" * 7000 + b"\r\n")]],
    "a line too long": [[sized(WHOLE, OK + b"X-Long: " + b"l" * 100_000 + b"\r\n")]],
    "many lines": [[sized(WHOLE, OK + b"".join(b"X-%d: 1\r\n" % n for n in range(60)))]],
    # streams
    "stream": [chunked(*STREAM, DONE)],
    "stream at once": [[b"".join(chunked(*STREAM, DONE))]],
    "stream in pieces": [cut(b"".join(chunked(*STREAM, usage_event(), DONE)), 5)],
    "stream byte by byte": [cut(b"".join(chunked(event("hé"), DONE)), 1)],
    "stream of split events": [chunked(*cut(b"".join([*STREAM, usage_event(), DONE]), 11))],
    "stream until close": [[EVENTS + b"Connection: close\r\n\r\n", *STREAM, DONE, Step.CLOSE]],
    "stream of http 1.0": [[EVENTS.replace(b"1.1", b"1.0") + b"\r\n", *STREAM, DONE, Step.CLOSE]],
    "stream of a length": [[sized(b"".join([*STREAM, DONE]), EVENTS)]],
    "stream with usage": [chunked(*STREAM, usage_event(), DONE)],
    "stream of crlf": [chunked(*CRLF)],
    "stream of crlf with usage": [chunked(CRLF[0], CRLF[1], usage_event(b"\r\n\r\n"), CRLF[2])],
    "stream of crlf in pieces": [chunked(*cut(b"".join([CRLF[0], usage_event(b"\r\n\r\n"), CRLF[2]]), 3))],
    "stream of cr": [chunked(event("hel", end=b"\r\r"), usage_event(b"\r\r"), b"data: [DONE]\r\r")],
    "stream with comments": [
        chunked(b": hi\n\n", STREAM[0], b":\n", b"\n", b"event: x\nid: 1\nretry: 5\n", *STREAM[1:], DONE)
    ],
    "stream with trailers": [[*chunked(*STREAM, DONE)[:-1], b"0\r\nX-Trailer: 1\r\n\r\n"]],
    "stream with extensions": [
        [CHUNKED, *[b"%X;a=b\r\n%b\r\n" % (len(x), x) for x in (*STREAM, DONE)], b"000\r\n\r\n"]
    ],
    "stream without done": [chunked(*STREAM)],
    "stream without done, closed": [[EVENTS + b"Connection: close\r\n\r\n", *STREAM, Step.CLOSE]],
    "stream that is empty": [[CHUNKED + b"0\r\n\r\n"]],
    "stream that is empty and apart": [[CHUNKED, b"0\r\n\r\n"]],
    "stream of an error": [chunked(STREAM[0], b'data: {"error": {"message": "overloaded", "code": 503}}\n\n')],
    "stream of an error, then done": [chunked(STREAM[0], b'data: {"error": {"message": "overloaded"}}\n\n', DONE)],
    "stream after done": [chunked(*STREAM, DONE, event("more"))],
    "stream of another status": [
        [EVENTS.replace(b"200 OK", b"500 Oh"), b"Content-Length: 14\r\n\r\n", b'data: {"a":1}\n']
    ],
    "stream that is a body": [[sized(WHOLE)]],
    "stream with a charset": [
        [CHUNKED.replace(b"event-stream", b"event-stream; charset=utf-8"), *chunked(*STREAM, DONE)[1:]]
    ],
    "stream of a huge event": [chunked(b"data: " + b"h" * 200_000 + b"\n\n", DONE)],
    "stream of an endless event": [
        [CHUNKED, chunk(STREAM[0]), chunk(b"data: " + b"e" * 65_536), *([chunk(b"e" * 65_536)] * 40), Step.HOLD]
    ],
    "stream of responses": [
        chunked(
            b'event: response.created\ndata: {"type":"response.created"}\n\n',
            b'event: response.completed\ndata: {"type":"response.completed","response":{"usage":'
            b'{"input_tokens":4,"output_tokens":2}}}\n\n',
        )
    ],
    "stream of messages": [
        chunked(
            b'event: message_start\ndata: {"type":"message_start","message":{"usage":{"input_tokens":4,"output_tokens":1}}}\n\n',
            b'event: message_delta\ndata: {"type":"message_delta","usage":{"output_tokens":5}}\n\n',
            b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
        )
    ],
    # trouble
    "closed before the head": [[Step.CLOSE]],
    "aborted before the head": [[Step.ABORT]],
    "closed once before the head": [[Step.CLOSE], [sized(WHOLE)]],
    "closed in the head": [[OK[:30], Step.CLOSE]],
    "closed behind the head": [[OK + b"Content-Length: 10\r\n\r\n", Step.CLOSE]],
    "closed in the body": [[sized(WHOLE)[:-20], Step.CLOSE]],
    "aborted in the body": [[sized(WHOLE)[:-20], Step.ABORT]],
    "closed in a chunk": [[OK + b"Transfer-Encoding: chunked\r\n\r\n10\r\n{", Step.CLOSE]],
    "stream closed behind the head": [[CHUNKED, Step.CLOSE]],
    "stream closed in an event": [[CHUNKED, chunk(STREAM[0]), chunk(STREAM[1][:15]), Step.CLOSE]],
    "stream closed between events": [[CHUNKED, chunk(STREAM[0]), Step.CLOSE]],
    "stream aborted between events": [[CHUNKED, chunk(STREAM[0]), Step.ABORT]],
    "stream closed in a chunk": [[CHUNKED, chunk(STREAM[0]), b"20\r\ndata: {", Step.CLOSE]],
    "stream closed before its last chunk": [[CHUNKED, chunk(STREAM[0]), chunk(DONE), Step.CLOSE]],
    "stream of a bad chunk": [[CHUNKED, chunk(STREAM[0]), b"zz\r\n"]],
    "stream of too few bytes": [[EVENTS + b"Content-Length: 1000\r\n\r\n", *STREAM, DONE, Step.CLOSE]],
    "not http": [[b"SSH-2.0-OpenSSH_9.6\r\n"]],
    "not http, closed": [[b"SSH-2.0-OpenSSH_9.6\r\n", Step.CLOSE]],
    "another version": [[sized(WHOLE).replace(b"HTTP/1.1", b"HTTP/3.0")]],
    "a status that is none": [[b"HTTP/1.1 abc OK\r\n\r\n", Step.CLOSE]],
    "two lengths": [[OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}x", Step.CLOSE]],
    "a negative length": [[OK + b"Content-Length: -5\r\n\r\n{}", Step.CLOSE]],
    "length and chunks": [
        [OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", b"2\r\n{}\r\n0\r\n\r\n", Step.CLOSE]
    ],
    "a folded line": [[sized(WHOLE, OK + b"X-Folded: a\r\n b\r\n"), Step.CLOSE]],
    "a nul": [[sized(WHOLE, OK + b"X-Nul: a\x00b\r\n"), Step.CLOSE]],
    "bare line ends": [[sized(WHOLE).replace(b"\r\n", b"\n"), Step.CLOSE]],
    "a bad chunk": [[OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n", Step.CLOSE]],
    "more than its length": [[sized(WHOLE) + b"more", Step.HOLD]],
    "two answers": [[sized(WHOLE) + sized(WHOLE.replace(b"hello", b"stray"))], [sized(WHOLE)]],
    "an answer nobody asked for": [[sized(WHOLE), Step.HOLD, sized(WHOLE.replace(b"hello", b"stray"))], [sized(WHOLE)]],
    "stream that goes on after its end": [[*chunked(*STREAM, DONE), b"more and more"]],
    "gzip": [[sized(gzip.compress(WHOLE, mtime=0), OK + b"Content-Encoding: gzip\r\n")]],
    "gzip that is none": [[sized(WHOLE, OK + b"Content-Encoding: gzip\r\n")]],
    "gzip that is cut": [[sized(gzip.compress(WHOLE, mtime=0)[:-30], OK + b"Content-Encoding: gzip\r\n")]],
    "deflate": [[sized(zlib.compress(WHOLE), OK + b"Content-Encoding: deflate\r\n")]],
    "identity": [[sized(WHOLE, OK + b"Content-Encoding: identity\r\n")]],
    "an unknown encoding": [[sized(WHOLE, OK + b"Content-Encoding: x-cow\r\n")]],
    "stream of gzip": [
        [sized(gzip.compress(b"".join([*STREAM, DONE]), mtime=0), EVENTS + b"Content-Encoding: gzip\r\n")]
    ],
    "stream of no gzip": [[sized(b"".join([*STREAM, DONE]), EVENTS + b"Content-Encoding: gzip\r\n")]],
    "upgrade": [[b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nhello", Step.CLOSE]],
    "answers early": [[Step.EARLY, status(b"413 Too Large", ERROR, b"Connection: close"), Step.CLOSE]],
    # for the test to say go
    "held": [[Step.HOLD, sized(WHOLE)]],
    "held in the head": [[OK[:30], Step.HOLD, sized(WHOLE)[30:]]],
    "held in the body": [[sized(WHOLE)[:-20], Step.HOLD, sized(WHOLE)[-20:]]],
    "stream held before the head": [[Step.HOLD, *chunked(*STREAM, DONE)]],
    "stream held behind the head": [[CHUNKED, Step.HOLD, *chunked(*STREAM, DONE)[1:]]],
    "stream held": [
        [CHUNKED, chunk(STREAM[0]), Step.HOLD, chunk(STREAM[1]), chunk(usage_event()), chunk(DONE), b"0\r\n\r\n"]
    ],
    "stream held at its end": [[CHUNKED, chunk(STREAM[0]), chunk(DONE), Step.HOLD, b"0\r\n\r\n"]],
    "flood": [[CHUNKED, *([chunk(b"data: " + b"f" * 65_536 + b"\n\n")] * 512), chunk(DONE), b"0\r\n\r\n"]],
    "500, then held": [[status(b"500 Oh")], [Step.HOLD, sized(WHOLE)]],
    "closed, then held": [[Step.CLOSE], [Step.HOLD, sized(WHOLE)]],
    "slow": [[OK + b"Content-Length: %d\r\n\r\n" % len(WHOLE), WHOLE[:9], Step.HOLD, WHOLE[9:]]],
}
NO_USAGE = WHOLE.replace(b'"usage"', b'"unused"')
SCENE = Scene({**PLAYS, "no usage": [[sized(NO_USAGE)]]}, "whole")
