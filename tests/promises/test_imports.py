"""Imports point one way, stay inside the package, and cost little."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tests.promises.sources import PACKAGES, ROOT, sources, within

MAY_NAME_PLUGINS = {"proxy/loading.py"}
MAY_NAME_KERNELS = {"proxy/upstreams/local.py", "proxy/commands/kernels.py"}


def importers(package: str, *folders: str) -> set[str]:
    return {source.name for source in sources(*folders) for _, module in source.imports() if within(module, package)}


def test_the_proxy_knows_no_feature() -> None:
    assert importers("predawn.plugins", "proxy", "kernels") <= MAY_NAME_PLUGINS
    assert importers("predawn.kernels", "proxy", "plugins") <= MAY_NAME_KERNELS


def test_the_kernels_know_nothing_of_the_proxy() -> None:
    assert importers("predawn.proxy", "kernels") == set()


@pytest.mark.parametrize("folder", PACKAGES)
def test_our_folders_are_never_imported_by_their_bare_names(folder: str) -> None:
    """There is a package called `kernels` on PyPI; ours is `predawn.kernels`."""
    assert importers(folder, *PACKAGES, "tests", "docs") == set()


def test_litellm_is_imported_in_one_place() -> None:
    assert importers("litellm") <= {"proxy/upstreams/litellm.py"}


def run(code: str) -> str:
    finished = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_the_front_door_for_plugins_opens_quickly() -> None:
    """Its own CPU time, of which other processes take none; a busy or slow machine makes it longer, too, but less."""
    timed = "import time; began = time.process_time(); import predawn.plugins; print(time.process_time() - began)"

    assert min(float(run(timed)) for _ in range(5)) < 0.3


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        (
            "predawn.plugins",
            ["aiohttp", "litellm", "torch", "sqlalchemy", "prometheus_client", "alembic", "limits", "yaml", "asyncio"],
        ),
        ("predawn.proxy.settings_file", ["aiohttp", "litellm", "torch", "sqlalchemy"]),
        ("predawn.proxy.app", ["litellm", "torch", "sqlalchemy", "alembic", "limits", "openai", "dbos"]),
        ("predawn.proxy.cli", ["litellm", "torch", "alembic", "openai", "dbos"]),
    ],
)
def test_what_is_heavy_is_imported_only_when_needed(module: str, heavy: list[str]) -> None:
    loaded = set(run(f"import sys, {module}; print(*sys.modules)").split())

    assert loaded & set(heavy) == set()


def test_a_plain_install_brings_few_packages() -> None:
    assert len(_needed("predawn")) <= 30


def _needed(root: str) -> set[str]:
    """Every package that a plain install of `root` brings, from the metadata of what is installed."""
    found: set[str] = set()
    waiting: list[tuple[str, frozenset[str]]] = [(root, frozenset())]
    while waiting:
        name, extras = waiting.pop()
        try:
            listed = requires(name) or []
        except PackageNotFoundError:
            continue  # for another system or Python: it is counted, and what it needs is not known
        for requirement in map(Requirement, listed):
            marker = requirement.marker
            if marker and not any(marker.evaluate({"extra": extra}) for extra in ["", *extras]):
                continue
            needed = canonicalize_name(requirement.name)
            if needed not in found or requirement.extras:
                waiting.append((needed, frozenset(requirement.extras)))
            found.add(needed)
    return found


def test_every_dependency_has_its_reason() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = re.search(r"\ndependencies = \[\n(.*?)\n\]", text, re.DOTALL)
    assert block is not None

    assert [line for line in block[1].splitlines() if "#" not in line] == []
