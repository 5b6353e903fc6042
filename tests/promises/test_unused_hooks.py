"""A hook that a built-in plugin says it does not use would do nothing if it were called; and one that works is used."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping
from typing import Any, get_args

import pytest

from predawn.plugins import Exchange, Plugin, Reply
from predawn.proxy.dispatch import REQUEST_HOOKS, Hooks
from predawn.proxy.exchange import RouteName
from predawn.proxy.loading import BUILT_IN, find, register

BODY = b'{"model": "m", "messages": [{"role": "user", "content": "mail me: ann@example.com"}]}'
REPLY = Reply(200, {})
SETTINGS: Mapping[str, list[dict[str, Any]]] = {
    "record": [{}, {"record_content": True}],
    "redact": [{}, {"requests": True}],
    "traces": [{}, {"record_content": True}, {"ratio": 0.0}],
}
CASES = [(name, given) for name in BUILT_IN for given in SETTINGS.get(name, [{}])]


def plugin_of(name: str, given: Mapping[str, Any]) -> Plugin[Any]:
    kind = find()[name].load()
    return kind(kind.settings_type.model_validate(given))


def implemented(plugin: Plugin[Any]) -> set[str]:
    return {hook for hook in REQUEST_HOOKS if hasattr(plugin, hook)}


def called(plugin: Plugin[Any], hook: str, exchange: Exchange) -> Any:
    async def call_next(_exchange: Exchange) -> Reply:
        return REPLY

    given = (exchange, call_next) if hook == "around_completion" else (exchange,)
    result = getattr(plugin, hook)(*given)

    async def awaited() -> Any:
        return await result

    return asyncio.run(awaited()) if inspect.isawaitable(result) else result


def shown(exchange: Exchange) -> dict[str, Any]:
    return {name: repr(getattr(exchange, name)) for name in Exchange.__slots__ if name != "_request"}


@pytest.mark.parametrize(("name", "given"), CASES, ids=lambda case: str(case))
@pytest.mark.parametrize("disabled", ["", "true"], ids=["telemetry", "no telemetry"])
def test_an_unused_hook_would_do_nothing(
    name: str, given: dict[str, Any], disabled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", disabled)
    plugin = plugin_of(name, given)
    assert plugin.unused_hooks <= implemented(plugin)

    for hook in plugin.unused_hooks:
        for route in get_args(RouteName):
            exchange = Exchange(BODY, model="m", route=route)
            before = shown(exchange)

            assert called(plugin, hook, exchange) is (REPLY if hook == "around_completion" else None)
            assert shown(exchange) == before


@pytest.mark.parametrize(
    ("name", "given", "unused"),
    [
        ("record", {}, {"chunk_filter"}),
        ("record", {"record_content": True}, set()),
        ("redact", {}, {"on_request"}),
        ("redact", {"requests": True}, set()),
        ("traces", {}, {"chunk_filter"}),
        ("traces", {"record_content": True}, set()),
    ],
)
def test_what_the_settings_leave_without_work_is_not_used(
    name: str, given: dict[str, Any], unused: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OTEL_SDK_DISABLED", raising=False)

    assert plugin_of(name, given).unused_hooks == unused


def test_plugins_of_another_model_leave_nothing_to_call() -> None:
    settings = {name: {"models": ["another"]} for name in BUILT_IN}
    hooks = Hooks(register([(name, plugin_of(name, given)) for name, given in settings.items()]))

    async def send(_exchange: Exchange) -> Reply:
        return REPLY

    pipeline = hooks.pipeline("m", send)
    assert pipeline.is_plain
    assert pipeline.complete is send
    assert not pipeline.wants_usage
    assert not any(observer.serves("m") for observer in hooks.observers)
