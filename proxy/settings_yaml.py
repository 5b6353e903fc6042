"""YAML for settings: plain data with the line of every key, `${NAME}` filled in from the environment.

Read from PyYAML's node graph rather than through a constructor: nothing but text, numbers, booleans, lists and mappings
can come out, and duplicate keys are seen. Words follow YAML 1.2 (`off` and `no` are text, `1:30` is no number).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

from predawn.proxy.problems import Problem, Where

MAX_BYTES = 512 << 10
MAX_VALUES = 50_000
"""Aliases may multiply values; a settings file for a thousand models has about ten thousand."""

_TAG = "tag:yaml.org,2002:"
# lengths are limited, or a file of nothing but beginnings would take hours to search
_REFERENCE = re.compile(r"\$\$\{(?:[^}\n]{0,200}\})?|\$\{([A-Za-z_][A-Za-z0-9_]{0,200})(?::-([^}\n]{0,1000}))?\}")
_MARK = re.compile("\ue000([0-9]+)\ue001")


class _Loader(Reader, Scanner, Parser, Composer, BaseResolver):
    """PyYAML up to the node graph, with the words of YAML 1.2's core schema."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        BaseResolver.__init__(self)


for _name, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("int", r"^[-+]?[0-9]+$", "-+0123456789"),
    ("float", r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", "-+.0123456789"),
    ("float", r"^(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$", "-+."),
    ("merge", r"^<<$", "<"),
):
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(_pattern), list(_first))


@dataclass(slots=True)
class Document:
    """A settings file as data, where each part of it stands, and what is wrong with it as YAML."""

    data: Any = field(default_factory=dict[str, Any])
    lines: dict[Where, int] = field(default_factory=dict[Where, int])
    problems: list[Problem] = field(default_factory=list[Problem])
    expanded: dict[str, str] = field(default_factory=dict[str, str])
    """Values that came from the environment, with the reference that stands for each in error texts."""

    def located(self, problem: Problem) -> Problem:
        """The problem with the line of its place, or of the nearest part around it, and without expanded values."""
        where, line = problem.where, problem.line
        while line is None and where:
            line = self.lines.get(where)
            where = where[:-1]
        message = problem.message
        for value, reference in self.expanded.items():
            message = message.replace(value, reference)
        return Problem(problem.where, message, line)


