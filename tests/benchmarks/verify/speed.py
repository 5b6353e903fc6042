"""What verification costs where nothing is wrong: `python -m tests.benchmarks.verify.speed [--quick]`.

A scripted upstream of its own process says a token each 20 ms; the same server answers with verification on and off by
turns, request by request. The steps are two tokens long; verifiers take 1, 20 and 200 ms. Then a crowd of streams, in
every mode; and hostile text. Writes `results/verify-speed.json`.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from tests.benchmarks.evidence import CHECKOUT, Bar, Evidence, versions_of
from tests.benchmarks.native import compiled
from tests.benchmarks.processes import (
    Running,
    cpu_us,
    free_port,
    get_bytes,
    raise_file_limit,
    running,
    wait_until_listening,
)
from tests.benchmarks.proxy.bodies import MODEL, Pace, chat_body
from tests.benchmarks.verify.hostile import hostile
from tests.benchmarks.verify.pairs import Median, Pair, added_ms, beyond_ms, request_of
from tests.benchmarks.verify.pairs import paired as paired_requests
from tests.benchmarks.verify.slow import CROWD, DELAYS_MS

from predawn.plugins.verify.cutting import cutter
from predawn.plugins.verify.reading import CONTENT, Piece
from predawn.plugins.verify.trace import Trace
from predawn.proxy.extensions import BOUNDARIES

PACE = Pace(20_000, 64)
LONG, SHORT = Pace(20_000, 256), PACE
"""Of a crowd: answers as people get them, which a server begins and ends 100 of in a second; and those of 64 tokens, 400."""
SERVER, OTHERS = (0, 1) if len(os.sched_getaffinity(0)) > 1 else (None, None)
"""Cores: the server has one to itself, the upstream and the clients have another."""
PROXY = CHECKOUT / "tests" / "benchmarks" / "proxy"
OFF = "off"
CONTROL = "off, too"
"""The same beside itself: what the measure says where there is nothing to be found."""
AT_ONCE, HOLDING = ("observe", "optimistic"), ("gate", "intervene")
"""Modes that send text as it comes, and those in which a step waits for its verdict."""
FEW = 8
"""Streams at a time that are no crowd."""
PAIRED_S = 15.0
"""For each way of verifying."""
CROWD_S = 12.0
Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Stage:
    """The running programs."""

    loader: Path
    port: int
    admin: int
    folder: Path
    server: Running

    def load(  # noqa: PLR0917 - what a crowd is, in its order
        self, wish: str, connections: int, seconds: float, pace: Pace, warm: float, ramp: float = 0.0
    ) -> Figures:
        """What the load generator saw of requests with this `x-predawn-verify`; the first ones begin over `ramp`."""
        body = self.folder / "body.json"
        body.write_bytes(chat_body(1500, pace))
        command = [str(self.loader), "--port", str(self.port), "--body", str(body)]
        command += ["--stream", "--chunks", str(pace.chunks)]
        command += ["--connections", str(connections), "--seconds", str(seconds), "--warm", str(warm)]
        command += ["--ramp", str(ramp)]
        command += ["--header", f"x-predawn-verify: {wish}"]
        if OTHERS is not None:
            command = ["taskset", "-c", str(OTHERS), *command]
        done = subprocess.run(command, check=True, capture_output=True, timeout=seconds + 60)
        seen: Figures = json.loads(done.stdout)
        return seen

    def pairs(self, asked: str, connections: int, seconds: float, random: Random) -> list[Pair]:
        """Answers without verification and with this `x-predawn-verify`, by turns."""
        body = chat_body(1500, PACE)
        requests = request_of(body, f"x-predawn-verify: {OFF}"), request_of(body, f"x-predawn-verify: {asked}")
        return paired_requests(self.port, requests, PACE.chunks, connections, seconds, random)

    def metric(self, name: str, verifier: str) -> float:
        """A value of /metrics."""
        page = get_bytes(f"http://127.0.0.1:{self.admin}/metrics").decode()
        found = re.search(rf'^predawn_{name}{{verifier="{verifier}"}} (\S+)', page, re.MULTILINE)
        return float(found[1]) if found else 0.0


@contextmanager
def on_stage() -> Iterator[Stage]:
    """An upstream, and a server before it."""
    loader, mock = compiled(PROXY / "load.c"), compiled(PROXY / "mock_upstream.c")
    upstream, port, admin = free_port(), free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="predawn-bench-") as name:
        folder = Path(name)
        told = {
            "state": str(folder / "state.db"),
            "server": {"port": port, "admin_port": admin, "log": {"level": "warning"}},
            "upstreams": [{"name": "mock", "base_url": f"http://127.0.0.1:{upstream}/v1"}],
            "models": [{"name": MODEL, "upstream": "mock"}],
            "plugins": [
                "slow",
                {"verify": {"verifiers": [*(f"slow{delay}" for delay in DELAYS_MS), CROWD], "when": "asked"}},
            ],
        }
        (folder / "predawn.yaml").write_text(json.dumps(told))
        serve = [sys.executable, "-m", "tests.benchmarks.verify.server", "serve", "--config"]
        with (
            running([str(mock), str(upstream)], core=OTHERS, log=folder / "mock.log") as provider,
            running(
                [*serve, str(folder / "predawn.yaml")],
                core=SERVER,
                log=folder / "server.log",
                env={"PYTHONPATH": str(CHECKOUT)},
            ) as server,
        ):
            wait_until_listening(upstream, provider, 10)
            wait_until_listening(port, server, 30)
            yield Stage(loader, port, admin, folder, server)


def wish(mode: str, delay_ms: int) -> str:
    return json.dumps({"mode": mode, "verifiers": [f"slow{delay_ms}"]})


def paired(stage: Stage, evidence: Evidence, seconds: float, connections: int = 16) -> None:
    """Each way of verifying, request by request beside the same without; medians of the pairs' differences."""
    cases = {f"{mode} {delay} ms": wish(mode, delay) for mode in (*AT_ONCE, *HOLDING) for delay in DELAYS_MS}
    random = Random(1)
    first: dict[str, Median] = {}
    whole: dict[str, Median] = {}
    stage.pairs(OFF, connections, 1, random)
    for name, asked in {CONTROL: OFF, **cases}.items():
        pairs = stage.pairs(asked, connections, seconds, random)
        first[name], whole[name] = added_ms(pairs), beyond_ms(pairs)
    figures = evidence.figures
    figures["added_ttft_ms"] = {name: first[name].value for name in cases}
    figures["total_beyond_1.01_ms"] = {name: whole[name].value for name in cases}
    figures["added_ttft_intervals_ms"] = {name: median.as_json() for name, median in first.items()}
    figures["total_beyond_1.01_intervals_ms"] = {name: median.as_json() for name, median in whole.items()}
    worst = max((first[name] for name in cases if name.split()[0] in AT_ONCE), key=lambda median: median.value)
    why = f"95 %: {worst.low:.2f} to {worst.high:.2f}; nothing beside nothing: {first[CONTROL].value:.2f}"
    evidence.bars["added_ttft_p50_at_once"] = Bar(worst.value, 1.0, "ms, worst of observe and optimistic", why)
    for delay in DELAYS_MS:
        value = whole[f"gate {delay} ms"].value
        evidence.bars[f"gate_total_{delay}ms"] = Bar(value, delay + 2.0, "ms beyond 1.01 × the time without")
    for delay in DELAYS_MS[:2]:
        count = stage.metric("verifier_overlap_ratio_count", f"slow{delay}")
        ratio = stage.metric("verifier_overlap_ratio_sum", f"slow{delay}") / count if count else None
        evidence.bars[f"overlap_{delay}ms"] = Bar(ratio, 0.95, "of a verifier's time", at_least=True)


