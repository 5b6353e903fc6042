"""Words that mean signs: `half of`, `divided by`, `and 4 more makes`, `3 less than 10` become what they say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from predawn.plugins.verify.verifiers.numerals import PARTS, whole
from predawn.plugins.verify.verifiers.tokens import Token, is_part_word
from predawn.plugins.verify.verifiers.vocabulary import list_of, words_of

SPOKEN = "is"
"""Text of every relation in words."""
_RELATIONS = list_of(
    "is are equals equal makes make gives give leaves leave totals yields becomes was were totaling totalling making "
    "giving leaving yielding comprises"
)
_PHRASES: dict[tuple[str, ...], tuple[str, str]] = {
    ("plus",): ("sign", "+"),
    ("minus",): ("sign", "-"),
    ("times",): ("sign", "*"),
    ("multiplied", "by"): ("sign", "*"),
    ("divided", "by"): ("sign", "/"),
    ("added", "to"): ("sign", "+"),
    ("take", "away"): ("sign", "-"),
    ("squared",): ("sign", "^2"),
    ("cubed",): ("sign", "^3"),
    ("percent",): ("sign", "%"),
    ("per", "cent"): ("sign", "%"),
    ("is", "equal", "to"): ("relation", SPOKEN),
    ("are", "equal", "to"): ("relation", SPOKEN),
    ("equal", "to"): ("relation", SPOKEN),
    ("equals", "to"): ("relation", SPOKEN),
    ("comes", "to"): ("relation", SPOKEN),
    ("comes", "out", "to"): ("relation", SPOKEN),
    ("amounts", "to"): ("relation", SPOKEN),
    ("adds", "up", "to"): ("relation", SPOKEN),
    ("add", "up", "to"): ("relation", SPOKEN),
    ("results", "in"): ("relation", SPOKEN),
} | {(word,): ("relation", SPOKEN) for word in _RELATIONS}
_PHRASE_HEADS = {phrase[0] for phrase in _PHRASES}
_BEFORE_RESULT = frozenset({"exactly", "just", "simply", "then", "now", "therefore", "thus", "only"})
_TOTAL = (("a", "total", "of"), ("a", "sum", "of"), ("the", "same", "as"), ("the", "number"))
APPROXIMATE = frozenset({"about", "approximately", "roughly", "around", "nearly", "almost", "circa", "approx"})
_DETERMINERS = words_of("the his her their its those these all my our your a an that this")
_COUNTS = {"twice": 2, "double": 2, "triple": 3, "thrice": 3, "quadruple": 4}
_AGGREGATES = {"sum": "+", "total": "+", "product": "*", "difference": "-", "quotient": "/"}
_ADDS = frozenset({"makes", "make", "is", "equals", "equal", "gives", "give", "are", "totals"})
_BEFORE_SUM = words_of(
    "so then since because that thus therefore now and know with have has we as but first is find that's"
)


def signed(tokens: Sequence[Token]) -> list[Token]:
    """The tokens with words for signs, relations and shares read as such."""
    found = _joined_sums(list(tokens))
    for step in (_aggregates, _signs, _shares, _comparisons, _without_determiners):
        found = step(found)
    return found


def _lower(tokens: Sequence[Token], at: int) -> str:
    return tokens[at].text.lower() if 0 <= at < len(tokens) and tokens[at].kind == "word" else ""


def _is_number(tokens: Sequence[Token], at: int) -> bool:
    return 0 <= at < len(tokens) and tokens[at].kind == "number"


def _signs(tokens: list[Token]) -> list[Token]:
    found: list[Token] = []
    at = 0
    while at < len(tokens):
        word = _lower(tokens, at)
        length = _phrase_at(tokens, at) if word in _PHRASE_HEADS else 0
        if word == "added" and not _is_number(tokens, at + 2):
            length = 0
        if word == "times" and not _takes_factor(tokens, at + 1):
            length = 0
        if not length:
            found.append(tokens[at])
            at += 1
            continue
        kind, text = _PHRASES[tuple(_lower(tokens, at + i) for i in range(length))]
        token = replace(tokens[at], kind=kind, text=text, end=tokens[at + length - 1].end)  # type: ignore[arg-type]
        at += length
        if kind == "relation":
            at, token = _after_relation(tokens, at, token, found)
        found.append(token)
    return found


def _takes_factor(tokens: Sequence[Token], at: int) -> bool:
    """What stands there can be multiplied by: not `3 times as many`, not `10 times.`"""
    while _lower(tokens, at) in _DETERMINERS:
        at += 1
    if at >= len(tokens):
        return False
    token = tokens[at]
    return (
        token.kind in {"number", "poison"}
        or token.text in {"(", "-"}
        or is_part_word(token)
        or _lower(tokens, at) in _COUNTS
    )


def _phrase_at(tokens: Sequence[Token], at: int) -> int:
    for length in (3, 2, 1):
        if tuple(_lower(tokens, at + i) for i in range(length)) in _PHRASES:
            return length
    return 0


def _after_relation(tokens: Sequence[Token], at: int, token: Token, found: list[Token]) -> tuple[int, Token]:
    """Takes in what stands around a relation in words: `, which is exactly`, `makes a total of`."""
    while _lower(tokens, at) in _BEFORE_RESULT:
        at += 1
    for phrase in _TOTAL:
        if tuple(_lower(tokens, at + i) for i in range(len(phrase))) == phrase:
            at += len(phrase)
    if found and found[-1].kind == "word" and found[-1].text.lower() in {"which", "that", "this", "it"}:
        found.pop()
        if found and found[-1].text == ",":
            found.pop()
    elif found and found[-1].text == "," and tokens[at - 1].text.lower().endswith("ing"):
        found.pop()
    return at, token


def _shares(tokens: list[Token]) -> list[Token]:
    """`half of`, `a third of`, `two thirds of`, `20% of`, `twice`: a number and a times sign."""
    found: list[Token] = []
    at = 0
    while at < len(tokens):
        token, word = tokens[at], _lower(tokens, at)
        if token.text == "%" and token.kind == "sign" and found and found[-1].number is not None:
            last = found.pop()
            assert last.number is not None
            found.append(replace(last, end=token.end, number=replace(last.number, is_percent=True)))
            at += 1
            token = found.pop()
            at = _times(found, tokens, at - 1, token)
        elif token.number is not None and token.number.is_percent:
            at = _times(found, tokens, at, token)
        elif (after := _fraction_of(tokens, at)) > at:
            share = Fraction(token.text) / Fraction(tokens[at + 2].text)
            found += [
                replace(token, end=tokens[at + 2].end, number=whole(share, token.text)),
                replace(tokens[at + 3], kind="sign", text="of"),
            ]
            at = after
        elif word in _COUNTS:
            at = _counted(found, tokens, at, whole(_COUNTS[word], word))
        elif is_part_word(token):
            at = _part(found, tokens, at)
        else:
            found.append(token)
            at += 1
    return found


def _fraction_of(tokens: list[Token], at: int) -> int:
    """Where the number after `3/4 of the` stands; 0 where no such thing begins."""
    glued = [token.text for token in tokens[at : at + 3]]
    if len(glued) < 3 or glued[1] != "/" or not (glued[0] + glued[2]).isdigit() or _lower(tokens, at + 3) != "of":
        return 0
    if tokens[at].end != tokens[at + 2].start - 1 or not 0 < int(glued[0]) < int(glued[2]):
        return 0
    after = at + 4
    while _lower(tokens, after) in _DETERMINERS:
        after += 1
    return after if _is_number(tokens, after) else 0


def _times(found: list[Token], tokens: list[Token], at: int, token: Token) -> int:
    """Puts `token` there, and a times sign for the `of` after it."""
    found.append(token)
    if _lower(tokens, at + 1) == "of":
        found.append(replace(tokens[at + 1], kind="sign", text="of"))
        return at + 2
    return at + 1


def _counted(found: list[Token], tokens: list[Token], at: int, number: object) -> int:
    after = at + 1
    while _lower(tokens, after) in _DETERMINERS:
        after += 1
    token = tokens[at]
    if not _is_number(tokens, after):
        found.append(replace(token, kind="poison"))
        return at + 1
    found += [replace(token, kind="number", number=number), replace(token, kind="sign", text="of")]  # type: ignore[arg-type]
    return after


def _part(found: list[Token], tokens: list[Token], at: int) -> int:
    """`half of 12`, `a third of 12`, `two thirds of 12`."""
    part = Fraction(1, PARTS[tokens[at].text.lower()])
    start = tokens[at].start
    if found and found[-1].number is not None and found[-1].number.is_whole and found[-1].number.value <= 12:
        top = found[-1].number.value
        if _lower(tokens, at + 1) != "of" and found[-1].text[0].isdigit():
            found.append(replace(tokens[at], kind="poison"))
            return at + 1
        part *= top
        start = found.pop().start
    elif found and found[-1].kind == "word" and found[-1].text.lower() in {"a", "one"}:
        start = found.pop().start
    after = at + 1 + (_lower(tokens, at + 1) == "of")
    while _lower(tokens, after) in _DETERMINERS:
        after += 1
    if after == at + 1 or not (_is_number(tokens, after) or (after < len(tokens) and tokens[after].text == "(")):
        found.append(replace(tokens[at], kind="poison"))
        return at + 1
    number = whole(part, tokens[at].text)
    found += [
        Token("number", tokens[at].text, start, tokens[at].end, number),
        replace(tokens[at], kind="sign", text="of"),
    ]
    return after


def _comparisons(tokens: list[Token]) -> list[Token]:
    """`3 more than 4` is a sum; `3 less than 10`, `3 fewer than 10`, `3 subtracted from 10` a difference."""
    found: list[Token] = []
    at = 0
    while at < len(tokens):
        if _is_number(tokens, at):
            sign, second = _comparison(tokens, at + 1)
            if sign and _is_number(tokens, second):
                low, high = tokens[at], tokens[second]
                minus = replace(low, kind="sign", text=sign, number=None)
                pair = [low, minus, high] if sign == "+" else [high, minus, low]
                opened, closed = (
                    replace(low, kind="sign", text="(", number=None),
                    replace(high, kind="sign", text=")", number=None),
                )
                found += [opened, *pair, closed]
                at = second + 1
                continue
        found.append(tokens[at])
        at += 1
    return found


_COMPARED: Mapping[tuple[str, str], str] = {
    ("more", "than"): "+",
    ("greater", "than"): "+",
    ("less", "than"): "-",
    ("fewer", "than"): "-",
    ("subtracted", "from"): "-",
    ("taken", "from"): "-",
}


def _comparison(tokens: Sequence[Token], at: int) -> tuple[str, int]:
    for skip in (0, 1):
        pair = (_lower(tokens, at + skip), _lower(tokens, at + skip + 1))
        if pair in _COMPARED:
            return _COMPARED[pair], at + skip + 2
    return "", at


def _aggregates(tokens: list[Token]) -> list[Token]:
    """`the sum of 3 and 4`: the words before are gone, the `and` is a sign."""
    found: list[Token] = []
    at = 0
    while at < len(tokens):
        sign = _AGGREGATES.get(_lower(tokens, at), "")
        if sign and _lower(tokens, at + 1) in {"of", "between"} and _is_number(tokens, at + 2):
            second = next((i for i in range(at + 3, min(at + 24, len(tokens))) if _lower(tokens, i) == "and"), 0)
            listed = _listed(tokens[at + 2 : second], sign)
            if listed and _is_number(tokens, second + 1):
                if found and found[-1].kind == "word" and found[-1].text.lower() == "the":
                    found.pop()
                found += [*listed, replace(tokens[second], kind="sign", text=sign)]
                at = second + 1
                continue
        found.append(tokens[at])
        at += 1
    return found


def _listed(tokens: list[Token], sign: str) -> list[Token]:
    """`3, 4,` as `3 + 4`; empty for what cannot be so read. A difference has two numbers, no more."""
    if tokens and tokens[-1].text == ",":
        tokens = tokens[:-1]
    if any(token.kind not in {"number", "word", "sign"} and token.text != "," for token in tokens):
        return []
    commas = sum(token.text == "," for token in tokens)
    if (commas and sign in {"-", "/"}) or (not commas and len(tokens) > 3):
        return []
    return [replace(token, kind="sign", text=sign) if token.text == "," else token for token in tokens]


def _joined_sums(tokens: list[Token]) -> list[Token]:
    """`3 apples and 4 more makes`, `3 and 4 make`: the `and` is a plus where the words leave no doubt."""
    for at in range(1, len(tokens) - 2):
        if _lower(tokens, at) != "and" or not _is_number(tokens, at + 1):
            continue
        first = next((i for i in range(at - 1, max(at - 4, -1), -1) if tokens[i].kind == "number"), -1)
        after = _units_end(tokens, at + 2, lambda word: word not in _ADDS and word != "more")
        is_more = _lower(tokens, after) == "more"
        verb = _units_end(tokens, after + 1, lambda word: word not in _ADDS) if is_more else after
        if first < 0 or _lower(tokens, verb) not in _ADDS or not _is_number(tokens, verb + 1):
            continue
        lead = _lower(tokens, first - 1)
        if not is_more and ((lead and lead not in _BEFORE_SUM) or _may_be_factor(tokens, first - 1)):
            continue
        tokens[at] = replace(tokens[at], kind="sign", text="+" if is_more else "&")
        if is_more:
            return _joined_sums([*tokens[:after], *tokens[after + 1 :]])
    return tokens


def _may_be_factor(tokens: Sequence[Token], at: int) -> bool:
    return at >= 0 and (tokens[at].kind in {"sign", "number", "poison"} or tokens[at].text == ",")


def _units_end(tokens: Sequence[Token], at: int, goes_on: Callable[[str], bool]) -> int:
    """Where at most three words of a unit end."""
    end = at
    while end < at + 3 and _lower(tokens, end) and goes_on(_lower(tokens, end)):
        end += 1
    return end


def _without_determiners(tokens: list[Token]) -> list[Token]:
    return [
        token
        for at, token in enumerate(tokens)
        if not (
            token.kind == "word"
            and token.text.lower() in _DETERMINERS
            and at
            and tokens[at - 1].kind == "sign"
            and _is_number(tokens, at + 1)
        )
    ]
