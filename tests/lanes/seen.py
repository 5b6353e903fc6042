"""What can be seen of a story from outside, without what must differ: dates, ports, made-up ids, milliseconds."""

from __future__ import annotations

import difflib
import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec
from tests.lanes.client import Answer, read_answers
from tests.lanes.upstream import Received, Recorder

from predawn.plugins.record import RecordPlugin
from predawn.proxy.meters import Family, Histogram
from predawn.proxy.server import Server

_APART = re.compile("_seconds_total$|_lag_|_info$|^predawn_lane_")
_OWN_ID = re.compile(r"req_[0-9a-f]{24}")
_VARYING = {"date": "(date)", "openai-processing-ms": "(ms)"}
_LONGEST = 600


@dataclass(frozen=True)
class Seen:
    """One side of a story."""

    answers: list[Answer]
    rest: bytes
    is_open: bool
    """True if the server had not closed the connection when all was said."""
    received: list[Received]
    junk: list[bytes]
    left: int
    counted: Mapping[str, float]
    booked: Mapping[str, float]
    rows: Sequence[str]
    by_lane: Mapping[str, float] = field(compare=False)
    """Requests by the lane that they took: the one thing that must differ."""

    @classmethod
    def of(cls, server: Server, provider: Recorder, received: bytes, before: Books, *, is_open: bool) -> Seen:
        answers, rest = read_answers(received)
        after = Books.of(server)
        return cls(
            [_plain(answer) for answer in answers],
            rest,
            is_open,
            [_without_port(request, provider.port) for request in provider.requests],
            [junk.replace(b":%d" % provider.port, b":(port)") for junk in provider.junk],
            provider.left,
            _grown(before.counted, after.counted),
            _grown(before.booked, after.booked),
            sorted(after.rows[len(before.rows) :]),
            _grown(before.by_lane, after.by_lane),
        )

    @property
    def took_fast(self) -> int:
        """Requests that the fast lane answered."""
        return int(self.by_lane.get("fast", 0))

    @property
    def statuses(self) -> list[int]:
        return [answer.status for answer in self.answers]

    @property
    def answer(self) -> Answer:
        """The only one."""
        (answer,) = self.answers
        return answer

    @property
    def asked(self) -> Received:
        """The only request that the provider got."""
        (request,) = self.received
        return request

    def count(self, name: str, **labels: str) -> float:
        """How much the samples grew that have this name and these labels."""
        wanted = [f"{label}={value}" for label, value in labels.items()]
        return sum(
            grown
            for sample, grown in self.counted.items()
            if sample.partition("{")[0] == name
            and all(re.search(f"[{{,]{re.escape(label)}[,}}]", sample) for label in wanted)
        )

    def text(self) -> str:
        """All of it, line by line."""
        lines: list[str] = []
        for answer in self.answers:
            lines += [f"answer {answer.line}{'' if answer.whole else ' (not whole)'}"]
            lines += _told(answer.headers, answer.body)
        lines += [f"rest {self.rest!r}", f"connection {'open' if self.is_open else 'closed'}"]
        # which of two answered at the same time was asked first is nobody's business
        lines += [line for told in sorted(_told_request(request) for request in self.received) for line in told]
        lines += [f"junk {junk!r}" for junk in self.junk]
        lines += [f"left {self.left}"]
        lines += [f"counted {name} {value:g}" for name, value in sorted(self.counted.items())]
        lines += [f"booked {name} {value:g}" for name, value in sorted(self.booked.items())]
        lines += [f"row {line}" for row in self.rows for line in row.splitlines()]
        return "\n".join(lines)


def difference(one: Seen, other: Seen) -> str:
    """The lines that are not the same; empty if there are none."""
    if one == other:
        return ""
    mine, theirs = one.text().splitlines(), other.text().splitlines()
    return "\n".join(line[:_LONGEST] for line in difflib.unified_diff(mine, theirs, "fast", "full", lineterm="", n=2))


def _told_request(request: Received) -> list[str]:
    return [f"asked {request.line}", *_told(request.headers, request.body)]


def _told(headers: tuple[tuple[str, str], ...], body: bytes) -> list[str]:
    by_name: dict[str, list[str]] = defaultdict(list)
    for name, value in headers:
        by_name[name].append(value)
    lines = [f"  {name}: {value}" for name in sorted(by_name) for value in by_name[name]]
    return [*lines, *(f"  | {line!r}" for line in body.splitlines(keepends=True))]


def _plain(answer: Answer) -> Answer:
    headers = [(name, _OWN_ID.sub("(id)", _VARYING.get(name, value))) for name, value in answer.headers]
    return Answer(answer.line, tuple(headers), answer.body, answer.whole)


def _without_port(request: Received, port: int) -> Received:
    headers = [(name, value.replace(f":{port}", ":(port)")) for name, value in request.headers]
    return Received(request.line, tuple(headers), request.body)


def counted(server: Server) -> dict[str, float]:
    """Every sample of the metrics that does not depend on how long something took."""
    found: dict[str, float] = {}
    server._shared.metrics.postponed.settle()
    for family in vars(server._shared.metrics).values():
        if not isinstance(family, Family) or _APART.search(family.name):
            continue
        for values, child in family.children.items():
            count = sum(child.counts) if isinstance(child, Histogram) else child.value
            if count:
                found[f"{family.name}{{{','.join(map('{}={}'.format, family.labels, values))}}}"] = count
    return found


def booked(server: Server) -> dict[str, float]:
    """What was used by each key; nothing of it is written while the clock stands still."""
    server._shared.metrics.postponed.settle()
    book = server._shared.access._book
    book.collect_all()
    return {
        f"{tenant} {key_id} {name}": value
        for (_, tenant, key_id), usage in book._booked.items()
        for name, value in asdict(usage).items()
        if value
    }


def recorded(server: Server) -> list[str]:
    """What `record` is about to write, if it is there."""
    return [
        _row(snapshot.row())
        for plugin in server.app.generation.hooks.plugins
        if isinstance(plugin, RecordPlugin)
        for snapshot in plugin.writer.waiting()
    ]


def forget_rows(server: Server) -> None:
    """Have nothing to write, so that rows are not written while they are looked at."""
    for plugin in server.app.generation.hooks.plugins:
        if isinstance(plugin, RecordPlugin):
            plugin.writer._buffer.clear()


def _row(row: dict[str, Any]) -> str:
    record = json.loads(msgspec.json.encode(row.pop("record")))
    for timed in (*record["calls"], *record["decisions"]):
        timed.update(dict.fromkeys(timed.keys() & {"seconds", "started_s", "at_s"}, 0))
    record["ledger"] = {name: value for name, value in record["ledger"].items() if not name.endswith("_s")}
    row.update(arrived_at=0, total_s=0, slept=0, id=_OWN_ID.sub("(id)", row["id"]), record=record)
    return json.dumps(row, sort_keys=True, default=repr, indent=1)


@dataclass(frozen=True)
class Books:
    """All that a server has counted so far."""

    counted: Mapping[str, float]
    booked: Mapping[str, float]
    rows: Sequence[str]
    by_lane: Mapping[str, float]

    @classmethod
    def of(cls, server: Server) -> Books:
        lanes = server._shared.metrics.lane_requests.children
        by_lane = {lane: counter.value for (lane,), counter in lanes.items()}
        return cls(counted(server), booked(server), recorded(server), by_lane)


def _grown(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    grown = {name: after.get(name, 0) - before.get(name, 0) for name in before.keys() | after.keys()}
    return {name: value for name, value in grown.items() if value}
