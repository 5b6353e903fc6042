"""The tests: what the load generator is asked to do, in which size, for how long."""

from dataclasses import dataclass, replace

from tests.benchmarks.proxy.bodies import LARGE_BYTES, SMALL_BYTES, Pace, chat_body

STREAM = Pace(interval_us=5_000, chunks=64)
IDLE = Pace(interval_us=1_000_000, chunks=600)
PHRASES = 14
"""How often the mock upstream's phrase stands in an answer that does not stream."""


@dataclass(frozen=True, slots=True)
class Workload:
    """One test. `body` names an entry of `BODIES`."""

    name: str
    title: str
    body: str
    connections: int
    seconds: float
    warm_s: float
    rate: float | None = None
    stream: bool = False
    ramp_s: float = 0
    fresh: bool = False
    """No two requests have the same head."""
    without: tuple[str, ...] = ()
    """Peers that could not finish one stream in the time."""
    turns: int = 1
    """How often it is done in a round."""
    only: tuple[str, ...] = ()
    """Peers that it is for; all of them when empty."""
    together: bool = False
    """True if all do it at the same time, each with its own clients."""

    def options(self, scale: float = 1.0) -> list[str]:
        """The load generator's options; `scale` shortens or lengthens the measured time."""
        words = [
            "--connections",
            str(self.connections),
            "--seconds",
            f"{self.seconds * scale:.2f}",
            "--warm",
            str(self.warm_s),
        ]
        words += ["--rate", str(self.rate)] if self.rate else []
        words += ["--stream", "--chunks", str(STREAM.chunks)] if self.stream else ["--phrases", str(PHRASES)]
        words += ["--fresh"] if self.fresh else []
        return words + (["--ramp", str(self.ramp_s)] if self.ramp_s else [])


BODIES = {
    "small": chat_body(SMALL_BYTES),
    "large": chat_body(LARGE_BYTES),
    "stream": chat_body(SMALL_BYTES, STREAM),
    "idle": chat_body(SMALL_BYTES, IDLE),
    "burst": chat_body(SMALL_BYTES, Pace(0, STREAM.chunks)),
}

SMALL = Workload("small", "1.5 KB, closed loop", "small", connections=64, seconds=1.5, warm_s=0.4)
# What is remembered of a head serves only the next one that is like it; here none is.
FRESH = Workload(
    "fresh", "1.5 KB, each head new, closed loop", "small", connections=64, seconds=1.2, warm_s=0.3, fresh=True
)
LARGE = Workload("large", "60 KB, closed loop", "large", connections=16, seconds=1.2, warm_s=0.3)
RATE = Workload("rate", "50 requests/s, open loop", "small", connections=16, seconds=2.4, warm_s=0.4, rate=50)
SLOW = ("litellm", "portkey")
# TTFT is taken at a rate that even the slowest peer sustains. At that rate, and with 32 streams, a quick peer is idle for
# most of the time: most of what it takes then is to wake up and to fill its caches, and what that costs is the
# machine's business, and another from second to second. So peers that are to be compared take turns that follow each
# other at once (`…_PAIR`), and are loaded at the same time as well (`…_BESIDE`); a bar must hold by both. 128 streams,
# 25,000 chunks a second, tell what a chunk itself costs.
TTFT = Workload(
    "ttft",
    "10 streams/s, 64 chunks at 5 ms",
    "stream",
    connections=32,
    seconds=3.0,
    warm_s=0.3,
    rate=10,
    stream=True,
)
STREAMS = Workload(
    "streams",
    "32 streams, 64 chunks at 5 ms",
    "stream",
    connections=32,
    seconds=1.6,
    warm_s=0.5,
    stream=True,
    ramp_s=0.3,
)
TTFT_BESIDE = replace(
    TTFT,
    name="ttft-beside",
    title="10 streams/s through each of three at the same time",
    turns=4,
    only=("direct", "vllm-router", "predawn-keys"),
    together=True,
)
STREAMS_BESIDE = replace(
    STREAMS,
    name="streams-beside",
    title="32 streams through each of two at the same time",
    turns=2,
    only=("nginx", "predawn-keys"),
    together=True,
)
TTFT_PAIR = replace(TTFT_BESIDE, name="ttft-pair", title="10 streams/s, three in turn", together=False)
STREAMS_PAIR = replace(STREAMS_BESIDE, name="streams-pair", title="32 streams, two in turn", turns=4, together=False)
SMALL_PAIR = replace(
    SMALL,
    name="small-pair",
    title="1.5 KB, closed loop, four in turn",
    turns=3,
    only=("nginx", "litellm", "vllm-router", "predawn-keys"),
)
# At the same time, as the bar is too near to what is to be measured for turns, between which the machine's speed differs
# by more: half of 28 ratios lie within 3 % of each other, of turns within 50. What a server does each second counts twice then, as each
# has half the core, and what a request itself costs is dearer for both, as they take the caches from each other.
SMALL_BESIDE = replace(
    SMALL,
    name="small-beside",
    title="1.5 KB, closed loop, through each of two at the same time",
    turns=4,
    only=("predawn-bare", "predawn-idle"),
    together=True,
)
NOOP_BESIDE = replace(
    SMALL_BESIDE,
    name="noop-beside",
    title="1.5 KB, closed loop, through each of two full lanes at the same time",
    only=("predawn-full", "predawn-noop3"),
)

BUSY = Workload(
    "busy",
    "128 streams, 64 chunks at 5 ms",
    "stream",
    connections=128,
    seconds=2.4,
    warm_s=0.5,
    stream=True,
    ramp_s=0.3,
    without=SLOW,
)

ONCE = [SMALL, FRESH, LARGE, RATE, TTFT, STREAMS, BUSY]
COMPARED = [SMALL_PAIR, SMALL_BESIDE, NOOP_BESIDE, TTFT_PAIR, STREAMS_PAIR, TTFT_BESIDE, STREAMS_BESIDE]
WORKLOADS = ONCE + COMPARED
IDLE_STREAMS = 1_000