def crowded(stage: Stage, evidence: Evidence, streams: int, seconds: float) -> None:
    """Many streams at a time, verified in every mode.

    They begin spread over the length of an answer, as people do; each connection asks again when it has its answer, so
    that they stay spread. Two harder crowds are figures beside it, which no bar judges: `crowd_of_short_answers`, in
    which a fifth of the work is to begin and end them, and `crowd_in_step`, in which all of those begin and end in the
    same moment, again and again.

    What the crowd adds is judged beside the crowd without verification, where text is sent at once; where a step waits
    for its verdict, beside a few streams of the same mode, whose gaps are as long as their steps. A stream counts with
    the largest of its gaps.
    """
    asked = {OFF: OFF} | {mode: json.dumps({"mode": mode, "verifiers": [CROWD]}) for mode in (*AT_ONCE, *HOLDING)}
    figures = evidence.figures
    seen = figures["crowd"] = {name: _crowd(stage, said, streams, seconds, LONG) for name, said in asked.items()}
    few = figures["a_few"] = {name: _crowd(stage, asked[name], FEW, seconds / 2, LONG) for name in HOLDING}
    figures["crowd_of_short_answers"] = {
        name: _crowd(stage, said, streams, seconds / 2, SHORT) for name, said in asked.items()
    }
    figures["crowd_in_step"] = {
        name: stage.load(said, streams, seconds / 2, SHORT, 2.0) for name, said in asked.items()
    }
    for name in (*AT_ONCE, *HOLDING):
        beside = few[name] if name in HOLDING else seen[OFF]
        worst = max(seen[name][kind]["p99"] - beside[kind]["p99"] for kind in ("gap_ms", "chunk_ms"))
        why = f"{seen[name]['ok']} answers, {seen[name]['cpu_us_per_chunk']:.0f} µs of CPU for a chunk"
        evidence.bars[f"added_gap_p99_of_{streams}_{name}"] = Bar(worst, 50.0, "ms", why)


