"""Whatever bytes a client sends, in whatever pieces: both lanes ask the same, answer the same and count the same.

`make fuzz-lanes` tries many more, other ones each time.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from tests.lanes.grammar import conversations
from tests.lanes.lane import Lanes, lanes
from tests.lanes.seen import Seen

EXAMPLES = os.environ.get("PREDAWN_FUZZ_EXAMPLES")
fuzzed = settings(
    max_examples=int(EXAMPLES or 250),
    derandomize=EXAMPLES is None,
    database=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)


class Pair:
    """Both lanes, for tests that are no coroutines."""

    def __init__(self, runner: asyncio.Runner, running: Lanes) -> None:
        self._runner = runner
        self.running = running

    def say(self, *segments: bytes) -> Seen:
        return self._runner.run(self.running.say(*segments))


@pytest.fixture(scope="module", params=[[], [{"record": {"flush_s": 60}}]], ids=["bare", "recorded"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        stack = AsyncExitStack()
        running = runner.run(stack.enter_async_context(lanes(plugins=request.param)))
        for lane in running.each:
            runner.run(lane.add_key("sk-free"))
            runner.run(lane.add_key("sk-acme", tenant="acme", concurrency=50, nano_usd_per_day=10**18))
            runner.run(lane.add_key("sk-only-m", models=frozenset({"m"})))
        try:
            yield Pair(runner, running)
        finally:
            runner.run(stack.aclose())


@given(segments=conversations())
@fuzzed
def test_the_lanes_cannot_be_told_apart(segments: list[bytes], pair: Pair) -> None:
    seen = pair.say(*segments)

    assert not seen.junk
    assert seen.rest == b""
    assert all(asked.line.split(" ")[1].startswith("/v1/") for asked in seen.received)
    assert not any(
        asked.values("authorization") != ["Bearer sk-upstream"]
        for asked in seen.received
        if asked.values("x-api-key") == []
    )


def test_many_of_them_took_the_fast_lane(pair: Pair) -> None:
    taken = {
        lane: counter.value
        for (lane,), counter in pair.running.fast.server._shared.metrics.lane_requests.children.items()
    }

    assert taken["fast"] > 0.2 * (taken["fast"] + taken["full"]), taken
