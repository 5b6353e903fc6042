"""What a benchmark leaves behind: one JSON file and one picture beside it, in the same form for every benchmark."""

import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Bar:
    """A promise as a number: `value` must not exceed `bar`, or with `at_least` not fall below it.

    `holds` is None when it could not be measured, `reason` says why.
    """

    value: float | None
    bar: float
    unit: str = ""
    reason: str = ""
    at_least: bool = False

    @property
    def holds(self) -> bool | None:
        if self.value is None:
            return None
        return self.value >= self.bar if self.at_least else self.value <= self.bar

    def as_json(self) -> dict[str, Any]:
        shown: dict[str, Any] = {"value": self.value, "bar": self.bar, "holds": self.holds}
        if self.at_least:
            shown["at_least"] = True
        return shown | {key: text for key, text in (("unit", self.unit), ("reason", self.reason)) if text}


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine as far as it explains figures. Never its name."""

    cpu: str
    cores: int
    memory_gb: float
    kernel: str
    load_before: float


def this_machine() -> Machine:
    cpu = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return Machine(
        cpu,
        os.cpu_count() or 1,
        round(memory, 1),
        f"{platform.system()} {platform.release().partition('-')[0]}",
        os.getloadavg()[0],
    )


def versions_of(*distributions: str) -> dict[str, str]:
    """Versions of installed distributions of this interpreter, which is named too; a missing one says so."""
    found = {"python": platform.python_version()}
    for name in distributions:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


@dataclass(slots=True)
class Evidence:
    """Collects what a run measured. `save` writes it; `all_hold` is the exit code's question."""

    benchmark: str
    seeds: dict[str, int | str]
    versions: dict[str, str]
    machine: Machine = field(default_factory=this_machine)
    begun: datetime = field(default_factory=lambda: datetime.now(UTC))
    settings: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    bars: dict[str, Bar] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def all_hold(self) -> bool:
        """No bar is broken. Bars that could not be measured do not count against a run, but the summary names them."""
        return all(bar.holds is not False for bar in self.bars.values())

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        document = {
            "benchmark": self.benchmark,
            "command": shlex.join(["python", *_relative_command()]),
            "date": self.begun.isoformat(timespec="seconds"),
            "took_s": round((datetime.now(UTC) - self.begun).total_seconds(), 1),
            "versions": self.versions,
            "seeds": self.seeds,
            "machine": asdict(self.machine),
            "settings": self.settings,
            "bars": {name: bar.as_json() for name, bar in self.bars.items()},
            "figures": self.figures,
            "notes": self.notes,
        }
        path.write_text(json.dumps(rounded(document), indent=1, ensure_ascii=False) + "\n")

    def summary(self) -> str:
        """One line per bar, the broken ones marked, for the end of a run."""
        mark = {True: "holds ", False: "BROKEN", None: "no figure"}
        lines = []
        for name, bar in self.bars.items():
            value = "—" if bar.value is None else f"{bar.value:.4g}"
            lines.append(
                f"  {mark[bar.holds]:9} {name}: {value} (bar {'≥ ' if bar.at_least else ''}{bar.bar:.4g}{' ' + bar.unit if bar.unit else ''}) {bar.reason}".rstrip()
            )
        return "\n".join(lines)


def rounded(value: Any, digits: int = 5) -> Any:
    """The same structure with floats cut to significant digits, so that a diff of two evidence files can be read."""
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, Mapping):
        return {key: rounded(inner, digits) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [rounded(inner, digits) for inner in value]
    return value


def _relative_command() -> list[str]:
    """This process's command without any absolute path: evidence is read on other machines."""
    script = Path(sys.argv[0]).resolve()
    shown = script.relative_to(CHECKOUT) if script.is_relative_to(CHECKOUT) else Path(script.name)
    return [str(shown), *(word.removeprefix(f"{CHECKOUT}/") for word in sys.argv[1:])]
