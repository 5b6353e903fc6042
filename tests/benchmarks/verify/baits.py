"""Text that is made to be hard: on backtracking, on stacks, on whatever counts brackets, digits or signs."""

from __future__ import annotations

from typing import Any

from tests.benchmarks.verify.plants.constrained import OPTIONS as CONSTRAINTS
from tests.benchmarks.verify.plants.patterns import OPTIONS as PATTERNS

LARGE = 1 << 20
BAITS = {
    "sums": "3 + 4 = 7 ", "ones": "1", "spaced": "1 ", "brackets": "(", "equals": "= ", "plus": "1+", "letters": "a ", "halves": "half of ", "fractions": "\\frac{",
    "invisible": "\u200b", "dollars": "$1", "ands": "and 4 ", "ticks": "`", "fences": "```python\n", "stars": "**a", "words": "twenty ", "assignments": "x = 3\n",
    "lists": "1,", "shares": "1/2 ", "braces": "{", "nested": '{"a":[', "quotes": '"', "curly": "“a b c ", "wide": "３", "ifs": "if ", "names": "A = 1 + B. ",
    "nulls": "\x00", "arabic": "\u0661\u066b", "emoji": "\U0001f642 ", "backslashes": "\\", "digits-": "1-", "dots": "1.", "combining": "e\u0301", "rtl": "\u202e3+4=7 ",
    "desks": "desks = 3\n", "sources": "Sources: ", "aaa": "aaaaaaaaaaaaaaaaaaaaaaaaa!", "code": "```py\nx\n```\n", "lines": "\n", "surrogates": '"\\ud800', "percent": "5% of ",
}  # fmt: skip
HOSTILE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "a": {"anyOf": [{"items": {"$ref": "#/properties/a"}}, {"items": {"$ref": "#/properties/a"}}]},
        "b": {"pattern": "^(a+)+$"},
    },
    "uniqueItems": True,
}
SCHEMAS: list[dict[str, Any]] = [
    HOSTILE_SCHEMA,
    {
        "$defs": {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(40)} | {"d40": True},
        "$ref": "#/$defs/d0",
    },
    {"anyOf": [{"$ref": "#"}]},
    {"$ref": "#"},
    {"patternProperties": {"^(a+)+$": True}},
]
FLOODED = 1 << 18
FLOODS: dict[str, bytes] = {
    "blank lines": b"\n" * FLOODED,
    "comments": b": x\n\n" * (FLOODED // 5),
    "half an event": b"data: " + b"x" * FLOODED,
    "not json": b"data: " + b"[" * FLOODED + b"\n\n",
    "empty": b"data: {}\n\n" * (FLOODED // 10),
    "choices": b"".join(
        b'data: {"choices": [{"index": %d, "delta": {"content": "a. "}}]}\n\n' % at for at in range(FLOODED // 64)
    ),
    "calls": b"".join(
        b'data: {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": %d, "function": {"name": "f", "arguments": "{}"}}]}}]}\n\n'
        % at
        for at in range(FLOODED // 120)
    ),
    "one call by turns": b"".join(
        b'data: {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": %d, "function": {"arguments": "xxxx"}}]}}]}\n\n'
        % (at % 2)
        for at in range(FLOODED // 110)
    ),
}  # fmt: skip
"""What an upstream may say that is hardly an answer."""
SCHEMA_BAIT = '{"a": ' + "[" * 150 + "]" * 150 + f', "{"a" * 36}!": "{"a" * 33}!"}}'
CODE_BAITS = [
    "(" * 3900,
    "-" * 3900 + "1",
    "a" + ".a" * 1900,
    "[" * 1900 + "]" * 1900,
    "if 1:\n " * 600,
    "x=" * 1900 + "1",
    "lambda:" * 500 + "1",
    "1+" * 1900 + "1",
    "f(" * 99 + ")" * 99,
    "'" * 3999,
    "not " * 900 + "1",
]
OPTIONS: dict[str, dict[str, Any]] = {
    "regex": {"must": ["(x+x+)+y", *PATTERNS["must"]], "must_not": ["(a|aa)+$", *PATTERNS["must_not"]]},
    "constraints": CONSTRAINTS,
    "json_schema": {"json_schema": HOSTILE_SCHEMA},
}


def large(bait: str) -> str:
    """A megabyte of it, without a line's end where it has none."""
    return (BAITS[bait] * (LARGE // len(BAITS[bait]) + 1))[:LARGE]
