"""Sums in prose, right and wrong, and what only looks like a sum."""

from __future__ import annotations

from fractions import Fraction
from random import Random

from tests.benchmarks.verify.plants.case import Case

NAMES = "Ann Bob Cat Dan Eve Finn Gus Hal Ida Jo".split()
THINGS = "apples pears books stickers marbles coins eggs pages shells cards".split()
WORDS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty".split()
OPENINGS = (
    "",
    "So ",
    "Then ",
    "Now ",
    "First, ",
    "We get ",
    "That means ",
    "Therefore, ",
    "Total: ",
    "- ",
    "1. ",
    "Step 2: ",
)


def draw(random: Random, wrong: bool) -> Case:
    if not wrong and random.random() < 0.5:
        maker = random.choice(LOOK_ALIKES)
        return Case(_around(random, maker(random)), maker.__name__)
    maker = random.choice(SUMS)
    return Case(_around(random, maker(random, wrong)), maker.__name__)


def _around(random: Random, text: str) -> str:
    before = random.choice(("", "Let us see. ", "We go step by step.\n", "The story says so. ", "It is simple. "))
    after = random.choice(("", " That is all.", "\nWe go on.", " Next, we look at the rest."))
    return before + text + after


def off(random: Random, value: int, wrong: bool) -> int:
    """The value, or one near it."""
    if not wrong:
        return value
    return value + random.choice([d for d in (-10, -2, -1, 1, 2, 3, 10, 100) if value + d >= 0 and d])


def _pair(random: Random) -> tuple[int, str, int, int]:
    sign = random.choice("+-*/")
    a, b = random.randint(2, 99), random.randint(2, 30)
    if sign == "/":
        a *= b
    if sign == "-" and a < b:
        a, b = b, a
    return a, sign, b, int({"+": a + b, "-": a - b, "*": a * b, "/": Fraction(a, b)}[sign])


def symbols(random: Random, wrong: bool) -> str:
    a, sign, b, c = _pair(random)
    shown = {"*": random.choice("*×x·"), "/": random.choice("/÷"), "-": random.choice("-−")}.get(sign, sign)
    return f"{random.choice(OPENINGS)}{a} {shown} {b} = {off(random, c, wrong)}."


def tight(random: Random, wrong: bool) -> str:
    a, sign, b, c = _pair(random)
    return f"{random.choice(OPENINGS)}{a}{sign}{b}={off(random, c, wrong)}."


def three(random: Random, wrong: bool) -> str:
    a, b, c = (random.randint(1, 60) for _ in range(3))
    return f"{random.choice(OPENINGS)}{a} + {b} + {c} = {off(random, a + b + c, wrong)}."


def brackets(random: Random, wrong: bool) -> str:
    a, b, c = (random.randint(1, 20) for _ in range(3))
    return f"({a} + {b}) * {c} = {off(random, (a + b) * c, wrong)}."


def chain(random: Random, wrong: bool) -> str:
    a, b, c = random.randint(5, 30), random.randint(2, 9), random.randint(1, 9)
    return f"{a} * {b} + {c} = {a * b} + {c} = {off(random, a * b + c, wrong)}."


def money(random: Random, wrong: bool) -> str:
    cents, count = random.randint(101, 2000), random.randint(2, 9)
    total = off(random, cents * count, wrong)
    return f"She pays {count} * ${cents / 100:.2f} = ${total / 100:.2f}."


def thousands(random: Random, wrong: bool) -> str:
    a, b = random.randint(1000, 90_000), random.randint(1000, 90_000)
    return f"{a:,} + {b:,} = {off(random, a + b, wrong):,}."


def decimals(random: Random, wrong: bool) -> str:
    a, b = random.randint(1, 99), random.randint(1, 99)
    return f"{a / 10:.1f} + {b / 10:.1f} = {off(random, a + b, wrong) / 10:.1f}."


