"""`code`: the program in an answer; Python by its syntax tree, other languages by their words."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator

from predawn.plugins.sampling.answers.json_value import digest, too_deep
from predawn.proxy.extensions import Extracted

LONGEST = 20_000
DEEPEST_LINE = 1000
"""Characters of a line: a chain of operators in a longer one could be deeper than the parser likes."""
_FENCE = re.compile(r"[ \t]{0,3}```([\w+#.-]{0,20})")
_PYTHON = frozenset({"python", "py", "python3", ""})


class CodeExtractor:
    """An answer with exactly one fenced block, or which is nothing but Python."""

    name = "code"

    def extract(self, text: str) -> Extracted | None:
        """The code; names count, comments, blank lines and docstrings do not."""
        if len(text) > LONGEST:
            return None
        blocks = list(_blocks(text)) if "```" in text else [("", text)]
        if len(blocks) != 1:
            return None
        language, code = blocks[0][0].lower(), blocks[0][1]
        if language in _PYTHON and (tree := _tree(code)) is not None:
            return Extracted(("code", "python", digest(tree)), _first_line(code))
        if language in _PYTHON:
            return None
        words = " ".join(code.split())
        return Extracted(("code", language, digest(words)), _first_line(code)) if words else None


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    """Language and text of each fenced block that is closed."""
    language, inside = "", list[str]()
    is_open = False
    for line in text.splitlines(keepends=True):
        fence = _FENCE.match(line)
        if is_open and fence and not line.strip().strip("`"):
            yield language, "".join(inside)
            is_open = False
        elif not is_open and fence:
            language, inside, is_open = fence[1], [], True
        elif is_open:
            inside.append(line)


def _tree(code: str) -> str | None:
    """The syntax tree as text; `None` for what is not Python, too deep, or only words that happen to be names."""
    if too_deep(code) or any(len(line) > DEEPEST_LINE for line in code.splitlines()):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(code)
        for node in ast.walk(tree):
            _without_docstring(node)
        if not any(not isinstance(node, ast.Expr) for node in tree.body):
            return None
        return ast.dump(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _without_docstring(node: ast.AST) -> None:
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        first = node.body[0] if node.body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            node.body = node.body[1:] or [ast.Pass()]


def _first_line(code: str) -> str:
    return next((line.strip()[:80] for line in code.splitlines() if line.strip()), "")
