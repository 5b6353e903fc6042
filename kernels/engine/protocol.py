"""What the proxy and the engine's process say to each other: length-prefixed msgpack, orders one way, news the other.

The first order is `Open`; the worker then tells what it is `Loading`, and at last that it is `Ready` or has `Failed`.
After `Ready` come requests. A request is `Taken` up, then answered by `Refused`, or by `Began`, its `Piece`s, and
`Ended`; a cancelled one by nothing more. A `Ping` is answered by a `Pong` between two steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

from predawn.kernels.engine.asks import Kind
from predawn.kernels.engine.steps import Told

LENGTH_BYTES: Final = 4
Finish: TypeAlias = Literal["stop", "length"]


class Open(Struct, tag="open", kw_only=True, array_like=True, frozen=True):
    """Load a model; what is None is chosen by the worker."""

    path: str | None = None
    """A checkpoint's folder or GGUF file; None is the bundled model."""
    device: str = "cpu"
    dtype: str | None = None
    threads: int | None = None
    context: int | None = None
    """Longest prompt and answer together, in tokens; at most the model's own."""
    kv_memory_mb: float | None = None
    max_batch: int = 16
    max_waiting: int = 64
    prefill_chunk: int = 256
    lookup: bool = False
    """Whether requests that do not say draft from n-grams."""
    most_width: int = 1
    """Most trajectories that may vote on a token; 1 switches the experiment off."""


class Ask(Struct, tag="ask", array_like=True, frozen=True):
    """Answer a request; `body` is the client's JSON."""

    id: int
    kind: Kind
    body: bytes
    salt: str | None = None
    """Requests of the same salt may use each other's computed prompts; None shares nothing."""


class Cancel(Struct, tag="cancel", array_like=True, frozen=True):
    """Nobody wants that answer any more."""

    id: int


class Ping(Struct, tag="ping", array_like=True, frozen=True):
    """Give a sign of life."""


class Pong(Struct, tag="pong", array_like=True, frozen=True):
    """A sign of life: orders are read, and no step is stuck."""


class Loading(Struct, tag="loading", array_like=True, frozen=True):
    """What the worker is doing before it is ready, for the log."""

    text: str


class Ready(Struct, tag="ready", kw_only=True, array_like=True, frozen=True):
    """The model is loaded."""

    model: str
    device: str
    dtype: str
    execution: str
    """How decode steps are computed; see `Model.arithmetic`."""
    context: int
    pages: int
    max_batch: int
    largest_body: int
    """Bytes beyond which a request cannot fit the context whatever it says."""
    fingerprint: str
    """Changes when equal seeds may give other answers."""
    load_s: float


class Failed(Struct, tag="failed", array_like=True, frozen=True):
    """The model cannot be loaded, for a reason that another start does not change."""

    message: str


class Taken(Struct, tag="taken", array_like=True, frozen=True):
    """The request is looked at from now on: should the process end, it may be the reason."""

    id: int


class Refused(Struct, tag="refused", kw_only=True, array_like=True, frozen=True):
    """The request was not taken."""

    id: int
    status: int
    message: str
    code: str | None = None
    param: str | None = None
    retry_after_s: float | None = None


class Began(Struct, tag="began", array_like=True, frozen=True):
    """The request was taken, and waits or runs."""

    id: int
    choices: int
    stream: bool
    wants_usage: bool


class TokenScore(Struct, array_like=True, frozen=True):
    """One token and how likely it was."""

    text: str
    raw: bytes
    logprob: float
    top: list[tuple[str, bytes, float]]
    """The likeliest tokens in its place, most likely first."""
    offset: int
    """Where in its choice's text it begins, in characters."""


class Piece(Struct, tag="piece", array_like=True, frozen=True):
    """More of one choice. Its last piece has `finish`."""

    id: int
    index: int
    text: str = ""
    reasoning: str = ""
    finish: Finish | None = None
    scores: list[TokenScore] | None = None
    """Of the tokens in `text`; None where no logprobs are wanted."""
    reasoning_scores: list[TokenScore] | None = None


class Ended(Struct, tag="ended", kw_only=True, array_like=True, frozen=True):
    """The request is answered; all counts are tokens."""

    id: int
    prompt: int
    cached: int
    output: int
    reasoning: int


class Stats(Struct, tag="stats", kw_only=True, array_like=True, frozen=True):
    """How busy the engine is; counts of tokens grow from its start."""

    running: int
    waiting: int
    pages_used: int
    pages: int
    prefilled: int
    decoded: int
    lookup_accepted: int
    steps: Told = {}


Order: TypeAlias = Open | Ask | Cancel | Ping
News: TypeAlias = Loading | Ready | Failed | Taken | Refused | Began | Piece | Ended | Stats | Pong

_encode = msgspec.msgpack.Encoder().encode
_order = msgspec.msgpack.Decoder(Order).decode
_news = msgspec.msgpack.Decoder(News).decode


def frame(*messages: Order | News) -> bytes:
    """Messages as bytes."""
    return b"".join(
        [len(body).to_bytes(LENGTH_BYTES, "big") + body for body in [_encode(message) for message in messages]]
    )


class Frames:
    """Cuts bytes that come in any split into the bodies of messages."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that are complete now."""
        held = self._held
        held += data
        bodies: list[bytes] = []
        start = 0
        while len(held) - start >= LENGTH_BYTES:
            end = start + LENGTH_BYTES + int.from_bytes(held[start : start + LENGTH_BYTES], "big")
            if len(held) < end:
                break
            bodies.append(bytes(held[start + LENGTH_BYTES : end]))
            start = end
        del held[:start]
        return bodies


def orders(bodies: Iterable[bytes]) -> Iterator[Order]:
    """Decode what a worker gets. Raises `msgspec.DecodeError`."""
    return map(_order, bodies)


def news(bodies: Iterable[bytes]) -> Iterator[News]:
    """Decode what a worker says. Raises `msgspec.DecodeError`."""
    return map(_news, bodies)
