"""Ten minutes of trouble: `python tests/benchmarks/soak/run.py [--minutes 10]`, or `make bench-soak`.

`predawn serve` with keys and ledger stands in front of `predawn upstream scripted`, at half of what the two sustain. Writes
results/bench-soak.json and a picture beside it; exit code 1 means a bar is broken.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests.benchmarks.evidence import CHECKOUT, Bar, Evidence, versions_of
from tests.benchmarks.processes import (
    Running,
    connections_on,
    cpu_us,
    free_port,
    get_json,
    memory_mb,
    raise_file_limit,
    start,
    wait_until_listening,
)
from tests.benchmarks.soak import ledger
from tests.benchmarks.soak.picture import draw

HERE = Path(__file__).parent
SERVER_CORE, OTHERS_CORE = 0, 1
FAULTS = ("status=500", "status=429", "die_first_byte", "die_mid_event", "no_done", "refuse")
FAULT_SHARE = CUT_SHARE = 0.01
CHUNKS, INTERVAL_MS = 16, 5
SETTLE_S = 20
SETTINGS = """\
server: {{admin_port: {admin_port}, log: {{level: error}}}}
state: {folder}/state.db
upstreams:
  - {{name: scripted, kind: openai, base_url: "{upstream}/v1", api_key: sk-scripted, retries: {{base_s: 0.01}}}}
models:
  - {{name: soak, upstream: scripted}}
plugins: [{{record: {{}}}}, {{probe: {{}}}}]
"""


@dataclass(slots=True)
class Course:
    """Readings of the server over time, one every couple of seconds."""

    seconds: list[float] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)
    connections: list[int] = field(default_factory=list)
    tasks: list[int] = field(default_factory=list)
    cpu_share: list[float] = field(default_factory=list)

    def drift(self, warm_s: float) -> float | None:
        """How far the last quarter's median memory lies from that of the first quarter after warm-up, as a share."""
        warm = [mb for second, mb in zip(self.seconds, self.memory_mb, strict=True) if second >= warm_s]
        quarter = len(warm) // 4
        if quarter < 3:
            return None
        return median(warm[-quarter:]) / median(warm[:quarter]) - 1


@dataclass(slots=True)
class Site:
    """The server and the fake upstream, up."""

    folder: Path
    server: Running
    port: int
    upstream_port: int
    keys: dict[str, str]

    @property
    def database(self) -> Path:
        return self.folder / "state.db"

    def upstream_counts(self) -> dict[str, Any]:
        counts: dict[str, Any] = get_json(f"http://127.0.0.1:{self.upstream_port}/counts")
        return counts

    def probe(self) -> dict[str, Any]:
        told: dict[str, Any] = get_json(
            f"http://127.0.0.1:{self.port}/v1/probe", headers={"authorization": f"Bearer {self.keys['probe']}"}
        )
        return told

    def clients(self, seconds: float, seed: int, *options: str) -> subprocess.Popen[str]:
        command = [
            "taskset", "-c", str(OTHERS_CORE), sys.executable, str(HERE / "clients.py"),
            "--url", f"http://127.0.0.1:{self.port}", "--key", self.keys["staying"], "--leaving-key", self.keys["leaving"],
            "--seconds", str(seconds), "--seed", str(seed), *options,
        ]  # fmt: skip
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def settle(self) -> None:
        """Waits until nothing is under way and the ledger has stopped growing."""
        rows, until = -1, time.monotonic() + SETTLE_S
        while time.monotonic() < until:
            time.sleep(2)
            now = ledger.count(self.database)
            if now == rows and self.upstream_counts()["in_flight"] == 0 and not connections_on(self.port):
                return
            rows = now


def predawn(*words: str) -> list[str]:
    return [str(Path(sys.executable).with_name("predawn")), *words]


