"""Reads what the server wrote down, straight from its database, without going through the code under test."""

import json
import sqlite3
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(slots=True)
class Book:
    """Sums over the exchanges of one client key."""

    rows: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    ok_tokens: int = 0
    other_tokens: int = 0
    calls: int = 0
    call_outcomes: Counter[str] = field(default_factory=Counter)
    estimated: int = 0

    def add(self, outcome: str, tokens: int, estimated: bool, calls: list[dict[str, Any]]) -> None:
        self.rows += 1
        self.outcomes[outcome] += 1
        if outcome == "ok":
            self.ok_tokens += tokens
        else:
            self.other_tokens += tokens
        self.calls += len(calls)
        self.call_outcomes.update(call["outcome"] for call in calls)
        self.estimated += estimated

    def as_json(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "outcomes": dict(self.outcomes),
            "tokens_of_ok": self.ok_tokens,
            "tokens_of_others": self.other_tokens,
            "calls": self.calls,
            "call_outcomes": dict(self.call_outcomes),
            "rows_with_estimated_tokens": self.estimated,
        }


def read(database: Path) -> dict[str, Book]:
    """A book per key name."""
    books: dict[str, Book] = {}
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        query = "SELECT keys.name, outcome, output, estimated, record FROM exchanges LEFT JOIN keys ON keys.id = exchanges.key_id"
        for name, outcome, output, estimated, record in connection.execute(query):
            book = books.setdefault(name or "no key", Book())
            book.add(outcome, output, bool(estimated), json.loads(record)["calls"])
    return books


def count(database: Path) -> int:
    """Rows so far."""
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        return int(connection.execute("SELECT count(*) FROM exchanges").fetchone()[0])
