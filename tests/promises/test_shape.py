"""The code stays small, catches narrowly, and creates tasks in one place."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from statistics import median

from tests.promises.sources import Source, called, sources

BROAD_CATCHES = {
    "proxy/app.py handle",  # the top of the server
    "proxy/dispatch.py _first",  # deciders fail open
    "proxy/dispatch.py _observe",  # an observer fails alone
}


def test_files_are_short() -> None:
    lengths = {source.name: source.lines for source in sources()}

    assert {name: lines for name, lines in lengths.items() if lines > 600} == {}
    assert median(lengths.values()) <= 150


def test_functions_are_short() -> None:
    lengths = dict(found for source in sources() for found in source.functions())

    assert {name: lines for name, lines in lengths.items() if lines > 80} == {}
    assert median(lengths.values()) <= 10


def test_everything_is_caught_in_three_places() -> None:
    places = [place for source in sources() for place in _broad_catches(source, source.tree, "")]

    assert sorted(places) == sorted(BROAD_CATCHES)


def _broad_catches(source: Source, node: ast.AST, function: str) -> Iterator[str]:
    """Functions that catch `Exception`, or everything without passing it on."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ExceptHandler) and _is_broad(child):
            yield f"{source.name} {function}"
        inner = child.name if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)) else function
        yield from _broad_catches(source, child, inner)


def _is_broad(handler: ast.ExceptHandler) -> bool:
    caught = ast.walk(handler.type) if handler.type else [ast.Name("BaseException")]
    names = {part.id for part in caught if isinstance(part, ast.Name)}
    return "Exception" in names or ("BaseException" in names and not _passed_on(handler))


def _passed_on(handler: ast.ExceptHandler) -> bool:
    """True if the handler raises, or throws what it caught into a coroutine."""
    inside = list(ast.walk(handler))
    words = [part.attr if isinstance(part, ast.Attribute) else getattr(part, "id", "") for part in inside]
    return any(isinstance(part, ast.Raise) for part in inside) or any("throw" in word for word in words)


def test_nothing_is_suppressed_wholesale() -> None:
    broad = {"Exception", "BaseException"}
    found = [
        f"{source.name}:{node.lineno}"
        for source in sources()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call) and called(node) == "suppress"
        if broad & {arg.id for arg in node.args if isinstance(arg, ast.Name)}
    ]

    assert found == []


def test_only_one_file_creates_tasks() -> None:
    creators = {"create_task", "ensure_future", "TaskGroup", "run_coroutine_threadsafe"}
    found = {
        source.name
        for source in sources()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call) and called(node) in creators
    }

    assert found <= {"proxy/tasks.py"}
