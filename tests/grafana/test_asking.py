"""Queries are filled in as Grafana does it, and what Prometheus says is understood."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from grafana.asking import AskingError, Prometheus, Series, Span
from grafana.checking import silent
from tests.grafana.boards import written

SPAN = Span(1000, 1600, 15)


@contextmanager
def played(answer: Any, status: int = 200) -> Iterator[tuple[str, list[dict[str, list[str]]]]]:
    """A Prometheus that always says the same."""
    asked: list[dict[str, list[str]]] = []

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(parse_qs(urlsplit(self.path).query))
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def matrix(*values: str) -> dict[str, Any]:
    points = [[1000 + 15 * at, value] for at, value in enumerate(values)]
    return {"status": "success", "data": {"result": [{"metric": {"__name__": "x", "model": "m"}, "values": points}]}}


def test_the_rate_interval_is_four_scrapes_at_least() -> None:
    assert Span(0, 600, 15).rate_interval == 60
    assert Span(0, 86400, 15).rate_interval == 432 + 15


def test_variables_are_filled_in_and_one_that_nobody_chose_is_everything() -> None:
    prometheus = Prometheus("http://x", {"model": "a|b"})
    expr = 'rate(x{model=~"$model",job=~"$job"}[$__rate_interval]) / y[$__range]'

    assert prometheus.filled(expr, SPAN) == 'rate(x{model=~"a|b",job=~".*"}[60s]) / y[600s]'


def test_values_that_are_no_numbers_are_read_and_passed_over() -> None:
    with played(matrix("1", "NaN", "+Inf", "2")) as (url, asked):
        (line,) = Prometheus(url).over("x", SPAN)

    assert line.labels == {"model": "m"}
    assert math.isnan(line.points[1][1])
    assert [value for _, value in line.finite] == [1, 2]
    assert line.last == 2
    assert asked[0]["step"] == ["15.0"]


def test_a_line_without_a_number_has_no_last_value() -> None:
    assert Series({}, ((0.0, math.nan),)).last is None


@pytest.mark.parametrize("url", ["file:///etc/hosts", "localhost:9090", ""])
def test_only_addresses_of_the_web_are_asked(url) -> None:
    with pytest.raises(AskingError, match="is no address"):
        Prometheus(url).at("x", SPAN)


def test_a_query_that_is_refused_says_why() -> None:
    with played({"status": "error", "error": "unclosed left parenthesis"}, 400) as (url, _):
        with pytest.raises(AskingError, match="400: .*unclosed left parenthesis"):
            Prometheus(url).at("(x", SPAN)


def test_nobody_there_is_told_in_words() -> None:
    with pytest.raises(AskingError, match="did not answer"):
        Prometheus("http://127.0.0.1:9").at("x", SPAN)


@pytest.mark.parametrize(
    ("answer", "used", "why"),
    [
        ({"data": {"result": []}}, False, "no data"),
        (matrix("NaN"), True, "not a number"),
        (matrix("0", "0"), True, "only 0"),
        (matrix("0", "0"), False, None),
        (matrix("NaN"), False, None),
        (matrix("0", "1"), True, None),
    ],
)
def test_a_panel_that_shows_nothing_is_told_apart_from_one_that_shows_zero(answer, used, why) -> None:
    board = written()[0]
    board["panels"] = [next(panel for panel in board["panels"] if panel["title"] == "In flight")]
    with played(answer) as (url, _):
        found = [one.why for one in silent(board, Prometheus(url), SPAN, used=used)]

    assert found == ([why] if why else [])
