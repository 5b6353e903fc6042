"""The package on the page about plugins can be built, and Predawn finds what is in it."""

import os
import subprocess
import sys
import zipfile

import pytest
from hatchling.build import build_wheel
from tests.docs.pages import DOCS, blocks_of

PAGE = list(blocks_of(DOCS / "writing-plugins.md"))


def first(language: str, containing: str = "") -> str:
    return next(block.code for block in PAGE if block.language == language and containing in block.code)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A folder as `pip install` would leave it, made of the files that the page tells to write."""
    project = tmp_path / "predawn-polite"
    files = {line.split()[0]: project / line.split()[0] for line in first("text").splitlines()[1:]}
    for path in files.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    files["pyproject.toml"].write_text(first("toml"))
    files["predawn_polite/__init__.py"].write_text(first("python"))
    monkeypatch.chdir(project)
    with zipfile.ZipFile(project / build_wheel(str(project))) as wheel:
        wheel.extractall(tmp_path / "installed")
    return tmp_path / "installed"


def test_the_plugin_of_the_page_is_found_typed_and_active(installed, tmp_path):
    settings = tmp_path / "predawn.yaml"
    settings.write_text(
        first("yaml") + "upstreams: [{name: fake, kind: scripted}]\nmodels: [{name: small, upstream: fake}]\n"
    )
    shown = subprocess.run(
        [sys.executable, "-m", "predawn.proxy.cli", "plugins", "--config", settings],
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert shown.returncode == 0, shown.stderr
    assert [line for line in shown.stdout.splitlines() if "polite" in line and "predawn-polite 1.0" in line]
    assert (installed / "predawn_polite" / "py.typed").exists()
