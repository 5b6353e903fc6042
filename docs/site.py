# ruff: noqa: INP001 - hooks of mkdocs are plain functions in a file beside the pages
"""What `make site` needs beyond the pages: those at the root of the repository, links to files that are no pages, lists
that are indented by two. Afterwards it looks whether anything would be fetched from elsewhere.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import markdown
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {
    "THREAT_MODEL.md": "threat-model.md",
    "SECURITY.md": "security-policy.md",  # docs/ has a security.md
    "CONTRIBUTING.md": "contributing.md",
    "REVIEWING.md": "reviewing.md",
    "CHANGELOG.md": "changelog.md",
}
"""Files of the root, and their names in the site."""
_LINK = re.compile(r"(\]\()([^)#\s:]+)(#[^)\s]*)?(\))")
_FETCHED = re.compile(
    r"<(?:script|img|iframe|source|video|audio|embed)\b[^>]*\bsrc=[\"']?(?:https?:)?//"
    r"|<link\b[^>]*\brel=[\"']?(?:stylesheet|preconnect|preload|icon)[^>]*\bhref=[\"']?(?:https?:)?//",
    re.IGNORECASE,
)


class TwoSpaces(markdown.Extension):
    """What stands two spaces further in belongs to the list item, as it does where the repository is browsed."""

    def extendMarkdown(self, md: markdown.Markdown) -> None:  # noqa: N802 - Markdown's name
        """Blocks by indentation alone, which are code with four spaces, do not exist on these pages."""
        md.tab_length = 2
        md.parser.blockprocessors.deregister("code")
        for name in ("indent", "olist", "ulist"):
            there = next(item for item in md.parser.blockprocessors._priority if item.name == name)  # noqa: SLF001
            md.parser.blockprocessors.register(type(md.parser.blockprocessors[name])(md.parser), name, there.priority)


def _apart(text: str) -> str:
    """A blank line before a list that follows a paragraph at once, which Markdown elsewhere does not need."""
    lines: list[str] = []
    fenced, before = False, ""
    for line in text.split("\n"):
        fenced ^= line.lstrip().startswith("```")
        if not fenced and line.lstrip().startswith("- ") and before and not before.startswith(("- ", "|", "<!--")):
            lines.append("")
            before = "- "
        lines.append(line)
        before = (before or line.lstrip()) if line.strip() else ""
    return "\n".join(lines)


def on_config(config: Any) -> Any:
    """Read lists as they are written here; list the root's pages last."""
    config.markdown_extensions.append(TwoSpaces())
    config.nav.append({"Project": list(PAGES.values())})
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the root's pages."""
    for source, page in PAGES.items():
        if page in files.src_uris:  # MkDocs would put one in the place of the other, and say nothing
            raise PluginError(f"docs/{page} is there: {source} needs another name in the site")
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:  # noqa: ARG001 - by name
    """Point links at pages of the site, or at the repository where a file is no page."""
    here = ROOT if page.file.src_uri in PAGES.values() else (ROOT / "docs" / page.file.src_uri).parent
    depth = "../" * page.file.src_uri.count("/")

    def rewritten(link: re.Match[str]) -> str:
        target = (here / link[2]).resolve()
        if not target.exists() or not target.is_relative_to(ROOT):
            return link[0]
        inside = target.relative_to(ROOT).as_posix()
        if inside in PAGES:
            place = depth + PAGES[inside]
        elif inside.startswith("docs/"):
            place = depth + inside.removeprefix("docs/") if here == ROOT else link[2]
        else:
            place = config.extra["source"] + inside
        return f"{link[1]}{place}{link[3] or ''}{link[4]}"

    return _LINK.sub(rewritten, _apart(markdown))


def on_post_build(config: Any) -> None:
    """Nothing of a page may come from elsewhere."""
    site = Path(config.site_dir)
    for page in site.rglob("*.html"):
        if found := _FETCHED.search(page.read_text(encoding="utf-8")):
            raise PluginError(f"{page.relative_to(site)} fetches something from elsewhere: {found[0]}")
