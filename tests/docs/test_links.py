"""Links lead somewhere, headings they name included; the site's contents list every page once. No network is needed."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.docs.pages import DOCS, PAGES, ROOT, anchors, prose

LINK = re.compile(r"\]\(([^)\s]+)\)")


class _Loader(yaml.SafeLoader):
    """Reads mkdocs.yml, whose tags name Python functions."""


_Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)
NAV = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), _Loader)["nav"]


def links(page: Path) -> list[str]:
    return [link for link in LINK.findall(prose(page)) if "://" not in link and not link.startswith("mailto:")]


def listed(part: Any) -> list[str]:
    if isinstance(part, str):
        return [part]
    return [page for inner in (part.values() if isinstance(part, dict) else part) for page in listed(inner)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    broken = []
    for link in links(page):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)

    assert broken == []


def test_headings_become_anchors_as_where_the_repository_is_browsed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# One, two\n\n```sh\n# no heading\n```\n\n## `json_schema`\n\n## Again\n\n## Again\n", encoding="utf-8"
    )

    assert anchors(page) == {"one-two", "json_schema", "again", "again-1"}


def test_the_contents_list_each_page_once() -> None:
    pages = [page.relative_to(DOCS).as_posix() for page in PAGES if page.is_relative_to(DOCS)]

    assert sorted(page for page in listed(NAV) if "/" in page or (DOCS / page).exists()) == sorted(pages)


@pytest.mark.parametrize("start", [ROOT / "README.md", DOCS / "index.md"], ids=lambda page: page.name)
def test_the_readme_and_the_first_page_lead_to_every_task(start: Path) -> None:
    """Whatever stands in the contents can be reached in two clicks."""
    first = targets(start)
    second = {page for name in first if name.suffix == ".md" for page in targets(name)}

    assert {DOCS / page for page in listed(NAV)} - first - second - {DOCS / "index.md"} == set()


def targets(page: Path) -> set[Path]:
    found = {(page.parent / name).resolve() for link in links(page) if (name := link.partition("#")[0])}
    return {index if (index := path / "README.md").is_file() else path for path in found}


def test_pages_of_the_root_have_names_of_their_own_in_the_site() -> None:
    """Read, not imported: docs/site.py needs MkDocs, which the tests do without."""
    (names,) = [
        ast.literal_eval(line.value)
        for line in ast.parse((DOCS / "site.py").read_text(encoding="utf-8")).body
        if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "PAGES"
    ]

    assert [page for page in names.values() if (DOCS / page).exists()] == []
    assert [source for source in names if not (ROOT / source).is_file()] == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent == DOCS], ids=lambda page: page.name)
def test_a_page_begins_with_what_its_reader_gets(page: Path) -> None:
    text = prose(page)
    title, _, rest = text.partition("\n")
    opening = re.split(r"^## ", rest, flags=re.MULTILINE)[0]
    sentences = [line for line in opening.splitlines() if re.match(r"[A-Za-z`*\[(]", line)]

    assert title.startswith("# ")
    assert len(re.findall(r"^# ", text, re.MULTILINE)) == 1
    assert len(" ".join(sentences)) >= 60, "a sentence or two before the first heading"
