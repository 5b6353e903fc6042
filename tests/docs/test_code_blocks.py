"""The code on the pages runs: each ```python block, in its page's order, and every test that it defines."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import sys
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
import yaml

from predawn.plugins.testing import predawn_server
from predawn.proxy.settings import Settings
from predawn.proxy.upstreams.scripted import Answer, Counts, Script
from predawn.proxy.upstreams.scripted.script import FAULTS, STYLES

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = [
    page
    for page in (DOCS.parent / "README.md", *sorted(DOCS.rglob("*.md")))
    if "```python" in page.read_text(encoding="utf-8")
]
SERVER = "http://127.0.0.1:8080"
"""Where a reader's server listens."""
EVERYTHING = {
    "upstreams": [{"name": "scripted", "kind": "scripted", "routes": ["chat", "completions", "messages"]}],
    "models": [{"name": "*", "upstream": "scripted"}],
}
"""A scripted model behind any name, for clients of either kind."""
TESTED = ["writing-plugins.md", "testing-plugins.md"]


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """The page's blocks in this language, each with the line of its first line of code."""
    text = page.read_text(encoding="utf-8")
    return [
        (text.count("\n", 0, found.start(2)) + 1, found[2]) for found in BLOCK.finditer(text) if found[1] == language
    ]


def run_blocks(page: Path, url: str = SERVER) -> types.ModuleType:
    """Run a page as one module against the server at `url`; a failure shows the page's own line."""
    module = types.ModuleType(f"docs_{page.stem.replace('-', '_')}")
    sys.modules[module.__name__] = module  # pydantic looks names up there
    for line, code in blocks(page, "python"):
        tree = ast.increment_lineno(ast.parse(code.replace(SERVER, url), str(page)), line - 1)
        exec(compile(tree, str(page), "exec"), vars(module))
    return module


def defined_tests() -> Iterator[Any]:
    for name in TESTED:
        for _, code in blocks(DOCS / name, "python"):
            for found in re.findall(r"^async def (test_\w+)", code, re.MULTILINE):
                yield pytest.param(name, found, id=f"{name}-{found}")


@pytest.fixture(scope="module")
def modules() -> Iterator[dict[str, types.ModuleType]]:
    made = {name: run_blocks(DOCS / name) for name in TESTED}
    yield made
    for module in made.values():
        del sys.modules[module.__name__]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
async def test_the_blocks_of_a_page_run(page: Path) -> None:
    """Client code on a page talks to a real server."""
    async with predawn_server(EVERYTHING) as server:
        module = await asyncio.to_thread(run_blocks, page, server.url)
    for made in vars(module).values():
        if isinstance(made, openai.OpenAI | anthropic.Anthropic):
            made.close()  # readers let the end of their program do that
    del sys.modules[module.__name__]


@pytest.mark.parametrize(("page", "name"), list(defined_tests()))
def test_a_test_on_a_page_passes(
    page: str, name: str, modules: dict[str, types.ModuleType], request: pytest.FixtureRequest
) -> None:
    function = getattr(modules[page], name)
    fixtures = {wanted: request.getfixturevalue(wanted) for wanted in inspect.signature(function).parameters}

    asyncio.run(function(**fixtures))


@pytest.mark.parametrize("page", TESTED)
def test_every_plugin_on_a_page_is_tested_there(page: str) -> None:
    code = "".join(text for _, text in blocks(DOCS / page, "python"))
    tested = set(re.findall(r"(?:run_plugin|workbench|= )\(?(\w+Plugin|Forgetful)\b", code))

    assert set(re.findall(r"^class (\w+)\(Plugin[\[)]", code, re.MULTILINE)) - tested == set()


def test_settings_and_projects_on_the_pages_are_valid() -> None:
    for page in map(DOCS.__truediv__, TESTED):
        for _, text in blocks(page, "yaml"):
            settings = Settings.model_validate(yaml.safe_load(text))
            for upstream in settings.upstreams:
                Script.read(upstream.script)
        for _, text in blocks(page, "toml"):
            assert tomllib.loads(text)["project"]["entry-points"]["predawn.plugins"]


@pytest.mark.parametrize(
    "names", [FAULTS, STYLES, tuple(Answer.model_fields), tuple(Script.model_fields), tuple(Counts.__slots__)]
)
def test_the_page_names_everything_a_script_can_say_and_count(names: tuple[str, ...]) -> None:
    page = (DOCS / "testing-plugins.md").read_text(encoding="utf-8")

    assert [name for name in names if f"`{name}`" not in page] == []
