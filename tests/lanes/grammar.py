"""Client bytes for the fuzz test: requests from a grammar, then bent, spliced and cut anywhere."""

from __future__ import annotations

import json

from hypothesis import strategies as st
from tests.lanes.plays import PLAYS
from tests.lanes.upstream import Step

TOKEN = "Authorization: Bearer sk-free"
METHODS = st.sampled_from(["POST"] * 12 + ["GET", "HEAD", "PUT", "OPTIONS", "post", "X"])
PATHS = st.sampled_from(
    ["/v1/chat/completions"] * 8
    + [
        "/v1/completions", "/v1/responses", "/v1/messages", "/v1/embeddings", "/v1/models", "/v1/models/m", "/health", "/nowhere", "/v1/files/x",
        "/v1/chat/completions?a=b", "//v1/chat/completions", "/v1/chat/completions/", "/v1/chat%2fcompletions", "http://x/v1/chat/completions", "*", "/v1/chat/./completions",
    ]
)  # fmt: skip
VERSIONS = st.sampled_from(["HTTP/1.1"] * 12 + ["HTTP/1.0", "HTTP/2.0", "HTTP/1.2", "http/1.1"])
RACES = {
    "stream of an endless event",
    "whole, closed unannounced",
    "stream that goes on after its end",
    "two answers",
    "giant",
    "giant whole",
    "flood",
    "stream of a huge event",
}
"""What becomes of the next request depends on who is quicker; and what takes long."""
QUIET_PLAYS = sorted(
    name for name, plays in PLAYS.items() if name not in RACES and not any(Step.HOLD in play for play in plays)
)
GOOD_PLAYS = [
    "whole",
    "whole in two",
    "stream",
    "stream at once",
    "stream in pieces",
    "stream with usage",
    "stream of crlf",
    "status 404",
]
HEADERS = st.sampled_from(
    [
        "Connection: keep-alive", "Connection: close", "connection: Keep-Alive", "Connection: close, x", "Connection: upgrade", "Keep-Alive: timeout=1",
        "Accept: */*", "Accept-Encoding: gzip", "User-Agent: x/1", "X-Request-ID: mine", "X-Request-ID: not mine!", "x-predawn-effort: low", "X-Forwarded-For: 1.2.3.4",
        "Cookie: a=b", "X-Twice: 1", "X-Twice: 2", "TE: trailers", "Trailer: X-A", "Expect: 100-continue", "Expect: other", "Upgrade: websocket",
        "Content-Type: text/plain", "Content-Encoding: gzip", "X-Empty:", "X-Latin: \xe4", "X-Spaces:  a b  ", "X-Tab:\ta", "Proxy-Connection: close",
        "Transfer-Encoding: chunked", "Transfer-Encoding: gzip", "Content-Length: 5", "Content-Length: +5", "Content-Length:", "content-length: 0",
        "Transfer-Encoding : chunked", " folded: 1", "X-Nul: \x00", "X Y: 1", "NoColon", "Host: other", "Range: bytes=0-1", "api-key: sk-acme", "x-api-key: wrong",
        "OpenAI-Beta: x", "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ]
)  # fmt: skip
ROUTES = ["/v1/chat/completions"] * 6 + ["/v1/completions", "/v1/responses", "/v1/messages", "/v1/embeddings"]
USUAL_HEADERS = st.sampled_from(
    ["Connection: keep-alive", "Accept: */*", "User-Agent: x/1", "X-Request-ID: mine", "X-Once: \xe4", "X-Empty:", "OpenAI-Beta: x", "Accept-Encoding: gzip", "Cookie: a=b", "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "Idempotency-Key: 1", "x-b3-spanid: 1", "baggage: a=b"]
)  # fmt: skip
KEYS = st.sampled_from(
    [TOKEN] * 12
    + [
        "x-api-key: sk-free",
        "api-key: sk-acme",
        "Authorization: Bearer sk-only-m",
        "Authorization: Bearer sk-wrong",
        "Authorization: Basic x",
        "",
    ]
)
MODELS = st.sampled_from(
    ["m"] * 8
    + ["alias", "clamped", "thrice", "falling", "counting", "unmarked", "dressed", "few", "priced", "nobody", ""]
)
MEMBERS = st.fixed_dictionaries(
    {},
    optional={
        "stream": st.sampled_from([True, True, True, False, None, "yes", 1]),
        "n": st.sampled_from([1, 2, 129, -1, None, "x", 1.0]),
        "max_tokens": st.sampled_from([1, 5000, None, "x", 1 << 70]),
        "stream_options": st.sampled_from([None, {}, {"include_usage": True}, {"include_usage": False}, []]),
        "predawn": st.sampled_from([{}, {"effort": "low"}, None, "x"]),
        "user": st.text(max_size=20),
        "messages": st.just([{"role": "user", "content": "hello"}]),
    },
)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Mostly a chat request, at times no JSON at all."""
    if draw(st.integers(0, 15)) == 0:
        return draw(st.binary(max_size=40))
    told = {"model": draw(MODELS), **draw(MEMBERS)}
    body = json.dumps(told, ensure_ascii=draw(st.booleans()), separators=draw(st.sampled_from([None, (",", ":")])))
    if draw(st.integers(0, 9)) == 0:
        body = body[:-1] + ', "model": "alias"}'
    return body.encode("utf-8", "surrogatepass")


def in_chunks(body: bytes, size: int, style: int) -> bytes:
    """The body as chunks, written in one of the ways that HTTP allows, or nearly."""
    form = [b"%x\r\n", b"%X\r\n", b"00%x\r\n", b"%x;a=b\r\n", b'%x;a="b"\r\n', b"%x \r\n", b"+%x\r\n", b"%x\n"][style]
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    end = [
        b"0\r\n\r\n",
        b"0\r\n\r\n",
        b"000\r\n\r\n",
        b"0;x\r\n\r\n",
        b"0\r\nX-T: 1\r\n\r\n",
        b"0\r\n\r\n",
        b"0\r\n\r\n",
        b"0\r\n\r\n",
    ][style]
    return b"".join(form % len(chunk) + chunk + b"\r\n" for chunk in chunks) + end


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """One request, mostly in order."""
    body = draw(bodies())
    lines = [f"{draw(METHODS)} {draw(PATHS)} {draw(VERSIONS)}", "Host: localhost", "Content-Type: application/json"]
    lines += draw(st.lists(HEADERS, max_size=3)) if draw(st.booleans()) else []
    lines += [draw(KEYS), f"x-play: {draw(st.sampled_from(QUIET_PLAYS))}"]
    framing = draw(st.integers(0, 9))
    if framing == 0:
        lines.append("Transfer-Encoding: chunked")
        body = in_chunks(body, draw(st.integers(1, 100)), draw(st.integers(0, 7)))
    elif framing == 1:
        lines.append(f"Content-Length: {max(0, len(body) + draw(st.sampled_from([-3, -1, 1, 2, 50])))}")
    elif framing > 2:
        lines.append(
            draw(st.sampled_from(["Content-Length: ", "content-length: ", "Content-length:", "Content-Length:  "]))
            + str(len(body))
        )
    order = draw(st.booleans())
    head = [lines[0], *sorted(lines[1:], key=len)] if order else lines
    return "\r\n".join(line for line in head if line).encode("latin-1") + b"\r\n\r\n" + body


@st.composite
def plain_requests(draw: st.DrawFn) -> bytes:
    """One request as SDKs send it: what the fast lane is for."""
    told = {"model": draw(MODELS.filter(bool)), "messages": [{"role": "user", "content": draw(st.text(max_size=10))}]}
    told |= draw(
        st.sampled_from(
            [
                {},
                {"stream": True},
                {"stream": True},
                {"stream": True, "stream_options": {"include_usage": True}},
                {"max_tokens": 99},
            ]
        )
    )
    body = json.dumps(told).encode()
    lines = [f"POST {draw(st.sampled_from(ROUTES))} HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
    lines += draw(st.lists(USUAL_HEADERS, max_size=2))
    play = draw(st.sampled_from(QUIET_PLAYS if draw(st.integers(0, 2)) == 0 else GOOD_PLAYS))
    lines += [draw(KEYS), f"x-play: {play}", f"Content-Length: {len(body)}"]
    return "\r\n".join(line for line in lines if line).encode("latin-1") + b"\r\n\r\n" + body


SPECIAL = [b"\r\n", b"\n", b"\r", b"\x00", b" ", b"\t", b":", b"\r\n\r\n", b"0\r\n\r\n", b"\xff", b",", b"Content-Length: 1\r\n", b"GET / HTTP/1.1\r\n\r\n"]  # fmt: skip


@st.composite
def bent(draw: st.DrawFn, data: bytes) -> bytes:
    """The bytes with a few faults."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        end = min(len(data), at + draw(st.integers(1, 12)))
        how = draw(st.integers(0, 4))
        if how == 0 and data:
            data = data[:at] + bytes([data[at] ^ (1 << draw(st.integers(0, 7)))]) + data[at + 1 :]
        elif how == 1:
            data = data[:at] + data[end:]
        elif how == 2:
            data = data[:end] + data[at:]
        elif how == 3:
            data = data[:at] + draw(st.sampled_from(SPECIAL)) + data[at:]
        else:
            data = data[:at] + draw(st.binary(min_size=1, max_size=4)) + data[end:]
    return data


@st.composite
def echoes(draw: st.DrawFn) -> list[bytes]:
    """A request again and again, each time nearly the same, or only a part of it: what a memory of heads may confuse."""
    first = draw(plain_requests())
    segments = [first]
    for _ in range(draw(st.integers(1, 4))):
        again = draw(bent(first)) if draw(st.booleans()) else first
        if draw(st.integers(0, 3)) == 0:
            again = again[draw(st.integers(0, len(again))) :]
        if draw(st.integers(0, 3)) == 0:
            again = draw(st.from_regex(rb"\A[0-9]{1,3}[\r\n]{0,4}\Z")) + again
        segments.append(again)
    return [b"".join(segments)] if draw(st.booleans()) else [segment for segment in segments if segment]


@st.composite
def conversations(draw: st.DrawFn) -> list[bytes]:
    """What a client sends on one connection, in the segments in which it sends it."""
    kind = draw(st.integers(0, 5))
    if kind == 5:
        return draw(echoes())
    some = st.lists(requests() if kind == 0 else plain_requests(), min_size=1, max_size=4)
    said = b"".join(draw(some) + (draw(st.lists(requests(), max_size=1)) if kind == 1 else []))
    if draw(st.integers(0, 3)) == 0:
        said = draw(bent(said))
    cuts = sorted(draw(st.lists(st.integers(0, len(said)), max_size=6, unique=True)))
    segments = [said[start:end] for start, end in zip([0, *cuts], [*cuts, len(said)], strict=True)]
    return [segment for segment in segments if segment]
