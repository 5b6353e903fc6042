"""Names that Python code uses and nothing defines: found by walking its syntax tree, without running anything.

Run as a program, it reads code from its standard input, so that large code is parsed in a process of its own; or it
stays, and has copies of itself do that: see `parser.py`.
"""

from __future__ import annotations

import ast
import builtins
import json
import os
import re
import resource
import signal
import socket
import struct
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

ALWAYS = frozenset(dir(builtins)) | {
    "__file__",
    "__name__",
    "__doc__",
    "__builtins__",
    "__spec__",
    "__path__",
    "__class__",
    "__annotations__",
    "_",
    "WindowsError",
    "display",
    "get_ipython",
    "reveal_type",
}
"""Of modules, of notebooks, of type checkers, and of Windows."""
_NEWER = re.compile(r"^[ \t]*(?:(?:async +)?def +\w+ *\[|class +\w+ *\[|type +\w+ *[\[=])", re.MULTILINE)
"""What Python 3.12 brought: parameters of types, and `type X = …`."""
_NEWER_STRINGS = ("f-string: unmatched", "f-string expression part cannot include")
"""How older ones complain about what may stand in an f-string since 3.12."""
STAY = "stay"
"""The argument of the process that stays."""
MOST_MEMORY = 512 << 20
"""Bytes."""
_ORDER = struct.Struct("!BBd")
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@dataclass(frozen=True, slots=True)
class Undefined:
    """A name that is read and never bound."""

    name: str
    line: int


@dataclass(slots=True)
class _Scope:
    """Names bound in one block. What is bound anywhere in it counts: order is for running code to tell."""

    outer: _Scope | None
    is_class: bool = False
    bound: set[str] = field(default_factory=set[str])


def undefined_names(tree: ast.Module) -> list[Undefined]:
    """In the order of their lines, each once; none where `import *`, `exec`, `globals()` or the like may bind names."""
    if any(_hides_names(node) for node in ast.walk(tree)):
        return []
    top = _Scope(None)
    used: list[tuple[ast.Name, _Scope]] = []
    waiting: list[tuple[list[ast.AST], _Scope]] = [(list(tree.body), top)]
    while waiting:
        nodes, scope = waiting.pop()
        for node in _own_nodes(nodes):
            _bind(node, scope, top)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                used.append((node, scope))
            waiting += [(list(body), inner) for body, inner in _inner(node, scope)]
    found: dict[str, int] = {}
    for name, scope in used:
        if not _is_bound(name.id, scope) and name.id not in ALWAYS:
            found[name.id] = min(found.get(name.id, name.lineno), name.lineno)
    return [Undefined(name, line) for name, line in sorted(found.items(), key=lambda item: item[1])]


def _hides_names(node: ast.AST) -> bool:
    if isinstance(node, ast.ImportFrom):
        return any(alias.name == "*" for alias in node.names)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id in {"exec", "globals"} or (node.func.id in {"vars", "locals"} and not node.args)
    return False


def _own_nodes(nodes: list[ast.AST]) -> Iterator[ast.AST]:
    """The nodes of a block, without what is inside functions, classes and comprehensions of its own."""
    stack = list(reversed(nodes))
    while stack:
        node = stack.pop()
        yield node
        stack += reversed(list(_outside(node)))


