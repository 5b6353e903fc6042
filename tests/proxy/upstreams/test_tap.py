"""A connection goes back to the pool before the answer it brought has been passed on."""

import asyncio

from aiohttp.streams import StreamReader

from predawn.proxy.upstreams.tap import TapConnection, TapSource


class Pool:
    def release(self):
        pass

    def close(self):
        pass


def source(connection):
    content = StreamReader(connection, 1 << 16, loop=asyncio.get_running_loop())
    return content, TapSource(content, Pool(), connection, "u", 1.0)


async def test_an_answer_that_is_over_leaves_the_next_ones_listener_alone():
    connection = TapConnection(asyncio.get_running_loop())
    content, first = source(connection)
    first.listen(lambda: None)
    content.feed_eof()  # from here on the connection may serve another request
    _, second = source(connection)
    heard = []
    second.listen(lambda: heard.append("second"))

    first.listen(lambda: heard.append("first"))
    first.listen(None)
    await first.aclose()
    connection.data_received(b"more")

    assert ["second"] == heard


async def test_an_answer_that_is_given_up_is_not_listened_to_any_more():
    connection = TapConnection(asyncio.get_running_loop())
    _, only = source(connection)
    heard = []
    only.listen(lambda: heard.append("only"))

    await only.aclose()
    connection.data_received(b"more")

    assert [] == heard


class Closing(asyncio.Transport):
    def is_closing(self):
        return True


async def test_an_answer_whose_connection_is_closing_may_still_end_well():
    connection = TapConnection(asyncio.get_running_loop())
    connection.connection_made(Closing())
    content, one = source(connection)
    before = one.error
    content.feed_eof()
    connection.connection_lost(None)

    assert (before, one.error, one.at_end) == (None, None, True)


async def test_an_answer_whose_connection_was_lost_before_its_end_was_cut_off():
    connection = TapConnection(asyncio.get_running_loop())
    connection.connection_made(Closing())
    _, one = source(connection)
    connection.connection_lost(None)

    assert one.error is not None
    assert one.error.reason == "truncated"