def set_up(folder: Path, seed: int) -> tuple[Site, list[Running]]:
    """Starts both programs. The caller stops them."""
    port, upstream_port = free_port(), free_port()
    settings = folder / "predawn.yaml"
    settings.write_text(
        SETTINGS.format(admin_port=free_port(), folder=folder, upstream=f"http://127.0.0.1:{upstream_port}")
    )
    env = {"PYTHONPATH": str(HERE / "probe_plugin")}
    faults = [word for fault in FAULTS for word in ("--errors", fault)]
    scripted = predawn(
        "upstream", "scripted", "--port", str(upstream_port), "--chunks", str(CHUNKS), "--interval-ms", str(INTERVAL_MS),
        "--error-rate", str(FAULT_SHARE), *faults, "--seed", str(seed), "--model", "soak",
    )  # fmt: skip
    keys = {name: _create_key(name, settings, env) for name in ("staying", "leaving", "probe")}
    upstream = start(scripted, core=OTHERS_CORE, log=folder / "upstream.log")
    server = start(
        predawn("serve", "--config", str(settings), "--host", "127.0.0.1", "--port", str(port)),
        core=SERVER_CORE, log=folder / "server.log", env=env,
    )  # fmt: skip
    try:
        wait_until_listening(upstream_port, upstream, 20)
        wait_until_listening(port, server, 20)
    except BaseException:
        server.stop()
        upstream.stop()
        raise
    return Site(folder, server, port, upstream_port, keys), [server, upstream]


def _create_key(name: str, settings: Path, env: dict[str, str]) -> str:
    import os

    command = predawn("keys", "create", name, "--config", str(settings))
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, **env})
    if done.returncode:
        raise SystemExit(f"`predawn keys create` failed: {done.stderr.strip()[-300:]}")
    return done.stdout.strip().splitlines()[-1]


def watch(site: Site, clients: subprocess.Popen[str], every_s: float) -> Course:
    """Reads the server until the clients are done."""
    course, begun = Course(), time.monotonic()
    pids = site.server.pids
    spent, at = cpu_us(pids), begun
    while clients.poll() is None:
        time.sleep(every_s)
        if site.server.ended:
            code = site.server.process.returncode
            raise SystemExit(
                f"the server ended after {time.monotonic() - begun:.0f} s, code {code}: {site.server.last_words()}"
            )
        spent_now, now = cpu_us(pids), time.monotonic()
        course.seconds.append(now - begun)
        course.memory_mb.append(memory_mb(pids))
        course.connections.append(connections_on(site.port))
        course.tasks.append(site.probe()["tasks"])
        course.cpu_share.append((spent_now - spent) / 1e6 / (now - at))
        spent, at = spent_now, now
    return course


def soak(options: argparse.Namespace, evidence: Evidence, folder: Path) -> Course:
    """The whole course, and the reckoning after it."""
    seconds, seed = options.minutes * 60, evidence.seeds["clients"]
    warm_s = min(60.0, seconds / 4)
    site, programs = set_up(folder, evidence.seeds["upstream"])
    try:
        probing = json.loads(site.clients(min(8.0, seconds / 4), seed).communicate()[0])
        rate = options.rate or probing["per_s"] / 2
        print(
            f"  sustains {probing['per_s']:.0f} requests/s; soaking at {rate:.0f} for {options.minutes:g} minutes",
            flush=True,
        )
        site.settle()
        idle = site.probe()
        clients = site.clients(seconds, seed, "--rate", f"{rate:.2f}", "--cut-share", str(CUT_SHARE))
        try:
            course = watch(site, clients, every_s=max(0.5, min(2.0, seconds / 120)))
        finally:
            clients.terminate()
        seen = json.loads(clients.communicate()[0])
        site.settle()
        connections, counts, after = connections_on(site.port), site.upstream_counts(), site.probe()
        books = ledger.read(site.database)
    finally:
        for program in programs:
            program.stop()
    evidence.settings |= {"rate_per_s": rate, "capacity_per_s": probing["per_s"], "warm_up_s": warm_s, "faults": FAULTS}
    evidence.settings |= {
        "fault_share": FAULT_SHARE,
        "cut_share": CUT_SHARE,
        "chunks": CHUNKS,
        "interval_ms": INTERVAL_MS,
    }
    asked = {name: _sum(probing[name], seen[name]) for name in ("staying", "leaving")}
    evidence.figures = {
        "clients": {**asked, "late": seen["late"]},
        "ledger": {name: book.as_json() for name, book in books.items()},
        "upstream": counts,
        "tasks": {"before": idle, "after": after},
        "connections_after": connections,
        "cpu_share_median": median(course.cpu_share),
        "memory_mb": {"first": course.memory_mb[0], "last": course.memory_mb[-1], "most": max(course.memory_mb)},
        "course": {
            "seconds": course.seconds,
            "memory_mb": course.memory_mb,
            "connections": course.connections,
            "tasks": course.tasks,
        },
    }
    evidence.bars = reckon(course, warm_s, books, asked, counts, after["tasks"] - idle["tasks"], connections)
    return course


