"""Puts the peers on stage and runs one workload on one of them."""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.benchmarks.native import compiled
from tests.benchmarks.processes import Running, cpu_us, free_port, get_json, memory_mb, start, wait_until_listening
from tests.benchmarks.proxy.bodies import write_bodies
from tests.benchmarks.proxy.installs import UnobtainableError
from tests.benchmarks.proxy.peers import Launch, Peer, Site
from tests.benchmarks.proxy.workloads import BODIES, IDLE, IDLE_STREAMS, STREAM, Workload

PEER_CORE, LOAD_CORE = 0, 1
HERE = Path(__file__).parent
LATEST_S = 0.6
"""Longest that a peer's last batch waits: `flush_s` of Predawn's `record` is 0.5."""


@dataclass(slots=True)
class Resident:
    """A peer that is up. `program` is None for the one that needs no process."""

    peer: Peer
    version: str
    launch: Launch
    program: Running | None

    @property
    def name(self) -> str:
        return self.peer.name

    @property
    def pids(self) -> list[int]:
        return self.program.pids if self.program else []


@dataclass(frozen=True, slots=True)
class Sample:
    """One workload on one peer at one turn: what the load generator saw, and what the peer's process tree was charged."""

    peer: str
    test: str
    round: int
    """Which turn of the test, over all rounds."""
    load: Mapping[str, Any]
    cpu_us: float
    """All of it, what was put off until after the answers included."""
    cpu_later_us: float
    """The part that was put off: a ledger's last batch, say."""
    upstream_requests: int | None
    """What arrived there; `None` while others sent as well."""

    @property
    def valid(self) -> bool:
        """Figures of a peer that fails requests compare nothing: at most one in a hundred may.

        A peer too slow to answer a request that began after the warm-up has CPU figures, but no times.
        """
        return bool(self.load["completed"]) and self.load["errors"] * 100 <= self.load["completed"]

    @property
    def cpu_us_per_request(self) -> float:
        return self.cpu_us / max(1, int(self.load["completed"]))

    @property
    def cpu_us_per_chunk(self) -> float:
        return self.cpu_us / max(1, int(self.load["chunks_all"]))

    def ms(self, what: str, mark: str = "p50") -> float | None:
        """A time as the client saw it; None when no request was timed."""
        value: float | None = self.load[what].get(mark)
        return value


