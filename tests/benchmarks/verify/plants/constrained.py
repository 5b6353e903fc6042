"""Assignments that keep to declared constraints, and assignments that break one."""

from __future__ import annotations

from random import Random
from typing import Any

from tests.benchmarks.verify.plants.case import Case

OPTIONS: dict[str, Any] = {
    "variables": {
        "desks": {"minimum": 0, "maximum": 40}, "chairs": {"minimum": 0}, "lamps": {"minimum": 1}, "express": {"kind": "bool"},
        "price": {"kind": "real", "minimum": 0},
    },
    "constraints": ["chairs >= 2 * desks", "desks + chairs + lamps <= 100", "implies(express, price >= 50)", "lamps != desks", "3*desks + 0.5*chairs <= 90"],
}  # fmt: skip


def _holds(v: dict[str, Any]) -> bool:
    desks, chairs, lamps = v["desks"], v["chairs"], v["lamps"]
    return (
        0 <= desks <= 40
        and chairs >= 2 * desks
        and lamps >= 1
        and desks + chairs + lamps <= 100
        and (not v["express"] or v["price"] >= 50)
        and lamps != desks
        and 3 * desks + chairs / 2 <= 90
    )


def draw(random: Random, wrong: bool) -> Case:
    while True:
        desks = random.randint(0, 30)
        values = {
            "desks": desks,
            "chairs": random.randint(0, 80),
            "lamps": random.randint(1, 30),
            "express": random.random() < 0.5,
            "price": random.choice((10, 49.5, 50, 99.99, 120)),
        }
        if _holds(values) != wrong:
            break
    form = random.choice(("lines", "json", "prose"))
    shown = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in values.items()}
    if form == "json":
        text = "{" + ", ".join(f'"{name}": {value}' for name, value in shown.items()) + "}"
    elif form == "lines":
        text = "\n".join(
            f"{random.choice(('', '- ', '* '))}{name} {random.choice('=:')} {value}" for name, value in shown.items()
        )
    else:
        text = "; ".join(f"{name} is {value}" for name, value in shown.items()) + "."
    noise = random.choice(
        (
            "",
            "We have 12 tables and desks in 3 rooms.\n",
            "Recall: desks + chairs <= 100.\n",
            "With x = 500 unrelated.\n",
        )
    )
    return Case(noise + text, form, {}, OPTIONS)
