"""What clients may send, and what they get: the same by both lanes, and what HTTP and the API say."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import pytest
from tests.acceptance.bare import chat, post
from tests.lanes.client import Client
from tests.lanes.lane import Lane, Lanes
from tests.lanes.plays import WHOLE
from tests.lanes.thinning import thinned

pytestmark = pytest.mark.asyncio(loop_scope="module")
CHAT = "/v1/chat/completions"
ROUTES = [CHAT, "/v1/completions", "/v1/responses", "/v1/embeddings", "/v1/messages"]
METHODS = ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "FOO", "post", "PRI"]


def request(line: str, *lines: str, body: bytes = b"") -> bytes:
    """Just these lines, a `Host` and the body."""
    return "\r\n".join([line, "Host: localhost", *lines]).encode("latin-1") + b"\r\n\r\n" + body


def length(body: bytes) -> str:
    return f"Content-Length: {len(body)}"


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_each_route_is_relayed(path: str, stream: bool, both: Lanes) -> None:
    play = {"/v1/responses": "stream of responses", "/v1/messages": "stream of messages"}.get(path, "stream")
    body = chat(stream=stream)
    seen = await both.say(post(body, path, f"x-play: {play if stream else 'whole'}"))

    assert seen.statuses == [200]
    assert seen.answer.whole
    assert seen.is_open
    assert (seen.asked.line, seen.asked.body) == (f"POST {path}", body)
    assert seen.answer.body == WHOLE or seen.answer.body.startswith(b"event: " if "stream of" in play else b"data: ")
    assert seen.count("predawn_requests_total", code="200", stream=str(stream).lower()) == 1
    assert seen.took_fast == 1


@pytest.mark.parametrize("path", ["/health", "/ready", "/version", "/v1/models", "/v1/models/m", "/openapi.json"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
async def test_other_endpoints_answer(path: str, method: str, both: Lanes) -> None:
    seen = await both.say(request(f"{method} {path} HTTP/1.1"))

    assert len(seen.answers) == 1
    assert seen.received == []
    assert (seen.answer.status == 200) == (method == "GET" or (method == "HEAD" and not path.startswith("/v1/")))


@pytest.mark.parametrize(("method", "path"), thinned(METHODS, [CHAT, "/v1/models", "/v1/files/x", "/nowhere"], times=2))
async def test_other_methods_are_refused_alike(method: str, path: str, both: Lanes) -> None:
    seen = await both.say(request(f"{method} {path} HTTP/1.1"))

    assert seen.received == [] or path == "/v1/files/x"
    assert all(status >= 400 for status in seen.statuses) or path in ("/v1/models", "/v1/files/x")


@pytest.mark.parametrize(
    "path",
    [
        "/", "/v1", "/v1/", "//v1/chat/completions", "/v1//chat/completions", "/v1/chat/completions/", "/v1/chat/completionsx",
        "/V1/chat/completions", "/v1/Chat/completions", "/v1/chat/./completions", "/v1/x/../chat/completions",
        "/v1/chat%2Fcompletions", "/v1/chat/completion%73", "/v1/%63hat/completions", "/v1/chat/completions%00",
        "/v1/chat/completions%0d%0aX: 1", "/v1/chat/completions%20", "/v1/chat/completions;a=b", "/v1/chat/completions#x",
        "/v1/chat/completions?", "/v1/chat/completions?api-version=2024&x=%20", "/v1/chat/completions??", "/v1/chat/completions?a#b",
        "*", "localhost:80", "http://localhost/v1/chat/completions", "http://evil.example/v1/chat/completions?x=1",
        "https://localhost/v1/chat/completions", "/v1/ch\xe4t", "/v1/chat/completions?\xe4", "/v1/chat/completions?a b",
        "/v1/chat/completions\t", "", "v1/chat/completions", "/v1/chat/completions\\", "/v1\\chat/completions",
        "/v1/files/a%2e%2e/b", "/v1/files/x?y=1", "/v1/files//x", "/" + "a" * 4000, "/" + "a" * 9000, "/v1/chat/completions?" + "a" * 7000,
    ],
)  # fmt: skip
async def test_targets_are_read_alike(path: str, both: Lanes) -> None:
    seen = await both.say(post(chat(), path))

    assert len(seen.answers) == 1
    assert all(asked.line.startswith(("POST /v1/chat/completions", "POST /v1/files/")) for asked in seen.received)


VERSIONS = ["HTTP/1.1", "HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "HTTP/1.2", "http/1.1", "HTTP/1.1 ", "HTTP/11", "ICY"]
CONNECTIONS = [
    None,
    "close",
    "keep-alive",
    "Keep-Alive",
    "CLOSE",
    "keep-alive, close",
    "close, keep-alive",
    "upgrade",
    "",
    "x-y",
    "keep-alive;q=1",
]


@pytest.mark.parametrize(
    ("version", "connection"), [*product(VERSIONS[:2], CONNECTIONS), *thinned(VERSIONS[2:], CONNECTIONS)]
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_connections_are_kept_alike(version: str, connection: str | None, stream: bool, both: Lanes) -> None:
    body = chat(stream=stream)
    lines = [] if connection is None else [f"Connection: {connection}"]
    play = "x-play: stream" if stream else "x-play: whole"
    seen = await both.say(request(f"POST {CHAT} {version}", *lines, play, length(body), body=body))

    if version in ("HTTP/1.0", "HTTP/1.1"):
        assert seen.statuses == [200]
        told = {option.strip() for option in (connection or "").lower().split(",")}
        if "keep-alive" in told and "close" in told:
            return  # an old client that wants both gets what aiohttp makes of it
        keeps = "close" not in told if version == "HTTP/1.1" else "keep-alive" in told and not stream
        assert seen.is_open == keeps
    else:
        assert all(status in (400, 505) for status in seen.statuses)
        assert seen.received == []
        assert not seen.is_open


PLAIN = post(chat())
STREAMED = post(chat(stream=True), CHAT, "x-play: stream")
USUAL: dict[str, bytes] = {
    "plain": PLAIN,
    "stream": STREAMED,
    "models": request("GET /v1/models HTTP/1.1"),
    "chunked": post(b"", CHAT, "Transfer-Encoding: chunked") + b"%x\r\n%b\r\n0\r\n\r\n" % (len(chat()), chat()),
    "refused": post(b"{", CHAT),
    "unknown": post(chat(model="nobody")),
    "alias": post(chat(model="alias")),
    "query": post(chat(), CHAT + "?a=b"),
    "429": post(chat(), CHAT, "x-play: status 429"),
}
PAIRS = [f"{one}+{other}" for one in USUAL for other in USUAL]


@pytest.mark.parametrize("names", [*PAIRS, "plain+plain+plain+plain+plain", "stream+plain+models+chunked+stream", "plain+refused+plain+query+plain"])  # fmt: skip
async def test_pipelined_requests_are_answered_in_their_order(names: str, both: Lanes) -> None:
    wanted = names.split("+")
    alone = {name: (await both.say(USUAL[name])).answer for name in set(wanted)}
    seen = await both.say(b"".join(USUAL[name] for name in wanted))

    assert [answer.body for answer in seen.answers] == [alone[name].body for name in wanted]
    assert [answer.status for answer in seen.answers] == [alone[name].status for name in wanted]
    assert seen.is_open


async def test_a_last_request_ends_the_connection_and_what_follows_is_not_heard(both: Lanes) -> None:
    seen = await both.say(PLAIN + post(chat(), CHAT, "Connection: close") + PLAIN)

    assert seen.statuses == [200, 200]
    assert not seen.is_open
    assert len(seen.received) == 2


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_request_may_come_in_two_pieces_cut_anywhere(stream: bool, both: Lanes) -> None:
    sent = STREAMED if stream else PLAIN
    cuts = [*range(1, len(sent), 3), len(sent) - 1] if stream else range(1, len(sent))

    async def story(lane: Lane, client: Client) -> None:
        for number, at in enumerate(cuts, 1):  # on one connection
            await client.send(sent[:at], sent[at:])
            await client.gets(b"[DONE]\n\n\r\n0\r\n\r\n" if stream else WHOLE, number)

    seen = await both.tell(story)

    assert seen.statuses == [200] * len(cuts)
    assert seen.took_fast == len(cuts)
    assert {asked.body for asked in seen.received} == {chat(stream=True) if stream else chat()}


@pytest.mark.parametrize("size", [1, 2, 7, 50])
async def test_a_request_may_come_in_small_pieces(size: int, both: Lanes) -> None:
    sent = PLAIN + STREAMED + USUAL["chunked"] + PLAIN
    seen = await both.say(*[sent[at : at + size] for at in range(0, len(sent), size)])

    assert seen.statuses == [200] * 4


async def test_two_requests_may_be_cut_anywhere(both: Lanes) -> None:
    sent = PLAIN + PLAIN

    async def story(lane: Lane, client: Client) -> None:
        for number, at in enumerate(range(len(PLAIN) - 3, len(PLAIN) + 12), 1):
            await client.send(sent[:at], sent[at:])
            await client.gets(WHOLE, 2 * number)

    seen = await both.tell(story)

    assert seen.statuses == [200] * 30


@pytest.mark.parametrize("lead", [b"\r\n", b"\r\n\r\n", b"\n", b" ", b"\r\n" * 20])
async def test_what_comes_before_a_request_line_is_judged_alike(lead: bytes, both: Lanes) -> None:
    first = await both.say(lead + PLAIN)
    between = await both.say(PLAIN + lead + PLAIN)
    apart = await both.say(PLAIN, lead, PLAIN)

    assert between.statuses[0] == apart.statuses[0] == 200
    assert len(between.answers) == len(apart.answers) == 2
    if lead != b" ":  # RFC 9112 2.2: empty lines should be passed over
        assert first.statuses == [200]
        assert between.statuses == apart.statuses == [200, 200]


BODY = chat(user="x" * 300)
CHUNKED = {
    "one chunk": b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY),
    "capitals": b"%X\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY),
    "leading zeros": b"000%x\r\n%b\r\n000\r\n\r\n" % (len(BODY), BODY),
    "an extension": b"%x;a=b\r\n%b\r\n0;end\r\n\r\n" % (len(BODY), BODY),
    "a quoted extension": b'%x;a="b;c"\r\n%b\r\n0\r\n\r\n' % (len(BODY), BODY),
    "trailers": b"%x\r\n%b\r\n0\r\nX-Trailer: 1\r\nX-Other: 2\r\n\r\n" % (len(BODY), BODY),
    "many chunks": b"".join(b"7\r\n%b\r\n" % BODY[at : at + 7] if len(BODY[at : at + 7]) == 7 else b"%x\r\n%b\r\n" % (len(BODY[at:]), BODY[at:]) for at in range(0, len(BODY), 7)) + b"0\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("coded", CHUNKED.values(), ids=CHUNKED)
@pytest.mark.parametrize("size", [10_000, 1, 13])
async def test_chunked_bodies_are_put_together(coded: bytes, size: int, both: Lanes) -> None:
    head = post(b"", CHAT, "Transfer-Encoding: chunked")
    sent = head + coded + PLAIN
    seen = await both.say(*[sent[at : at + size] for at in range(0, len(sent), size)])

    assert seen.statuses == [200, 200]
    assert [asked.body for asked in seen.received] == [BODY, chat()]
    assert seen.received[0].value("transfer-encoding") is None


async def test_a_chunked_body_may_be_empty(both: Lanes) -> None:
    seen = await both.say(post(b"", CHAT, "Transfer-Encoding: chunked") + b"0\r\n\r\n")

    assert seen.statuses == [400]
    assert seen.received == []


@pytest.mark.parametrize("expect", ["100-continue", "100-Continue", "something", "100-continue, x", ""])
async def test_expectations_are_met_alike(expect: str, both: Lanes) -> None:
    body = chat()
    apart = await both.say(request(f"POST {CHAT} HTTP/1.1", f"Expect: {expect}", length(body)))
    whole = await both.say(request(f"POST {CHAT} HTTP/1.1", f"Expect: {expect}", length(body), body=body))
    too_large = await both.say(request(f"POST {CHAT} HTTP/1.1", f"Expect: {expect}", "Content-Length: 99999999"))

    assert (apart.statuses == [100]) == (expect.lower() == "100-continue")
    assert whole.statuses[-1] == 200
    assert too_large.statuses == [413]


async def test_a_client_that_is_told_to_go_on_is_served(both: Lanes) -> None:
    body = chat()

    async def story(lane: Lane, client: Client) -> None:
        await client.send(request(f"POST {CHAT} HTTP/1.1", "Expect: 100-continue", length(body)))
        await client.gets(b"100 Continue")
        await client.send(body[:10], body[10:])
        await client.gets(WHOLE)
        await client.send(PLAIN)
        await client.gets(WHOLE, 2)

    seen = await both.tell(story)

    assert seen.statuses == [100, 200, 200]
    assert seen.received[0].value("expect") is None


UNUSUAL = {
    "upgrade": ["Connection: upgrade", "Upgrade: websocket"],
    "upgrade to h2": ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"],
    "websocket": ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13"],
    "te": ["TE: trailers"],
    "te and gzip": ["TE: trailers, gzip;q=0.5", "Connection: TE"],
    "trailer": ["Trailer: X-A"],
    "named by connection": ["Connection: X-Secret", "X-Secret: 1"],
    "named by two connections": ["Connection: X-Secret", "Connection: keep-alive, X-Other", "X-Secret: 1", "X-Other: 2"],
    "connection names content-type": ["Connection: content-type"],
    "connection names content-length": ["Connection: content-length"],
    "keep-alive": ["Keep-Alive: timeout=5"],
    "proxy": ["Proxy-Connection: keep-alive", "Proxy-Authorization: Basic x", "Via: 1.1 x"],
    "cookies": ["Cookie: a=b", "Cookie: c=d"],
    "forwarded": ["Forwarded: for=1.2.3.4", "X-Forwarded-For: 1.2.3.4", "X-Real-IP: 1.2.3.4", "X-Forwarded-Proto: https"],
    "control": ["X-Predawn-Effort: low", "x-predawn-upstream: up", "X-Predawn-: x"],
    "a request id": ["X-Request-ID: mine-1"],
    "a bad request id": ["X-Request-ID: no good"],
    "two request ids": ["X-Request-ID: one", "X-Request-ID: two"],
    "an empty request id": ["X-Request-ID:"],
    "accept-encoding": ["Accept-Encoding: gzip, br"],
    "accept": ["Accept: text/event-stream", "User-Agent: x/1 (y; z)"],
    "twice": ["X-Twice: 1", "X-Twice: 2", "x-twice: 3"],
    "two content types": ["Content-Type: text/plain"],
    "odd values": ["X-Empty:", "X-Spaces:   a   b  ", "X-Tab:\ta\tb", "X-Colon: a:b::c", "X-Long: " + "v" * 3000],
    "latin-1": ["X-Latin: caf\xe9"],
    "utf-8": ["X-Utf: caf\xc3\xa9 \xe2\x80\xa8 \xc2\x85 x"],
    "odd names": ["x!#$%&'*+-.^_`|~9: 1", "X_Under_Score: 1", "X.Dot: 1", "0: 1"],
    "content-encoding": ["Content-Encoding: identity"],
    "range": ["Range: bytes=0-5", "If-None-Match: x"],
    "two hosts": ["Host: other"],
    "content-md5": ["Content-MD5: x", "Date: Tue, 15 Nov 1994 08:12:31 GMT"],
    "priority": ["Priority: u=1", "Early-Data: 1"],
    "trace": ["traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate: a=b", "baggage: c=d"],
    "many": [f"X-Many-{number}: {number}" for number in range(60)],
    "openai": ["OpenAI-Organization: o", "OpenAI-Beta: assistants=v2", "X-Stainless-Lang: python", "anthropic-version: 2023-06-01"],
}  # fmt: skip


@pytest.mark.parametrize(("name", "stream"), thinned([*UNUSUAL], [False, True]))
async def test_headers_travel_alike(name: str, stream: bool, both: Lanes) -> None:
    lines = UNUSUAL[name]
    sent = post(
        chat(stream=stream), CHAT, "x-play: stream with usage" if stream else "x-play: whole with headers", *lines
    )
    seen = await both.say(sent, sent)

    assert seen.statuses == (
        [401, 401]
        if "Forwarded: for=1.2.3.4" in lines
        else [400]
        if "Content-Type: text/plain" in lines or "Host: other" in lines
        else [200, 200]
    )
    for asked in seen.received:
        names = {name for name, _ in asked.headers}
        assert not names & {"connection", "te", "trailer", "upgrade", "cookie", "keep-alive", "x-secret", "forwarded"}
        assert not any(name.startswith(("x-predawn-", "x-forwarded-")) for name in names)


def members(**changes: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": "hello"}], **changes}).encode()


BODIES: dict[str, bytes] = {
    "nothing": b"", "a word": b"hello", "half": b'{"model":"m","messages":[', "two": b'{"model":"m"}{"model":"m"}', "a list": b'[{"model":"m"}]',
    "null": b"null", "nan": b'{"model":"m","temperature":NaN}', "a trailing comma": b'{"model":"m",}', "no utf-8": b'{"model":"m","user":"\xff\xfe"}',
    "a model that is no utf-8": b'{"model":"m\xff"}', "a byte order mark": b'\xef\xbb\xbf{"model":"m"}', "utf-16": '{"model":"m"}'.encode("utf-16"),
    "a nul": b'{"model":"m\x00"}', "depth": b'{"model":"m","messages":' + b"[" * 50_000 + b"]" * 50_000 + b"}", "no model": b'{"messages":[]}',
    "a model of null": b'{"model":null}', "a model of a number": b'{"model":5}', "an unknown model": members(model="nobody"), "an empty model": members(model=""),
    "a long model": members(model="m" * 5000), "model twice": b'{"model":"m","model":"alias"}', "model twice, the other way": b'{"model":"alias","model":"m"}',
    "model in disguise": b'{"\\u006dodel":"m","messages":[]}', "model twice, once in disguise": b'{"model":"m","\\u006dodel":"alias"}',
    "an escaped model": b'{"model":"\\u006d","messages":[]}', "stream in disguise": b'{"model":"m","str\\u0065am":true}', "stream twice": b'{"model":"m","stream":false,"stream":true}',
    "a stream of a word": members(stream="yes"), "a stream of one": members(stream=1), "a stream of null": members(stream=None), "n": members(n=3),
    "n too large": members(n=129), "n just right": members(n=128), "n of a list": members(n=[1]), "n huge": b'{"model":"m","n":99999999999999999999999}', "n of 1.0": members(n=1.0), "n negative": members(n=-1),
    "predawn": members(predawn={"effort": "low"}), "an empty predawn": members(predawn={}), "predawn of a word": members(predawn="x"), "predawn of null": members(predawn=None),
    "white space": b' \r\n\t{"model" : "m" , "messages":[]}\n\n', "unknown members": members(made_up={"a": [1, None]}), "numbers": b'{"model":"m","seed":123456789012345678901234567890,"temperature":1e400,"top_p":1.10}',
    "stream options": members(stream=True, stream_options={"include_usage": True}), "stream options of a list": members(stream=True, stream_options=[]),
    "stream options without a stream": members(stream_options={"include_usage": True}), "alias": members(model="alias"), "alias streamed": members(model="alias", stream=True),
    "clamped": members(model="clamped", max_tokens=1000), "clamped from below": members(model="clamped", max_tokens=5), "clamped without": members(model="clamped"),
    "clamped twice": members(model="clamped", max_tokens=1000, max_completion_tokens=2000), "clamped and streamed": members(model="clamped", max_completion_tokens=99, stream=True),
    "counting": members(model="counting", stream=True), "counting, asked": members(model="counting", stream=True, stream_options={"include_usage": True}),
    "counting, not asked": members(model="counting", stream=True, stream_options={"include_usage": False}), "counting, with other options": members(model="counting", stream=True, stream_options={"x": 1}),
    "counting, whole": members(model="counting"), "dressed": members(model="dressed"), "umlaut": members(model="umlaut-ä"), "umlaut in utf-8": json.dumps({"model": "umlaut-ä"}, ensure_ascii=False).encode(),
    "unmarked": members(model="unmarked", stream=True), "few": members(model="few"), "nowhere": members(model="nowhere"), "falling from nowhere": members(model="falling from nowhere"),
    "a megabyte": members(user="x" * (1 << 20)), "just a megabyte": members(user="x" * ((1 << 20) - 200)), "too large": members(user="x" * (2 << 20)),
    "escapes": b'{"model":"m","messages":[{"role":"user","content":"\\ud83d\\u0000\\"}{"}]}', "duplicates": b'{"model":"m","messages":[],"messages":[{"role":"user","content":"twice"}]}',
    "max_tokens of a word": members(max_tokens="many"), "max_tokens huge": members(max_tokens=1 << 70), "max_tokens negative": members(max_tokens=-5),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "path"), thinned([*BODIES], [CHAT, "/v1/responses", CHAT, "/v1/messages", CHAT, "/v1/embeddings", CHAT])
)
async def test_bodies_are_read_alike(name: str, path: str, both: Lanes) -> None:
    body = BODIES[name]
    seen = await both.say(
        post(body, path, "x-play: stream with usage" if b'"stream": true' in body else "x-play: whole"), b""
    )

    assert len(seen.answers) == 1
    assert seen.answer.whole or path in ("/v1/responses", "/v1/messages")
    if seen.statuses != [200]:
        assert json.loads(seen.answer.body)["error"]["message"]
        assert seen.received == [] or seen.statuses[0] >= 500


async def test_the_body_limit_holds_for_chunks(both: Lanes) -> None:
    async def story(lane: Lane, client: Client) -> None:
        await client.send(
            post(b"", CHAT, "Transfer-Encoding: chunked"), *[b"10000\r\n" + b"x" * 0x10000 + b"\r\n"] * 40
        )
        await client.gets(b"request_too_large")

    seen = await both.tell(story)

    assert seen.statuses == [413]
    assert seen.received == []


@pytest.mark.parametrize(
    "lines",
    [["Content-Length: 99999999"], ["Content-Length: 99999999999999999999"], ["Content-Length: 2097153"]],
    ids=str,
)
async def test_a_length_beyond_the_limit_is_refused_unread(lines: list[str], both: Lanes) -> None:
    seen = await both.say(post(b"{}", CHAT, *lines))

    assert seen.statuses[0] in (400, 413)
    assert seen.received == []


@pytest.mark.parametrize(
    "hosts", [[], ["localhost"], [""], ["a", "b"], ["a", "a"], ["a b"], ["a,b"], ["a/b"], ["user@a"], ["\xe4"], ["a:x"], ["[::1]:80"], ["a" * 300], ["http://a"]], ids=str
)  # fmt: skip
async def test_hosts_are_judged_alike(hosts: list[str], both: Lanes) -> None:
    body = chat()
    lines = [f"POST {CHAT} HTTP/1.1", *[f"Host: {host}" for host in hosts], length(body)]
    seen = await both.say("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)

    if len(hosts) != 1:  # RFC 9112 3.2
        assert seen.statuses == [400]
        assert seen.received == []
    elif hosts[0] in ("localhost", "[::1]:80"):
        assert seen.statuses == [200]


async def test_a_head_seen_before_is_read_again_where_it_differs(both: Lanes) -> None:
    """The fast lane remembers heads; none may stand for another."""
    first = post(chat(), CHAT, "x-play: whole", "X-A: 1")
    others = [
        post(chat(), CHAT, "x-play: whole", "X-A: 2"),
        post(chat(), CHAT, "x-play: status 404", "X-A: 1"),
        post(chat(), "/v1/completions", "x-play: whole", "X-A: 1"),
        post(chat(user="longer"), CHAT, "x-play: whole", "X-A: 1"),
        post(chat(), CHAT, "x-play: whole", "X-A: 1", "Connection: close"),
    ]
    seen = await both.say(first + first, *others)

    assert seen.statuses == [200, 200, 200, 404, 200, 200, 200]
    assert [asked.value("x-a") for asked in seen.received] == ["1", "1", "2", "1", "1", "1", "1"]
    assert [len(asked.body) for asked in seen.received] == [len(chat())] * 5 + [len(chat(user="longer")), len(chat())]
    assert seen.received[4].line == "POST /v1/completions"
    assert not seen.is_open


@pytest.mark.parametrize(
    "number",
    [
        b"0",
        b"00",
        b"1",
        b"007",
        b"066",
        b"66 ",
        b"66\t",
        b" 66",
        b"66,",
        b"66;",
        b"6e1",
        b"0066",
        b"9999999",
        b"99999999",
    ],
)
async def test_lengths_are_read_alike(number: bytes, both: Lanes) -> None:
    for name in (b"Content-Length: ", b"content-length: ", b"CONTENT-LENGTH:", b"Content-Length:\t"):
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n" + name + number + b"\r\n\r\n"
        for segments in ([head + chat()], [head, chat()], [head + chat() + PLAIN]):
            seen = await both.say(*segments)

            assert not seen.junk
            assert all(asked.body == chat() for asked in seen.received)


TRACED = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    "lines", [[], [TRACED], ["X-Request-ID: one"], [TRACED, "X-Request-ID: one", "Idempotency-Key: x"]], ids=len
)
async def test_what_follows_a_request_needs_a_head_of_its_own(lines: list[str], both: Lanes) -> None:
    """What the fast lane knows of the request before must not stand for what is missing."""
    first, body = post(chat(), CHAT, "x-play: whole", *lines), chat(user="smuggled")
    for rest in (
        b"%d\r" % (len(body) + 1),
        b"%d\r\n" % len(body),
        b"%d\r\n\r\n" % len(body),
        b"Content-Length: %d\r\n\r\n" % len(body),
        b"\r\nContent-Length: %d\r\n\r\n" % len(body),
        b"HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body),
        b"\r\n\r\n",
        b"",
    ):
        seen = await both.say(first + rest + body)
        apart = await both.say(first, rest + body)

        assert len(seen.received) == len(apart.received) == 1
        assert seen.statuses[0] == apart.statuses[0] == 200


@pytest.mark.parametrize(
    "lines",
    [
        [TRACED],
        [TRACED, "tracestate: a=b", "baggage: c=d"],
        ["Idempotency-Key: x"],
        ["X-B3-TraceId: 1", "x-b3-spanid: 2"],
    ],
    ids=str,
)
@pytest.mark.parametrize("model", ["m", "dressed"])
async def test_headers_of_one_request_travel_with_it(lines: list[str], model: str, both: Lanes) -> None:
    plain = post(chat(model=model), CHAT, "x-play: whole")
    told = post(chat(model=model), CHAT, "x-play: whole", *lines)
    other = post(chat(model=model), CHAT, "x-play: whole", *[f"{line}9" for line in lines])
    twice = post(chat(model=model), CHAT, "x-play: whole", *lines, *lines)
    seen = await both.say(plain, told, other, told, plain, twice, plain)

    assert seen.statuses == [200] * 7
    names = [line.partition(":")[0].lower() for line in lines]
    if model == "m":
        assert [sum(key in names for key, _ in asked.headers) for asked in seen.received] == [
            0,
            len(lines),
            len(lines),
            len(lines),
            0,
            2 * len(lines),
            0,
        ]


async def test_so_many_lines_are_too_many(both: Lanes) -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"
    for count in (90, 130, 200):
        for names in (
            [f"x-b3-{letters[n % 26]}{letters[n // 26]}" for n in range(count)],
            [f"x-{n}" for n in range(count)],
        ):
            seen = await both.say(post(chat(), CHAT, *[f"{name}: 1" for name in names]))

            assert seen.statuses == [200 if count == 90 else 400]