@dataclass(slots=True)
class Stage:
    """The mock upstream, the bodies, and every peer that could be had; `absent` has the reasons of the others."""

    folder: Path
    upstream_port: int
    loader: Path
    bodies: dict[str, Path]
    residents: dict[str, Resident] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    def upstream(self, path: str) -> Any:
        return get_json(f"http://127.0.0.1:{self.upstream_port}{path}")

    def bring(self, peer: Peer) -> None:
        """Obtains and starts a peer and waits until it answers; when that fails it is absent, and the reason is printed."""
        try:
            version = peer.obtain()
            resident = self._start(peer, version)
        except (UnobtainableError, RuntimeError, OSError, subprocess.SubprocessError) as reason:
            self.absent[peer.name] = str(reason)
            print(f"  {peer.name:14} not obtainable: {reason}", flush=True)
            return
        self.residents[peer.name] = resident
        print(f"  {peer.name:14} up, version {version}", flush=True)

    def _start(self, peer: Peer, version: str) -> Resident:
        site = Site(self.folder / peer.name, free_port(), self.upstream_port)
        site.folder.mkdir(parents=True, exist_ok=True)
        launch = peer.launch(site)
        if not launch.command:
            return Resident(peer, version, launch, None)
        program = start(launch.command, core=PEER_CORE, log=site.folder / "log", env=launch.env)
        resident = Resident(peer, version, launch, program)
        try:
            wait_until_listening(launch.port, program, launch.patience_s)
            self._wait_until_answering(resident)
        except BaseException:
            program.stop()
            raise
        return resident

    def _wait_until_answering(self, resident: Resident) -> None:
        deadline = time.monotonic() + resident.launch.patience_s
        while time.monotonic() < deadline:
            seen = self.load(resident, "small", ["--seconds", "0.1"])
            if seen["ok"]:
                return
            time.sleep(0.5)
        log = resident.program.last_words() if resident.program else ""
        raise RuntimeError(f"listens but does not answer: statuses {seen['status']}; {log}")

    def load_command(self, resident: Resident, body: str, options: Sequence[str]) -> list[str]:
        headers = [word for header in resident.launch.headers for word in ("--header", header)]
        target = ["--port", str(resident.launch.port), "--key", resident.launch.key, "--body", str(self.bodies[body])]
        return ["taskset", "-c", str(LOAD_CORE), str(self.loader), *target, *headers, *options]

    def load(self, resident: Resident, body: str, options: Sequence[str]) -> dict[str, Any]:
        """Runs the load generator to its end and returns its figures."""
        return self._loads([resident], body, options)[0]

    def _loads(self, residents: Sequence[Resident], body: str, options: Sequence[str]) -> list[dict[str, Any]]:
        """The same for several at the same time."""
        with contextlib.ExitStack() as running:
            loaders = []
            for resident in residents:
                command = self.load_command(resident, body, options)
                loaders.append(running.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True)))
                running.callback(loaders[-1].kill)
            told = [loader.communicate(timeout=90)[0] for loader in loaders]
        for loader in loaders:
            if loader.returncode:
                raise subprocess.CalledProcessError(loader.returncode, loader.args)
        return [json.loads(figures) for figures in told]

    def sample(self, residents: Sequence[Resident], workload: Workload, round_: int, scale: float) -> list[Sample]:
        """What one workload told of each of these, loaded at the same time."""
        requests = self.upstream("/counts")["requests"]
        before = [cpu_us(resident.pids) for resident in residents]
        seen = self._loads(residents, workload.body, workload.options(scale))
        answered = [cpu_us(resident.pids) for resident in residents]
        if workload.rate is None:
            _wait_until_quiet([pid for resident in residents for pid in resident.pids])
        spent = [cpu_us(resident.pids) for resident in residents]
        arrived = self.upstream("/counts")["requests"] - requests if len(residents) == 1 else None
        return [
            Sample(resident.name, workload.name, round_, load, after - first, after - then, arrived)
            for resident, load, first, then, after in zip(residents, seen, before, answered, spent, strict=True)
        ]

    def idle_streams(self, resident: Resident) -> dict[str, Any]:
        """Memory that open streams take: before, with all of them open (one chunk a second each), and after they were cut."""
        self.load(
            resident, "burst", ["--connections", "8", "--seconds", "0.5", "--stream", "--chunks", str(STREAM.chunks)]
        )
        time.sleep(0.5)
        pids = resident.pids
        before, finished = memory_mb(pids), self._streams_open()
        options = [
            "--connections",
            str(IDLE_STREAMS),
            "--hold",
            "--ramp",
            "2",
            "--seconds",
            "60",
            "--stream",
            "--chunks",
            str(IDLE.chunks),
        ]
        command = self.load_command(resident, "idle", options)
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as loader:
            try:
                opened_s = self._wait_for_streams(finished + IDLE_STREAMS, patience_s=30)
                time.sleep(1.5)
                during = memory_mb(pids)
            finally:
                loader.terminate()
                figures = json.loads(loader.communicate(timeout=20)[0])
        released_s = self._wait_for_streams(finished, patience_s=10)
        return {
            "streams": figures["live"],
            "before_mb": before,
            "delta_mb": during - before,
            "kb_per_stream": (during - before) * 1024 / max(1, figures["live"]),
            "after_mb": memory_mb(pids),
            "opened_within_s": opened_s,
            "upstream_released_within_s": released_s,
        }

    def _streams_open(self) -> int:
        counts = self.upstream("/counts")
        return int(counts["streams"] - counts["streams_finished"] - counts["streams_cut"])

    def _wait_for_streams(self, count: int, patience_s: float) -> float | None:
        """Seconds until the upstream had `count` streams open; None when it never did, or when nothing moved for 8 s."""
        begun = moved = time.monotonic()
        seen = -1
        while time.monotonic() < min(begun + patience_s, moved + 8):
            now = self._streams_open()
            if now == count:
                return time.monotonic() - begun
            if now != seen:
                seen, moved = now, time.monotonic()
            time.sleep(0.1)
        return None

    def dismiss(self) -> None:
        for resident in self.residents.values():
            if resident.program:
                resident.program.stop()


def _wait_until_quiet(pids: Sequence[int], patience_s: float = 5.0) -> None:
    """Returns when the peer has stopped working: what it puts off until after the answer belongs to the answer's price.

    Nothing is believed within `LATEST_S`, by which every batch that waits for company has set out.
    """
    step_s, until = 0.15, time.monotonic() + patience_s
    if pids:
        time.sleep(LATEST_S)
    spent = cpu_us(pids)
    while pids and time.monotonic() < until:
        time.sleep(step_s)
        before, spent = spent, cpu_us(pids)
        if spent - before < 0.03 * step_s * 1e6:
            return


@contextlib.contextmanager
def staged(folder: Path, peers: Sequence[Peer]) -> Iterator[Stage]:
    """A stage with the mock upstream and the peers up; all of them end with the block."""
    loader, mock = compiled(HERE / "load.c"), compiled(HERE / "mock_upstream.c")
    port = free_port()
    upstream = start([str(mock), str(port)], core=LOAD_CORE, log=folder / "mock_upstream.log")
    stage = Stage(folder, port, loader, write_bodies(folder / "bodies", BODIES))
    try:
        wait_until_listening(port, upstream, 10)
        for peer in peers:
            stage.bring(peer)
        yield stage
    finally:
        stage.dismiss()
        upstream.stop()
        sys.stdout.flush()
