"""`tool_call`: a call names a tool of the request, its arguments fit the tool's schema, and it keeps to the policy."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from itertools import takewhile
from typing import Any, ClassVar, Literal

from predawn.plugins import Exchange, Verdict
from predawn.plugins.verify.verifiers.json_machine import Event, JsonError, JsonMachine
from predawn.plugins.verify.verifiers.policy import Policy
from predawn.plugins.verify.verifiers.schema_machine import Check, OverrunError, Schema, is_followed
from predawn.plugins.verify.verifiers.settings import ToolCallSettings
from predawn.plugins.verify.verifiers.slices import Breath
from predawn.plugins.verify.verifiers.whole_schema import BrokenSchemaError, OverdueError, fault_in
from predawn.proxy.extensions import Channel, Step

CALLS = "verify.tool_call"
PIECE = 128
LONGEST = 1 << 18
"""Characters of arguments that are parsed at all."""
_PASS = Verdict("pass")


class ToolCallVerifier:
    """Reads each call when it is complete."""

    name = "tool_call"
    boundary: Literal["tool_call"] = "tool_call"
    reads: ClassVar[tuple[Channel, ...]] = ("tool_call",)

    def __init__(self, settings: ToolCallSettings | None = None) -> None:
        self.settings = settings or ToolCallSettings()
        self.timeout_s = self.settings.timeout_s
        self.fails = self.settings.fails
        self._policy = Policy(self.settings.policy)

    async def verify(self, step: Step, exchange: Exchange) -> Verdict:
        """A violation says what is wrong with the call, in words that let a model make it again."""
        call = step.tool_call
        if not isinstance(call, Mapping):
            return _PASS
        name, arguments = named(call)
        tools = offered(exchange.request)
        if name not in tools:
            return _unknown(name, tools)
        if call.get("type") == "custom" and _is_free(exchange.request, name):
            arguments = "{}"
        if len(arguments) > LONGEST:
            return Verdict("unsure", name, "The arguments are too long to be checked.")
        schema = tools[name]
        if self.settings.unknown_arguments == "refuse" and isinstance(schema, dict):
            inherits = schema.keys() & {"$ref", "allOf", "anyOf", "oneOf", "if"}
            schema = {**schema, "unevaluatedProperties" if inherits else "additionalProperties": False}
        fault, is_sure = await self._fault(arguments, schema)
        if fault is not None:
            return Verdict("violation", name, f"The call of {name} is wrong: {fault}.")
        broken = self._policy.broken(name, json.loads(arguments or "{}"), self._earlier(step, name, exchange))
        if broken is not None:
            return Verdict("violation", name, broken)
        return _PASS if is_sure else Verdict("unsure", name, "The tool's schema cannot be used.")

    async def _fault(self, arguments: str, schema: Any) -> tuple[str | None, bool]:
        """What is wrong with arguments, and whether all of the schema could be checked."""
        followed = Schema(schema, "the arguments object")
        is_sure = is_followed(schema)
        machine, breath = JsonMachine(), Breath()
        text = arguments if arguments.strip() else "{}"
        check: Check | None = None
        try:
            check = Check(followed, _of_objects(schema), "")
            for at in range(0, len(text), PIECE):
                for event in machine.feed(text[at : at + PIECE]):
                    if (fault := _seen(followed, check, event)) is not None:
                        return fault, True
                await breath()
            for event in machine.finish():
                if (fault := _seen(followed, check, event)) is not None:
                    return fault, True
        except JsonError as exc:
            return f"its arguments are no JSON object: {exc.message}", True
        except OverrunError:
            is_sure = False
        return (None, True) if is_sure else await self._by_whole(text, schema)

    async def _by_whole(self, text: str, schema: Any) -> tuple[str | None, bool]:
        try:
            value = json.loads(text)
        except ValueError as exc:
            return f"its arguments are no JSON object: {exc}", True
        try:
            return await fault_in(value, schema, limit_s=self.timeout_s * 0.8), True
        except (OverdueError, BrokenSchemaError):
            return None, False

    @staticmethod
    def _earlier(step: Step, name: str, exchange: Exchange) -> int:
        """How many calls of the same tool came before this one in its answer."""
        calls: dict[tuple[int, str], str] = exchange.state.setdefault(CALLS, {})
        call = step.tool_call or {}
        key = (step.choice, str(call.get("id") or call.get("index", step.index)))
        earlier = list(takewhile(lambda known: known != key, calls))
        calls.setdefault(key, name)
        return sum(1 for known in earlier if known[0] == step.choice and calls[known] == name)


def _of_objects(schema: Any) -> Any:
    """The schema, for objects only."""
    if isinstance(schema, dict) and "type" not in schema and "$ref" not in schema:
        return {**schema, "type": "object"}
    return {"type": "object"} if schema is True else schema


def _seen(schema: Schema, check: Check, event: Event) -> str | None:
    schema.earn()
    return None if check.done else check.event(event)


def named(call: Mapping[str, Any]) -> tuple[str, str]:
    """Name and arguments of a call, in the shape of chat, of responses, or of messages."""
    function = call.get("function")
    inner = function if isinstance(function, Mapping) else call
    name = inner.get("name")
    arguments = inner.get("arguments", inner.get("input"))
    if isinstance(arguments, (dict, list)):
        arguments = json.dumps(arguments)
    return (name if isinstance(name, str) else ""), (arguments if isinstance(arguments, str) else "")


def offered(request: Mapping[str, Any]) -> dict[str, Any]:
    """The tools of a request by name, with the schemas of their arguments; `True` where a tool has none."""
    return dict(_offered(request))


def _offered(request: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    tools = request.get("tools")
    for tool in tools if isinstance(tools, list) else ():
        if not isinstance(tool, Mapping):
            continue
        inner = _declared(tool)
        schema = inner.get("parameters", inner.get("input_schema"))
        if isinstance(name := inner.get("name"), str):
            yield name, schema if isinstance(schema, (dict, bool)) else True
    functions = request.get("functions")
    for function in functions if isinstance(functions, list) else ():
        if isinstance(function, Mapping) and isinstance(name := function.get("name"), str):
            schema = function.get("parameters")
            yield name, schema if isinstance(schema, (dict, bool)) else True


def _declared(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a tool is, in the shape of chat, of responses, or of messages."""
    inner = tool.get("custom" if tool.get("type") == "custom" else "function")
    return inner if isinstance(inner, Mapping) else tool


def _is_free(request: Mapping[str, Any], name: str) -> bool:
    """Whether a tool is declared to take a text of any form; that a call says so of itself is not enough."""
    tools = request.get("tools")
    return any(
        isinstance(tool, Mapping) and tool.get("type") == "custom" and _declared(tool).get("name") == name
        for tool in (tools if isinstance(tools, list) else ())
    )


def _unknown(name: str, tools: Mapping[str, Any]) -> Verdict:
    if not tools:
        return Verdict("violation", name[:100], "No tool was offered, so none can be called.")
    near = get_close_matches(name[:100], [tool[:100] for tool in list(tools)[:200]], 1)
    meant = f" Did you mean {near[0]}?" if near else ""
    listed = ", ".join(list(tools)[:20])
    return Verdict("violation", name[:100], f"There is no tool {name[:100]!r}.{meant} There are: {listed}.")
