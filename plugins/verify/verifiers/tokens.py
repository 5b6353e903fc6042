"""Prose as numbers, signs and words: what an equation in it is read from."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal, TypeAlias

from predawn.plugins.verify.verifiers.numerals import (
    NUMBER,
    PARTS,
    SCALES,
    SUPERSCRIPTS,
    VULGAR,
    WORDS,
    Number,
    number_of,
    scaled,
    spoken,
    whole,
)
from predawn.plugins.verify.verifiers.vocabulary import words_of

Kind: TypeAlias = Literal["number", "sign", "relation", "word", "stop", "poison"]
"""`stop` ends an expression, `poison` makes it unreadable: a variable, a date, a function."""


@dataclass(frozen=True, slots=True)
class Token:
    kind: Kind
    text: str
    start: int
    end: int
    number: Number | None = None


_ODD = {
    "×": "*", "✕": "*", "⋅": "*", "·": "*", "÷": "/", "∕": "/", "−": "-", "⁻": "-", "–": "-",  # noqa: RUF001
    "＝": "=", "’": "'",  # noqa: RUF001
}  # fmt: skip
_SIGNS = str.maketrans(_ODD)
_LATEX = (
    (re.compile(r"\\[dt]?frac\s*\{([^{}]{1,60})\}\s*\{([^{}]{1,60})\}"), r"((\1)/(\2))"),
    (re.compile(r"\\(?:text|mathrm|mathbf|boxed|textbf|mbox)\s*\{([^{}]{0,120})\}"), r" \1 "),
    (re.compile(r"\\(?:times|cdot)(?![A-Za-z])"), " * "),
    (re.compile(r"\\div(?![A-Za-z])"), " / "),
    (re.compile(r"\\approx(?![A-Za-z])"), " ≈ "),
    (re.compile(r"\\(?:left|right|quad|qquad|displaystyle)(?![A-Za-z])|\\[,;:! ]|\\[()\[\]]|\\\\"), " "),
    (re.compile(r"\\([$%])"), r"\1"),
    (re.compile(r"\^\s*\{(\d{1,3})\}"), r"^\1"),
    (re.compile(r"\{,\}"), ","),
)
_CALCULATION = (("<<", " : "), (">>", " , "))
_FORMULA = re.compile(r"\$\$?(?=\S)([^$\n]{1,300}?)(?<=\S)\$\$?(?!\d)")
_MARKS = re.compile(r"(?<![\w)*])\*{1,3}(?=[^\s*])|(?<=[^\s*])\*{1,3}(?![\w(*]|\s*[.\d($])|~~|__")
_TIMES = re.compile(r"(?<=[\d)])\s*[xX]\s*(?=[$€£]?\.?\d|\()|(?<=\w)\s+[xX]\s+(?=[$€£]?\.?\d)")
_RELATION = re.compile(r"=>|==+|!=|<=|>=|:=|~=|[=≈≅≃≠≤≥<>≡→]")
_SIGN = re.compile(r"\*\*|//|[-+*/^()]")
_WORD = re.compile(r"[^\W\d_][^\W\d_²³]*[²³]?(?:['\-][^\W\d_]+)*")
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]{1,300}`", re.DOTALL)
SCALE_LETTERS = {"k": 1000, "K": 1000, "bn": 10**9, "mn": 10**6}
GLUED_UNITS = words_of(
    "kg g mg lb lbs oz km m cm mm mi ft h hr hrs min mins s sec ms l L ml mph kph W kW kWh V A Hz kHz MHz GHz GB MB KB "
    "TB pts px c F C"
)


def plain(text: str) -> str:
    """The text without what only decorates it: LaTeX, bold, invisible characters, signs of other keyboards.

    Code is blanked out: it has equations of another kind.
    """
    if "`" in text:
        text = _CODE.sub(" ; ", text)
    if not text.isascii():
        text = _folded(text)
    if "\\" in text or "{" in text:
        for pattern, by in _LATEX:
            text = pattern.sub(by, text)
    if "$" in text:
        text = _FORMULA.sub(r" \1 ", text)
    for odd, by in _CALCULATION:
        text = text.replace(odd, by)
    if "*" in text or "_" in text or "~" in text:
        text = _MARKS.sub("", text)
    return _TIMES.sub(" * ", text)


def _folded(text: str) -> str:
    """Digits of other scripts are digits; format characters, which cannot be seen, are gone."""
    text = text.translate(_SIGNS)
    kept = []
    for char in text:
        if char.isascii() or char in VULGAR or char in SUPERSCRIPTS:
            kept.append(char)
        elif char.isdecimal():
            kept.append(str(unicodedata.digit(char)))
        elif unicodedata.category(char) != "Cf":
            is_fullwidth = "\uff01" <= char <= "\uff5e"
            kept.append(" " if char.isspace() else unicodedata.normalize("NFKC", char) if is_fullwidth else char)
    return "".join(kept)


def tokens_of(text: str) -> list[Token]:
    """The tokens of one sentence that went through `plain`."""
    found: list[Token] = []
    at = 0
    while at < len(text):
        char = text[at]
        if char.isspace():
            at += 1
            continue
        token = _token(text, at, char)
        found.append(token)
        at = token.end
    return _mixed(_with_words(found), text)


def _token(text: str, at: int, char: str) -> Token:
    if char in VULGAR:
        return Token("number", char, at, at + 1, whole(Fraction(*VULGAR[char]), char))
    if char in SUPERSCRIPTS:
        return Token("sign", f"^{SUPERSCRIPTS[char]}", at, at + 1)
    if match := NUMBER.match(text, at):
        return _number(text, match)
    if match := _WORD.match(text, at):
        glued = match.end() < len(text) and text[match.end()] in "_([{0123456789" and text[match.end()] != "["
        kind: Kind = "poison" if glued or (at and text[at - 1] in "_.@#\\") else "word"
        return Token(kind, match[0], at, match.end())
    if match := _RELATION.match(text, at):
        return Token("relation", match[0], at, match.end())
    if match := _SIGN.match(text, at):
        return Token("sign" if match[0] != "//" else "poison", match[0], at, match.end())
    if char == "%" and (at == 0 or text[at - 1] in "0123456789 "):
        return Token("sign", "%", at, at + 1)
    return Token("stop" if char in ",;:.!?\"'“”()|…[]" else "poison", char, at, at + 1)


def _number(text: str, match: re.Match[str]) -> Token:
    start, end = match.span()
    number = number_of(match)
    before = text[start - 1] if start else " "
    after = text[end : end + 2]
    if (
        number is None
        or before.isalnum()
        or before in "_.#@\\"
        or (before in ":,'" and start > 1 and text[start - 2].isdigit())
    ):
        return Token("poison", match[0], start, end)
    if after[:1] in "_:,.'" and after[1:].isdigit():
        return Token("poison", match[0], start, end)
    if after[:1].isalpha() and (glued := _WORD.match(text, end)):
        letters = glued[0]
        scale = SCALE_LETTERS.get(letters)
        if scale is not None and number.value:
            return Token("number", text[start : glued.end()], start, glued.end(), scaled(number, scale, match[0]))
        if letters.rstrip("²³") not in GLUED_UNITS or text[glued.end() : glued.end() + 1].isdigit():
            return Token("poison", text[start : glued.end()], start, glued.end())
    elif after[:1] == "%":
        return Token("number", text[start : end + 1], start, end + 1, replace(number, is_percent=True))
    elif after[:1] == "!" and re.match(r"!\s*[-+*/=^)]", text[end : end + 20]):
        return Token("poison", match[0], start, end)
    return Token("number", match[0], start, end, number)


def _with_words(tokens: list[Token]) -> list[Token]:
    """Numbers in words become numbers; `2.5 million` becomes one."""
    found: list[Token] = []
    at = 0
    while at < len(tokens):
        token = tokens[at]
        lower = token.text.lower()
        if token.kind == "word" and (lower.partition("-")[0] in WORDS):
            token, at = _spoken(tokens, at)
        elif token.kind == "word" and found and (merged := _scaled(found[-1], token, lower)):
            found[-1] = merged
            at += 1
            continue
        else:
            at += 1
        found.append(token)
    return found


def _spoken(tokens: list[Token], at: int) -> tuple[Token, int]:
    words: list[str] = []
    owners: list[int] = []
    for index in range(at, min(at + 10, len(tokens))):
        if tokens[index].kind != "word":
            break
        pieces = tokens[index].text.lower().split("-")
        words += pieces
        owners += [index] * len(pieces)
    value = spoken(words)
    if value is None or (value[1] < len(owners) and owners[value[1]] == owners[value[1] - 1]):
        return tokens[at], at + 1
    last = tokens[owners[value[1] - 1]]
    text = " ".join(words[: value[1]])
    return Token("number", text, tokens[at].start, last.end, whole(value[0], text)), owners[value[1] - 1] + 1


def _scaled(last: Token, token: Token, lower: str) -> Token | None:
    if last.kind != "number" or last.number is None or lower not in SCALES or last.number.is_percent:
        return None
    return Token("number", last.text, last.start, token.end, scaled(last.number, SCALES[lower], last.text))


def _mixed(tokens: list[Token], text: str) -> list[Token]:
    """`2 1/2` and `2½` become one number."""
    found: list[Token] = []
    at = 0
    while at < len(tokens):
        token = tokens[at]
        part, used = _fraction(tokens, at + 1, text)
        if token.number is not None and token.number.is_whole and part is not None and token.text.isdigit():
            end = tokens[at + used].end
            found.append(
                Token("number", text[token.start : end], token.start, end, whole(token.number.value + part, "1/2"))
            )
            at += used + 1
            continue
        found.append(token)
        at += 1
    return found


def _fraction(tokens: list[Token], at: int, text: str) -> tuple[Fraction | None, int]:
    """A proper fraction written without spaces at `at`, and its tokens."""
    if at < len(tokens) and tokens[at].text in VULGAR:
        return Fraction(*VULGAR[tokens[at].text]), 1
    if at + 2 < len(tokens) and tokens[at + 1].text == "/":
        top, bottom = tokens[at].number, tokens[at + 2].number
        glued = tokens[at].end == tokens[at + 1].start and tokens[at + 1].end == tokens[at + 2].start
        spaced = at > 0 and text[tokens[at - 1].end : tokens[at].start].isspace()
        if top and bottom and glued and spaced and 0 < top.value < bottom.value <= 64:
            return top.value / bottom.value, 3
    return None, 0


def is_part_word(token: Token) -> bool:
    """`half`, `third`, `quarters`."""
    return token.kind == "word" and token.text.lower() in PARTS
