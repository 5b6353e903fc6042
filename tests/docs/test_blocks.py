"""What is not Python on the pages is right, too: settings are checked as `predawn check` does, commands parse, JSON is JSON,
queries ask for what there is.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry
from tests.docs.pages import PAGES, ROOT, Block, blocks, prose

from predawn.proxy import loading
from predawn.proxy.cli import parser
from predawn.proxy.metrics import Metrics, families
from predawn.proxy.settings import Settings
from predawn.proxy.settings_file import SettingsError, load

OWN = {"polite", "suffix"}
"""Plugins that a page has its reader write."""
OTHER_YAML = {"deploy.md", "dashboards.md", "operations.md", "CONTRIBUTING.md"}
"""Pages with YAML that is no settings file: charts, compose files, scrape configurations."""
SHELL = ("sh", "bash", "console", "")
FAMILIES = {family.name: {*family.labels, "le"} for family in families(Metrics(CollectorRegistry()))}
_PROGRAM = re.compile(r"(?:\S*/)?predawn$")


def checked(block: Block, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What `predawn check` says of a block; what it takes for granted is filled in."""
    text = block.code
    for name in re.findall(r"\$\{(\w+)", text):
        monkeypatch.setenv(name, "https://upstream.example/v1")
    data = yaml.safe_load(text)
    if isinstance(data, list):  # some verifiers, as they stand in `verify`
        data = {"plugins": [{"verify": {"verifiers": data}}]}
        text = json.dumps(data)
    if "models" in data and "upstreams" not in data:
        used = sorted({model.get("upstream", "one") for model in data["models"]})
        text += "\nupstreams: " + json.dumps([{"name": name, "base_url": "http://localhost:1/v1"} for name in used])
    (folder / "predawn.yaml").write_text(text, encoding="utf-8")
    try:
        load(folder / "predawn.yaml", check_plugins=loading.check)
    except SettingsError as problems:
        return [str(problem) for problem in problems.problems if not any(f"'{own}'" in str(problem) for own in OWN)]
    return []


