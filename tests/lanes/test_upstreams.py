"""What upstreams may answer, fail to answer, or babble: clients of both lanes get the same of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.acceptance.bare import chat, post
from tests.lanes.client import Client
from tests.lanes.lane import Lane, Lanes
from tests.lanes.plays import DONE, PLAYS, STREAM, WHOLE
from tests.lanes.thinning import thinned
from tests.lanes.upstream import Step

from predawn.proxy.wire import sse

pytestmark = pytest.mark.asyncio(loop_scope="module")
CHAT = "/v1/chat/completions"
HELD = {name for name, plays in PLAYS.items() if any(Step.HOLD in play for play in plays)}
ENDING = [name for name in PLAYS if name not in HELD and name not in ("flood", "giant", "giant whole")]
STREAMED = [name for name in ENDING if name.startswith("stream")]
LOST_WHOLE = ["closed before the head", "aborted before the head", "closed in the head", "closed behind the head", "closed in the body", "aborted in the body", "closed in a chunk"]  # fmt: skip
LOST_STREAM = ["stream closed behind the head", "stream closed in an event", "stream closed between events", "stream aborted between events", "stream closed in a chunk", "stream closed before its last chunk", "stream of a bad chunk", "stream of too few bytes"]  # fmt: skip


def ask(play: str, *, stream: bool = False, model: str = "m", path: str = CHAT, **members: Any) -> bytes:
    return post(chat(model=model, stream=stream, **members), path, f"x-play: {play}")


@pytest.mark.parametrize("play", ENDING)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_an_answer_is_passed_on_alike(play: str, stream: bool, both: Lanes) -> None:
    seen = await both.say(ask(play, stream=stream))
    again = await both.say(ask("whole"))

    assert len(seen.answers) == 1
    assert seen.rest == b""
    assert again.answer.body == WHOLE
    assert "location" not in dict(seen.answer.headers)
    if not seen.answer.whole:
        assert not seen.is_open
        assert b"error" in seen.answer.body


@pytest.mark.parametrize(("play", "model"), thinned(ENDING, ["counting", "thrice", "falling", "hasty", "unmarked"]))
async def test_models_of_other_settings_pass_it_on_alike(play: str, model: str, both: Lanes) -> None:
    async def story(lane: Lane, client: Client) -> None:
        await client.send(ask(play, stream="stream" in play, model=model))
        await lane.quiet(client)
        await client.send(ask("whole", model=model))

    seen = await both.tell(story)

    assert len(seen.answers) in (1, 2)
    assert seen.answers[-1].body == WHOLE or not seen.is_open or seen.answers[0].status == 200


@pytest.mark.parametrize(
    ("play", "path"), thinned(STREAMED, ["/v1/messages", "/v1/responses", "/v1/completions", "/v1/embeddings"])
)
async def test_streams_of_other_routes_are_passed_on_alike(play: str, path: str, both: Lanes) -> None:
    seen = await both.say(ask(play, stream=True, path=path))

    assert len(seen.answers) == 1


async def test_a_stream_is_passed_on_byte_for_byte(both: Lanes) -> None:
    for play in ("stream", "stream at once", "stream until close", "stream of a length", "stream with extensions"):
        seen = await both.say(ask(play, stream=True))

        assert (seen.answer.body, seen.answer.whole) == (b"".join([*STREAM, DONE]), True)


async def test_usage_that_nobody_asked_for_is_hidden(both: Lanes) -> None:
    for play in (
        "stream with usage",
        "stream of crlf with usage",
        "stream of split events",
        "stream of crlf in pieces",
    ):
        hidden = await both.say(ask(play, stream=True, model="counting"))
        shown = await both.say(ask(play, stream=True, model="counting", stream_options={"include_usage": True}))

        assert b'"usage"' not in hidden.answer.body
        assert b'"usage"' in shown.answer.body
        assert json.loads(hidden.asked.body)["stream_options"] == {"include_usage": True}
        assert hidden.count("predawn_tokens_total", type="input") == 7
        assert hidden.count("predawn_tokens_total", type="output") == 3


@pytest.mark.parametrize("play", LOST_WHOLE)
async def test_a_lost_answer_is_an_error(play: str, both: Lanes) -> None:
    seen = await both.say(ask(play), ask("whole"))

    assert seen.statuses == [502, 200]
    assert seen.count("predawn_requests_total", code="502") == 1
    assert seen.count("predawn_upstream_errors_total") == 1


@pytest.mark.parametrize("play", LOST_STREAM)
async def test_a_lost_stream_is_visibly_broken(play: str, both: Lanes) -> None:
    seen = await both.say(ask(play, stream=True))

    assert not seen.answer.whole or seen.answer.status == 502
    assert not seen.is_open or seen.answer.status == 502
    assert b'"error"' in seen.answer.body.rpartition(b"data: ")[2]
    assert seen.count("predawn_upstream_errors_total") == 1


@pytest.mark.parametrize(("code", "stream", "model"), thinned([408, 409, 429, 500, 502, 503, 504, 529], ["", " stream"], ["thrice", "thrice", "falling"]))  # fmt: skip
async def test_a_passing_failure_is_tried_again(code: int, stream: str, model: str, both: Lanes) -> None:
    seen = await both.say(ask(f"once {code}{stream}", stream=bool(stream), model=model))

    assert seen.statuses == [200]
    assert len(seen.received) == 2
    assert seen.count("predawn_requests_total", code="200") == 1
    assert seen.answer.value("x-predawn-upstream") == ("thrice" if model == "thrice" else "second")


@pytest.mark.parametrize("code", [429, 500, 503])
async def test_when_all_tries_fail_the_client_is_told_to_stop(code: int, both: Lanes) -> None:
    seen = await both.say(ask(f"status {code}", model="thrice"))

    assert seen.statuses == [code]
    assert len(seen.received) == 3
    assert seen.answer.value("x-should-retry") == "false"
    assert seen.answer.value("x-upstream-request-id") == "theirs"


@pytest.mark.parametrize("code", [400, 401, 404, 422])
async def test_a_clients_own_error_is_passed_on(code: int, both: Lanes) -> None:
    for model in ("m", "thrice", "falling"):
        for stream in (False, True):
            seen = await both.say(ask(f"status {code}", model=model, stream=stream))

            assert seen.answer.line == f"HTTP/1.1 {code} {seen.answer.line[13:]}"
            assert len(seen.received) == 1
            assert seen.answer.value("x-kept") == "yes"
            assert seen.is_open


@pytest.mark.parametrize("code", [429, 503])
@pytest.mark.parametrize("model", ["m", "thrice", "falling"])
async def test_what_a_busy_upstream_asks_for_is_done(code: int, model: str, both: Lanes) -> None:
    """At once where it asks for no pause; a long pause is the client's to make."""
    one = ask(f"wait {code}", model=model)
    seen = await both.say(one, one, one)

    assert seen.statuses == [code, code, code if model == "m" else 200]
    assert len(seen.received) == {"m": 3, "thrice": 6, "falling": 6}[model]


