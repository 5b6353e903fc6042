"""Models are asked at start whether they obey their knob."""

from __future__ import annotations

import pytest
from tests.plugins.budget.cases import CONFIG, HARD
from tests.plugins.budget.test_budget_plugin import ask

from predawn.plugins.budget import BudgetPlugin
from predawn.plugins.budget.asking import Told, obeyed
from predawn.plugins.testing import Answer, ScriptedUpstream, settle, workbench

SETTINGS = {"probe_capabilities": True, "models": ["thinker"]}


async def found(choose):
    plugin = BudgetPlugin(BudgetPlugin.settings_type(**SETTINGS))
    scripted = ScriptedUpstream(choose=choose)
    async with workbench(plugin, upstream=scripted, config=CONFIG) as bench:
        for _ in range(50):
            await settle()
            await bench.clock.jump()
            if plugin._running.allocator.capabilities.of("thinker").obeys is not None:
                break
        result = await bench.run(ask(HARD))
    return plugin._running.allocator.capabilities.of("thinker"), result


async def test_efforts_that_are_refused_are_not_asked_for():
    def choose(received):
        effort = received.json.get("reasoning_effort")
        if effort in {"none", "minimal", "high"}:
            return Answer(status=400)
        return Answer(text="95", reasoning="well " * (50 if effort == "medium" else 5))

    capability, result = await found(choose)

    assert capability.efforts == ("low", "medium")
    assert capability.obeys
    assert result.sent.json["reasoning_effort"] == "medium"


async def test_a_knob_that_changes_nothing_is_left_alone():
    capability, result = await found(lambda _: Answer(text="95", reasoning="hm " * 20))

    assert capability.obeys is False
    assert "reasoning_effort" not in result.sent.json


async def test_one_answer_that_thinks_more_by_chance_proves_nothing():
    def choose(received):
        is_lucky = "train" in received.text and received.json["reasoning_effort"] == "high"
        return Answer(text="95", reasoning="hm " * (24 if is_lucky else 20))

    capability, _ = await found(choose)

    assert capability.obeys is False


async def test_one_answer_that_thinks_less_by_chance_disproves_nothing():
    def choose(received):
        is_high = received.json["reasoning_effort"] == "high"
        return Answer(text="95", reasoning="hm " * (60 if is_high and "train" not in received.text else 20))

    capability, _ = await found(choose)

    assert capability.obeys


async def test_a_model_that_cannot_be_asked_keeps_what_the_settings_declare():
    def choose(received):
        return Answer(status=503) if "train" in received.text else "fine"

    capability, result = await found(choose)

    assert capability.obeys is None
    assert result.sent.json["reasoning_effort"] == "high"


@pytest.mark.parametrize(
    ("least", "most", "expected"),
    [
        (Told(200, 0, 5, False), Told(200, 300, 305, False), True),
        (Told(200, 300, 305, False), Told(200, 300, 305, False), False),
        (Told(200, 0, 5, False), Told(200, 0, 300, False), True),
        (Told(200, 0, 5, False), Told(200, 0, 6, False), None),
    ],
)
def test_obedience_is_more_thought_at_more_effort(least, most, expected):
    assert obeyed(least, most) is expected