def _sum(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Both phases' counts together: the ledger knows no phases."""
    added = {name: first[name] + second[name] for name in ("asked", "complete", "tokens", "cut")}
    names = {*first["failures"], *second["failures"]}
    return added | {
        "failures": {name: first["failures"].get(name, 0) + second["failures"].get(name, 0) for name in sorted(names)}
    }


def reckon(
    course: Course,
    warm_s: float,
    books: dict[str, ledger.Book],
    asked: dict[str, Any],
    counts: dict[str, Any],
    tasks_left: int,
    connections: int,
) -> dict[str, Bar]:
    """Bars. Of clients that hung up, chunks under way may be counted on one side only; the others must match to the token."""
    empty = ledger.Book()
    staying, leaving = books.get("staying", empty), books.get("leaving", empty)
    drift = course.drift(warm_s)
    calls = sum(book.calls for book in books.values())
    cut_off = sum(book.call_outcomes["cancelled"] for book in books.values())  # some never arrive
    return {
        "drift of memory after warm-up": Bar(
            None if drift is None else abs(drift), 0.05, "", "" if drift is not None else "too short"
        ),
        "connections left over": Bar(float(connections + counts["in_flight"]), 0),
        "replies opened upstream and never closed": Bar(float(abs(counts["opened"] - counts["closed"])), 0),
        "tasks left over": Bar(float(max(0, tasks_left)), 0),
        "requests that stayed: asked and on the ledger differ by": Bar(
            float(abs(asked["staying"]["asked"] - staying.rows)), 0
        ),
        "requests that left: asked and on the ledger differ by": Bar(
            float(abs(asked["leaving"]["asked"] - leaving.rows)), 0
        ),
        "upstream requests: ledger and upstream differ, beyond calls cut off on their way, by": Bar(
            float(max(0, counts["requests"] - calls, calls - cut_off - counts["requests"])), 0
        ),
        "completed requests: ledger and clients differ by": Bar(
            float(abs(staying.outcomes["ok"] - asked["staying"]["complete"])), 0
        ),
        "tokens of completed requests: ledger and clients differ by": Bar(
            float(abs(staying.ok_tokens - asked["staying"]["tokens"])), 0
        ),
        "tokens of completed requests: ledger and upstream differ, beyond those that left, by": Bar(
            float(_unexplained(staying, leaving, counts["reported_tokens"])), 0
        ),
    }


def _unexplained(staying: ledger.Book, leaving: ledger.Book, reported: int) -> int:
    """What the upstream reported lies between the ledger's completed requests without and with those that left."""
    least, most = staying.ok_tokens, staying.ok_tokens + staying.other_tokens + leaving.rows * CHUNKS
    return max(0, least - reported, reported - most)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="length of the soak")
    parser.add_argument("--rate", type=float, help="requests/s, in place of half of what is sustained")
    parser.add_argument("--seed", type=int, help="seed of clients and upstream (default: drawn, and printed)")
    parser.add_argument(
        "--out", type=Path, default=Path("results/bench-soak.json"), help="evidence file, relative to the checkout"
    )
    options = parser.parse_args()
    raise_file_limit()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(2**31)
    print(f"seed {seed}", flush=True)
    evidence = Evidence(
        "soak", seeds={"clients": seed, "upstream": seed + 1}, versions=versions_of("predawn", "aiohttp", "uvloop")
    )
    evidence.settings = {"minutes": options.minutes}
    with tempfile.TemporaryDirectory(prefix="predawn-soak-") as folder:
        course = soak(options, evidence, Path(folder))
    out = options.out if options.out.is_absolute() else CHECKOUT / options.out
    evidence.save(out)
    draw(evidence, course.seconds, course.memory_mb, course.connections, out.with_suffix(".png"))
    print(evidence.summary())
    print(f"evidence in {out.name} and {out.with_suffix('.png').name}")
    return 0 if evidence.all_hold else 1


if __name__ == "__main__":
    sys.exit(main())
