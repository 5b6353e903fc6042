"""Headers behind a stream, over real sockets: what every client makes of them, asked for or not."""

import asyncio
import json
import shutil

import anthropic
import httpx
import openai
import pytest
from tests.acceptance.house import CLIENT_KEY, house

from predawn.plugins.testing import Script

WRONG = "Bob is small. 3 + 4 = 8. Bob = 8."
CHAT = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "How many?"}]}
ASKS = {"TE": "trailers", "Authorization": f"Bearer {CLIENT_KEY}"}
NODE = """
const http = require('http');
const {port, body} = JSON.parse(process.argv[1]);
const agent = new http.Agent({keepAlive: true, maxSockets: 1});
const ask = () => new Promise((done, fail) => {
  const headers = {'content-type': 'application/json', te: 'trailers'};
  const request = http.request({agent, port, path: '/v1/chat/completions', method: 'POST', headers}, reply => {
    let text = '';
    reply.on('data', piece => { text += piece; });
    reply.on('end', () => done({announced: reply.headers.trailer, told: reply.trailers, ends: text.endsWith('[DONE]\\n\\n')}));
  });
  request.on('error', fail);
  request.end(body);
});
(async () => {
  const seen = [await ask(), await ask()];
  agent.destroy();
  console.log(JSON.stringify(seen));
})();
"""


def observing(**given):
    return ["record", {"verify": {"verifiers": ["arithmetic"], "mode": "observe", **given}}]


async def output_of(*command):
    done = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(done.communicate(), 20)
    return out.decode()


def request_bytes(version, *headers, path="/v1/chat/completions", body=CHAT):
    sent = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/{version}", "Host: x", "Content-Type: application/json", f"Content-Length: {len(sent)}"]
    return "\r\n".join([*lines, *headers]).encode() + b"\r\n\r\n" + sent


async def test_one_connection_serves_on_after_a_trailer():
    async with house(Script(text=WRONG), plugins=observing()) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        ends = []
        for _ in range(3):
            writer.write(request_bytes("1.1", "TE: trailers"))
            head = await reader.readuntil(b"\r\n\r\n")
            rest = await reader.readuntil(b"\r\n0\r\n")
            trailer = await reader.readuntil(b"\r\n\r\n")
            ends.append((b"Trailer: x-predawn-verified\r\n" in head, rest.count(b"[DONE]"), trailer))
        writer.close()

        assert ends == [(True, 1, b"x-predawn-verified: violation;checks=3;violations=1\r\n\r\n")] * 3


async def test_a_connection_of_1999_ends_by_being_closed():
    async with house(Script(text=WRONG), plugins=observing()) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(request_bytes("1.0", "TE: trailers"))
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()

        assert answer.endswith(b"data: [DONE]\n\n")
        assert b"railer" not in answer.partition(b"\r\n\r\n")[0]


async def test_head_and_refusals_have_no_trailer():
    async with house(Script(text=WRONG), plugins=observing()) as running, httpx.AsyncClient(headers=ASKS) as client:
        head = await client.head(f"{running.base_url}/chat/completions")
        refusal = await client.post(f"{running.base_url}/chat/completions", json={"stream": True})

        assert refusal.status_code == 400
        assert all("trailer" not in reply.headers for reply in (head, refusal))


async def test_python_clients_are_not_disturbed():
    async with house(Script(text=WRONG), plugins=observing()) as running:
        async with openai.AsyncOpenAI(base_url=running.base_url, api_key=CLIENT_KEY, default_headers=ASKS) as client:
            for _ in range(2):
                stream = await client.chat.completions.create(**CHAT)
                said = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
                assert "".join(said) == WRONG
        hello = {"model": "m", "max_tokens": 99, "messages": CHAT["messages"]}
        async with anthropic.AsyncAnthropic(base_url=running.url, api_key=CLIENT_KEY, default_headers=ASKS) as client:
            for _ in range(2):
                async with client.messages.stream(**hello) as stream:
                    assert (await stream.get_final_text()) == WRONG
        async with httpx.AsyncClient(headers=ASKS) as client:
            for _ in range(2):
                reply = await client.post(f"{running.base_url}/chat/completions", json=CHAT)
                assert reply.text.endswith("[DONE]\n\n")
        await running.idle()


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
async def test_curl_shows_it():
    async with house(Script(text=WRONG), plugins=observing()) as running:
        address = f"{running.base_url}/chat/completions"
        command = ("curl", "-sS", "-D", "-", "-H", "TE: trailers", "-H", "Content-Type: application/json")
        out = await output_of(*command, "-d", json.dumps(CHAT), address)

        assert out.count("data: [DONE]") == 1
        assert "x-predawn-verified: violation;checks=3;violations=1" in out


@pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")
async def test_node_reads_it_and_keeps_its_connection():
    async with house(Script(text=WRONG), plugins=observing()) as running:
        out = await output_of("node", "-e", NODE, json.dumps({"port": running.port, "body": json.dumps(CHAT)}))
        told = {"x-predawn-verified": "violation;checks=3;violations=1"}

        assert json.loads(out) == [{"announced": "x-predawn-verified", "told": told, "ends": True}] * 2


async def test_after_comments_it_comes_unannounced():
    waits = {"keep_alive_comment_s": 0.02}
    script = Script(text=WRONG, first_byte_ms=120)
    async with house(script, plugins=observing(), server=waits) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(request_bytes("1.1", "TE: trailers", "Connection: close"))
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()

        assert b": keep-alive" in answer
        assert answer.endswith(b"\r\n0\r\nx-predawn-verified: violation;checks=3;violations=1\r\n\r\n")
