"""What verification costs where nothing is wrong: `python -m tests.benchmarks.verify.speed [--quick]`.

A scripted upstream of its own process says a token each 20 ms; the same server answers with verification on and off by
turns. The steps are two tokens long; verifiers take 1, 20 and 200 ms. Writes `results/verify-speed.json`.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
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
from tests.benchmarks.verify.slow import CROWD, DELAYS_MS

from predawn.plugins.verify.cutting import cutter
from predawn.plugins.verify.reading import CONTENT, Piece
from predawn.plugins.verify.trace import Trace
from predawn.proxy.extensions import BOUNDARIES

TOKENS = 64
PACE = Pace(20_000, TOKENS)
PROXY = CHECKOUT / "tests" / "benchmarks" / "proxy"
OFF = "off"
Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Stage:
    """The running programs."""

    loader: Path
    port: int
    admin: int
    folder: Path
    server: Running

    def load(self, wish: str, connections: int, seconds: float, warm: float = 0.0) -> Figures:
        """What the load generator saw of requests with this `x-predawn-verify`."""
        body = self.folder / "body.json"
        body.write_bytes(chat_body(1500, PACE))
        command = [str(self.loader), "--port", str(self.port), "--body", str(body), "--stream", "--chunks", str(TOKENS)]
        command += ["--connections", str(connections), "--seconds", str(seconds), "--warm", str(warm)]
        command += ["--header", f"x-predawn-verify: {wish}"]
        done = subprocess.run(command, check=True, capture_output=True, timeout=seconds + 60)
        seen: Figures = json.loads(done.stdout)
        return seen

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
            running([str(mock), str(upstream)], core=None, log=folder / "mock.log") as provider,
            running(
                [*serve, str(folder / "predawn.yaml")],
                core=None,
                log=folder / "server.log",
                env={"PYTHONPATH": str(CHECKOUT)},
            ) as server,
        ):
            wait_until_listening(upstream, provider, 10)
            wait_until_listening(port, server, 30)
            yield Stage(loader, port, admin, folder, server)


def wish(mode: str, delay_ms: int) -> str:
    return json.dumps({"mode": mode, "verifiers": [f"slow{delay_ms}"]})


def paired(stage: Stage, evidence: Evidence, rounds: int, seconds: float) -> None:
    """One way of verifying after the other, each beside the same without; medians over the rounds."""
    cases = [(mode, delay) for mode in ("observe", "optimistic", "gate", "intervene") for delay in DELAYS_MS]
    ttft: dict[str, list[float]] = {}
    total: dict[str, list[float]] = {}
    stage.load(OFF, 4, 2)
    for _ in range(rounds):
        for mode, delay in cases:
            off = stage.load(OFF, 8, seconds)
            seen = stage.load(wish(mode, delay), 8, seconds)
            name = f"{mode} {delay} ms"
            assert not seen["errors"], seen
            ttft.setdefault(name, []).append(seen["ttft_ms"]["p50"] - off["ttft_ms"]["p50"])
            late = seen["latency_ms"]["p50"] - off["latency_ms"]["p50"] * 1.01
            total.setdefault(name, []).append(late)
    evidence.figures["added_ttft_ms"] = {name: statistics.median(values) for name, values in ttft.items()}
    evidence.figures["total_beyond_1.01_ms"] = {name: statistics.median(values) for name, values in total.items()}
    sent_at_once = [value for name, value in evidence.figures["added_ttft_ms"].items() if name[0] == "o"]
    evidence.bars["added_ttft_p50_at_once"] = Bar(max(sent_at_once), 1.0, "ms, worst of observe and optimistic")
    for delay in DELAYS_MS:
        value = evidence.figures["total_beyond_1.01_ms"][f"gate {delay} ms"]
        evidence.bars[f"gate_total_{delay}ms"] = Bar(value, delay + 2.0, "ms beyond 1.01 × the time without")
    for delay in DELAYS_MS[:2]:
        count = stage.metric("verifier_overlap_ratio_count", f"slow{delay}")
        value = stage.metric("verifier_overlap_ratio_sum", f"slow{delay}") / count if count else None
        evidence.bars[f"overlap_{delay}ms"] = Bar(value, 0.95, "of a verifier's time", at_least=True)


def crowded(stage: Stage, evidence: Evidence, streams: int, seconds: float) -> None:
    """Many streams at a time, observed and not."""
    seen: dict[str, Figures] = {}
    for name, asked in (("off", OFF), ("on", json.dumps({"mode": "observe", "verifiers": [CROWD]}))):
        before = cpu_us(stage.server.pids)
        seen[name] = stage.load(asked, streams, seconds, 2.0)
        seen[name]["cpu_us_per_chunk"] = (cpu_us(stage.server.pids) - before) / max(seen[name]["chunks_all"], 1)
    evidence.figures["crowd"] = seen
    added = seen["on"]["chunk_ms"]["p99"] - seen["off"]["chunk_ms"]["p99"]
    evidence.bars[f"added_gap_p99_of_{streams}"] = Bar(added, 50.0, "ms", f"{seen['on']['ok']} answers")


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
    settings: Mapping[str, Any] = {"tokens": TOKENS, "interval_ms": 20, "delays_ms": DELAYS_MS}
    evidence.settings = dict(settings)
    cutting(evidence)
    with on_stage() as stage:
        paired(stage, evidence, 1 if given.quick else 5, 4 if given.quick else 8)
        crowded(stage, evidence, given.streams, 8 if given.quick else 20)
    evidence.save(given.out)
    print(evidence.summary())
    return 0 if evidence.all_hold else 1


if __name__ == "__main__":
    sys.exit(main())
