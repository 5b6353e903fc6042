"""Measures Predawn beside its peers: `python tests/benchmarks/proxy/run.py [--quick]`, or `make bench-proxy`.

Installs what is missing, takes about 40 minutes (`--rounds 3`: 18; `--quick`: seven), writes results/bench-proxy.json and
a picture beside it. Exit code 1 means a bar is broken; bars without a figure are named and break nothing.
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests.benchmarks.evidence import CHECKOUT, Bar, Evidence, versions_of
from tests.benchmarks.processes import raise_file_limit
from tests.benchmarks.proxy import bars, hooks_micro
from tests.benchmarks.proxy.bodies import ODD_BODIES
from tests.benchmarks.proxy.fidelity import altered_bodies
from tests.benchmarks.proxy.installs import python_of_peers
from tests.benchmarks.proxy.measure import Sample, Stage, staged
from tests.benchmarks.proxy.peers import Extra, Peer, foreign_peers
from tests.benchmarks.proxy.picture import draw
from tests.benchmarks.proxy.predawn_peers import predawn_peers
from tests.benchmarks.proxy.workloads import IDLE_STREAMS, WORKLOADS, Workload


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two rounds of half the length: a look, not evidence")
    parser.add_argument("--rounds", type=int, help="rounds per test (default 7; quick 2)")
    parser.add_argument("--peers", default="", help="only these, comma-separated; `direct` is always there")
    parser.add_argument(
        "--tests", default="", help=f"only these of {', '.join(w.name for w in WORKLOADS)}, idle, bodies"
    )
    parser.add_argument(
        "--extra", action="append", default=[], metavar="NAME=COMMAND", help="one more peer; {port} {upstream} {folder}"
    )
    parser.add_argument(
        "--seed", type=int, help="seed of the order in which peers take turns (default: drawn, and printed)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("results/bench-proxy.json"), help="evidence file, relative to the checkout"
    )
    return parser.parse_args(words)


def chosen_peers(options: argparse.Namespace) -> list[Peer]:
    known: list[Peer] = [*foreign_peers(), *predawn_peers(), *(Extra(*extra.split("=", 1)) for extra in options.extra)]
    wanted = set(filter(None, options.peers.split(",")))
    unknown = wanted - {peer.name for peer in known}
    if unknown:
        raise SystemExit(f"no such peer: {', '.join(sorted(unknown))}; known: {', '.join(peer.name for peer in known)}")
    return [peer for peer in known if not wanted or peer.name in wanted or peer.name == "direct"]


def chosen_tests(options: argparse.Namespace) -> set[str]:
    """Names of the tests to run; empty for all of them."""
    wanted = set(filter(None, options.tests.split(",")))
    known = [*(workload.name for workload in WORKLOADS), "idle", "bodies"]
    if unknown := wanted - set(known):
        raise SystemExit(f"no such test: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    return wanted


def takes(peer: Peer, workload: Workload) -> bool:
    """True unless the peer is there for other tests, or the test for other peers."""
    if workload.only:
        return peer.name in workload.only
    return does(peer, workload.name) and peer.name not in workload.without


def does(peer: Peer, test: str) -> bool:
    return not peer.tests or test in peer.tests


def measure_rounds(
    stage: Stage, workloads: list[Workload], rounds: int, scale: float, order: random.Random
) -> list[Sample]:
    """All rounds of all tests, the peers of each in a new order at every turn."""
    samples = []
    for round_ in range(rounds):
        begun = time.monotonic()
        for workload in workloads:
            for turn in range(workload.turns):
                known = stage.residents.values()
                residents = [one for one in known if takes(one.peer, workload)]
                order.shuffle(residents)
                groups = [residents] if workload.together else [[resident] for resident in residents]
                place = round_ * workload.turns + turn
                samples += [one for group in groups for one in stage.sample(group, workload, place, scale)]
        print(f"  round {round_ + 1} of {rounds} took {time.monotonic() - begun:.0f} s", flush=True)
    return samples


def measure(options: argparse.Namespace, evidence: Evidence) -> None:
    """Runs everything and fills the evidence."""
    rounds = options.rounds or (2 if options.quick else 7)
    tests = chosen_tests(options)
    workloads = [w for w in WORKLOADS if not tests or w.name in tests]
    evidence.settings = {"rounds": rounds, "quick": options.quick, "tests": sorted(tests) or "all"}
    order = random.Random(evidence.seeds["order"])
    with tempfile.TemporaryDirectory(prefix="predawn-bench-") as folder:
        print("bringing up the peers", flush=True)
        with staged(Path(folder), chosen_peers(options)) as stage:
            evidence.versions |= {
                name: resident.version for name, resident in stage.residents.items() if resident.program
            }
            through = [resident for resident in stage.residents.values() if resident.program]
            altered, idle = {}, {}
            if not tests or "bodies" in tests:
                altered = {one.name: altered_bodies(stage, one) for one in through if does(one.peer, "bodies")}
            if not tests or "idle" in tests:
                print(f"opening {IDLE_STREAMS} streams through each", flush=True)
                idle = {one.name: stage.idle_streams(one) for one in through if does(one.peer, "idle")}
            raw = measure_rounds(stage, workloads, rounds, 0.5 if options.quick else 1.0, order)
            names, absent = list(stage.residents), dict(stage.absent)
    samples = bars.Samples.of(raw, rounds * max((workload.turns for workload in workloads), default=1))
    evidence.figures = {"peers": bars.figures(samples, names, idle, altered), "absent": absent}
    evidence.figures["fast_lane_ratios"] = {
        peer: bars.ratios_with(peer, samples) for peer in ("predawn", "predawn-bare", "predawn-slow")
    }
    evidence.notes = bars.complaints(raw)
    evidence.bars = bars.ratio_bars(samples, absent)
    evidence.bars |= bars.idle_bars(idle, absent, IDLE_STREAMS)
    evidence.bars["bodies that reach the upstream altered"] = bars.fidelity_bar(altered, absent, len(ODD_BODIES))
    evidence.bars["an unused hook"], evidence.figures["unused_hooks_us"] = unused_hooks()


def unused_hooks() -> tuple[Bar, dict[str, float]]:
    """The dearest of the hooks that nobody implements."""
    try:
        costs = hooks_micro.unused_hooks_us()
    except ImportError as reason:
        return Bar(None, bars.HOOK_BAR_US, "µs", f"predawn cannot be imported: {reason}"), {}
    return Bar(max(costs.values()), bars.HOOK_BAR_US, "µs"), costs


def main() -> int:
    options = parse()
    raise_file_limit()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(2**31)
    print(f"order seed {seed}", flush=True)
    versions = versions_of("predawn", "aiohttp", "uvloop", "msgspec", "pluggy", "prometheus-client")
    versions["python of the peers"] = python_of_peers()
    evidence = Evidence("proxy", seeds={"order": seed}, versions=versions)
    measure(options, evidence)
    out = options.out if options.out.is_absolute() else CHECKOUT / options.out
    evidence.save(out)
    draw(evidence, out.with_suffix(".png"))
    print(evidence.summary())
    for note in evidence.notes:
        print(f"  note: {note}")
    print(f"evidence in {out.name} and {out.with_suffix('.png').name}")
    return 0 if evidence.all_hold else 1


if __name__ == "__main__":
    sys.exit(main())
