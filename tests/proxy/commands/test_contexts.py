"""`predawn contexts`: speaks to a running server, and says in one line what is wrong."""

import asyncio
import json
import socket
from contextlib import asynccontextmanager

import pytest
from tests.plugins.sleep.desk_clerk import DeskClerk

from predawn.plugins.sleep.contexts import Progress
from predawn.plugins.testing import workbench
from predawn.proxy.cli import main
from predawn.proxy.commands import contexts
from predawn.proxy.commands.contexts_client import Client, ServerError
from predawn.proxy.http_server import HttpServer
from predawn.proxy.listening import bind, listen


@asynccontextmanager
async def serving():
    """The endpoints on a real socket."""
    clerk = DeskClerk()
    async with workbench(clerk) as bench:
        http = HttpServer(bench._app.handle, body_limit=1 << 20)
        listening = await listen(http, bind("127.0.0.1", 0))
        try:
            yield clerk, f"http://127.0.0.1:{listening.port}/v1"
        finally:
            listening.close()
            await http.shutdown(timeout=0.1)


async def cli(url, *arguments):
    return await asyncio.to_thread(main, ["contexts", arguments[0], "--url", url, *arguments[1:]])


async def test_a_file_is_added_listed_shown_and_forgotten(tmp_path, capsys):
    file = tmp_path / "story.txt"
    file.write_text("Ann has 3.")
    async with serving() as (_, url):
        statuses = [
            await cli(url, "add", str(file), "--id", "story", "--ttl", "60", "--sleep", "always", "--model", "m"),
            await cli(url, "list"),
            await cli(url, "list", "--json", "--source", "registered", "--limit", "1"),
            await cli(url, "show", "story"),
            await cli(url, "forget", "story"),
            await cli(url, "list"),
            await cli(url, "forget", "story", "other"),
        ]
    out, err = capsys.readouterr()
    lines = out.splitlines()

    assert statuses == [0, 0, 0, 0, 0, 0, 1]
    assert lines[0] == "story"
    assert lines[1].split()[:4] == ["ID", "VERSION", "SOURCE", "STATE"]
    assert lines[2].split()[:5] == ["story", "1", "registered", "new", "m"]
    assert json.loads(lines[3])["sleep"] == {"policy": "always"}
    assert json.loads("\n".join(lines[4:]))["anticipated"] == []
    assert "registered: version 1" in err
    assert "forgot story" in err
    assert "there are no contexts" in err
    assert "There is no context 'other'." in err


async def test_messages_come_from_json(tmp_path, capsys):
    said = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]
    bare, whole = tmp_path / "bare.json", tmp_path / "whole.json"
    bare.write_text(json.dumps(said))
    whole.write_text(json.dumps({"messages": said, "live": 1, "id": "whole"}))
    async with serving() as (clerk, url):
        await cli(url, "add", str(bare), "--id", "bare")
        await cli(url, "add", str(whole))
        kept = [len((await clerk.shelf.get("default", name)).messages) for name in ("bare", "whole")]

    assert kept == [2, 1]


async def test_a_text_comes_from_standard_input(monkeypatch):
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("from a pipe"))
    async with serving() as (clerk, url):
        await cli(url, "add", "-", "--id", "c")

        assert (await clerk.shelf.get("default", "c")).messages[0]["content"] == "from a pipe"


@pytest.mark.parametrize("content", ["{}", "[", "3", "[" * 100_000, None, b"\xff"])
async def test_a_file_that_is_none_is_refused(tmp_path, capsys, content):
    file = tmp_path / "x.json"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())

    assert await cli("http://127.0.0.1:1/v1", "add", str(file)) == 2
    assert "cannot be read" in capsys.readouterr().err


STAGES = [
    Progress("queued", "", 0, 4, 0, 1000),
    Progress("sleeping", "consolidate", 2, 4, 200, 1000),
    Progress("checking", "check", 4, 4, 400, 1000),
    Progress("asleep", "warm", 4, 4, 500, 1000),
    Progress("asleep", "", 4, 4, 500, 1000),
]


