"""`Exchange.trail`: the server's part of headers behind a stream."""

import asyncio

import pytest

from predawn.plugins import Plugin, PluginSettings, RequestError, hookimpl
from predawn.plugins.testing import Answer, run_plugin, workbench

ASKS = {"te": "trailers"}


class Tells(Plugin[PluginSettings]):
    """Ends streams with what it was made with."""

    def __init__(self, **told):
        super().__init__(PluginSettings())
        self.told = told
        self.asked = []

    @hookimpl
    async def on_request(self, exchange):
        for name, value in self.told.items():

            async def tell(name=name, value=value):
                self.asked.append(name)
                return await value() if callable(value) else value

            exchange.trail(f"x-{name}", tell)


async def test_several_headers_follow_in_their_order():
    result = await run_plugin(Tells(one="1", two="2"), "hi", upstream="Fine.", stream=True, headers=ASKS)

    assert result.headers["Trailer"] == "x-one, x-two"
    assert list(result.trailers.items()) == [("x-one", "1"), ("x-two", "2")]
    assert result.finished


@pytest.mark.parametrize(("stream", "headers"), [(True, {}), (False, ASKS), (True, {"te": "deflate"})])
async def test_nobody_is_asked_for_what_nobody_wants_to_hear(stream, headers):
    plugin = Tells(one="1")
    result = await run_plugin(plugin, "hi", upstream="Fine.", stream=stream, headers=headers)

    assert (dict(result.trailers), plugin.asked) == ({}, [])


async def test_nothing_is_said_where_there_is_nothing_to_say():
    result = await run_plugin(Tells(one="", two="2"), "hi", upstream="Fine.", stream=True, headers=ASKS)

    assert list(result.trailers) == ["x-two"]


@pytest.mark.parametrize("value", ["1\r\nx-evil: 2", "1\n\n0", "\r"])
async def test_a_value_cannot_make_another_header(value):
    result = await run_plugin(Tells(one=value), "hi", upstream="Fine.", stream=True, headers=ASKS, strict=False)

    assert not result.trailers
    assert not result.finished


async def test_an_answer_that_is_interrupted_behind_its_end_is_whole():
    plugin = Tells(one="1")
    async with workbench(plugin, upstream="Fine.") as bench:

        async def told():
            (conversation,) = bench._app.generation.service.conversations
            conversation.interrupt(RequestError(503, "The server stops."))
            await asyncio.Event().wait()

        plugin.told["one"] = told
        result = await bench.run("hi", stream=True, headers=ASKS)

    assert (result.text, result.outcome, dict(result.trailers)) == ("Fine.", "ok", {})
    assert result.raw.endswith(b"data: [DONE]\n\n")


async def test_a_stream_that_is_cut_off_asks_nobody():
    plugin = Tells(one="1")
    result = await run_plugin(
        plugin, "hi", upstream=Answer(text="a b", fault="die_mid_event"), stream=True, headers=ASKS, strict=False
    )

    assert (dict(result.trailers), plugin.asked) == ({}, [])
    assert not result.finished
