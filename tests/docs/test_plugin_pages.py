"""Each plugin's page has the same parts, in the same order, and they are written from the code and the evidence."""

from __future__ import annotations

import re

import pytest
from docs.generate import DOCS

from predawn.proxy.loading import BUILT_IN

PARTS = ["When it pays, when it hurts", "Settings", "Metrics", "Evidence"]
PAGE = {"verify": "verification"}


def page_of(plugin: str) -> str:
    return (DOCS / f"{PAGE.get(plugin, plugin)}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("plugin", BUILT_IN)
def test_a_plugins_page_has_the_same_parts_as_every_other(plugin: str) -> None:
    headings = re.findall(r"^## (.+)$", page_of(plugin), re.MULTILINE)

    assert [heading for heading in headings if heading in PARTS] == PARTS


@pytest.mark.parametrize("plugin", BUILT_IN)
def test_a_plugins_page_shows_its_settings_and_how_to_turn_it_on(plugin: str) -> None:
    page = page_of(plugin)

    assert f"<!-- generated: plugin {plugin} -->" in page
    assert re.search(rf"^```yaml\n(?:.*\n)*?\s+- {plugin}\b", page, re.MULTILINE)


@pytest.mark.parametrize("plugin", BUILT_IN)
def test_evidence_is_a_command_away(plugin: str) -> None:
    evidence = page_of(plugin).partition("\n## Evidence\n")[2].partition("\n## ")[0]

    assert re.search(r"`(make|pytest|python) [^`]+`", evidence)


@pytest.mark.parametrize("plugin", BUILT_IN)
def test_the_overview_names_each_plugin_and_where_it_stands_in_the_order(plugin: str) -> None:
    overview = (DOCS / "plugins.md").read_text(encoding="utf-8")

    assert f"[`{plugin}`]({PAGE.get(plugin, plugin)}.md)" in overview
    assert re.search(rf"^  - {plugin}\b", overview, re.MULTILINE)
