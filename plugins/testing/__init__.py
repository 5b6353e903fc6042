"""Try a plugin out: the whole proxy in one process, a provider that answers by script, time moved by hand.

    async def test_answers_are_shouted() -> None:
        result = await run_plugin(ShoutPlugin, "How are you?", upstream="fine, thanks")

        assert result.text == "FINE, THANKS"

pytest finds the fixtures by itself wherever Predawn is installed. aiohttp is imported when something runs, not before.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from predawn.plugins.testing.clock import ManualClock, settle
from predawn.plugins.testing.result import RunResult
from predawn.plugins.testing.server import RunningServer, predawn_server, scripted_server
from predawn.plugins.testing.watch import PluginMisuseError
from predawn.plugins.testing.workbench import Workbench, run_plugin, workbench
from predawn.proxy.upstreams.scripted import Answer, Received, Script, ScriptedUpstream, ToolCall

__all__ = [
    "Answer",
    "ManualClock",
    "PluginMisuseError",
    "Received",
    "RunResult",
    "RunningServer",
    "Script",
    "ScriptedUpstream",
    "ToolCall",
    "Workbench",
    "predawn_server",
    "run_plugin",
    "scripted_server",
    "settle",
    "workbench",
]


@pytest.fixture(name="run_plugin")
def _run_plugin() -> Callable[..., Any]:
    """`run_plugin`, for those who would rather not import it."""
    return run_plugin


@pytest.fixture(name="manual_clock")
def _manual_clock() -> ManualClock:
    """A clock that stands still until the test advances it."""
    return ManualClock()


@pytest.fixture(name="scripted_upstream")
def _scripted_upstream(manual_clock: ManualClock) -> Callable[..., ScriptedUpstream]:
    """Makes scripted upstreams that live by `manual_clock`: `scripted_upstream("what is said")`."""
    return partial(ScriptedUpstream, clock=manual_clock)


@pytest.fixture(name="predawn_server")
def _predawn_server() -> Callable[..., Any]:
    """Starts whole servers on free ports: `async with predawn_server({"plugins": ["shout"]}) as server:`."""
    return predawn_server
