"""What a request looks like: sixteen numbers, a sketch of its words, and the kind of task. One pass over at most 1,200
characters of what was asked last, about 50 µs; nothing is kept of the text itself."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from itertools import islice
from typing import Any, Final, Literal, NamedTuple, TypeAlias, get_args
from zlib import crc32

from predawn.plugins.budget.wording import CHAINS, EASY, HARD, OPERATIONS

Kind: TypeAlias = Literal["math", "code", "choice", "json", "tools", "open"]
Shape: TypeAlias = Literal["width", "depth", "open"]
KINDS: Final[tuple[str, ...]] = get_args(Kind)
NAMES: Final = (
    *("always", "length", "numbers", "sentences", "operations", "chain", "code", "choice"),
    *("json", "tools", "media", "turns", "context", "hard_words", "easy_words", "notes"),
)
SKETCH: Final = 16
HEAD_CHARS, TAIL_CHARS = 400, 800
MOST_WORDS = 96
MOST_TURNS = 64
"""Messages looked through, from the last, for one of the user."""
_PIECE = re.compile(r"[^\W\d_]+|\d+(?:[.,]\d+)*|[.!?\n]+(?=\s|$)|[-+*/=^\u00d7\u00f7<>](?=\s*[\d(])")
_OPTIONS = re.compile(r"(?:^|[\n ])\(?([A-Ea-e])[).:] .{1,200}?(?:\n| )\(?([B-Eb-e])[).:] ", re.DOTALL)
_CODE = re.compile(r"```|\bdef \w+\(|\bfunction \w*\(|\bclass \w+[:({]|#include|\bSELECT\b.{1,80}\bFROM\b|=> ?\{|\);")


_CODE_MARKS = ("```", "def ", "function ", "class ", "#include", "SELECT", "=>", ");")
_OPTION_MARKS = ("A)", "a)", "A.", "a. ", "A:", "a: ")


class Features(NamedTuple):
    """A request as estimators and curves see it."""

    values: tuple[float, ...]
    """In the order of `NAMES`, each about 0 to 1."""
    sketch: tuple[int, ...]
    """The smallest hashes of its words: two requests share the more of them the more words they share."""
    kind: Kind
    shape: Shape


class Asked(NamedTuple):
    """What a request says, as far as it matters here."""

    text: str
    turns: int
    media: int


def read(
    route: str, request: Mapping[str, Any], *, tenant: str = "", size: int = 0, has_notes: bool = False
) -> Features:
    """The features of a request of any shape: what cannot be read counts as absent. `size` is that of the body."""
    asked = question_of(route, request)
    text = asked.text
    if len(text) > HEAD_CHARS + TAIL_CHARS:
        text = f"{text[:HEAD_CHARS]}\n{text[-TAIL_CHARS:]}"
    numbers = sentences = signs = 0
    words: list[str] = []
    for piece in _PIECE.findall(text):
        if piece.isalpha():
            words.append(piece)
        elif piece[0].isdigit():
            numbers += 1
        elif piece[0] in ".!?\n":
            sentences += 1
        else:
            signs += 1
    counts = Counter(map(str.lower, words))
    operations, chain, hard, easy = (
        sum(map(counts.__getitem__, counts.keys() & telling)) for telling in (OPERATIONS, CHAINS, HARD, EASY)
    )
    operations += signs
    # the marks are looked for first: a search for a string takes 1 µs, one for a pattern a hundred
    is_code = any(mark in text for mark in _CODE_MARKS) and _CODE.search(text) is not None
    is_choice = any(mark in text for mark in _OPTION_MARKS) and _OPTIONS.search(text) is not None
    form = request.get("response_format")
    is_json = isinstance(form, dict) and str(form.get("type", "")).startswith("json")
    has_tools = bool(request.get("tools")) and request.get("tool_choice") != "none"
    values = (
        1.0,
        _share(len(asked.text).bit_length(), 16),
        _share(numbers, 16),
        _share(sentences, 16),
        _share(operations, 8),
        _share(chain, 6),
        float(is_code),
        float(is_choice),
        float(is_json),
        float(has_tools),
        _share(asked.media, 4),
        _share(asked.turns, 20),
        _share(max(size, len(asked.text)).bit_length(), 20),
        _share(hard, 3),
        _share(easy, 3),
        float(has_notes),
    )
    kind = _kind(is_code=is_code, is_choice=is_choice, is_json=is_json, has_tools=has_tools, sums=(numbers, operations))
    return Features(values, _sketch(counts, tenant), kind, _shape(kind, numbers, operations, sentences, chain))


def _share(count: float, most: float) -> float:
    return min(count / most, 1.0)


def _kind(*, is_code: bool, is_choice: bool, is_json: bool, has_tools: bool, sums: tuple[int, int]) -> Kind:
    if has_tools:
        return "tools"
    if is_json:
        return "json"
    if is_code:
        return "code"
    if is_choice:
        return "choice"
    numbers, operations = sums
    return "math" if numbers and operations and numbers + operations >= 3 else "open"


def _shape(kind: Kind, numbers: int, operations: int, sentences: int, chain: int) -> Shape:
    """Steps that build on one another are a matter of depth; a short task that stands alone, of width."""
    if chain >= 2 or (kind == "math" and (operations >= 4 or numbers >= 5 or sentences >= 5)):
        return "depth"
    if kind in {"math", "choice"}:
        return "width"
    return "depth" if kind == "code" else "open"


def _sketch(words: Mapping[str, int], tenant: str) -> tuple[int, ...]:
    """The hashes begin with the tenant, so that those of two tenants say nothing of one another."""
    seed = crc32(tenant.encode("utf-8", "replace"))
    chosen = list(words)
    if len(chosen) > MOST_WORDS:
        chosen = chosen[-MOST_WORDS:]
    hashes = {crc32(word.encode("utf-8", "replace"), seed) for word in chosen}
    return tuple(sorted(hashes)[:SKETCH])


def question_of(route: str, request: Mapping[str, Any]) -> Asked:
    """What the user said last, how many messages there are, and how many images or sounds."""
    if route == "completions":
        prompt = request.get("prompt")
        return Asked(prompt, 1, 0) if isinstance(prompt, str) else Asked("", 1, 0)
    messages = request.get("input" if route == "responses" else "messages")
    if isinstance(messages, str):
        return Asked(messages, 1, 0)
    if not isinstance(messages, list):
        return Asked("", 0, 0)
    for message in islice(reversed(messages), MOST_TURNS):
        if isinstance(message, dict) and message.get("role") == "user":
            text, media = _text(message.get("content"))
            return Asked(text, len(messages), media)
    return Asked("", len(messages), 0)


def _text(content: Any) -> tuple[str, int]:
    if isinstance(content, str):
        return content, 0
    if not isinstance(content, list):
        return "", 0
    parts = [part for part in content if isinstance(part, dict)]
    said = [text for part in parts if isinstance(text := part.get("text"), str)]
    return "\n".join(said), len(parts) - len(said)