def _outside(node: ast.AST) -> Iterator[ast.AST]:
    """Children of a node that belong to the block it stands in."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        yield from node.decorator_list
        yield from _signature(node.args)
        if node.returns is not None:
            yield node.returns
    elif isinstance(node, ast.Lambda):
        yield from _signature(node.args)
    elif isinstance(node, ast.ClassDef):
        yield from (*node.decorator_list, *node.bases, *node.keywords)
    elif isinstance(node, _COMPREHENSIONS):
        yield node.generators[0].iter
    else:
        yield from ast.iter_child_nodes(node)


def _signature(arguments: ast.arguments) -> Iterator[ast.AST]:
    """Defaults and annotations are evaluated outside."""
    yield from arguments.defaults
    yield from (default for default in arguments.kw_defaults if default is not None)
    yield from (argument.annotation for argument in _all(arguments) if argument.annotation is not None)


def _all(arguments: ast.arguments) -> list[ast.arg]:
    extra = [argument for argument in (arguments.vararg, arguments.kwarg) if argument is not None]
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *extra]


def _inner(node: ast.AST, scope: _Scope) -> Iterator[tuple[list[ast.AST], _Scope]]:
    """The blocks that begin at a node."""
    if isinstance(node, _FUNCTIONS):
        inner = _Scope(scope, bound={argument.arg for argument in _all(node.args)})
        yield (list(node.body) if isinstance(node.body, list) else [node.body]), inner
    elif isinstance(node, ast.ClassDef):
        yield list(node.body), _Scope(scope, is_class=True, bound={"__module__", "__qualname__", "__class__"})
    elif isinstance(node, _COMPREHENSIONS):
        inner = _Scope(scope)
        parts = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        rest: list[ast.AST] = [*parts, *(generator.target for generator in node.generators)]
        rest += [condition for generator in node.generators for condition in generator.ifs]
        rest += [generator.iter for generator in node.generators[1:]]
        yield rest, inner


def _bind(node: ast.AST, scope: _Scope, top: _Scope) -> None:
    if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        scope.bound.add(node.id)
    elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        scope.bound.add(node.name)
    elif isinstance(node, (ast.Import, ast.ImportFrom)):
        scope.bound |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    elif isinstance(node, ast.ExceptHandler) and node.name:
        scope.bound.add(node.name)
    elif isinstance(node, _COMPREHENSIONS):  # a walrus inside binds in the block around it
        scope.bound |= {inner.target.id for inner in ast.walk(node) if isinstance(inner, ast.NamedExpr)}
    elif isinstance(node, ast.Global):
        top.bound |= set(node.names)
    elif isinstance(node, (ast.MatchAs, ast.MatchStar)) and node.name:
        scope.bound.add(node.name)
    elif isinstance(node, ast.MatchMapping) and node.rest:
        scope.bound.add(node.rest)
    elif type(node).__name__ in {"TypeAlias", "TypeVar", "ParamSpec", "TypeVarTuple"}:  # Python 3.12
        name = getattr(node, "name", None)
        scope.bound.add(name if isinstance(name, str) else getattr(name, "id", ""))


def _is_bound(name: str, scope: _Scope) -> bool:
    at: _Scope | None = scope
    while at is not None:
        if name in at.bound and (at is scope or not at.is_class):
            return True
        at = at.outer
    return False


def parsed(code: str, version: tuple[int, int] | None = None) -> ast.Module:
    """The tree of code, as of a notebook: `await` may stand anywhere. Raises what `ast.parse` raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if version is not None:
            return ast.parse(code, feature_version=version)
        flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        tree = compile(code, "<answer>", "exec", flags, dont_inherit=True)
    assert isinstance(tree, ast.Module)
    return tree


def _is_newer(code: str, fault: str) -> bool:
    """Whether a later Python may well find nothing wrong with it."""
    return fault.startswith(_NEWER_STRINGS) or _NEWER.search(code) is not None


def report(code: str, version: tuple[int, int] | None = None) -> dict[str, object]:
    """`error`: what is wrong with the syntax; or `undefined`: names and lines; or `unreadable`."""
    try:
        return {"undefined": [[each.name, each.line] for each in undefined_names(parsed(code, version))]}
    except SyntaxError as exc:
        if version is None and sys.version_info < (3, 12) and _is_newer(code, exc.msg):
            return {"unreadable": True}
        return {"error": f"line {exc.lineno}: {exc.msg}"}
    except (ValueError, RecursionError, MemoryError):
        return {"unreadable": True}


def order(version: Sequence[int], timeout_s: float) -> bytes:
    """What the process that stays is told of a code, with the socket that it comes by."""
    return _ORDER.pack(*(version or (0, 0)), timeout_s)


def stay(orders: socket.socket) -> None:
    """Parse whatever comes, each code in a copy of this process, until nobody is there any more."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # copies leave nothing behind
    while True:
        told, found, _, _ = socket.recv_fds(orders, _ORDER.size, 1)
        if len(told) < _ORDER.size or not found:
            return
        if os.fork() == 0:
            orders.close()
            major, minor, timeout_s = _ORDER.unpack(told)
            _limit(timeout_s)
            with socket.socket(fileno=found[0]) as asked, asked.makefile("rb") as source:
                code = source.read().decode("utf-8", "replace")
                asked.sendall(json.dumps(report(code, (major, minor) if major else None)).encode())
            os._exit(0)
        os.close(found[0])


def _limit(timeout_s: float) -> None:
    """Parsing may not take longer, nor more memory than code of half a megabyte is worth."""
    signal.setitimer(signal.ITIMER_REAL, timeout_s)  # nobody handles it, so that it kills
    for what, most in ((resource.RLIMIT_AS, MOST_MEMORY), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(what, (most, most))


if __name__ == "__main__" and sys.argv[1:] == [STAY]:
    stay(socket.socket(fileno=0))
elif __name__ == "__main__":
    wanted = (int(sys.argv[1]), int(sys.argv[2])) if len(sys.argv) == 3 else None
    sys.stdout.write(json.dumps(report(sys.stdin.buffer.read().decode("utf-8", "replace"), wanted)))
