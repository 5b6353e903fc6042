"""The whole of JSON Schema, for complete documents: the package `jsonschema`, kept from fetching and running on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice
from time import perf_counter
from typing import Any

from predawn.plugins.verify.verifiers.patterns import compile_pattern
from predawn.plugins.verify.verifiers.schema_machine import is_multiple

PATTERN_S = 0.01


class OverdueError(Exception):
    """A check took too long."""


class BrokenSchemaError(Exception):
    """The schema itself cannot be used."""


async def fault_in(value: Any, schema: Any, *, limit_s: float) -> str | None:
    """What is wrong with a value, or `None`; found in a thread, since a schema can be made to take long.

    Raises `OverdueError`, or `BrokenSchemaError` for a schema that makes no sense or refers to other documents.
    """
    return await asyncio.to_thread(_fault, value, schema, limit_s)


def _fault(value: Any, schema: Any, limit_s: float) -> str | None:
    import referencing
    from jsonschema import exceptions, validators
    from referencing.exceptions import Unresolvable

    if isinstance(schema, bool):
        return None if schema else "no answer is allowed"
    if not isinstance(schema, Mapping):
        raise BrokenSchemaError("the schema is no object")
    kind = validators.validator_for(schema, default=validators.Draft202012Validator)
    until = perf_counter() + limit_s
    try:
        validator = _bounded(kind, until)(schema, registry=referencing.Registry())
        for error in islice(validator.iter_errors(value), 1):
            where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
            return f"{where.lstrip('.')[:100] or 'the answer'}: {error.message[:300]}"
    except (
        Unresolvable, exceptions.UnknownType, AttributeError, TypeError, ValueError, KeyError, RecursionError,
    ) as exc:  # fmt: skip
        raise BrokenSchemaError(f"{type(exc).__name__}: {str(exc)[:200]}") from exc
    return None


def _bounded(kind: Any, until: float) -> Any:
    """A validator class of which every keyword looks at the clock first, and whose patterns cannot run away."""
    from jsonschema import validators

    own = {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "multipleOf": _multiple_of,
        "uniqueItems": _unique,
    }
    keywords = {
        name: partial(_timed, own.get(name, function), until)
        for name, function in kind.VALIDATORS.items()
        if name != "format"
    }
    return validators.extend(kind, keywords)


def _timed(  # noqa: PLR0917 - four of them are how jsonschema calls it
    function: Any, until: float, validator: Any, value: Any, instance: Any, schema: Any
) -> Iterator[Any]:
    if perf_counter() > until:
        raise OverdueError
    for error in function(validator, value, instance, schema) or ():
        yield error
        if perf_counter() > until:
            raise OverdueError


def _matches(pattern: Any, text: str) -> bool:
    try:
        return compile_pattern(str(pattern)).search(text, timeout=PATTERN_S) is not None
    except TimeoutError as exc:
        raise OverdueError from exc


def _pattern(validator: Any, pattern: Any, instance: Any, schema: Any) -> Iterator[Any]:
    from jsonschema.exceptions import ValidationError

    del schema
    if validator.is_type(instance, "string") and not _matches(pattern, instance):
        yield ValidationError(f"{instance[:80]!r} does not match {str(pattern)[:100]!r}")


def _pattern_properties(validator: Any, patterns: Any, instance: Any, schema: Any) -> Iterator[Any]:
    del schema
    if not validator.is_type(instance, "object"):
        return
    for pattern, subschema in patterns.items():
        for key, value in instance.items():
            if _matches(pattern, key):
                yield from validator.descend(value, subschema, path=key, schema_path=pattern)


def _multiple_of(validator: Any, step: Any, instance: Any, schema: Any) -> Iterator[Any]:
    from jsonschema.exceptions import ValidationError

    del schema
    if validator.is_type(instance, "number") and not is_multiple(instance, step):
        yield ValidationError(f"{instance!r} is not a multiple of {step!r}")


def _unique(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[Any]:
    from jsonschema.exceptions import ValidationError

    del schema
    if wanted and validator.is_type(instance, "array"):
        seen: set[Any] = set()
        for item in instance:
            key = _canonical(item)
            if key in seen:
                yield ValidationError(f"an item is there twice: {str(item)[:80]}")
                return
            seen.add(key)


def _canonical(value: Any) -> Any:
    """A key that is equal for equal JSON."""
    if isinstance(value, dict):
        return ("object", frozenset((key, _canonical(item)) for key, item in value.items()))
    if isinstance(value, list):
        return ("array", *map(_canonical, value))
    return (isinstance(value, bool), value)