@pytest.mark.parametrize("play", ["held", "held in the head", "held in the body", "stream held before the head", "stream held behind the head", "stream held", "stream held at its end"])  # fmt: skip
async def test_an_upstream_that_goes_quiet_is_given_up(play: str, both: Lanes) -> None:
    stream = play.startswith("stream")
    end = b"upstream_timeout"

    async def story(lane: Lane, client: Client) -> None:
        await client.send(ask(play, model="hasty", stream=stream))
        await client.gets(end if play != "stream held at its end" else b"error")

    seen = await both.tell(story)

    assert seen.statuses == [504] or (stream and seen.statuses == [200] and not seen.answer.whole)
    assert seen.left == 1


@pytest.mark.parametrize("play", ["held", "held in the head", "held in the body", "stream held before the head", "stream held behind the head", "stream held", "stream held at its end", "slow", "more than its length", "an answer nobody asked for"])  # fmt: skip
async def test_what_comes_late_is_passed_on(play: str, both: Lanes) -> None:
    stream = play.startswith("stream")

    async def story(lane: Lane, client: Client) -> None:
        await client.send(ask(play, stream=stream))
        await lane.held(client)
        lane.provider.go()
        if play != "more than its length":  # which may be no answer at all
            await client.gets(b"\r\n0\r\n\r\n" if stream else b'{"kept": null}]}')
        await lane.quiet(client)
        await client.send(ask("whole"))
        await client.gets(WHOLE)

    seen = await both.tell(story)

    assert seen.statuses == [200, 200] or (play == "more than its length" and seen.statuses == [502, 200])
    assert b"stray" not in seen.answers[1].body


async def test_a_stray_answer_answers_nobody(both: Lanes) -> None:
    async def story(lane: Lane, client: Client) -> None:
        for _ in range(3):
            await client.send(ask("two answers"))
            await lane.quiet(client)

    seen = await both.tell(story)

    assert [b"stray" in answer.body for answer in seen.answers] == [False] * 3


async def test_an_upstream_that_is_not_there_is_an_error(both: Lanes) -> None:
    for model in ("nowhere", "falling from nowhere"):
        for stream in (False, True):
            seen = await both.say(ask("stream" if stream else "whole", model=model, stream=stream))

            assert seen.statuses == [502 if model == "nowhere" else 200]
            assert seen.count("predawn_upstream_errors_total", reason="connect") == 1
            assert seen.count("predawn_upstream_fallbacks_total") == (model != "nowhere")


async def test_an_event_without_end_is_given_up(both: Lanes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 1 << 20)
    seen = await both.say(ask("stream of an endless event", stream=True, model="counting"))

    assert not seen.answer.whole
    assert b'"error"' in seen.answer.body[-300:]
    assert seen.left == 1


async def test_a_giant_answer_is_passed_on(both: Lanes) -> None:
    seen = await both.say(ask("giant whole"))
    broken = await both.say(ask("giant"))

    assert len(seen.answer.body) == 3_000_000
    assert seen.answer.whole
    assert broken.statuses == [502]


async def test_an_answer_may_come_before_the_request_is_read(both: Lanes) -> None:
    for size in (1000, 900_000, 1_900_000):
        seen = await both.say(ask("answers early", user="x" * size))

        assert seen.statuses[0] in (413, 502)


async def test_other_endpoints_are_relayed_where_the_settings_allow_it(both: Lanes) -> None:
    for line in (
        "GET /v1/files?a=b",
        "DELETE /v1/files/x",
        "POST /v1/files",
        "PUT /v1/files/x",
        "PATCH /v1/files/x",
        "GET /v1/other",
        "HEAD /v1/files",
    ):
        for play in (
            "whole",
            "stream",
            "status 404",
            "204",
            "closed in the body",
            "stream closed between events",
            "no json",
        ):
            if line[0] in "DH" and play != "whole":
                continue
            seen = await both.say(
                f"{line} HTTP/1.1\r\nHost: x\r\nx-play: {play}\r\nContent-Length: 2\r\n\r\n{{}}".encode()
            )

            assert len(seen.answers) == 1
            assert len(seen.received) == ("/files" in line)