@pytest.mark.parametrize("block", blocks("yaml", "yml"), ids=lambda block: block.place)
def test_settings_on_the_pages_pass_the_check(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = yaml.safe_load(block.code)
    if isinstance(data, dict) and not set(data) & set(Settings.model_fields):
        assert block.page.name in OTHER_YAML, "no key of the settings is in it"
        return

    assert checked(block, tmp_path, monkeypatch) == []


def test_a_wrong_word_on_a_page_would_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Block(ROOT / "README.md", 1, "yaml", "plugins:\n  - cache: {modus: all}\n")

    assert "modus" in "".join(checked(wrong, tmp_path, monkeypatch))


@pytest.mark.parametrize("block", blocks("json"), ids=lambda block: block.place)
def test_json_on_the_pages_is_json(block: Block) -> None:
    decoder, rest = json.JSONDecoder(), block.code.strip()
    while rest:
        _, end = decoder.raw_decode(rest)
        rest = rest[end:].strip()


def commands(block: Block) -> Iterator[list[str]]:
    """The command lines of a block, without prompts, comments, variables and what they are piped into."""
    for line in block.code.replace("\\\n", " ").splitlines():
        try:
            words = shlex.split(re.sub(r"^\$ |[\[\]]|\s#\s.*$", "", line.strip()), comments=False)
        except ValueError:
            continue  # a sentence with an apostrophe, or a string over several lines
        while words and re.match(r"[A-Z_]+=", words[0]):
            words.pop(0)
        ends = [index for index, word in enumerate(words) if word in {"|", ">", "&&", ";", "&", "#"}]
        yield words[: min(ends, default=len(words))]


def wrong_with(words: list[str]) -> str:
    """Why a command would not run here, or nothing."""
    if _PROGRAM.match(words[0]):
        try:
            parser().parse_args(words[1:])
        except SystemExit as ended:
            return "" if ended.code in {0, None} else f"predawn does not take: {shlex.join(words[1:])}"
    elif words[0] == "make" and len(words) > 1:
        targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
        return "" if words[1] in targets else f"make has no target {words[1]}"
    elif words[0].rpartition("/")[2] in {"python", "pytest"}:
        named = [word for word in words[1:] if re.fullmatch(r"[\w./-]+/[\w./-]+\.py", word)]
        named += [f"{word.replace('.', '/')}.py" for word in words[1:] if word.startswith("tests.")]
        return ", ".join(f"{name} does not exist" for name in named if not (ROOT / name).exists())
    return ""


@pytest.mark.parametrize("block", blocks(*SHELL), ids=lambda block: block.place)
def test_commands_on_the_pages_exist(block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    found = [problem for words in commands(block) if words and (problem := wrong_with(words))]

    assert found == [], capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    [
        "$ predawn serv --config x.yaml",
        "PREDAWN_STATE=/tmp/s .venv/bin/predawn serve --cfg x.yaml | tail",
        "make eval-nothing",
        ".venv/bin/python tests/benchmarks/nothing.py",
        "python -m tests.benchmarks.nothing --seed 7",
    ],
)
def test_a_command_that_does_not_exist_would_be_found(line: str) -> None:
    (words,) = commands(Block(ROOT / "README.md", 1, "sh", line))

    assert wrong_with(words)


def subcommand(words: list[str]) -> str:
    """What of an inline `predawn …` is unknown: a command, or an option; it may leave arguments out."""
    at = parser()
    for word in words:
        deeper = [action for action in at._actions if isinstance(action, argparse._SubParsersAction)]
        if word.startswith("--"):
            if word.partition("=")[0] not in at._option_string_actions:
                return word
        elif deeper and re.fullmatch(r"[a-z]+", word):
            if word not in deeper[0].choices:
                return word
            at = deeper[0].choices[word]
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_inside_sentences_exist(page: Path) -> None:
    inline = [found.split() for found in re.findall(r"`((?:predawn|make|pytest|python) [^`\n]+)`", prose(page))]
    unknown = [subcommand(words[1:]) if words[0] == "predawn" else wrong_with(words) for words in inline]

    assert [problem for problem in unknown if problem] == []


def asked(query: str) -> Iterator[tuple[str, set[str]]]:
    """Metrics of a query, each with the labels it is filtered by."""
    for name, labels in re.findall(r"(?<![\w:])(predawn_\w+)(?:\{([^}]*)\})?", query):
        known = name if name in FAMILIES else re.sub(r"_(bucket|sum|count)$", "", name)
        yield known, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", labels or ""))


def problems_of(query: str) -> list[str]:
    found = [
        f"{name} {sorted(labels - FAMILIES.get(name, set()))}"
        for name, labels in asked(query)
        if name not in FAMILIES or labels - FAMILIES[name]
    ]
    return found + [f"unbalanced {pair}" for pair in ("()", "{}", "[]") if query.count(pair[0]) != query.count(pair[1])]


@pytest.mark.parametrize("block", blocks("promql"), ids=lambda block: block.place)
def test_queries_ask_for_metrics_and_labels_that_exist(block: Block) -> None:
    assert problems_of(block.code) == []


@pytest.mark.parametrize(
    "query",
    [
        "rate(predawn_request_total[5m])",
        'sum(rate(predawn_requests_total{kode="500"}[5m]))',
        "sum(rate(predawn_requests_total[5m])",
    ],
)
def test_a_query_for_nothing_would_be_found(query: str) -> None:
    assert problems_of(query)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_metrics_inside_sentences_exist(page: Path) -> None:
    """In backticks: `predawn_x` or `predawn_x{label="…"}`; other names that begin so are listed here."""
    others = {"predawn_jobs", "predawn_server", "predawn_polite"}
    named: list[Any] = re.findall(r"`(predawn_\w+)(\*|\{[^`]*\})?[^`]*`", prose(page))
    wrong = [
        name
        for name, rest in named
        if name not in others and rest != "*" and re.sub(r"_(bucket|sum|count)$", "", name) not in FAMILIES
    ]

    assert wrong == []
