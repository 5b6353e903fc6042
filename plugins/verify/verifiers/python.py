"""`python`: fenced Python must parse and use no undefined names; it runs only where a sandbox is configured."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
from collections.abc import Mapping, Sequence
from itertools import islice

from predawn.plugins import Exchange, Verdict
from predawn.plugins.verify.verifiers import python_names, sandbox
from predawn.plugins.verify.verifiers.code_blocks import PYTHON, Block, blocks, code_block, python_source
from predawn.plugins.verify.verifiers.context import messages_text
from predawn.plugins.verify.verifiers.parser import MOST_BYTES, Parser
from predawn.plugins.verify.verifiers.settings import PythonSettings
from predawn.plugins.verify.verifiers.slices import Breath
from predawn.proxy.extensions import Step

log = logging.getLogger("predawn.verify")
INLINE = 4_000
INLINE_TOKENS = 700
"""So much is parsed on the event loop, in some milliseconds. More goes to a process of its own."""
MOST_NAMES = 50
MOST_EARLIER = 200
"""Blocks before one whose names count."""
LONGEST = 1 << 19
_PASS = Verdict("pass")
_WORD = re.compile(r"[^\W\d]\w*")
_TOKEN = re.compile(r"\w+|[^\w\s]")


class PythonVerifier:
    """Reads each fenced block marked as Python, when it is closed or the answer ends."""

    name = "python"

    def __init__(self, settings: PythonSettings | None = None) -> None:
        self.settings = settings or PythonSettings()
        self.boundary = code_block
        self.reads = self.settings.reads
        self.timeout_s = self.settings.timeout_s + (self.settings.sandbox_timeout_s if self.settings.sandbox else 0)
        self.fails = self.settings.fails
        self._limits = sandbox.Limits(
            self.settings.sandbox_timeout_s, self.settings.sandbox_memory_mb, self.settings.sandbox_output_bytes
        )
        self._has_worked = False
        self._free = asyncio.Semaphore(self.settings.sandbox_runs)
        self._parser: Parser | None = None

    def open(self) -> None:
        """Have a process ready for what is too long to be parsed here."""
        try:
            self._parser = Parser()
        except OSError as exc:
            log.error("verifier python: no process to parse in (%s); each code is given one of its own", exc)

    def close(self) -> None:
        """End it."""
        parser, self._parser = self._parser, None
        if parser is not None:
            parser.close()

    async def verify(self, step: Step, exchange: Exchange) -> Verdict:
        """A violation names the line in the block and what is wrong there."""
        if "`" not in step.text and "~" not in step.text and not step.is_last:
            return _PASS
        text = step.before + step.text
        found = [block for block in await blocks(text) if block.language in PYTHON]
        breath = Breath()
        for at, block in enumerate(found):
            if block.end > step.start and (block.is_closed or step.is_last):
                verdict = await self._block(text, block, found[max(0, at - MOST_EARLIER) : at], exchange)
                if verdict.outcome != "pass":
                    return verdict
                await breath()
        return _PASS

    async def _block(self, text: str, block: Block, earlier: Sequence[Block], exchange: Exchange) -> Verdict:
        if block.stop - block.start > LONGEST:
            return Verdict("unsure", "", "The code is too long to be parsed.")
        code = python_source(text[block.start : block.stop])
        found = await self._report(code)
        if isinstance(error := found.get("error"), str):
            return Verdict("violation", error[:120], f"The Python code is wrong, {error[:300]}.")
        undefined = found.get("undefined")
        if not isinstance(undefined, list):
            return Verdict("unsure", "", "The code could not be parsed.")
        missing = []
        if self.settings.names and undefined:
            known = await _names_in(text, earlier)
            missing = _unexplained(undefined, known.union(self.settings.known), exchange)
        if missing:
            told = ", ".join(f"{name} (line {line})" for name, line in missing[:5])
            return Verdict("violation", told[:120], f"The Python code uses names that nothing defines: {told}.")
        return await self._run(code) if self.settings.sandbox else _PASS

    async def _report(self, code: str) -> Mapping[str, object]:
        """What is known of the code without running it."""
        version = self.settings.python
        if len(code) <= INLINE and sum(1 for _ in islice(_TOKEN.finditer(code), INLINE_TOKENS)) < INLINE_TOKENS:
            return python_names.report(code, version)
        try:
            found = json.loads(await self._elsewhere(code))
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    async def _elsewhere(self, code: str) -> str | bytes:
        """The report of another process: the one that is kept ready, or one that is started for it."""
        version, limit_s = self.settings.python or (), self.settings.timeout_s
        if self._parser is not None:
            try:
                return await self._parser.report(code.encode("utf-8", "replace"), version, limit_s)
            except OSError as exc:
                log.error("verifier python: its process is gone (%s); each code is given one of its own", exc)
                self.close()
        command = [sys.executable, "-I", "-S", python_names.__file__, *map(str, version)]
        return (await sandbox.run(command, code, sandbox.Limits(limit_s, output_bytes=MOST_BYTES))).output

    async def _run(self, code: str) -> Verdict:
        async with self._free:
            try:
                ran = await sandbox.run(self.settings.sandbox, code, self._limits)
            except OSError as exc:
                return Verdict("unsure", "", f"The sandbox could not be started: {exc.strerror or type(exc).__name__}.")
        if ran.code == 0:
            self._has_worked = True
            return _PASS
        if ran.code is None:
            return Verdict("unsure", "", f"The code ran longer than {self._limits.timeout_s:g} s.")
        if not await self._works():
            return Verdict("unsure", "", "The sandbox cannot run anything here.")
        told = ran.output.strip()[-300:] or f"exit code {ran.code}"
        return Verdict("violation", told.splitlines()[-1][:120], f"The Python code failed when it was run: {told}")

    async def _works(self) -> bool:
        """Whether the sandbox runs the simplest of programs; asked when one failed, until it has been seen to work."""
        if not self._has_worked:
            async with self._free:
                ran = await sandbox.run(self.settings.sandbox, "pass\n", self._limits)
            self._has_worked = ran.code == 0
            if not self._has_worked:
                log.error("verifier python: the sandbox fails by itself (exit code %s): %.300r", ran.code, ran.output)
        return self._has_worked


async def _names_in(text: str, earlier: Sequence[Block]) -> set[str]:
    """Whatever names blocks mention: code in answers goes on from the code before it."""
    names: set[str] = set()
    breath = Breath()
    for block in earlier:
        names.update(_WORD.findall(text[block.start : min(block.stop, block.start + INLINE)]))
        await breath()
    return names


def _unexplained(undefined: Sequence[tuple[str, int]], known: set[str], exchange: Exchange) -> list[tuple[str, int]]:
    """Names that are not known, and that the conversation does not mention either."""
    wanted = [(name, line) for name, line in undefined if name not in known][:MOST_NAMES]
    if not wanted:
        return []
    context = messages_text(exchange.request)
    return [(name, line) for name, line in wanted if not _occurs(name, context)]


def _occurs(name: str, context: str) -> bool:
    """As a word of its own."""
    at = context.find(name)
    while at >= 0:
        end = at + len(name)
        if not _is_letter(context[at - 1 : at]) and not _is_letter(context[end : end + 1]):
            return True
        at = context.find(name, end)
    return False


def _is_letter(char: str) -> bool:
    return char.isalnum() or char == "_"