def parse(raw: bytes, env: Mapping[str, str]) -> Document:
    """Read a settings file; what is wrong with it is in `problems`, and `data` is what could be read."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        return _unreadable("the file is not UTF-8 text", raw[: exc.start].count(b"\n") + 1)
    references: list[re.Match[str]] = []

    def mark(match: re.Match[str]) -> str:
        # braces would end a word inside {…}; marks are ordinary characters, and keep every line where it is
        references.append(match)
        return f"\ue000{len(references) - 1}\ue001"

    marked = _REFERENCE.sub(mark, text)
    try:
        node = _Loader(marked).get_single_node()
    except ReaderError as exc:
        line = marked.count("\n", 0, exc.position) + 1
        return _unreadable(f"the character U+{exc.character:04X} is not allowed in YAML", line)
    except yaml.MarkedYAMLError as exc:
        mark_ = exc.problem_mark or exc.context_mark
        return _unreadable(
            f"not YAML: {_MARK.sub('${…}', exc.problem or 'cannot be read')}", mark_.line + 1 if mark_ else None
        )
    except RecursionError:
        return _unreadable("nested too deeply", None)
    reader = _NodeReader(references, env)
    return reader.read(node)


def _unreadable(message: str, line: int | None) -> Document:
    return Document(problems=[Problem((), message, line)])


class _TooLargeError(Exception):
    """Aliases multiply the file beyond `MAX_VALUES`."""


class _NodeReader:
    """Turns one node graph into a `Document`."""

    def __init__(self, references: list[re.Match[str]], env: Mapping[str, str]) -> None:
        self.document = Document()
        self._references = references
        self._env = env
        self._values = 0
        self._open: set[int] = set()
        """Nodes that the current one is inside of, to catch an alias to one of them."""

    def read(self, node: yaml.Node | None) -> Document:
        if node is None:
            return self.document
        try:
            data = self._value(node, ())
        except _TooLargeError:
            return _unreadable(f"more than {MAX_VALUES} values (aliases counted each time)", None)
        if data is not None and not isinstance(data, dict):
            self._problem(node, (), "the file must be a mapping of keys such as `upstreams:` and `models:`")
            data = None
        self.document.data = data or {}
        return self.document

    def _problem(self, node: yaml.Node, where: Where, message: str) -> None:
        self.document.problems.append(Problem(where, message, node.start_mark.line + 1))

    def _value(self, node: yaml.Node, where: Where) -> Any:
        self._values += 1
        if self._values > MAX_VALUES:
            raise _TooLargeError
        self.document.lines.setdefault(where, node.start_mark.line + 1)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, where)
        if id(node) in self._open:
            self._problem(node, where, "an alias must not stand inside what it names")
            return None
        self._open.add(id(node))
        try:
            if node.tag not in {_TAG + "seq", _TAG + "map"}:
                self._problem(node, where, f"the tag {node.tag} is not supported")
            if isinstance(node, yaml.SequenceNode):
                return [self._value(item, (*where, index)) for index, item in enumerate(node.value)]
            assert isinstance(node, yaml.MappingNode)
            return self._mapping(node, where)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, where: Where) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _TAG + "merge":
                self._merge(merged, value_node, where)
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self._problem(key_node, where, "a key must be a word")
                continue
            key = self._restored(str(key_node.value))
            if key in own:
                self._problem(key_node, (*where, key), "this key stands here twice")
                continue
            # the line of the key, not of what may begin some lines below it
            self.document.lines[(*where, key)] = key_node.start_mark.line + 1
            own[key] = self._value(value_node, (*where, key))
        return merged | own

    def _merge(self, merged: dict[str, Any], node: yaml.Node, where: Where) -> None:
        """`<<: *name`, or a list of them; the first that has a key wins, as YAML's merge type says."""
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for one in nodes:
            value = self._value(one, where)
            if not isinstance(value, dict):
                self._problem(one, where, "`<<` takes a mapping or a list of mappings")
                continue
            for key, item in value.items():
                merged.setdefault(key, item)

    def _scalar(self, node: yaml.ScalarNode, where: Where) -> Any:
        kind, text = node.tag.removeprefix(_TAG), str(node.value)
        try:
            if kind == "str":
                return self._expanded(node, text, where)
            if kind == "null":
                return None
            if kind == "bool":
                return {"true": True, "false": False}[text.lower()]
            if kind == "int":
                return int(text)
            if kind == "float":
                return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        except (ValueError, KeyError):
            self._problem(node, where, f"not a usable {kind}")
            return None
        self._problem(node, where, f"the tag {node.tag} is not supported")
        return None

    def _restored(self, text: str) -> str:
        """The text as it stands in the file, references unexpanded."""
        return _MARK.sub(self._source, text)

    def _source(self, mark: re.Match[str]) -> str:
        index = int(mark[1][:9])
        return self._references[index][0] if index < len(self._references) else mark[0]

    def _expanded(self, node: yaml.ScalarNode, text: str, where: Where) -> str:
        if "${" in text:
            self._problem(
                node, where, "not a reference; write ${NAME} or ${NAME:-default}, and $${ for the characters ${"
            )

        def expand(mark: re.Match[str]) -> str:
            index = int(mark[1][:9])
            return self._reference(node, self._references[index], where) if index < len(self._references) else mark[0]

        return _MARK.sub(expand, text)

    def _reference(self, node: yaml.ScalarNode, reference: re.Match[str], where: Where) -> str:
        name, default = reference[1], reference[2]
        if name is None:
            return reference[0][1:]
        value = self._env.get(name)
        if default is not None and not value:
            return str(default)
        if value is None:
            self._problem(node, where, f"the environment has no variable {name}; set it, or write ${{{name}:-default}}")
            return reference[0]
        if len(value) >= 4:  # shorter ones would turn up inside ordinary words, and no secret is that short
            self.document.expanded[value] = reference[0]
        return value
