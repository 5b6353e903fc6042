"""Compiles the C programs of a benchmark into the cache, once per source text."""

import hashlib
import shutil
import subprocess
from pathlib import Path

from tests.benchmarks.evidence import CHECKOUT

CACHE = CHECKOUT / ".cache" / "bench"
FLAGS = ("-O2", "-Wall", "-Wextra", "-std=gnu11")


class NoCompilerError(RuntimeError):
    """gcc is missing."""


def compiled(source: Path) -> Path:
    """The program built from `source`: compiled when its text or the flags changed, else taken from the cache."""
    digest = hashlib.sha256(source.read_bytes() + repr(FLAGS).encode()).hexdigest()[:12]
    program = CACHE / "bin" / f"{source.stem}-{digest}"
    if program.exists():
        return program
    compiler = shutil.which("gcc")
    if compiler is None:
        raise NoCompilerError(
            f"gcc is needed to build {source.name}: install it (Debian: apt-get install gcc libc6-dev)"
        )
    program.parent.mkdir(parents=True, exist_ok=True)
    print(f"compiling {source.name} …", flush=True)
    subprocess.run([compiler, *FLAGS, "-o", str(program), str(source)], check=True)
    return program
