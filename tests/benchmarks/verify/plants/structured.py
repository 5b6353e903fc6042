"""JSON answers and tool calls that follow their schemas, and the same broken in one place."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from tests.benchmarks.verify.plants.case import Case

WORDS = "alpha beta gamma delta omega north south river stone cloud".split()


def schema(random: Random, depth: int = 0) -> dict[str, Any]:
    kinds = ["string", "integer", "number", "boolean", "enum", "null", "const", "pattern"]
    if depth < 3:
        kinds += ["object", "object", "array", "union"]
    match random.choice(kinds) if depth else "object":
        case "string":
            return {"type": "string", "minLength": 1, "maxLength": 40}
        case "integer":
            return {"type": "integer", "minimum": -50, "maximum": 500}
        case "number":
            return {"type": "number", "exclusiveMinimum": -100, "maximum": 1000}
        case "boolean":
            return {"type": "boolean"}
        case "null":
            return {"type": ["null", "integer"]}
        case "enum":
            return {"enum": random.sample(WORDS, 3)}
        case "const":
            return {"const": random.choice(WORDS)}
        case "pattern":
            return {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"}
        case "array":
            return {"type": "array", "items": schema(random, depth + 1), "minItems": 1, "maxItems": 3}
        case "union":
            return {
                "anyOf": [
                    {"type": "null"},
                    {
                        "type": "object",
                        "properties": {"id": {"type": "integer"}},
                        "required": ["id"],
                        "additionalProperties": False,
                    },
                ]
            }
    names = random.sample(WORDS, random.randint(1, 4))
    return {
        "type": "object",
        "properties": {name: schema(random, depth + 1) for name in names},
        "required": names[: random.randint(1, len(names))],
        "additionalProperties": False,
    }


def instance(random: Random, of: dict[str, Any]) -> Any:
    if "anyOf" in of:
        return random.choice((None, {"id": random.randint(0, 9)}))
    if "enum" in of:
        return random.choice(of["enum"])
    if "const" in of:
        return of["const"]
    if "pattern" in of:
        return f"{random.choice('ABC')}{random.choice('XYZ')}-{random.randint(100, 999)}"
    match of["type"]:
        case "string":
            return random.choice(
                (random.choice(WORDS), 'a "quoted" {word}', "line\nbreak, ok]", "\u00e9\u4e2d\U0001f642", "1,2:3")
            )
        case "integer":
            return random.randint(-50, 500)
        case "number":
            return random.choice((1.5, -2, 0, 1e2, 99.25, -0.5))
        case "boolean":
            return random.random() < 0.5
        case "array":
            return [instance(random, of["items"]) for _ in range(random.randint(1, 3))]
        case "object":
            wanted = [n for n in of["properties"] if n in of["required"] or random.random() < 0.5]
            random.shuffle(wanted)
            return {name: instance(random, of["properties"][name]) for name in wanted}
    return random.choice((None, random.randint(0, 9)))


def _broken(random: Random, of: dict[str, Any], value: Any) -> tuple[Any, str]:
    """The value with one fault that the schema forbids."""
    if isinstance(value, dict) and "properties" in of and value and random.random() < 0.7:
        name = random.choice(list(value))
        inner, kind = _broken(random, of["properties"][name], value[name])
        return {**value, name: inner}, kind
    if isinstance(value, list) and value and random.random() < 0.6:
        inner, kind = _broken(random, of["items"], value[0])
        return [inner, *value[1:]], kind
    if isinstance(value, dict) and "properties" in of:
        if random.random() < 0.5 and of["required"]:
            gone = random.choice(of["required"])
            return {name: inner for name, inner in value.items() if name != gone}, "missing"
        return {**value, "extra_" + random.choice(WORDS): 1}, "additional"
    if isinstance(value, list):
        return ([], "too few") if random.random() < 0.5 else ([*value, *value, *value, *value], "too many")
    if "anyOf" in of:
        return random.choice((5, {"id": "x"}, {}, {"id": 1, "more": 2}, [])), "union"
    if "enum" in of or "const" in of:
        return random.choice(("zeta", 7, None, "alph")), "enum"
    if "pattern" in of:
        return random.choice(("ab-123", "AB-12", "AB-1234", "AB_123")), "pattern"
    match of["type"]:
        case "string":
            return random.choice((5, None, "", "x" * 60, ["a"])), "string"
        case "integer":
            return random.choice(("5", 1.5, -51, 501, True, None)), "integer"
        case "number":
            return random.choice(("1.5", -100, 1000.5, False)), "number"
        case "boolean":
            return random.choice((0, "true", None)), "boolean"
    return random.choice(("none", 1.5, {})), "null"


def _spelt(random: Random, value: Any) -> str:
    text = json.dumps(value, ensure_ascii=random.random() < 0.5, indent=random.choice((None, None, 1, 2)))
    return random.choice(("", "", " ", "\n")) + text + random.choice(("", "", "\n"))


def _misspelt(random: Random, text: str) -> tuple[str, str]:
    return random.choice((
        (text.rstrip()[:-1], "cut off"), ("```json\n" + text.strip() + "\n```", "fenced"), ("Here it is: " + text, "prose before"),
        (text + " I hope this helps!", "prose after"), (text.replace('"', "'"), "single quotes"), (text.rstrip()[:-1] + ",}", "trailing comma"),
        (text + text, "twice"), ("", "empty"), (text.replace(":", "=", 1), "equals sign"),
    ))  # fmt: skip


def _answer(random: Random, of: dict[str, Any], wrong: bool) -> tuple[str, str]:
    value = instance(random, of)
    if not wrong:
        return _spelt(random, value), "clean"
    if random.random() < 0.25:
        return _misspelt(random, _spelt(random, value))
    broken, kind = _broken(random, of, value)
    return _spelt(random, broken), kind


def draw_json(random: Random, wrong: bool) -> Case:
    of = schema(random)
    text, kind = _answer(random, of, wrong)
    return Case(
        text,
        kind,
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": of, "strict": True}}},
    )


POLICY = (
    {"tool": "pay", "argument": "amount", "maximum": 100},
    {"tool": "*", "argument": "to", "denied": ["eve"]},
    {"tool": "drop_table", "forbid": True},
    {"tool": "mail", "argument": "to", "pattern": r"[a-z]+@example\.com"},
)
_PAY = {
    "type": "object",
    "properties": {"to": {"type": "string"}, "amount": {"type": "number", "minimum": 0}},
    "required": ["to", "amount"],
}
_MAIL = {"type": "object", "properties": {"to": {"type": "string"}, "body": {"type": "string"}}, "required": ["to"]}


def draw_call(random: Random, wrong: bool) -> Case:
    of = schema(random)
    name = random.choice(("search", "book", "get_weather", "lookup"))
    tools = [_tool(name, of), _tool("pay", _PAY), _tool("mail", _MAIL), _tool("drop_table", {"type": "object"})]
    if random.random() < 0.3:
        name, arguments, kind = _policy_case(random, wrong)
    elif wrong and random.random() < 0.2:
        name, arguments, kind = (
            random.choice((name + "s", name.upper(), "delete_all", "")),
            json.dumps(instance(random, of)),
            "unknown tool",
        )
    else:
        arguments, kind = _answer(random, of, wrong)
    return Case(
        arguments,
        kind,
        {"tools": tools},
        {"policy": POLICY},
        "tool_call",
        {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}},
    )


def _policy_case(random: Random, wrong: bool) -> tuple[str, str, str]:
    if not wrong:
        name, value = random.choice(
            (
                ("pay", {"to": "bob", "amount": random.randint(0, 100)}),
                ("mail", {"to": "bob@example.com", "body": "drop_table"}),
            )
        )
        return name, json.dumps(value), "policy"
    name, value = random.choice((
        ("pay", {"to": "bob", "amount": random.randint(101, 9999)}), ("pay", {"to": "eve", "amount": 1}),
        ("drop_table", {}), ("mail", {"to": "bob@evil.com"}), ("mail", {"to": "bob@example.com.evil.com"}),
    ))  # fmt: skip
    return name, json.dumps(value), "policy"


def _tool(name: str, parameters: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "description": "A tool.", "parameters": parameters}}
