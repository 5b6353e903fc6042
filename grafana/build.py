"""Writes the dashboards, rules and provisioning files: `python -m grafana.build`.

With `--check` nothing is written: it fails, and names the files, while they are not what the code says.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import yaml

from grafana import alerts, provisioning, rules
from grafana.boards import all_boards

HERE = Path(__file__).parent
WRITTEN = "# Written by `python -m grafana.build`; change grafana/{}, not this file.\n"


def outputs() -> Mapping[Path, str]:
    """Every file by its place, with its text."""
    boards = {HERE / "dashboards" / f"{board.uid}.json": as_json(board.json()) for board in all_boards()}
    return {
        **boards,
        HERE / "prometheus" / "predawn.rules.yml": as_yaml(
            {"groups": list(chain(rules.groups(), alerts.groups()))}, "rules.py and grafana/alerts.py"
        ),
        HERE / "provisioning" / "datasources" / "predawn.yaml": as_yaml(provisioning.datasource(), "provisioning.py"),
        HERE / "provisioning" / "dashboards" / "predawn.yaml": as_yaml(provisioning.dashboards(), "provisioning.py"),
    }


def as_json(value: Any) -> str:
    """A line for each member, so that a change is a short diff."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def as_yaml(value: Any, source: str) -> str:
    """With a word on where it comes from."""
    return WRITTEN.format(source) + yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=1000)


def stale(wanted: Mapping[Path, str]) -> list[Path]:
    """Files that are not as they should be, those that should not be there included."""
    kept = chain.from_iterable(folder.glob("*") for folder in {path.parent for path in wanted} if folder.is_dir())
    wrong = [path for path, text in wanted.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    return sorted({*wrong, *(path for path in kept if path.is_file() and path not in wanted)})


def main(arguments: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m grafana.build", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, and fail if something is out of date")
    options = parser.parse_args(None if arguments is None else list(arguments))
    wanted = outputs()
    wrong = stale(wanted)
    if options.check:
        for path in wrong:
            print(f"out of date: {path.relative_to(HERE.parent)}", file=sys.stderr)
        return 1 if wrong else 0
    for path in wrong:
        if path not in wanted:
            path.unlink()
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted[path], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
