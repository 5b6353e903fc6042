"""The load generator checks what it gets, and sends what it says."""

import asyncio
import json
import re
import shutil

import pytest
from tests.benchmarks.native import compiled
from tests.benchmarks.proxy.measure import HERE

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="the load generator is compiled with gcc")
WHOLE = b"the lazy dog, " * 14


async def loaded(tmp_path, answer, *options, cut=None):
    """The figures of a short run against a server that answers so, and the heads that it was sent."""
    heads = []

    async def serve(reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                heads.append(head)
                await reader.readexactly(2)
                for piece in (answer,) if cut is None else (answer[:cut], answer[cut:]):
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    body = tmp_path / "body.json"
    body.write_bytes(b"{}")
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = str(server.sockets[0].getsockname()[1])
        loader = str(compiled(HERE / "load.c"))
        words = ["--port", port, "--body", str(body), "--connections", "2", "--seconds", "0.1", *options]
        process = await asyncio.create_subprocess_exec(loader, *words, stdout=asyncio.subprocess.PIPE)
        told, _ = await process.communicate()
    return json.loads(told), heads


def http(body, *lines):
    head = [b"HTTP/1.1 200 OK", b"content-length: %d" % len(body), *lines]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


async def test_an_answer_that_lost_a_phrase_is_not_good(tmp_path):
    whole, _ = await loaded(tmp_path, http(WHOLE), "--phrases", "14")
    short, _ = await loaded(tmp_path, http(WHOLE[14:]), "--phrases", "14")

    assert whole["ok"] > 0
    assert (whole["errors"], short["ok"]) == (0, 0)
    assert short["errors"] > 0


@pytest.mark.parametrize("cut", [50, 58, 60, 64, 70])
async def test_a_phrase_is_found_wherever_it_was_cut(tmp_path, cut):
    answer = http(b"lllazy dog lazy lazy dog" + WHOLE[: -2 * 14])

    seen, _ = await loaded(tmp_path, answer, "--phrases", "14", cut=cut)

    assert seen["ok"] > 0
    assert seen["errors"] == 0


async def test_a_compressed_answer_is_not_read(tmp_path):
    seen, _ = await loaded(tmp_path, http(b"\x1f\x8b", b"content-encoding: gzip"), "--phrases", "14")

    assert seen["errors"] == 0


async def test_no_two_fresh_heads_are_alike_and_all_are_well_formed(tmp_path):
    _, heads = await loaded(tmp_path, http(WHOLE), "--phrases", "14", "--fresh")
    _, plain = await loaded(tmp_path, http(WHOLE), "--phrases", "14")

    fields = rb"\r\nx-request-id: req-[0-9a-f]{16}\r\ntraceparent: 00-[0-9a-f]{32}-[0-9a-f]{16}-01\r\n"
    assert len(heads) > 2
    assert len(set(heads)) == len(heads)
    assert all(re.search(fields, head) for head in heads)
    assert len(set(plain)) == 1
