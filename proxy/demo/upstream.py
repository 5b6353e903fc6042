"""The model that the demo asks: the bundled one, the user's own by OPENAI_BASE_URL, or a small one that is fetched."""

from __future__ import annotations

import json
import re
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from predawn.proxy.demo.questions import CAPITAL, STORIES, Question
from predawn.proxy.small_model.download import SetupError
from predawn.proxy.small_model.files import cache_folder, small_model
from predawn.proxy.small_model.server import running

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import ExitStack

    from predawn.proxy.small_model.report import Report

BUNDLED = "predawn-tiny"
SMALL_ALIAS = "smollm2"
SMALL_OPTIONS = {"max_tokens": 48, "temperature": 0}  # a small model rambles
_NOT_CHAT = re.compile(
    r"embed|whisper|tts|dall-e|image|audio|moderation|transcribe|realtime|rerank|davinci|babbage|sora"
)


@dataclass(frozen=True, slots=True)
class DemoUpstream:
    """What stands in the generated settings, and what is asked."""

    alias: str
    settings: Mapping[str, Any]
    """Of the upstream, its name aside."""
    title: str
    model: str | None = None
    """The model's name there, if it is not the alias."""
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Members of a request whose question is the user's."""
    questions: tuple[Question, ...] = (Question("question", CAPITAL),)

    def as_settings(self) -> dict[str, Any]:
        """The settings file of the demo, ports and state aside."""
        return {
            "upstreams": [{"name": "demo", **self.settings}],
            "models": [{"name": self.alias, "upstream": "demo", "model": self.model}],
            "plugins": ["record"],
        }

    def questions_for(self, wished: str | None) -> tuple[Question, ...]:
        """The user's question, or those that go with the model."""
        return self.questions if wished is None else (Question("your question", wished, self.options),)


def choose(wished: str | None, env: Mapping[str, str], report: Report, stack: ExitStack) -> DemoUpstream:
    """The model that is wished for, else the user's endpoint if the environment names one, else the bundled model.

    What has to be started for it runs until `stack` closes.
    """
    if wished == SMALL_ALIAS:
        return small(report, stack)
    if wished is None and (base_url := env.get("OPENAI_BASE_URL")):
        return users_own(base_url, env)
    title = f"{BUNDLED}, the model that comes with it, on this machine"
    return DemoUpstream(BUNDLED, {"kind": "local"}, title, options={"temperature": 0}, questions=STORIES)


def small(report: Report, stack: ExitStack) -> DemoUpstream:
    """SmolLM2, fetched on first use, behind llama.cpp's server."""
    model = small_model(cache_folder(), report)
    report.step("starting llama.cpp's server")
    server = stack.enter_context(running(model))
    settings = {"base_url": server.base_url, "auth": "none"}
    title = f"SmolLM2-135M-Instruct at {server.base_url}"
    questions = (Question("question", CAPITAL, SMALL_OPTIONS),)
    return DemoUpstream(SMALL_ALIAS, settings, title, server.model, SMALL_OPTIONS, questions)


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
    return DemoUpstream(model, settings, f"{model} at {base_url}")


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
            "Correct it, name a model in OPENAI_MODEL, or unset OPENAI_BASE_URL to use Predawn's own model."
        ) from exc


def _proxy(base_url: str) -> str | None:
    """The HTTP proxy that the environment names for this address."""
    parts = urllib.parse.urlsplit(base_url)
    if not parts.hostname or urllib.request.proxy_bypass(parts.hostname):
        return None
    return urllib.request.getproxies().get(parts.scheme)
