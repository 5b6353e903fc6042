"""Verifiers that tests bring: small, and of one opinion."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

from predawn.plugins import Exchange, Plugin, PluginSettings, RegisterVerifier, Step, Verdict, hookimpl

PASS = Verdict("pass")


class Sums:
    """Says `a + b = c` where that is wrong, and what is right."""

    name = "sums"
    boundary = "sentence"
    reads = ("reasoning", "content")

    async def verify(self, step: Step, exchange: Exchange) -> Verdict:
        del exchange
        for found in re.finditer(r"(\d+) \+ (\d+) = (\d+)", step.text):
            right = int(found[1]) + int(found[2])
            if right != int(found[3]):
                mended = step.text[: found.start(3)] + f"{right}."
                return Verdict("violation", found[0], f"{found[1]} + {found[2]} is {right}.", mended)
        return PASS


class Forbids:
    """Nothing may hold a word."""

    name = "forbids"
    reads = ("content",)

    def __init__(self, word: str = "secret", boundary: str = "line", **more: Any) -> None:
        self.word = word
        self.boundary: Any = boundary
        for name, value in more.items():
            setattr(self, name, value)

    async def verify(self, step: Step, exchange: Exchange) -> Verdict:
        del exchange
        return Verdict("violation", "", f"Do not say {self.word}.") if self.word in step.text else PASS


class Calls:
    """Only the tool `add` may be called, with numbers."""

    name = "calls"
    boundary = "tool_call"
    reads = ("tool_call",)

    async def verify(self, step: Step, exchange: Exchange) -> Verdict:
        del exchange
        assert step.tool_call is not None
        named = step.tool_call["function"]["name"]
        return PASS if named == "add" else Verdict("violation", named, f"There is no tool {named}.")


class Does:
    """Does what a function says."""

    boundary = "sentence"
    reads = ("reasoning", "content")

    def __init__(self, name: str, what: Callable[[Step, Exchange], Any], **more: Any) -> None:
        self.name = name
        self._what = what
        for key, value in more.items():
            setattr(self, key, value)

    async def verify(self, step: Step, exchange: Exchange) -> Verdict:
        made = self._what(step, exchange)
        verdict: Verdict = await made if asyncio.iscoroutine(made) else made
        return verdict


class BringsVerifiers(Plugin[PluginSettings]):
    """Registers what it was made with."""

    def __init__(self, *verifiers: Any) -> None:
        super().__init__(PluginSettings())
        self.verifiers = verifiers

    @hookimpl
    def register_verifiers(self, register: RegisterVerifier) -> None:
        for verifier in self.verifiers:
            register(verifier)
