"""A value that a JSON schema allows: what a model that obeys `tools` or `response_format` would say at the least."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PLAIN: dict[str, Any] = {"string": "text", "integer": 1, "number": 1.5, "boolean": True, "null": None}
DEEPEST = 12


def example(schema: Any, root: Mapping[str, Any] | None = None, depth: int = 0) -> Any:
    """The first value that comes to mind; keywords that restrict plain values are respected where they are common."""
    if not isinstance(schema, Mapping) or depth > DEEPEST:
        return None
    root = root if root is not None else schema
    if isinstance(ref := schema.get("$ref"), str):
        return example(_resolve(ref, root), root, depth + 1)
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    if schema.get("enum"):
        return schema["enum"][0]
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key):
            return example(schema[key][0], root, depth + 1)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    return _of_type(kind[0] if isinstance(kind, list) else kind, schema, root, depth)


def _of_type(kind: str, schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> Any:
    if kind == "object":
        return {name: example(part, root, depth + 1) for name, part in (schema.get("properties") or {}).items()}
    if kind == "array":
        items = example(schema.get("items", {}), root, depth + 1)
        return [items] * max(1, min(schema.get("minItems", 1), 16))
    if kind == "string":
        return PLAIN["string"].ljust(min(schema.get("minLength", 0), 1000), "t")
    if kind in ("integer", "number"):
        return schema.get("minimum", PLAIN[kind])
    return PLAIN.get(kind)


def _resolve(ref: str, root: Mapping[str, Any]) -> Any:
    found: Any = root
    for part in ref.removeprefix("#").strip("/").split("/"):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found