async def test_watching_shows_each_stage_until_it_is_over(capsys):
    async with serving() as (clerk, url):
        clerk.will_be = list(STAGES)
        await asyncio.to_thread(lambda: Client(url, None).call("POST", "", {"text": "x", "id": "c"}))
        loop = asyncio.get_running_loop()

        def pause(_seconds):
            asyncio.run_coroutine_threadsafe(clerk.step("default", "c"), loop).result(10)

        def watch():
            client = Client(url, None)
            return contexts.watch(client, "c", client.call("POST", "/c/sleep", {}), pause=pause)

        status = await asyncio.to_thread(watch)

    assert status == 0
    assert capsys.readouterr().err.splitlines() == [
        "[........................]  queued  pass 0 of 4",
        "[########................]  sleeping  consolidate  pass 2 of 4  200 tokens of 1000",
        "[#################.......]  checking  check  pass 4 of 4  400 tokens of 1000",
        "[#######################.]  asleep  warm  pass 4 of 4  500 tokens of 1000",
        "[########################]  asleep  pass 4 of 4  500 tokens of 1000",
    ]


def watched(context):
    """What comes of watching a context that stays as it is, which must end at once."""
    return contexts.watch(Client("http://127.0.0.1:1/v1", None), "c", context)


def test_watching_ends_where_a_stage_was_put_off():
    waits = {"why": "deferred", "stage": "anticipate"}

    assert watched({"state": "asleep", "progress": {"stage": "anticipate", "waits": waits}}) == 0


def test_watching_tells_why_nothing_came_of_it(capsys):
    decision = {"ended": {"outcome": "rejected", "why": "too much was wrong:\x1b 2 wrong; 1 right"}}
    status = watched({"state": "failed", "progress": {"decision": decision}})

    assert status == 1
    assert capsys.readouterr().err.splitlines()[-1] == "rejected: too much was wrong:? 2 wrong; 1 right"


@pytest.mark.parametrize(("state", "status"), [("asleep", 0), ("skipped", 0), ("failed", 1), ("new", 1)])
async def test_the_exit_status_of_watching_says_what_came_of_it(state, status):
    async with serving() as (clerk, url):
        await asyncio.to_thread(lambda: Client(url, None).call("POST", "", {"text": "x", "id": "c"}))
        clerk.will_be = [Progress(state)]

        assert await cli(url, "sleep", "c", "--watch", "--passes", "3") == status
        assert clerk.seen[-1] == ("asked", "c", "3")


async def test_a_server_that_does_not_answer_is_named(capsys):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"

        assert await cli(url, "list") == 1
    assert f"{url} does not answer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", "answered 302"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "no JSON"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "no JSON object"),
        (b"HTTP/1.1 500 X\r\nContent-Length: 2\r\n\r\nno", "answered 500"),
        (b"garbage\r\n\r\n", "does not answer"),
        (b"", "does not answer"),
    ],
)
async def test_what_is_no_predawn_is_told_in_one_line(capsys, answer, words):
    async def reply(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(reply, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        status = await cli(f"http://127.0.0.1:{port}/v1", "list", "--key", "sesame")
    err = capsys.readouterr().err

    assert status == 1
    assert words in err
    assert len(err.splitlines()) == 1
    assert "sesame" not in err


def test_a_url_must_be_one(capsys):
    assert main(["contexts", "list", "--url", "file:///etc/passwd"]) == 1
    assert "is no URL of a server" in capsys.readouterr().err


def test_a_key_with_a_line_break_is_refused_without_showing_it():
    with pytest.raises(ServerError, match="characters that no key has") as caught:
        Client("http://127.0.0.1/v1", "sesame\n")

    assert "sesame" not in str(caught.value)


def test_the_bar_tells_what_is_waited_for():
    context = {"state": "queued", "progress": {"waits": {"why": "busy", "in_flight": 1}}}

    assert contexts.progress(context).endswith("queued  waits: busy")


def test_nothing_moves_the_cursor():
    context = {"state": "sleeping\x1b[2J", "progress": {"stage": "\x07", "pass_no": 9, "max_passes": 3, "tokens": 5}}

    assert contexts.progress(context).isprintable()
