"""The project's own source, parsed: what the promises are made about."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("proxy", "plugins", "kernels")
BESIDE = ("grafana",)
"""Code of a checkout that is in no wheel."""


@dataclass(frozen=True)
class Source:
    """One Python file."""

    path: Path

    @property
    def name(self) -> str:
        """`proxy/relay.py`"""
        return self.path.relative_to(ROOT).as_posix()

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.name)

    @property
    def lines(self) -> int:
        return len(self.text.splitlines())

    def functions(self) -> Iterator[tuple[str, int]]:
        """Each function with its length in lines, decorators left out."""
        for node in ast.walk(self.tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                assert node.end_lineno is not None
                yield f"{self.name}:{node.lineno} {node.name}", node.end_lineno - node.lineno + 1

    def imports(self) -> Iterator[tuple[int, str]]:
        """Modules that are imported anywhere in the file, by statement or by `import_module("…")`."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
            elif isinstance(node, ast.Call) and called(node) == "import_module":
                yield from ((node.lineno, arg.value) for arg in node.args if isinstance(arg, ast.Constant))


def called(node: ast.Call) -> str:
    """The last part of the called name: `create_task` of `loop.create_task(...)`."""
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def sources(*folders: str) -> list[Source]:
    """The files below these folders, or of everything but the tests."""
    return [
        Source(path) for folder in folders or (*PACKAGES, *BESIDE) for path in sorted((ROOT / folder).rglob("*.py"))
    ]


def within(module: str, package: str) -> bool:
    """True for the package itself and what is inside it."""
    return module == package or module.startswith(f"{package}.")
