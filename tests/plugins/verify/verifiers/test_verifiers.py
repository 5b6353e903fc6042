"""The built-in verifiers as a whole: made by name, told of on their page, and at work in the plugin."""

import json
import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from predawn.plugins.testing import run_plugin
from predawn.plugins.verify import VerifyPlugin
from predawn.plugins.verify.verifiers import BUILT_IN, AsksModel, create
from predawn.plugins.verify.verifiers.settings import PatternRule, PolicyRule, VariableSettings
from predawn.proxy.extensions import BOUNDARIES

PAGE = (Path(__file__).parents[4] / "docs" / "verifiers.md").read_text(encoding="utf-8")
MODELS: dict[str, list[type[BaseModel]]] = {name: [built_in.settings_type] for name, built_in in BUILT_IN.items()}
MODELS["tool_call"].append(PolicyRule)
MODELS["regex"].append(PatternRule)
MODELS["constraints"].append(VariableSettings)


@pytest.mark.parametrize("name", BUILT_IN)
def test_each_is_made_by_its_name(name):
    verifier = create(name)

    assert verifier.name == name
    assert callable(verifier.boundary) or verifier.boundary in BOUNDARIES
    assert verifier.fails in {"open", "closed"}


@pytest.mark.parametrize("name", BUILT_IN)
def test_each_has_a_section_that_names_every_setting_and_what_it_cannot_see(name):
    section = PAGE.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    common = {"timeout_s", "fails"}
    settings = {field for model in MODELS[name] for field in model.model_fields} - common

    assert sorted(field for field in settings if not re.search(rf"\b{field}\b", section)) == []
    assert "**It cannot see**" in section


@pytest.mark.parametrize("name", BUILT_IN)
def test_each_setting_is_described(name):
    assert [field for model in MODELS[name] for field, info in model.model_fields.items() if not info.description] == []


@pytest.mark.parametrize(
    ("name", "options", "message"), [("magic", {}, "not built in"), ("regex", {"musst": []}, "musst")]
)
def test_what_cannot_be_made_is_told(name, options, message):
    with pytest.raises(ValueError, match=message):
        create(name, options)


def test_those_that_ask_a_model_say_so():
    assert [name for name in BUILT_IN if isinstance(create(name), AsksModel)] == ["judge"]


async def test_they_are_at_work_in_the_plugin():
    settings = {"verifiers": ["arithmetic", {"regex": {"must_not": ["bluebird"]}}], "mode": "observe"}
    result = await run_plugin(VerifyPlugin, "How many?", upstream="3 + 4 = 8. All is fine.", settings=settings)

    told = {verdict.verifier: verdict.outcome for verdict in result.exchange.verdicts if verdict.outcome == "violation"}
    assert told == {"arithmetic": "violation"}


async def test_the_judge_asks_through_the_server():
    settings = {"verifiers": ["judge"], "mode": "observe"}
    result = await run_plugin(VerifyPlugin, "How many?", upstream="1: wrong - because", settings=settings)

    assert json.dumps([verdict.feedback for verdict in result.exchange.verdicts]) == '["because"]'
