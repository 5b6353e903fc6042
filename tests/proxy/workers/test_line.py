"""The line between a supervisor and a worker."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from predawn.proxy.listening import Sockets, bind
from predawn.proxy.workers.line import Line, first_text, hand_down, take_over

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Pair]:
    both = socket.socketpair()
    yield both
    for end in both:
        end.close()


async def test_words_arrive_whole_and_in_order_however_they_are_cut(ends: Pair) -> None:
    heard: list[tuple[str, str]] = []
    ended = asyncio.Event()
    ends[0].setblocking(False)
    await Line.open(ends[0], lambda word, text: heard.append((word, text)), ended.set)
    texts = ["", "a\nb", "\udcff", "x" * 100_000]
    ends[1].setblocking(False)
    other = await Line.open(ends[1], lambda *_: None, lambda: None)
    for text in texts:
        other.say("load", text)
    other.close()
    await asyncio.wait_for(ended.wait(), 5)
    other.say("load", "to nobody")

    assert heard == [("load", text) for text in texts]


def test_sockets_come_down_and_what_follows_is_left_in_the_line(ends: Pair) -> None:
    api, admin = bind("127.0.0.1", 0, shared=True), bind("127.0.0.1", 0)
    hand_down(ends[0], Sockets(api, admin))
    ends[0].sendall(b'["load", "server: {}"]\n["retire", ""]\n')
    taken = take_over(ends[1])
    given = [one.getsockname() for one in (*api, *admin)]
    names = [one.getsockname() for one in (*taken.api, *taken.admin)]
    text = first_text(ends[1])
    for one in (*api, *admin, *taken.api, *taken.admin):
        one.close()

    assert names == given
    assert text == "server: {}"
    assert ends[1].recv(100) == b'["retire", ""]\n'


def test_a_supervisor_that_is_gone_is_the_end_of_the_line(ends: Pair) -> None:
    ends[0].close()

    with pytest.raises(EOFError):
        first_text(ends[1])
