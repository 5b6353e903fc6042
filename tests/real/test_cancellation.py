"""A client that goes away frees the model at once."""

import asyncio

import aiohttp
import openai
import pytest
from tests.real.requests_made import MODEL

pytestmark = pytest.mark.real
# Left alone this would write for ten seconds; the marker in it tells that it was cut off by us, not by its end.
ENDLESS = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Count upwards from one."}],
    "max_tokens": 900,
    "logit_bias": {"2": -100},  # the token that ends an answer
    "temperature": 0,
}


def test_closing_a_stream_stops_the_model(accounted, busy_slots, eventually, ledger_of):
    stream = accounted.chat.completions.with_raw_response.create(**ENDLESS, stream=True)
    pieces = iter(stream.parse())
    for _ in range(4):
        next(pieces)
    was_busy = busy_slots()
    stream.http_response.close()
    eventually(lambda: busy_slots() == 0, seconds=3)
    record = ledger_of(stream.headers["x-request-id"])

    assert was_busy == 1
    assert record["outcome"] == "client_closed"
    assert 0 < record["ledger"]["output"] < 200
    assert record["ledger"]["estimated"]


async def test_closing_while_waiting_stops_the_model(plain, busy_slots, eventually):
    async with aiohttp.ClientSession() as session:
        asked = asyncio.ensure_future(session.post(f"{plain.base_url}/chat/completions", json=ENDLESS))
        while not await asyncio.to_thread(busy_slots):
            await asyncio.sleep(0.02)
        asked.cancel()
        await asyncio.wait([asked])
    await asyncio.to_thread(eventually, lambda: busy_slots() == 0, 3)

    assert asked.cancelled()


def test_a_client_that_runs_out_of_patience_stops_the_model(client, busy_slots, eventually):
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.5).chat.completions.create(**ENDLESS)

    eventually(lambda: busy_slots() == 0, seconds=3)