def _crowd(stage: Stage, said: str, streams: int, seconds: float, pace: Pace) -> Figures:
    """Streams that begin spread over the length of an answer, once all of them have begun."""
    answer_s = pace.chunks * pace.interval_us / 1e6
    before = cpu_us(stage.server.pids)
    found = stage.load(said, streams, seconds + answer_s, pace, answer_s + 1.0, answer_s)
    found["cpu_us_per_chunk"] = (cpu_us(stage.server.pids) - before) / max(found["chunks_all"], 1)
    return found


def cutting(evidence: Evidence) -> None:
    """CPU time for a chunk, cutting alone and with the text's bookkeeping."""
    words = re.findall(r"\s?[^\s.]+|\.", "Bob is Ann + 4. 3 + 4 = 7.\n" * 2000)
    alone: dict[str, float] = {}
    for boundary in BOUNDARIES:
        best = min(_timed(boundary, words) for _ in range(5))
        alone[boundary] = best / len(words) * 1e6
    evidence.figures["cutting_us"] = alone
    trace = Trace([])
    began = time.process_time()
    for word in words:
        trace.feed(Piece(CONTENT, word))
    evidence.figures["bookkeeping_us"] = (time.process_time() - began) / len(words) * 1e6
    worst = max(alone.values()) + evidence.figures["bookkeeping_us"]
    evidence.bars["cutting_per_chunk"] = Bar(worst, 5.0, "µs, slowest boundary")


def _timed(boundary: Any, words: list[str]) -> float:
    cutting_ = cutter(boundary)
    began = time.process_time()
    for word in words:
        cutting_.feed(word)
    return time.process_time() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--out", type=Path, default=CHECKOUT / "results" / "verify-speed.json")
    given = parser.parse_args()
    raise_file_limit()
    evidence = Evidence("verify-speed", {}, versions_of("predawn", "aiohttp", "uvloop"))
    settings: Mapping[str, Any] = {
        "tokens": PACE.chunks,
        "tokens_of_the_crowd": LONG.chunks,
        "interval_ms": 20,
        "delays_ms": DELAYS_MS,
    }
    evidence.settings = dict(settings)
    cutting(evidence)
    hostile(evidence)
    with on_stage() as stage:
        paired(stage, evidence, 6 if given.quick else PAIRED_S)
        crowded(stage, evidence, given.streams, 6 if given.quick else CROWD_S)
    evidence.save(given.out)
    print(evidence.summary())
    return 0 if evidence.all_hold else 1


if __name__ == "__main__":
    sys.exit(main())
