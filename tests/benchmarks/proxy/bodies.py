"""Request bodies: the two sizes that are measured, and odd ones that must arrive unchanged."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODEL = "mock-model"
SMALL_BYTES, LARGE_BYTES = 1_500, 60_000
PARAGRAPH = (
    'Predawn is a "streaming" inference proxy.\n'
    "It relays tokens as they arrive, unchanged — byte for byte — and counts them. "
)


@dataclass(frozen=True, slots=True)
class Pace:
    """How the mock upstream streams: it reads the tag anywhere in the body."""

    interval_us: int
    chunks: int

    @property
    def tag(self) -> str:
        return f"pace-{self.interval_us}-{self.chunks}"


def chat_body(size: int, pace: Pace | None = None) -> bytes:
    """A conversation of about `size` bytes, streamed when a pace is given. The tag stands in the system message because
    some gateways drop fields."""
    system = "You are a helpful assistant. Answer concisely and cite sources when possible."
    messages = [{"role": "system", "content": f"{system} Session: {pace.tag if pace else 'none'} ."}]
    while len(body := _encode(messages, stream=pace is not None)) < size:
        role = "user" if len(messages) % 2 else "assistant"
        messages.append({"role": role, "content": PARAGRAPH * max(1, min(6, (size - len(body)) // 400))})
    return body


def _encode(messages: list[dict[str, str]], *, stream: bool) -> bytes:
    request: dict[str, Any] = {
        "model": MODEL,
        "messages": messages,
        "temperature": 0.7,
        "max_tokens": 256,
        "top_p": 0.95,
    }
    request |= {"user": "u-12345", "stream": stream}
    if stream:
        request["stream_options"] = {"include_usage": True}
    return json.dumps(request, ensure_ascii=False, separators=(",", ":")).encode()


def write_bodies(folder: Path, bodies: Mapping[str, bytes]) -> dict[str, Path]:
    """Lays bodies down as files for the load generator."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.json" for name in bodies}
    for name, body in bodies.items():
        paths[name].write_bytes(body)
    return paths


# Everything a decoder that encodes again would tidy up. Each is valid JSON and a valid request.
ODD_BODIES: dict[str, bytes] = {
    "spacing": b'{ "model" :\t"mock-model" ,\n\n "messages":[ { "role":"user" , "content":"hi" } ]  ,"stream" : false }\r\n ',
    "key order": b'{"zzz":1,"messages":[{"content":"hi","role":"user"}],"aaa":{"b":2,"a":1},"model":"mock-model","__":[]}',
    "unicode escapes": rb'{"model":"mock-model","messages":[{"role":"user","content":"\u00e9\u00C9 \ud83d\ude00 \/ \u2028 \u0000 \b"}]}',
    "raw unicode": '{"model":"mock-model","messages":[{"role":"user","content":"é — 😀 \u2028 日本語 \u200f"}]}'.encode(),
    "big numbers": b'{"model":"mock-model","messages":[{"role":"user","content":"hi"}],"seed":123456789012345678901234567890,'
    b'"temperature":1.0,"top_p":1E0,"min_p":0.10000000000000000555,"x":-0,"y":1e400,"z":18446744073709551616}',
    "duplicate keys": b'{"model":"mock-model","user":"a","user":"b","messages":[{"role":"user","content":"hi","content":"ho"}]}',
    "unknown fields": b'{"model":"mock-model","messages":[{"role":"user","content":"hi","cache_control":{"type":"ephemeral"}}],'
    b'"chat_template_kwargs":{"enable_thinking":false},"guided_json":null,"logit_bias":{"50256":-100},"user":"u"}',
    "empty and null": b'{"model":"mock-model","messages":[{"role":"user","content":""}],"stop":null,"tools":[],"metadata":{},"n":1}',
    "escaped model name": rb'{"m\u006fdel":"mock-model","messages":[{"role":"user","content":"hi"}],"model":"mock\u002dmodel"}',
    "stream": b'{"stream" : true,"stream_options":{"include_usage":true },"model":"mock-model",'
    b'"messages":[{"role":"user","content":"pace-0-3"}], "unknown":1.50}',
    "large": chat_body(LARGE_BYTES),
}
