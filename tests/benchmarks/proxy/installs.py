"""Fetches peers into environments of their own, and says plainly when one cannot be had."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from tests.benchmarks.evidence import CHECKOUT
from tests.benchmarks.native import CACHE

ENVIRONMENTS = CACHE / "envs"
PATIENCE_S = 900
SYSTEM_PYTHON = Path("/usr/bin/python3")
OLDEST_PYTHON = (3, 11)


class UnobtainableError(RuntimeError):
    """A peer cannot be had on this machine; the message is the reason."""


@cache
def peers_python() -> Path:
    """The Python that peers run on: the distribution's, as nginx is the distribution's; this one where there is none.

    Distributions and official images build Python with profiles and link-time optimization. A plain `configure && make`,
    which version managers use, leaves both out.
    """
    code = f"import ensurepip, sys, venv; sys.exit(sys.version_info[:2] < {OLDEST_PYTHON})"
    try:
        fits = subprocess.run([str(SYSTEM_PYTHON), "-I", "-c", code], capture_output=True, check=False).returncode == 0
    except OSError:
        fits = False
    return SYSTEM_PYTHON if fits else Path(sys.executable).resolve()


def python_of_peers() -> str:
    """Its version, and whose it is."""
    python = str(peers_python())
    said = subprocess.run([python, "--version"], check=True, capture_output=True, text=True).stdout.split()[-1]
    return f"{said}, {'the distribution' if python == str(SYSTEM_PYTHON) else 'the benchmark'}'s"


def python_environment(name: str, requirement: str, program: str) -> Path:
    """The path of `program` in a virtual environment that holds `requirement`, made when it is missing.

    Only wheels are taken: a source archive would run its own build, and may fetch a compiler for it.
    """
    folder = ENVIRONMENTS / name
    path = folder / "bin" / program
    if path.exists() and _is_ours(folder):
        return path
    print(f"installing {requirement} into {_shown(folder)} …", flush=True)
    _create(folder)
    _install(folder, "--only-binary", ":all:", requirement)
    if not path.exists():
        raise UnobtainableError(f"{requirement} was installed but has no program {program}")
    return path


def checkout_environment(extras: str) -> Path:
    """The `bin` of a virtual environment that holds this checkout with `extras`, editable and as it is pinned."""
    folder = ENVIRONMENTS / "predawn"
    done, pins, project = folder / ".done", CHECKOUT / "constraints.txt", CHECKOUT / "pyproject.toml"
    is_new = done.exists() and done.stat().st_mtime >= max(pins.stat().st_mtime, project.stat().st_mtime)
    if not is_new or not _is_ours(folder):
        print(f"installing Predawn into {_shown(folder)}, with {peers_python()} …", flush=True)
        _create(folder)
        _install(folder, "--constraint", str(pins), "--editable", f"{CHECKOUT}[{extras}]")
        done.touch()
    return folder / "bin"


def _is_ours(folder: Path) -> bool:
    """True if the environment was made with the Python that peers run on."""
    try:
        said = (folder / "pyvenv.cfg").read_text()
    except OSError:
        return False
    version = python_of_peers().partition(",")[0]
    return f"home = {peers_python().parent}\n" in said and f"version = {version}\n" in said


def _create(folder: Path) -> None:
    _run([str(peers_python()), "-m", "venv", "--clear", str(folder)], folder.name)
    _install(folder, "--upgrade", "pip>=25.1")


def _install(folder: Path, *what: str) -> None:
    _run([str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *what], folder.name)


def python_version(name: str, distribution: str) -> str:
    """The version of a distribution in the environment `name`."""
    code = f"from importlib.metadata import version; print(version({distribution!r}))"
    python = ENVIRONMENTS / name / "bin" / "python"
    return subprocess.run([str(python), "-I", "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def npm_package(
    name: str, package: str, script: str, *, version: str = "latest", overrides: Mapping[str, str] | None = None
) -> Path:
    """The path of `script` inside an npm package, installed when it is missing. `overrides` pins what it depends on.

    Needs node and npm. No install scripts run.
    """
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise UnobtainableError(f"{package} needs node and npm, which are not installed")
    folder = ENVIRONMENTS / name
    path = folder / "node_modules" / package / script
    manifest = folder / "package.json"
    wanted = json.dumps({"private": True, "dependencies": {package: version}, "overrides": dict(overrides or {})})
    if path.exists() and manifest.exists() and json.loads(manifest.read_text()) == json.loads(wanted):
        return path
    print(f"installing {package} (npm) into {_shown(folder)} …", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    manifest.write_text(wanted)
    quiet = ["--no-audit", "--no-fund", "--ignore-scripts", "--loglevel", "error"]
    _run(["npm", "install", "--prefix", str(folder), *quiet], name)
    if not path.exists():
        raise UnobtainableError(f"{package} was installed but has no {script}")
    return path


def debian_program(program: str, package: str) -> Path:
    """The path of a system program; installed from Debian's package when missing, which takes root and apt-get."""
    found = _system_program(program)
    if found:
        return found
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise UnobtainableError(f"{program} is not installed, and installing {package} takes root and apt-get")
    print(f"installing {package} (apt-get) …", flush=True)
    quiet = ["apt-get", "-qq", "-o", "Dpkg::Use-Pty=0"]
    env = {"DEBIAN_FRONTEND": "noninteractive"}
    _run([*quiet, "update"], package, env)
    _run([*quiet, "install", "-y", "--no-install-recommends", package], package, env)
    found = _system_program(program)
    if found is None:
        raise UnobtainableError(f"{package} was installed but has no program {program}")
    return found


def _system_program(program: str) -> Path | None:
    path = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    return Path(path) if path else None


def _run(command: Sequence[str], name: str, env: dict[str, str] | None = None) -> None:
    """Runs an installer; its last lines become the reason when it fails."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            env={**os.environ, **(env or {})},
        )
    except subprocess.TimeoutExpired as late:
        raise UnobtainableError(f"installing {name} took longer than {PATIENCE_S} s") from late
    if done.returncode:
        raise UnobtainableError(f"installing {name} failed: {_reason(done.stderr or done.stdout)}")


def _reason(output: str) -> str:
    """The last telling lines of an installer's output, without addresses: evidence names no machine."""
    lines = [line.strip() for line in output.strip().splitlines() if line.strip() and not line.startswith("WARNING")]
    return re.sub(r"https?://\S+|file://\S+", "…", " | ".join(lines[-3:]))[:400]


def _shown(folder: Path) -> str:
    return str(folder.relative_to(CACHE.parents[1]))