def rounded(random: Random, wrong: bool) -> str:
    a, b = random.randint(10, 99), random.choice((3, 7, 9, 11, 13))
    value = a / b + (random.choice((0.3, -0.4, 1.1)) if wrong else 0)
    return f"{a} / {b} {random.choice(('=', '≈'))} {value:.2f}." if a % b else symbols(random, wrong)


def percent(random: Random, wrong: bool) -> str:
    share, of = random.choice((5, 10, 20, 25, 40, 50, 75)), random.randint(2, 30) * 20
    said = off(random, share * of // 100, wrong)
    return random.choice(
        (
            f"{share}% of {of} is {said}.",
            f"{share}% of {of} = {said}.",
            f"{share} percent of {of} is {said}.",
            f"{share}% * {of} = {said}.",
        )
    )


def units(random: Random, wrong: bool) -> str:
    a, b, thing = random.randint(2, 40), random.randint(2, 40), random.choice(THINGS)
    return f"{a} {thing} + {b} {thing} = {off(random, a + b, wrong)} {thing}."


def more_makes(random: Random, wrong: bool) -> str:
    a, b, thing = random.randint(2, 40), random.randint(2, 40), random.choice(THINGS)
    said = off(random, a + b, wrong)
    return random.choice(
        (
            f"{a} {thing} and {b} more makes {said}.",
            f"{a} {thing} and {b} more {thing} make {said} {thing}.",
            f"{a} and {b} make {said}.",
        )
    )


def words(random: Random, wrong: bool) -> str:
    a, b = random.randint(1, 9), random.randint(1, 9)
    said = (a + b + random.choice((-1, 1, 2))) if wrong else a + b
    return f"{WORDS[a].capitalize()} plus {WORDS[b]} {random.choice(('is', 'equals', 'makes'))} {WORDS[said]}."


def spoken(random: Random, wrong: bool) -> str:
    a, sign, b, c = _pair(random)
    word = {"+": "plus", "-": "minus", "*": random.choice(("times", "multiplied by")), "/": "divided by"}[sign]
    return f"{random.choice(OPENINGS[:7])}{a} {word} {b} {random.choice(('is', 'equals', 'gives', 'is equal to'))} {off(random, c, wrong)}."


def halves(random: Random, wrong: bool) -> str:
    word, by = random.choice((("half", 2), ("a third", 3), ("a quarter", 4), ("one fifth", 5)))
    whole = random.randint(2, 20) * by
    said = off(random, whole // by, wrong)
    return f"{word.capitalize()} of {random.choice(('', 'the '))}{whole} {random.choice(('', random.choice(THINGS) + ' '))}is {said}."


def twice(random: Random, wrong: bool) -> str:
    a = random.randint(3, 40)
    return f"{random.choice(('Twice', 'Double'))} {a} is {off(random, 2 * a, wrong)}."


def the_sum(random: Random, wrong: bool) -> str:
    a, b = random.randint(10, 60), random.randint(2, 9)
    word, value = random.choice((("sum", a + b), ("difference", a - b), ("product", a * b)))
    return f"The {word} {'between' if word == 'difference' else 'of'} {a} and {b} is {off(random, value, wrong)}."


def less_than(random: Random, wrong: bool) -> str:
    a, b = random.randint(2, 9), random.randint(10, 40)
    return random.choice(
        (f"{a} less than {b} is {off(random, b - a, wrong)}.", f"{a} more than {b} is {off(random, b + a, wrong)}.")
    )


def latex(random: Random, wrong: bool) -> str:
    a, b = random.randint(2, 20), random.randint(2, 20)
    return random.choice((
        f"\\( {a} \\times {b} = {off(random, a * b, wrong)} \\)", f"$\\frac{{{a * b}}}{{{b}}} = {off(random, a, wrong)}$",
        f"${a} + {b} = {off(random, a + b, wrong)}$", f"**{a} + {b} = {off(random, a + b, wrong)}**", f"\\[ {a} + {b} = {off(random, a + b, wrong)} \\]",
    ))  # fmt: skip


def calculator(random: Random, wrong: bool) -> str:
    a, b = random.randint(2, 20), random.randint(2, 20)
    c = off(random, a * b, wrong)
    return f"They need {a}*{b} = <<{a}*{b}={c}>>{c} boxes."


def running(random: Random, wrong: bool) -> str:
    a, b, thing, name = random.randint(12, 40), random.randint(2, 9), random.choice(THINGS), random.choice(NAMES)
    gone, got = off(random, a - b, wrong), off(random, a + b, wrong)
    return random.choice((
        f"{name} has {a} {thing}, gives away {b}, and has {gone} left.",
        f"{name} starts with {a} {thing}. Then {name} buys {b} more. Now {name} has {got}.",
        f"She had {a} {thing}, lost {b}, leaving {gone}.",
    ))  # fmt: skip


def named(random: Random, wrong: bool) -> str:
    first, second = random.sample(NAMES, 2)
    a, b = random.randint(2, 40), random.randint(2, 20)
    return f"{first} = {a}. {second} is {first} + {b}. {second} = {off(random, a + b, wrong)}."


def converted(random: Random, wrong: bool) -> str:
    hours, km = random.randint(2, 9), random.randint(2, 9)
    return random.choice(
        (
            f"{hours} hours = {off(random, hours * 60, wrong)} minutes.",
            f"{km} km + 500 m = {(km * 10 + 5 + (random.randint(1, 9) if wrong else 0)) / 10} km.",
        )
    )


def reversed_(random: Random, wrong: bool) -> str:
    a, b = random.randint(2, 50), random.randint(2, 50)
    return f"{off(random, a + b, wrong)} = {a} + {b}."


def powers(random: Random, wrong: bool) -> str:
    a = random.randint(2, 12)
    said = off(random, a * a, wrong)
    return random.choice((f"{a}^2 = {said}.", f"{a} squared is {said}.", f"{a}² = {said}."))


SUMS = (
    symbols, tight, three, brackets, chain, money, thousands, decimals, rounded, percent, units, more_makes, words, spoken, halves,
    twice, the_sum, less_than, latex, calculator, running, named, converted, reversed_, powers,
)  # fmt: skip


def dates(random: Random) -> str:
    y, m, d = random.randint(1990, 2030), random.randint(1, 12), random.randint(1, 28)
    return random.choice(
        (
            f"It was on {y}-{m:02}-{d:02}.",
            f"{m}/{d}/{y} is {random.randint(2, 9)} days away.",
            f"{y}-{m}-{d} is {random.randint(2, 30)} days ago.",
            f"From {y}-{y + 3} is {random.randint(5, 9)} seasons.",
        )
    )


def versions(random: Random) -> str:
    a, b, c = (random.randint(0, 12) for _ in range(3))
    return random.choice(
        (
            f"Version {a}.{b}.{c} is {random.randint(2, 5)} years old.",
            f"Use v{a}.{b} = latest.",
            f"pip install foo=={a}.{b}.{c}",
            f"The host 10.{a}.{b}.{c} = gateway {b}.",
        )
    )


def times(random: Random) -> str:
    h, m = random.randint(1, 11), random.randint(10, 50)
    return random.choice(
        (
            f"At {h}:{m} + 2 = {h + 2}:{m} we left.",
            f"The ratio {h}:{m} = {2 * h}:{2 * m} holds.",
            f"{h}:{m} - {h + 1}:{m} is 2 sessions.",
        )
    )


def algebra(random: Random) -> str:
    a, b, c = (random.randint(2, 30) for _ in range(3))
    return random.choice(
        (
            f"x + {a} = {b}.",
            f"{a}x + {b} = {c}.",
            f"f({a}) + {b} = {c}.",
            f"y = {a} + x.",
            f"total - {a} = {b}.",
            f"2n + {a} = {b}, so n is known.",
            f"Let a_{a} = {b}.",
            f"log {a} + {b} = {c}.",
            f"|x - {a}| = {b}",
        )
    )


def code_lines(random: Random) -> str:
    a, b, c = (random.randint(2, 30) for _ in range(3))
    return random.choice(
        (
            f"x = {a} + {b};",
            f"`{a} + {b} = {c}`",
            f"a[{a}] = {b}",
            f"for i in range({a}): total += {b}",
            f"```\n{a} + {b} = {c}\n```",
            f"print({a} + {b}) = {c}",
            f"assert {a} + {b} == {c}",
        )
    )


def doubts(random: Random) -> str:
    a, b = random.randint(2, 30), random.randint(2, 30)
    c = a + b + random.randint(1, 5)
    return random.choice(
        (
            f"Is {a} + {b} = {c}?",
            f"It is not true that {a} + {b} = {c}.",
            f"{a} + {b} = {c} is wrong.",
            f"{a} + {b} ≠ {c}.",
            f"Suppose {a} + {b} = {c}.",
            f"If {a} + {b} = {c}, it would fail.",
            f"{a} + {b} is not {c}.",
            f"{a} + {b} = {c}? No.",
        )
    )


def remainders(random: Random) -> str:
    b, q = random.randint(3, 9), random.randint(2, 9)
    r = random.randint(1, b - 1)
    return random.choice(
        (
            f"{b * q + r} / {b} = {q} remainder {r}.",
            f"{b * q + r} ÷ {b} = {q} R {r}.",
            f"{b * q + r} = {r} (mod {b}).",
            f"{b * q + r} / {b} ≈ {q}.",
        )
    )


def comparisons(random: Random) -> str:
    a, b, c = (random.randint(2, 30) for _ in range(3))
    return random.choice(
        (
            f"{a} times as many as Bob is {b}.",
            f"He has {a} and she has {b}, the rest is {c}.",
            f"Chapters {a} and {b} make {c} pages.",
            f"{a} eggs and {b} cups of flour make {c} cookies.",
            f"{a} of {b} is {c} too many.",
            f"Room {a} is {b} doors from room {c}.",
            f"It took {a} hours; {b} is the number of {c} rooms.",
            f"{a}-{b} is {c} pages.",
            f"{a} + {b} is greater than 1.",
        )
    )


def estimates(random: Random) -> str:
    a, b = random.randint(101, 499), random.randint(3, 9)
    return random.choice(
        (
            f"{a} * {b} ≈ {round(a * b, -2)}.",
            f"{a} / 7 = {a / 7:.2f}.",
            f"{a} / 9 is about {a / 9:.0f}.",
            "2/3 = 0.66.",
            "10 / 3 = 3.33.",
            "3.33 * 3 = 10.",
            f"{a * 1000} / 7 = {round(a * 1000 / 7)}.",
        )
    )


def running_style(random: Random) -> str:
    a, b, c = (random.randint(2, 20) for _ in range(3))
    return random.choice(
        (
            f"{a} + {b} = {a + b} * {c} = {(a + b) * c}.",
            f"{a} + {b} = {a + b} and {a} * {c} = {a * c}.",
            f"Half of Bob's is {a}.",
            "80 + 10% = 88.",
            "50% + 20% = 70%.",
            "1/2 = 50%.",
            f"{a} dozen + {b} eggs = {12 * a + b} eggs.",
            "90 minutes + 30 minutes = 2 hours.",
        )
    )


def two_people(random: Random) -> str:
    a, b, c = random.randint(12, 30), random.randint(2, 9), random.randint(2, 30)
    return random.choice(
        (
            f"Ann has {a} apples. Bob gives her {b}, so now she has {a + b}.",
            f"Ann has {a} apples and {b} pears, gives away 3 apples, and has {a + b - 3} left.",
            f"She has {b} cats. Each eats {c} cans, leaving {a}.",
            f"Ann = {a}. Bob is {c}. Cat = {b}.",
            f"He had {a} dollars, spent {b} on 3 pens, and has {a - b} left.",
        )
    )


LOOK_ALIKES = (
    dates, versions, times, algebra, code_lines, doubts, remainders, comparisons, estimates, running_style, two_people,
)  # fmt: skip
