"""Fenced code in Markdown: where a block begins and ends, and what it holds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from textwrap import dedent

from predawn.plugins.verify.verifiers.slices import Breath

_FENCE = re.compile(r"^[ \t]{0,12}(`{3,16}|~{3,16})[ \t]*([A-Za-z0-9_+.#-]{0,32})[^\n`]{0,200}$", re.MULTILINE)
_PARAGRAPH = re.compile(r"\n[ \t]*\n")
_SAID = re.compile(r"\S")
_MAGIC = re.compile(r"^([ \t]*(?:\w+[ \t]*=[ \t]*)?)(?:%{1,2}|!{1,2}|\?{1,2})[A-Za-z].*$", re.MULTILINE)
"""Not a line that goes on with `% x` or `!= y`."""
_PROMPT = re.compile(r"^(?:>>> |\.\.\. |>>>$|\.\.\.$)")
SLICE = 4_000
PYTHON = frozenset({"python", "py", "python3", "py3"})


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block; `end` is behind its closing fence, or where the text ends."""

    language: str
    start: int
    """Of the code."""
    stop: int
    end: int
    is_closed: bool


def code_block(text: str) -> int:
    """How long the first step of a text is: prose up to a blank line, or a fenced block with all that is before it.

    Blank lines go with what follows: a flood of them would be a step each.
    """
    said = _SAID.search(text)
    if said is None:
        return 0
    fence = _FENCE.search(text)
    prose = _PARAGRAPH.search(text, said.start())
    if prose is not None and (fence is None or prose.end() <= fence.start()):
        return prose.end()
    if fence is None or fence.end() == len(text):
        return 0
    closing = _closing(text, fence)
    return 0 if closing is None or closing.end() >= len(text) else closing.end() + 1


def _closing(text: str, fence: re.Match[str]) -> re.Match[str] | None:
    at = fence.end()
    while (found := _FENCE.search(text, at)) is not None:
        if _closes(found, fence):
            return found
        at = found.end()
    return None


def _closes(found: re.Match[str], fence: re.Match[str]) -> bool:
    return found[1].startswith(fence[1]) and not found[2] and found[0].strip() == found[1]


async def blocks(text: str) -> list[Block]:
    """Every fenced block of a text, in order."""
    if "```" not in text and "~~~" not in text:
        return []
    found: list[Block] = []
    fence: re.Match[str] | None = None
    breath = Breath()
    at = 0
    while at < len(text):
        end = text.find("\n", at + SLICE)
        end = len(text) if end < 0 else end
        for line in _FENCE.finditer(text, at, end):
            if fence is None:
                fence = line
            elif _closes(line, fence):
                found.append(_block(text, fence, line.start(), line.end(), is_closed=True))
                fence = None
            await breath()
        at = end + 1
        await breath()
    if fence is not None:
        found.append(_block(text, fence, len(text), len(text), is_closed=False))
    return found


def _block(text: str, fence: re.Match[str], stop: int, end: int, *, is_closed: bool) -> Block:
    start = min(fence.end() + 1, len(text))
    return Block(fence[2].lower(), start, max(start, stop), end, is_closed)


def python_source(code: str) -> str:
    """The code of a block as Python has it: without the prompts of a session, and without the magic of notebooks."""
    code = dedent(code.expandtabs(8) if "\t" in code and "    " in code else code)
    lines = code.splitlines()
    first = next((line for line in lines if line.strip()), "")
    if first.startswith(">>>"):
        code = "\n".join(_PROMPT.sub("", line) for line in lines if _PROMPT.match(line))
    return _MAGIC.sub(r"\1None", code) if "%" in code or "!" in code or "?" in code else code
