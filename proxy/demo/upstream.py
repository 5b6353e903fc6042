"""The model that the demo asks: the user's own, by OPENAI_BASE_URL, or the small one on this machine."""

from __future__ import annotations

import json
import re
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from predawn.proxy.small_model.download import SetupError
from predawn.proxy.small_model.files import cache_folder, small_model
from predawn.proxy.small_model.server import running

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import ExitStack

    from predawn.proxy.small_model.report import Report

SMALL_ALIAS = "smollm2"
SMALL_OPTIONS = {"max_tokens": 48, "temperature": 0}  # a small model rambles
_NOT_CHAT = re.compile(
    r"embed|whisper|tts|dall-e|image|audio|moderation|transcribe|realtime|rerank|davinci|babbage|sora"
)


@dataclass(frozen=True, slots=True)
class DemoUpstream:
    """What stands in the generated settings, and how the question is limited."""

    alias: str
    settings: Mapping[str, Any]
    model: str
    options: Mapping[str, Any]
    title: str

    def as_settings(self) -> dict[str, Any]:
        """The settings file of the demo, ports and state aside."""
        return {
            "upstreams": [{"name": "demo", "kind": "openai", **self.settings}],
            "models": [{"name": self.alias, "upstream": "demo", "model": self.model}],
            "plugins": ["record"],
        }


def choose(env: Mapping[str, str], report: Report, stack: ExitStack) -> DemoUpstream:
    """The user's endpoint if the environment names one, else the small model, started until `stack` closes."""
    if base_url := env.get("OPENAI_BASE_URL"):
        return users_own(base_url, env)
    model = small_model(cache_folder(), report)
    report.step("starting llama.cpp's server")
    server = stack.enter_context(running(model))
    settings = {"base_url": server.base_url, "auth": "none"}
    title = f"SmolLM2-135M-Instruct at {server.base_url}"
    return DemoUpstream(SMALL_ALIAS, settings, server.model, SMALL_OPTIONS, title)


def users_own(base_url: str, env: Mapping[str, str]) -> DemoUpstream:
    """The endpoint of OPENAI_BASE_URL, with OPENAI_MODEL or the first model it lists that looks like a chat model."""
    base_url = base_url.rstrip("/")
    if not base_url.startswith(("http://", "https://")):
        raise SetupError(f"OPENAI_BASE_URL must begin with http:// or https://, not {base_url!r}")
    key = env.get("OPENAI_API_KEY", "")
    settings: dict[str, Any] = {"base_url": base_url}
    # The key is named in the settings file, not written into it.
    settings |= {"api_key": "${OPENAI_API_KEY}"} if key else {"auth": "none"}
    if proxy := _proxy(base_url):
        settings["http_proxy"] = proxy
    model = env.get("OPENAI_MODEL") or first_chat_model(_listed_models(base_url, key), base_url)
    return DemoUpstream(model, settings, model, {}, f"{model} at {base_url}")


def first_chat_model(ids: list[str], base_url: str) -> str:
    """The first id that does not name another kind of model."""
    chosen = next((name for name in ids if not _NOT_CHAT.search(name.lower())), None)
    if chosen is None:
        raise SetupError(f"{base_url} lists no chat model; name one in OPENAI_MODEL")
    return chosen


def _listed_models(base_url: str, key: str) -> list[str]:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    request = urllib.request.Request(f"{base_url}/models", headers=headers)  # noqa: S310 - checked to be http(s)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
            return [str(entry["id"]) for entry in json.load(answer)["data"]]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise SetupError(
            f"OPENAI_BASE_URL is set, but {base_url}/models does not answer with a list of models: {exc}\n"
            "Correct it, name a model in OPENAI_MODEL, or unset OPENAI_BASE_URL to use a small model on this machine."
        ) from exc


def _proxy(base_url: str) -> str | None:
    """The HTTP proxy that the environment names for this address."""
    parts = urllib.parse.urlsplit(base_url)
    if not parts.hostname or urllib.request.proxy_bypass(parts.hostname):
        return None
    return urllib.request.getproxies().get(parts.scheme)
