"""Equations in prose: found sentence by sentence, and checked exactly. Nothing is ever evaluated as code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise, product
from typing import Literal, TypeAlias

from predawn.plugins.verify.verifiers.expressions import Percent, Sense, Side, side_after, side_before
from predawn.plugins.verify.verifiers.numerals import Number, written
from predawn.plugins.verify.verifiers.phrases import APPROXIMATE, SPOKEN, signed
from predawn.plugins.verify.verifiers.quantities import Slip
from predawn.plugins.verify.verifiers.slices import LONGEST_PIECE
from predawn.plugins.verify.verifiers.tokens import Token, tokens_of
from predawn.plugins.verify.verifiers.units import factor

_SENTENCE = re.compile(r"(?<=[.!?;])\s+|\n+")
_BULLET = re.compile(r"^\s*(?:[-*•>#]+|\(?\d{1,3}[.)]|[a-z]\)|step\s+\d+\s*[:.)])\s+", re.IGNORECASE)
_CODE_LINE = re.compile(
    r"^\s*(?:def |class |import |from \S+ import|return\b|print\(|assert |for .*:$|"
    r"while .*:$|if .*:$|elif |let |const |var |#include|//)"
    r"|[+\-*/]=|\+\+|&&|\|\||->|\w\(\)|[A-Za-z_\])]\s*=[^=]*;\s*$"
)
_DOUBT_BEFORE = re.compile(
    r"(?:\b(?:not|never|wrong\w*|incorrect\w*|false|mistake\w*|errors?|suppose|assum\w+|if|whether|pretend|imagine|"
    r"claim\w*|instead of|rather than|unless|typo|thought|unlike)|n't)(?:\s+\S+){0,3}\s*[\"'“(:]?\s*$",
    re.IGNORECASE,
)
_LABELLED_WRONG = re.compile(
    r"(?:\b(?:wrong|incorrect|false|mistake|error|myth)|[❌✗✘])\s*[:—-]\s*[\"“(]?$", re.IGNORECASE
)
_DOUBT_AFTER = re.compile(
    r"^\W*(?:(?:but|though|although|yet) )?(?:(?:which|that|this|it)\b ?)?"
    r"(?:is|was|would be|'s|are|were|can't be|cannot be)?\s*(?:obviously |clearly |simply )?"
    r"(?:wrong|incorrect|false|not\b|a mistake|impossible|a contradiction|no\b|"
    r"too (?:high|low|much|many|few|little)|off\b)",
    re.IGNORECASE,
)
_ROUNDED = re.compile(
    r"\b(?:round\w*|whole|full|complete|about|approximately|roughly|nearest|remainder|left over|leftover|remaining|"
    r"at least|at most|up to|integer|floor|ceiling|ignoring|decimal places?|estimate\w*)\b",
    re.IGNORECASE,
)
_REST = re.compile(r" ?(?:[A-Za-z]+ )?and (?:\d|an? |one )")
"""`365 / 7 = 52 weeks and 1 day`."""
_APPROXIMATE_SIGNS = frozenset("≈≅≃") | {"~="}
Rounding: TypeAlias = Literal["none", "said", "about"]
_CURRENCIES = frozenset("$€£")
_QUOTED = frozenset(('""', "“”"))
_JUDGED = frozenset({"=", "→", SPOKEN}) | _APPROXIMATE_SIGNS


@dataclass(frozen=True, slots=True)
class Equation:
    """Two sides and what stands between them."""

    text: str
    """As it stands in the sentence."""
    holds: bool
    shown: Number
    """The result as it was given; `fix` puts another in its place."""
    start: int
    """Where the equation begins in its sentence."""
    result: tuple[int, int]
    """Where the result stands in its sentence."""
    value: Fraction
    """What the result should be, in the sense nearest to what it is."""

    @property
    def right_result(self) -> str:
        return written(self.value, self.shown)


def sentences(text: str) -> Iterator[tuple[int, str]]:
    """Pieces of a text that went through `plain`, with where they begin; none is longer than `LONGEST_PIECE`."""
    at = 0
    for match in _SENTENCE.finditer(text):
        yield from _pieces(text, at, match.start())
        at = match.end()
    yield from _pieces(text, at, len(text))


def _pieces(text: str, start: int, end: int) -> Iterator[tuple[int, str]]:
    while end - start > LONGEST_PIECE:
        cut = text.rfind(" ", start + 1, start + LONGEST_PIECE)
        cut = cut if cut > start else start + LONGEST_PIECE
        yield start, text[start:cut]
        start = cut
    if start < end:
        yield start, text[start:end]


def equations(sentence: str) -> list[Equation]:
    """Every equation of one sentence of `plain` text whose sides are plain arithmetic, in order."""
    if not any(char.isdigit() for char in sentence) and not _may_be_spoken(sentence):
        return []
    if _CODE_LINE.search(sentence):
        return []
    skipped = match.end() if (match := _BULLET.match(sentence)) else 0
    offset = " " * skipped
    tokens = signed(tokens_of(offset + sentence[skipped:]))
    return list(_in_tokens(tokens, sentence))


def _may_be_spoken(sentence: str) -> bool:
    lower = sentence.lower()
    return any(
        word in lower for word in (" plus ", " minus ", " times ", " divided ", " half ", "twice ", "double ", " and ")
    )


def _in_tokens(tokens: list[Token], sentence: str) -> Iterator[Equation]:
    for at, token in enumerate(tokens):
        if token.kind != "relation" or token.text not in _JUDGED:
            continue
        first, approximate = at + 1, token.text in _APPROXIMATE_SIGNS
        while first < len(tokens) and tokens[first].text.lower() in APPROXIMATE:
            first, approximate = first + 1, True
        left, right = side_before(tokens, at), side_after(tokens, first)
        if left is None or right is None or _is_doubted(sentence, left, right, token.text):
            continue
        goes_on = any(
            later.kind == "relation" for later in tokens[first + len(right.parts) : first + len(right.parts) + 4]
        )
        approximate = approximate or _is_about(tokens, left)
        said = _ROUNDED.search(sentence, right.end, right.end + 60) is not None or (
            "/" in left.signs and _REST.match(sentence, right.end) is not None
        )
        rounding: Rounding = "about" if approximate else "said" if said else "none"
        found = _judged(left, right, sentence, symbol=token.text, rounding=rounding)
        if found is None or (not found.holds and goes_on and _runs_on(left, right)):
            continue
        yield found


def _is_about(tokens: list[Token], left: Side) -> bool:
    first = next(at for at, token in enumerate(tokens) if token.start >= left.start)
    return any(token.text.lower() in APPROXIMATE for token in tokens[max(0, first - 2) : first])


def _is_doubted(sentence: str, left: Side, right: Side, relation: str) -> bool:
    """The sentence asks, supposes or denies what the equation says, or quotes it."""
    before, after = sentence[max(0, left.start - 60) : left.start], sentence[right.end : right.end + 60]
    if _LABELLED_WRONG.search(before) or (before[-1:] + after[:1] in _QUOTED):
        return True
    clause = re.split(r"[,;:—]", before)[-1]
    if _DOUBT_BEFORE.search(clause) or _DOUBT_AFTER.match(after) or after.lstrip().startswith(("?", '"?', "”?")):
        return True
    return sentence.rstrip().endswith("?") and (relation == SPOKEN or len(after) < 40)


def _runs_on(left: Side, right: Side) -> bool:
    """`2 + 3 = 5 * 2 = 10`: the result is worked on at once, which is bad style and right arithmetic."""
    value = left.value(Sense())
    return value is not None and right.is_worked and bool(right.numbers) and right.numbers[0].value == value


def _judged(left: Side, right: Side, sentence: str, *, symbol: str, rounding: Rounding) -> Equation | None:
    if not _is_claim(left, right, symbol):
        return None
    result, work = (right, left) if right.single is not None or left.single is None else (left, right)
    senses = list(_senses(left, right))
    values = [(work.value(first), result.value(second), second) for first, second in senses]
    known = [(a, b, sense) for a, b, sense in values if a is not None and b is not None]
    if not known:
        return None
    shown = result.single or Number(Fraction(0), "")
    loose = rounding == "about" and result.single is None
    holds = any(_agrees(a, b, shown, work, sense, loose=loose, rounding=rounding) for a, b, sense in known)
    if not holds and not _is_sure(left, right):
        return None
    value, _, sense = known[0]
    if sense.percent != "plain" and shown.is_percent:
        value *= 100
    if sense.converted and (known_unit := factor(result.units[0])) is not None:
        value /= known_unit[1]
    return Equation(
        sentence[left.start : right.end].strip(), holds, shown, left.start, (result.start, result.end), value
    )


def _is_claim(left: Side, right: Side, symbol: str) -> bool:
    """Something is worked out on one side at least, and it is no date, range or score."""
    if not (left.is_worked or right.is_worked):
        return symbol == "=" and _converts(left, right)
    if symbol == SPOKEN:
        if not left.is_worked or right.single is None:
            return False
        if left.signs <= {"-", "/"} and _is_glued(left):  # a date, a range, a score
            single = right.single
            is_share = len(left.parts) == 3 and left.signs == {"/"} and not right.named_units
            return is_share and single is not None and (single.is_percent or single.decimals > 0)
    return True


def _is_glued(side: Side) -> bool:
    """Written without spaces, like a date or a range."""
    return all(first.end == second.start for first, second in pairwise(side.parts))


def _converts(left: Side, right: Side) -> bool:
    """`2 hours = 120 minutes`; not `$3 each = $12`, where nothing is converted."""
    units = [*left.named_units, *right.named_units]
    known = [factor(unit) for unit in units]
    sure = {"time", "length", "mass", "volume", "dollar"}
    return (
        len(set(units)) == 2
        and all(each is not None and each[0] in sure for each in known)
        and known[0] is not None
        and known[1] is not None
        and known[0][0] == known[1][0]
        and not {"day", "week"} & set(units)
    )


def _senses(left: Side, right: Side) -> Iterator[tuple[Sense, Sense]]:
    """Every way to read the two sides, the likeliest first; of the work, then of the result."""
    numbers = [*left.numbers, *right.numbers]
    percents: list[tuple[Percent, Percent]] = [("part", "part")]
    if any(number.is_percent for number in numbers):
        percents = _percent_senses(left, right)
    dotted = (False, True) if any(number.dotted for number in numbers) else (False,)
    converted = (False, True) if any(factor(unit) for unit in (*left.units, *right.units)) else (False,)
    if converted[-1] and not (left.is_worked or right.is_worked):
        converted = (True,)
    for (first, second), dots, conversion in product(percents, dotted, converted):
        yield Sense(first, dots, conversion), Sense(second, dots, conversion)


def _percent_senses(left: Side, right: Side) -> list[tuple[Percent, Percent]]:
    work, result = (right, left) if left.single is not None and right.single is None else (left, right)
    senses: list[tuple[Percent, Percent]] = [("part", "part")]
    in_work = any(number.is_percent for number in work.numbers)
    in_result = any(number.is_percent for number in result.numbers)
    if work.signs & {"+", "-"} and in_work:
        senses.append(("relative", "part"))
        if in_result and not work.signs & {"*", "/", "of", "^"}:
            senses.append(("plain", "plain"))
    if in_work and in_result and not work.signs & {"of"} and sum(number.is_percent for number in work.numbers) == 1:
        senses.append(("plain", "plain"))
    if in_result and not in_work and any(number.value == 100 for number in work.numbers):
        senses.append(("part", "plain"))
    return senses


def _agrees(
    exact: Fraction, given: Fraction, shown: Number, work: Side, sense: Sense, *, loose: bool, rounding: Rounding
) -> bool:
    """A result may be rounded to the digits it shows, as far as that is what people do."""
    off = abs(exact - given)
    if not off:
        return True
    if loose:
        return off <= abs(exact) / 10
    unit = shown.resolution
    if shown.is_percent and sense.percent != "plain":
        unit /= 100
    if sense.converted:
        return rounding == "about" and off <= abs(exact) / 100
    if rounding == "about":
        return off < max(unit, _last_place(given))
    is_exact = (exact / unit).denominator == 1
    if rounding == "said" and not is_exact:
        return off < unit
    if is_exact and not shown.is_rounded:
        return _was_rounded_before(given, exact, work, shown)
    if shown.decimals or shown.is_rounded or shown.is_percent:
        is_cut_off = off < unit and abs(given) < abs(exact)
        return 2 * off <= unit or is_cut_off or _was_rounded_before(given, exact, work, shown)
    if abs(exact) >= 100 * unit:
        return 2 * off <= unit
    return _was_rounded_before(given, exact, work, shown)


def _last_place(value: Fraction) -> Fraction:
    """One unit of the last digit that is not zero: 100 for 6,200."""
    if value.denominator != 1 or not value:
        return Fraction(0)
    digits = str(abs(value.numerator))
    return Fraction(10 ** (len(digits) - len(digits.rstrip("0"))))


def _was_rounded_before(given: Fraction, exact: Fraction, work: Side, shown: Number) -> bool:
    """`3.33 * 3 = 10`: what is worked with was rounded to more digits than the result shows."""
    most = max((number.decimals for number in work.numbers), default=0)
    if most < 2 or shown.decimals >= most or work.signs & {"^"}:
        return False
    if work.signs <= {"+", "-", "&", "(", ")"}:
        return abs(exact - given) <= sum((number.resolution / 2 for number in work.numbers if number.decimals >= 2), 0)
    relative = sum(
        (number.resolution / 2 / abs(number.value) for number in work.numbers if number.decimals >= 2 and number.value),
        Fraction(0),
    )
    return abs(exact - given) <= abs(exact) * relative


def _is_sure(left: Side, right: Side) -> bool:
    """What is counted does not speak against the plain reading: no apples and oranges, no hours out of minutes."""
    ours, theirs = left.named_units, right.named_units
    if any("^" in side.signs and side.parts[0].text == "-" for side in (left, right)):
        return False  # whether -3² is 9 is a matter of taste
    if any(_divides_by_a_fraction(side) or _divides_by_a_product(side) for side in (left, right)):
        return False
    if _has_variables(left, right):
        return False
    for side in (left, right):
        if len(side.named_units) > 1 and side.signs & {"+", "-", "&"}:
            return _all_one_dimension(left, right)
    if "&" in left.signs and theirs and ours and theirs != ours:
        return False
    if "&" in left.signs and theirs and not ours:
        return False
    if right.tail & ours:
        theirs = theirs & ours
    if ours and theirs and not (theirs <= ours or ours <= theirs):
        if left.signs & {"*", "/", "of"} and not any(factor(unit) for unit in theirs - _CURRENCIES):
            return True  # what is shared out, or counted in, is another thing
        return _all_one_dimension(left, right) and not (left.signs | right.signs) & {"*", "/", "of", "^"}
    return True


def _divides_by_a_fraction(side: Side) -> bool:
    """`3 / 1/2`: is that 6, or 1.5?"""
    slashes = [at for at, part in enumerate(side.parts) if part.text == "/" and 0 < at < len(side.parts) - 1]
    loose = [at for at in slashes if at < 2 or side.parts[at - 2].text != "("]
    glued = [side.parts[at - 1].end == side.parts[at].start for at in loose]
    return any(glued) and not all(glued)


def _divides_by_a_product(side: Side) -> bool:
    """`8 / 2(2 + 2)`: is that 16, or 1?"""
    texts = [part.text for part in side.parts]
    return any(texts[at] == "/" and texts[at + 2] == "(" != texts[at + 1] for at in range(len(texts) - 2))


def _has_variables(left: Side, right: Side) -> bool:
    """`4s + 16`, `2L = 14`: a letter behind a number is a unit only if it is behind all of them."""
    letters, numbers = left.letters + right.letters, len(left.numbers) + len(right.numbers)
    is_sum = bool((left.signs | right.signs) & {"+", "-"}) or any(
        side.letters and side.single for side in (left, right)
    )
    return is_sum and 0 < letters < numbers


def _all_one_dimension(left: Side, right: Side) -> bool:
    dimensions = {known[0] if (known := factor(unit)) else "" for unit in left.named_units | right.named_units}
    return len(dimensions) == 1 and dimensions != {""}


def corrected(sentence: str, equation: Equation | Slip) -> str:
    """The sentence up to the equation's result, with the right one; the full stop after it is kept."""
    start, end = equation.result
    after = sentence[end:]
    if end < equation.start + len(equation.text):  # `8 = 3 + 4`
        tail = sentence[end : equation.start + len(equation.text)]
        return sentence[:start] + equation.right_result + tail + ("." if after.rstrip().endswith(".") else "")
    stop = re.match(r"[^.,;!?\n=]{0,40}[.!]?", after)
    return sentence[:start] + equation.right_result + (stop[0] if stop else "")
