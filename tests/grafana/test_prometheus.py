"""Every panel against a real Prometheus that scrapes a real Predawn: fresh, and after everything has happened."""

from __future__ import annotations

import asyncio
import copy
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from grafana.asking import Prometheus, Span
from grafana.boards.common import EXEMPLARS
from grafana.checking import Silence, silent
from tests.grafana.allowed import MAY_BE_SILENT
from tests.grafana.boards import panels, written
from tests.grafana.stand import MISSING, SCRAPE_S, Stand, prometheus, scraped, stand
from tests.grafana.traffic import Traffic

from predawn.proxy.local_server import serving

pytestmark = [pytest.mark.prometheus, pytest.mark.timeout(600), pytest.mark.asyncio(loop_scope="module")]
BUSY_S = 90
BOARDS = written()


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    if shutil.which("prometheus") is None or shutil.which("promtool") is None:
        pytest.fail(MISSING)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def used(tmp_path_factory) -> AsyncIterator[tuple[Stand, Span]]:
    """Everything on, and everything has happened."""
    async with stand(tmp_path_factory.mktemp("stand")) as running, aiohttp.ClientSession() as session:
        traffic = Traffic(running, session)
        await traffic.run(BUSY_S)
        await asyncio.sleep(2 * SCRAPE_S)
        assert {200, 400, 401, 404, 429, 503} <= traffic.statuses.keys(), traffic.statuses
        yield running, running.span(BUSY_S + 5)


@asynccontextmanager
async def fresh(folder: Path) -> AsyncIterator[Prometheus]:
    """A Predawn without any plugin that nobody has asked anything."""
    settings = {
        "upstreams": [{"name": "scripted", "kind": "scripted"}],
        "models": [{"name": "m", "upstream": "scripted"}],
    }
    with serving(settings, folder=folder) as running, prometheus(folder, running.admin_url) as url:
        asked = Prometheus(url)
        await asyncio.to_thread(scraped, asked)
        yield asked


def silences(board: dict[str, Any], asked: Prometheus, span: Span, *, used: bool) -> list[Silence]:
    return list(silent(board, asked, span, used=used))


async def test_a_fresh_install_shows_zeros_and_never_no_data(tmp_path) -> None:
    async with fresh(tmp_path) as asked:
        now = time.time()
        found = [one for board in BOARDS for one in silences(board, asked, Span(now - 3, now, SCRAPE_S), used=False)]

        assert [str(one) for one in found] == []


async def test_every_query_tells_something_once_everything_has_happened(used) -> None:
    running, span = used
    found = [one for board in BOARDS for one in silences(board, running.prometheus, span, used=True)]
    unexpected = [str(one) for one in found if (one.board, one.panel, one.legend) not in MAY_BE_SILENT]

    assert unexpected == []


async def test_whoever_may_be_silent_is_there() -> None:
    there = {
        (board["uid"], panel["title"], target["legendFormat"])
        for board in BOARDS
        for panel in panels(board)
        for target in panel["targets"]
    }

    assert set(MAY_BE_SILENT) <= there


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ("predawn_requests_total", "predawn_reqests_total", "no data"),
        ('job=~"$job"', 'job="elsewhere"', "no data"),
        ("$__rate_interval", "1ms", "no data"),
        ("sum by (code)", "sum by (code", "400"),
        ("sum by (code) (", "0 * sum by (code) (", "only 0"),
    ],
)
async def test_a_panel_that_was_broken_on_purpose_is_caught(used, before, after, why) -> None:
    running, span = used
    board = copy.deepcopy(BOARDS[0])
    panel = next(panel for panel in panels(board) if panel["title"] == "Requests by status")
    board["panels"] = [panel]
    target = panel["targets"][0]
    assert before in target["expr"]
    target["expr"] = target["expr"].replace(before, after)

    (found,) = silences(board, running.prometheus, span, used=True)

    assert (found.panel, found.legend) == ("Requests by status", "{{code}}")
    assert found.why.startswith(why)


async def test_a_chosen_model_narrows_a_panel_down(used) -> None:
    running, span = used
    panel = next(panel for panel in panels(BOARDS[0]) if panel["title"] == "Time to first token by model, p95")
    chosen = Prometheus(running.prometheus.url, {"model": "m|tiny"})

    assert {one.labels["model"] for one in chosen.over(panel["targets"][0]["expr"], span)} == {"m", "tiny"}


async def test_the_variables_have_values(used) -> None:
    running, _ = used
    labels = {
        name: set(running.prometheus.get(f"label/{name}/values", {})) for name in ("model", "upstream", "tenant_class")
    }

    assert {"m", "shaky", "tiny", "other"} <= labels["model"]
    assert {"provider", "local", "none"} <= labels["upstream"]
    assert {"gold", "default", "none"} <= labels["tenant_class"]


@pytest.mark.parametrize("metric", sorted(EXEMPLARS))
async def test_points_on_a_heatmap_lead_to_their_exchange(used, metric) -> None:
    running, span = used
    asked = {"query": f"predawn_{metric}_bucket", "start": span.start, "end": span.end}
    found = running.prometheus.get("query_exemplars", asked)

    assert {name for one in found for point in one["exemplars"] for name in point["labels"]} == {"exchange_id"}


async def test_the_rules_are_loaded_and_evaluated_without_an_error(used) -> None:
    running, _ = used
    groups = running.prometheus.get("rules", {})["groups"]
    health = {rule["name"]: (rule["health"], rule.get("lastError", "")) for group in groups for rule in group["rules"]}

    assert len(health) >= 20
    assert {name: told for name, told in health.items() if told != ("ok", "")} == {}


async def test_every_dashboard_can_be_drawn(used, tmp_path) -> None:
    from grafana.render.__main__ import pictures

    running, span = used
    drawn = await asyncio.to_thread(pictures, running.prometheus, span, tmp_path)

    assert [path.name for path in drawn] == [
        "budgets.png",
        "overview.png",
        "first-rows.png",
        "runtime.png",
        "sleep.png",
        "verification.png",
    ]
    assert all(path.stat().st_size > 20_000 for path in drawn)
