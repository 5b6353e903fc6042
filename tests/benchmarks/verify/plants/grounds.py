"""Answers about a report: with figures and quotes that are in it, and with others."""

from __future__ import annotations

from random import Random

from tests.benchmarks.verify.plants.case import Case

QUOTES = (
    "we have never seen a year like this one",
    "the harbour will stay open all winter",
    "nobody expected the bridge to hold so long",
    "costs fell faster than we had hoped",
)
OTHERS = (
    "we have often seen a year like this one",
    "the harbour will be closed all winter",
    "everybody expected the bridge to fall",
    "costs rose faster than we had feared",
)


def draw(random: Random, wrong: bool) -> Case:
    sales, growth, shops, year = (
        random.randint(1100, 99_000),
        random.randint(11, 89),
        random.randint(12, 950),
        random.randint(1990, 2030),
    )
    millions, rate = random.randint(11, 98) / 10, random.randint(1001, 9999) / 1000
    quote = random.choice(QUOTES)
    report = (
        f"In {year} the company sold {sales:,} units, up {growth}% on the year, in {shops} shops. Income was ${millions} million. "
        f"The rate stood at {rate}. The director said: “{quote[0].upper()}{quote[1:]}, I must say.” Dated {year}-03-14."
    )
    made = (
        _wrong(random, sales, growth, shops, year, millions, rate)
        if wrong
        else _right(random, sales, growth, shops, year, millions, rate, quote)
    )
    kind, said = made
    text = (
        random.choice(("", "In short: ", "The report is clear. "))
        + said
        + random.choice(("", " That is what it says.", "\n\n1. First point\n2. Second point"))
    )
    return Case(
        text,
        kind,
        {
            "messages": [
                {"role": "system", "content": "Answer from the report."},
                {"role": "user", "content": report + "\nWhat happened?"},
            ]
        },
    )


def _right(
    random: Random, sales: int, growth: int, shops: int, year: int, millions: float, rate: float, quote: str
) -> tuple[str, str]:
    return random.choice((
        ("sales", f"It sold {random.choice((f'{sales:,}', str(sales)))} units."), ("growth", f"Sales grew by {growth} {random.choice(('percent', '%'))}."),
        ("share", f"That is growth of {growth / 100:.2f}."), ("shops", f"There are {shops} shops."), ("date", f"On March 14, {year}, it was published."),
        ("millions", f"Income was ${int(round(millions * 1_000_000)):,}."), ("rate", f"The rate was about {rate:.1f}."), ("quote", f'He said "{quote}".'),
        ("part", f"He said “{' '.join(quote.split()[:4])} … {' '.join(quote.split()[-2:])}”."), ("sum", f"{shops} + {growth} = {shops + growth}, so {shops + growth} in all."),
        ("few", f"There are {random.randint(2, 9)} reasons, see [12]."), ("scare", 'They took the "long way" home.'), ("none", "It went well, on the whole."),
        ("million", f"Income was {millions} million dollars."),
    ))  # fmt: skip


def _wrong(
    random: Random, sales: int, growth: int, shops: int, year: int, millions: float, rate: float
) -> tuple[str, str]:
    known = {sales, growth, shops, year, 14, 3}
    other = next(n for n in iter(lambda: random.randint(11, 99), 0) if n not in known and n / 10 != millions)
    return random.choice((
        ("sales", f"It sold {sales + random.choice((-1000, 10, 1, 500)):,} units."), ("growth", f"Sales grew by {other}%."), ("shops", f"There are {shops + 1000} shops."),
        ("year", f"It was in {year - 1}."), ("millions", f"Income was ${other / 10 + 10:.1f} million."), ("rate", f"The rate was {rate + 0.4:.2f}."),
        ("quote", f'The director said "{random.choice(OTHERS)}".'), ("quote", f"The director said “{random.choice(OTHERS)}”."),
        ("sum", f"{shops} + {growth} = {shops + growth + 1}, so {shops + growth + 1} in all."), ("euro", f"It cost €{other}.50."),
    ))  # fmt: skip
