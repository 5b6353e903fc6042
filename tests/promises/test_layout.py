"""The folders, the packages and the commands are where everything says they are."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib

import pytest
from tests.promises.sources import PACKAGES, ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_links_of_a_checkout_are_the_map_of_the_wheel() -> None:
    wheel = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    links = {path.name: path.readlink().as_posix() for path in (ROOT / ".src" / "predawn").iterdir()}

    assert wheel["sources"] == {folder: f"predawn/{folder}" for folder in PACKAGES}
    assert sorted(wheel["only-include"]) == sorted(PACKAGES)
    assert links == {folder: f"../../{folder}" for folder in PACKAGES}


def test_every_package_says_that_it_is_typed() -> None:
    assert [folder for folder in PACKAGES if not (ROOT / folder / "py.typed").is_file()] == []


def test_entry_points_exist() -> None:
    targets = [*PYPROJECT["project"]["scripts"].values(), *PYPROJECT["project"]["entry-points"]["pytest11"].values()]
    files = [ROOT / target.partition(":")[0].removeprefix("predawn.").replace(".", "/") for target in targets]

    assert [file for file in files if not (file.with_suffix(".py").is_file() or (file / "__init__.py").is_file())] == []


def _targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def test_every_make_target_in_the_pages_exists() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")]
    named = {
        target for page in pages for target in re.findall(r"\bmake ([a-z][a-z-]+)\b", _code(page.read_text("utf-8")))
    }

    assert named <= _targets()


def _code(text: str) -> str:
    """What a page shows as code: fenced blocks and words in backticks."""
    return "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL))


def test_every_phony_target_has_a_rule() -> None:
    phony = re.search(r"^\.PHONY:(.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert phony is not None

    assert set(phony[1].split()) <= _targets()


def test_every_command_in_the_pages_exists() -> None:
    from predawn.proxy.cli import parser

    top = parser()
    commands = {name for action in top._actions for name in (action.choices or ()) if action.dest == "command"}
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")]
    named = {
        word
        for page in pages
        for word in re.findall(r"(?:^|[$`/] ?)predawn ([a-z]+)\b(?!:)", _code(page.read_text("utf-8")), re.MULTILINE)
    }

    assert named <= commands


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_no_file_names_a_place_outside_of_the_project() -> None:
    """Absolute paths of one person's machine help nobody else."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    private = re.compile(r"(?<![\w.$}>-])/(?:" + "work|tmp/w|root|home/[a-z]+" + r")/[\w.]")
    found = []
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.suffix in {".png", ".gz", ".lock"} or not path.is_file() or path.is_symlink():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        found += [f"{name}: {match[0]}" for match in private.finditer(text)]

    assert found == []
