"""`json_schema`: follows structured output as it is written, and sees a violation at the first wrong token."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from predawn.plugins import Exchange, Verdict
from predawn.plugins.verify.verifiers.json_machine import Event, JsonError, JsonMachine
from predawn.plugins.verify.verifiers.schema_machine import Check, OverrunError, Schema, is_followed
from predawn.plugins.verify.verifiers.settings import JsonSchemaSettings
from predawn.plugins.verify.verifiers.slices import Breath
from predawn.plugins.verify.verifiers.whole_schema import BrokenSchemaError, OverdueError, fault_in
from predawn.proxy.extensions import Channel, Step

STATE = "verify.json_schema"
PIECE = 128
REMEMBERED = 64
"""Characters by which a text is known to be the one that was read before."""
_TOKEN = re.compile(r'(?>[-0-9tfn \t\r\n+.eEaulrs]+|"(?>[^"\\]+|\\.)*")*[^-0-9tfn \t\r\n+.eEaulrs"]', re.DOTALL)
"""What may come before a sign, strings as a whole, and the sign; a string that has not ended is no end."""
_PASS = Verdict("pass")


def json_token(text: str) -> int:
    """The length of the first token of a JSON text with the sign after it; what is no JSON ends at once."""
    found = _TOKEN.match(text)
    return found.end() if found is not None else 0


@dataclass(slots=True)
class _Reading:
    """How far one answer has been read, and what was found."""

    schema: Schema
    check: Check | None
    machine: JsonMachine = field(default_factory=JsonMachine)
    read: int = 0
    tail: str = ""
    fault_at: int = -1
    fault: str = ""
    is_followed: bool = True
    """Whether the schema was followed all the way."""

    def feed(self, piece: str) -> None:
        if self.fault_at < 0:
            try:
                for event in self.machine.feed(piece):
                    self._see(event)
            except JsonError as exc:
                self.fault_at, self.fault = exc.at, exc.message
        self.read += len(piece)
        self.tail = (self.tail + piece)[-REMEMBERED:]

    def finish(self) -> None:
        try:
            for event in self.machine.finish():
                self._see(event)
        except JsonError as exc:
            self.fault_at, self.fault = exc.at, exc.message

    def _see(self, event: Event) -> None:
        if self.fault_at >= 0 or self.check is None or self.check.done:
            return
        self.schema.earn()
        try:
            fault = self.check.event(event)
        except OverrunError:
            self.check, self.is_followed = None, False
            return
        if fault is not None:
            self.fault_at, self.fault = event.at, fault


class JsonSchemaVerifier:
    """Reads `content`, if the request asks for JSON or the settings have a schema."""

    name = "json_schema"
    reads: ClassVar[tuple[Channel, ...]] = ("content",)

    def __init__(self, settings: JsonSchemaSettings | None = None) -> None:
        self.settings = settings or JsonSchemaSettings()
        self.boundary = json_token
        self.timeout_s = self.settings.timeout_s
        self.fails = self.settings.fails

    async def verify(self, step: Step, exchange: Exchange) -> Verdict:
        """A violation lies in the step with the first wrong character; steps after it are unsure."""
        schema = wanted_schema(exchange, self.settings.json_schema)
        if schema is None:
            return _PASS
        reading = await self._read(step, exchange, schema)
        if step.is_last and reading.fault_at < 0 and reading.read == step.end:
            reading.finish()
        if reading.fault_at >= 0:
            return _told(reading, step)
        if not step.is_last or (reading.is_followed and is_followed(schema)):
            return _PASS
        return await self._whole(step, schema)

    async def _read(self, step: Step, exchange: Exchange, schema: Any) -> _Reading:
        """Follow the answer up to the step's end; begin again where it is not the text that was read."""
        readings: dict[int, _Reading] = exchange.state.setdefault(STATE, {})
        reading = readings.get(step.choice)
        if reading is None or not _goes_on(reading, step):
            reading = readings[step.choice] = _begun(schema)
        breath = Breath()
        while reading.read < step.end:
            at = reading.read
            piece = (
                step.text[at - step.start : at - step.start + PIECE]
                if at >= step.start
                else step.before[at : at + PIECE]
            )
            reading.feed(piece)
            await breath()
        return reading

    async def _whole(self, step: Step, schema: Any) -> Verdict:
        if step.end > self.settings.max_chars:
            return Verdict("unsure", "", "The answer is too long for its whole schema to be checked.")
        text = step.before + step.text
        try:
            fault = await fault_in(json.loads(text), schema, limit_s=self.timeout_s * 0.8)
        except OverdueError:
            return Verdict("unsure", "", "The schema takes too long to be checked.")
        except BrokenSchemaError as exc:
            return Verdict("unsure", "", f"The schema cannot be used: {exc}")
        return _PASS if fault is None else Verdict("violation", fault[:120], f"The JSON breaks its schema: {fault}.")


def _begun(schema: Any) -> _Reading:
    followed = Schema(schema)
    try:
        return _Reading(followed, Check(followed, schema, ""))
    except OverrunError:
        return _Reading(followed, None, is_followed=False)


def _goes_on(reading: _Reading, step: Step) -> bool:
    """Whether what was read is the beginning of this text."""
    if reading.read >= step.end:
        start = max(0, reading.read - len(reading.tail))
        seen = step.text[max(0, start - step.start) :] if start < step.end else ""
        offset = max(step.start, start) - start
        return reading.tail[offset : offset + len(seen)] == seen if seen else reading.read < step.end + PIECE
    if reading.read <= step.start:
        return step.before[max(0, reading.read - len(reading.tail)) : reading.read] == reading.tail
    whole = (step.before[-REMEMBERED:] + step.text)[: REMEMBERED + reading.read - step.start]
    return whole.endswith(reading.tail)


def _told(reading: _Reading, step: Step) -> Verdict:
    if reading.fault_at < step.start:
        return Verdict("unsure", "", "An earlier part of the JSON is wrong.")
    if reading.fault_at >= step.end and not step.is_last:
        return _PASS
    return Verdict("violation", reading.fault[:120], f"The answer breaks its JSON Schema: {reading.fault}.")


def wanted_schema(exchange: Exchange, own: Mapping[str, Any] | None) -> Any:
    """The schema of `response_format` (or `text.format`), else the settings' own; `None` if nothing asks for JSON."""
    request = exchange.request
    wanted = request.get("response_format")
    if wanted is None and isinstance(text := request.get("text"), dict):
        wanted = text.get("format")
    if isinstance(wanted, dict):
        if wanted.get("type") == "json_schema":
            inner = wanted.get("json_schema")
            schema = inner.get("schema") if isinstance(inner, dict) else wanted.get("schema")
            return schema if isinstance(schema, (dict, bool)) else True
        if wanted.get("type") == "json_object":
            return {"type": "object"}
        if wanted.get("type") == "text":
            return None
    return dict(own) if own is not None else None
