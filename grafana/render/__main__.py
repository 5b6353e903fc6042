"""`python -m grafana.render --prometheus http://localhost:9090`: every dashboard as a PNG."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from grafana.asking import AskingError, Prometheus, Span
from grafana.build import HERE
from grafana.render.answers import answers

PICTURES = HERE.parent / "docs" / "images" / "dashboards"


def pictures(prometheus: Prometheus, span: Span, folder: Path) -> list[Path]:
    """Draw the committed dashboards into a folder, and the first two rows of the overview once more by themselves."""
    from grafana.render.page import draw, first_rows

    drawn = []
    for file in sorted((HERE / "dashboards").glob("*.json")):
        board = json.loads(file.read_text(encoding="utf-8"))
        name, told = board["uid"].removeprefix("predawn-"), answers(board, prometheus, span)
        wanted = {name: board, **({"first-rows": first_rows(board, 2)} if name == "overview" else {})}
        for short, shown in wanted.items():
            drawn.append(folder / f"{short}.png")
            draw(shown, told, span, drawn[-1])
    return drawn


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m grafana.render", description=__doc__)
    parser.add_argument("--prometheus", default="http://localhost:9090", metavar="URL", help="which to ask")
    parser.add_argument("--minutes", type=float, default=60, help="how far back (60)")
    parser.add_argument("--scrape", type=float, default=15, metavar="S", help="how often it scrapes, in seconds (15)")
    parser.add_argument("--to", type=Path, default=PICTURES, metavar="DIR", help="where the pictures go")
    options = parser.parse_args(arguments)
    now = time.time()
    try:
        drawn = pictures(
            Prometheus(options.prometheus), Span(now - options.minutes * 60, now, options.scrape), options.to
        )
    except ImportError as exc:
        print(f"{exc}: pictures need the extra `plot` (pip install 'predawn[plot]')", file=sys.stderr)
        return 2
    except AskingError as exc:
        print(exc, file=sys.stderr)
        return 1
    for path in drawn:
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
