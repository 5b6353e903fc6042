"""What the pages say is what the code does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from docs.generate import DOCS, leaves, pages, render, signature
from prometheus_client import CollectorRegistry
from pydantic import BaseModel
from tests.promises.sources import ROOT, sources

from predawn.proxy.cli import parser
from predawn.proxy.dispatch import Hooks
from predawn.proxy.hookspecs import Spec
from predawn.proxy.loading import BUILT_IN, find, register
from predawn.proxy.metrics import Metrics, families
from predawn.proxy.plugin import Plugin
from predawn.proxy.settings import PluginEntry, Settings

HOOKS = [name for name in vars(Spec) if not name.startswith("_")]
HOOK_PAGE = (DOCS / "hooks.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_generated_parts_are_current(page: Path) -> None:
    text = page.read_text(encoding="utf-8")

    assert text == render(text), "run: python docs/generate.py"


@pytest.mark.parametrize("hook", HOOKS)
def test_each_hook_is_documented_with_its_signature(hook: str) -> None:
    assert f"\n## {hook}\n" in HOOK_PAGE
    assert f"\n{signature(hook)}\n" in HOOK_PAGE


@pytest.mark.parametrize("hook", HOOKS)
def test_each_hook_says_when_it_runs_and_what_its_errors_do(hook: str) -> None:
    contract = getattr(Spec, hook).__doc__

    assert "When:" in contract
    assert "Errors:" in contract


@pytest.mark.parametrize("hook", HOOKS)
def test_each_hook_has_a_test_named_after_it(hook: str) -> None:
    named = re.compile(rf"def test_{hook}(_|\()")

    assert any(named.search(source.text) for source in sources("tests"))


@pytest.mark.parametrize("hook", HOOKS)
def test_each_hook_is_used_by_an_example(hook: str) -> None:
    section = HOOK_PAGE.partition(f"\n## {hook}\n")[2].partition("\n## ")[0]

    assert f"def {hook}(" in "".join(examples(section))


def examples(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page, re.DOTALL)


@pytest.mark.parametrize("code", examples(HOOK_PAGE), ids=lambda code: re.findall(r"class (\w+)", code)[-1])
def test_examples_of_hooks_are_plugins_that_load(code: str) -> None:
    space: dict[str, object] = {"__name__": "example"}
    exec(compile(code, "docs/hooks.md", "exec"), space)
    (kind,) = [
        made for made in space.values() if isinstance(made, type) and issubclass(made, Plugin) and made is not Plugin
    ]

    hooks = Hooks(register([("example", kind(kind.settings_type()))]))

    registered = (hooks.routes, hooks.verifiers, hooks.estimators, hooks.extractors)
    assert any((*registered, hooks.lifespans, hooks.editors, hooks.assessors, hooks.allocators)) or any(
        (hooks.around, hooks.filters, hooks.observers)
    )


def fields(model: type[BaseModel]) -> Iterator[tuple[str, str | None]]:
    for name, field in model.model_fields.items():
        yield f"{model.__name__}.{name}", field.description
        for inner in _models(field.annotation):
            yield from fields(inner)


def _models(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in getattr(annotation, "__args__", ()) for found in _models(part)]


@pytest.mark.parametrize("model", [Settings, PluginEntry], ids=lambda model: model.__name__)
def test_each_setting_is_described(model: type[BaseModel]) -> None:
    assert [name for name, description in fields(model) if not description] == []


@pytest.mark.parametrize("plugin", BUILT_IN)
def test_each_setting_of_our_plugins_is_described(plugin: str) -> None:
    settings_type = find()[plugin].load().settings_type
    page = (DOCS / "settings.md").read_text(encoding="utf-8")

    assert [name for name, description in fields(settings_type) if not description] == []
    assert f"\n### {plugin}\n" in page


def test_each_metric_is_documented_and_each_documented_metric_exists() -> None:
    page = (DOCS / "metrics.md").read_text(encoding="utf-8")
    declared = {family.name for family in families(Metrics(CollectorRegistry()))}
    named = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"predawn_\w+", page)}

    assert named == declared


def test_each_metric_is_declared_in_one_file() -> None:
    """Nothing else makes metrics of the proxy; plugins register theirs at start-up."""
    found = {
        source.name
        for source in sources("proxy")
        if re.search(r"\b(Counter|Gauge|Histogram|Summary)\(\s*[\"']predawn_", source.text)
    }

    assert found == set()


def test_each_command_is_documented() -> None:
    page = (DOCS / "commands.md").read_text(encoding="utf-8")

    assert [command.prog for command in leaves(parser()) if f"\n### {command.prog}" not in page] == []


def test_each_option_is_described() -> None:
    silent = [
        f"{command.prog} {action.dest}"
        for command in leaves(parser())
        for action in command._actions
        if not action.help
    ]

    assert silent == []


def test_links_between_pages_lead_somewhere() -> None:
    broken = []
    for page in [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)}: {target}")

    assert broken == []
