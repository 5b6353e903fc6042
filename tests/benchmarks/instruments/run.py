"""What metrics and traces cost: `python tests/benchmarks/instruments/run.py`; writes results/bench-instruments.json."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests.benchmarks.evidence import CHECKOUT, Bar, Evidence, versions_of
from tests.benchmarks.instruments import chunks, picture, requests, scrape

REQUEST_US, BLOCK_MS = 30.0, 5.0
NOTES = [
    "CPU of this process by piece, median of 9 rounds of 4,000; traces at a ratio of 1, with a client's traceparent.",
    "A block is the CPU time of this process between two turns of a loop that does nothing else: the worst of all scrapes.",
    "By the clock the work of the machine's other processes is in it, too.",
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=CHECKOUT / "results" / "bench-instruments.json")
    parser.add_argument("--scrapes", type=int, default=scrape.SCRAPES)
    options = parser.parse_args()
    evidence = Evidence("instruments", {}, versions_of("prometheus-client", "aiohttp", "opentelemetry-sdk"))
    evidence.settings = {"histograms": scrape.CHILDREN, "scrapes": options.scrapes, "times": requests.TIMES}
    evidence.notes = NOTES
    pieces = requests.measured()
    calls = chunks.measured()
    page = scrape.measured(options.scrapes)
    evidence.figures = {
        "request_us": pieces,
        "sdk_us_for_the_same_spans": requests.by_the_sdk(),
        "calls_by_chunks": calls,
        "scrape": page,
    }
    short, long = calls.values()
    evidence.bars = {
        "CPU per request, all instruments": Bar(sum(pieces.values()), REQUEST_US, "µs"),
        "calls into instruments that 990 more chunks make": Bar(long - short, 0, "calls"),
        f"loop blocked by a scrape of {page['histograms']} histograms, worst": Bar(
            page["ways"]["in slices"]["worst_block_ms"], BLOCK_MS, "ms"
        ),
    }
    evidence.save(options.out)
    picture.draw(evidence, options.out.with_suffix(".png"))
    for name, cost in pieces.items():
        print(f"  {cost:6.2f} µs  {name}")
    for name, way in page["ways"].items():
        print(f"  {name}: {way}")
    print(evidence.summary())
    return 0 if evidence.all_hold else 1


if __name__ == "__main__":
    sys.exit(main())
