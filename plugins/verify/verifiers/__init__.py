"""The built-in verifiers, by name. Each is an object with `name`, `boundary` and `async def verify(step, exchange)`.

What a verdict of theirs means, in the same way for all:

- `where` quotes the fault or names its place in a few words; `feedback` is one or two sentences for the model.
- `corrected` stands in place of the whole step: the step's text up to the first fault, put right there. What followed
  the fault is left out, since it may build upon it. It is `None` where only the model can say what would be right.
- What a verifier remembers of an answer lies in the exchange's `state`, under `verify.<name>`, never in the verifier.
- Long texts are worked on in slices, so that no step holds the event loop up.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast, runtime_checkable

from predawn.plugins.verify.verifiers import settings as of

if TYPE_CHECKING:
    from predawn.plugins import Exchange, Reply
    from predawn.proxy.extensions import Verifier

__all__ = ["BUILT_IN", "AsksModel", "BuiltIn", "Opens", "create"]


@runtime_checkable
class AsksModel(Protocol):
    """A verifier that asks a model; until it is bound its steps are unsure."""

    def bind(self, send: Callable[[Exchange], Awaitable[Reply]], model: str | None = None) -> None:
        """Calls go out by `send`, to the alias `model` if its own settings name none."""
        ...


@runtime_checkable
class Opens(Protocol):
    """A verifier that has something ready while the server runs."""

    def open(self) -> None: ...

    def close(self) -> None: ...


class BuiltIn(NamedTuple):
    """One of the verifiers here; its class lives in the module of its name and takes its settings."""

    class_name: str
    settings_type: type[of.VerifierSettings]


BUILT_IN: Mapping[str, BuiltIn] = {
    "arithmetic": BuiltIn("ArithmeticVerifier", of.ArithmeticSettings),
    "json_schema": BuiltIn("JsonSchemaVerifier", of.JsonSchemaSettings),
    "tool_call": BuiltIn("ToolCallVerifier", of.ToolCallSettings),
    "regex": BuiltIn("RegexVerifier", of.RegexSettings),
    "python": BuiltIn("PythonVerifier", of.PythonSettings),
    "grounded": BuiltIn("GroundedVerifier", of.GroundedSettings),
    "judge": BuiltIn("JudgeVerifier", of.JudgeSettings),
    "answer_fork": BuiltIn("AnswerForkVerifier", of.AnswerForkSettings),
    "constraints": BuiltIn("ConstraintsVerifier", of.ConstraintsSettings),
}


def create(name: str, options: Mapping[str, Any] | None = None) -> Verifier:
    """A built-in verifier with its settings; what is not asked for is not imported.

    Raises `ValueError` (pydantic's `ValidationError` is one) saying what is wrong: an unknown name or option, a pattern
    that is none, a package that is not installed.
    """
    if name not in BUILT_IN:
        raise ValueError(f"verifier {name!r} is not built in ({', '.join(BUILT_IN)})")
    built_in = BUILT_IN[name]
    settings = built_in.settings_type.model_validate(dict(options or {}))
    module = import_module(f"predawn.plugins.verify.verifiers.{name}")
    return cast("Verifier", getattr(module, built_in.class_name)(settings))
