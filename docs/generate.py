# ruff: noqa: INP001, SLF001 - a script beside the pages; argparse keeps what it knows in private members
"""Writes the generated parts of the documentation: `python docs/generate.py` after a change of settings, metrics, hooks
or commands. A test fails while they are out of date.

A page marks such a part with `<!-- generated: NAME … -->` and `<!-- end -->`; what stands between is replaced.
"""

from __future__ import annotations

import argparse
import inspect
import re
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

DOCS = Path(__file__).parent
PLAIN = {"register_routes", "register_verifiers", "register_estimators", "register_extractors", "chunk_filter"}
_PART = re.compile(r"(<!-- generated: ([\w -]+?) -->\n).*?(<!-- end -->)", re.DOTALL)
_WORDS: dict[Any, str] = {
    str: "text",
    int: "number",
    float: "number",
    bool: "true or false",
    SecretStr: "secret",
    Path: "path",
    Any: "anything",
    type(None): "",
}


def render(page: str) -> str:
    """The page with its generated parts as they should be."""
    return _PART.sub(lambda part: f"{part[1]}{_generate(part[2])}{part[3]}", page)


def _generate(name: str) -> str:
    kind, _, argument = name.partition(" ")
    generators: dict[str, Callable[[str], Iterator[str]]] = {
        "settings": _settings, "plugins": _plugins, "metrics": _metrics, "hook": _hook, "commands": _commands,
    }  # fmt: skip
    return "".join(f"{line}\n" for line in generators[kind](argument))


# -- settings


def _settings(_: str) -> Iterator[str]:
    from predawn.proxy.settings import Settings

    for heading, model in _parts("", Settings):
        yield from ("", f"### {heading or 'Top level'}", "", *_table(model))
    yield ""


def _plugins(_: str) -> Iterator[str]:
    from predawn.proxy.loading import BUILT_IN, find
    from predawn.proxy.plugin import PluginSettings

    yield from ("", *_table(PluginSettings))
    for name in BUILT_IN:
        kind = find()[name].load()
        own = [key for key in kind.settings_type.model_fields if key not in PluginSettings.model_fields]
        yield from ("", f"### {name}", "", inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0])
        if own:
            yield from ("", *_table(kind.settings_type, own))
        for heading, model in _parts("", kind.settings_type):
            if heading:
                yield from ("", f"#### {name}: {heading}", "", *_table(model))
    yield ""


def _parts(place: str, model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """A model and those inside it, each with its place in the file; each model once."""
    if model.__name__ == "PluginEntry":
        return
    yield place, model
    for name, field in model.model_fields.items():
        for inner in _models(field.annotation):
            many = "[]" if get_origin(field.annotation) is tuple else ""
            yield from _parts(f"{place}.{name}{many}".removeprefix("."), inner)


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _table(model: type[BaseModel], keys: Iterable[str] = ()) -> Iterator[str]:
    yield from ("| key | value | default | |", "|---|---|---|---|")
    for name in keys or model.model_fields:
        field = model.model_fields[name]
        value = _words(field.annotation) + _limits(field)
        yield f"| `{name}` | {value} | {_default(field)} | {_cell(field.description or '')} |"


def _words(annotation: Any) -> str:
    if annotation in _WORDS:
        return _WORDS[annotation]
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _words(inner[0])
    if origin is Literal:
        return ", ".join(f"`{word}`" for word in inner)
    if origin in {Union, types.UnionType}:
        return " or ".join(filter(None, map(_words, inner)))
    if origin is tuple:
        return f"list of {_words(inner[0])}".replace("list of see below", "list, see below")
    if origin is dict:
        return f"mapping to {_words(inner[1])}"
    return "see below"


def _limits(field: FieldInfo) -> str:
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    found = [
        f"{sign} {getattr(limit, key)}"
        for limit in field.metadata
        for key, sign in signs.items()
        if hasattr(limit, key)
    ]
    return f", {', '.join(found)}" if found else ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.default
    if default is PydanticUndefined or default is None or default == ():
        return ""
    if isinstance(default, bool):
        default = str(default).lower()
    if isinstance(default, tuple):
        default = ", ".join(str(getattr(item, "name", item)) for item in default)
    return f"`{default}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


# -- metrics, hooks, commands


def _metrics(_: str) -> Iterator[str]:
    from prometheus_client import CollectorRegistry

    from predawn.proxy.metrics import Metrics, families

    yield from ("", "| metric | kind | labels | |", "|---|---|---|---|")
    for family in families(Metrics(CollectorRegistry())):
        labels = ", ".join(f"`{label}`" for label in family.labels)
        yield f"| `{family.name}` | {family.kind} | {labels} | {_cell(family.help)} |"
    yield ""


def signature(name: str) -> str:
    """A hook as its author writes it."""
    from predawn.proxy.hookspecs import Spec

    function = getattr(Spec, name)
    prefix = "" if name in PLAIN else "async "
    return f"{prefix}def {name}{inspect.signature(function)}".replace("'", "")


def _hook(name: str) -> Iterator[str]:
    from predawn.proxy.hookspecs import Spec

    yield from ("", "```text", signature(name), "```", "", inspect.cleandoc(getattr(Spec, name).__doc__ or ""), "")


def _commands(_: str) -> Iterator[str]:
    from predawn.proxy.cli import parser

    for command in leaves(parser()):
        positionals = [action.metavar or action.dest for action in command._actions if not action.option_strings]
        yield from (
            "",
            f"### {' '.join([command.prog, *map(str, positionals)])}",
            "",
            _cell(command.description or ""),
            "",
        )
        yield from ("| | |", "|---|---|")
        for action in command._actions:
            if not isinstance(action, argparse._HelpAction) and action.help != argparse.SUPPRESS:
                yield f"| `{_option(action)}` | {_cell((action.help or '') % vars(action))} |"
    yield ""


def leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The commands below a parser that take no further command."""
    deeper = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not deeper:
        yield parser
    for action in deeper:
        for choice in action.choices.values():
            yield from leaves(choice)


def _option(action: argparse.Action) -> str:
    """`--port PORT`; not argparse's own words, which differ from one Python to the next."""
    if not action.option_strings:
        return str(action.metavar or action.dest)
    value = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
    return f"{', '.join(action.option_strings)}{value}"


def pages() -> list[Path]:
    """Pages with generated parts."""
    return [page for page in sorted(DOCS.glob("*.md")) if _PART.search(page.read_text(encoding="utf-8"))]


if __name__ == "__main__":
    for page in pages():
        page.write_text(render(page.read_text(encoding="utf-8")), encoding="utf-8")
