"""Where a script is played: picks each request's answer, keeps what arrived, counts what was generated."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
from multidict import CIMultiDict

from predawn.proxy.upstreams.scripted import chat, completions, embeddings, messages, plan, responses
from predawn.proxy.upstreams.scripted.script import Answer, Script, ScriptError, overrides
from predawn.proxy.upstreams.scripted.speech import Ask, Events, Speech, speak

if TYPE_CHECKING:
    from predawn.proxy.exchange import RouteName
    from predawn.proxy.upstreams.scripted.plan import Plan, Step

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode

MOST_CHOICES = 128


@dataclass(frozen=True, slots=True)
class Api:
    """One API's words for a speech."""

    understand: Callable[[Mapping[str, Any]], Ask]
    whole: Callable[[Ask, Speech], dict[str, Any]]
    events: Callable[[Ask, Speech], Events]
    required: tuple[str, ...]


APIS: Mapping[str, Api] = {
    "chat": Api(chat.understand, chat.whole, chat.events, ("model", "messages")),
    "completions": Api(completions.understand, completions.whole, completions.events, ("model", "prompt")),
    "responses": Api(responses.understand, responses.whole, responses.events, ("model", "input")),
    "messages": Api(messages.understand, messages.whole, messages.events, ("model", "messages", "max_tokens")),
}
ROUTES: Mapping[str, RouteName] = {
    "/chat/completions": "chat",
    "/completions": "completions",
    "/responses": "responses",
    "/embeddings": "embeddings",
    "/messages": "messages",
}


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it arrived."""

    method: str
    path: str
    """Below `/v1`, with its query string."""
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The decoded body."""
        return _decode(self.body)

    @property
    def text(self) -> str:
        """The text of the last message; empty if there is none."""
        said = self.json.get("messages") or [{}]
        content = said[-1].get("content")
        if isinstance(content, list):
            return "".join(part.get("text", "") for part in content)
        return content or ""


@dataclass(slots=True)
class Counts:
    """What was asked of a fake and what it did; `opened == closed + in_flight` at any time."""

    requests: int = 0
    opened: int = 0
    closed: int = 0
    """Each reply is closed exactly once, however often `aclose` is called."""
    finished: int = 0
    """Closed after everything was said."""
    failed: int = 0
    """Closed after a fault of the script."""
    cut: int = 0
    """Closed by the other side before the end."""
    in_flight: int = 0
    most_in_flight: int = 0
    writes: int = 0
    bytes: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    """Generated, whether anybody heard of it or not."""
    reported_tokens: int = 0
    """Output tokens of the replies that were read to their end."""
    statuses: dict[int, int] = field(default_factory=dict[int, int])

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Opened:
    """One reply on stage; whoever performs it says what was sent and closes it."""

    __slots__ = ("_counts", "_open", "_plan")

    def __init__(self, counts: Counts, performed: Plan) -> None:
        self._counts = counts
        self._plan = performed
        self._open = True
        counts.opened += 1
        counts.in_flight += 1
        counts.most_in_flight = max(counts.most_in_flight, counts.in_flight)
        counts.prompt_tokens += performed.prompt_tokens
        counts.statuses[performed.status] = counts.statuses.get(performed.status, 0) + 1

    def sent(self, step: Step) -> None:
        counts = self._counts
        counts.output_tokens += step.tokens
        if step.data:
            counts.writes += 1
            counts.bytes += len(step.data)

    def close(self, *, finished: bool) -> None:
        """Say that the reply is over: `finished` if the plan was performed to its end. Again does nothing."""
        if not self._open:
            return
        self._open = False
        counts = self._counts
        counts.closed += 1
        counts.in_flight -= 1
        if not finished:
            counts.cut += 1
        elif self._plan.end == "clean":
            counts.finished += 1
            counts.reported_tokens += self._plan.reported_tokens
        else:
            counts.failed += 1


Choose: TypeAlias = Callable[[Received], Answer | str | None]
"""Picks the answer to a request; `None` leaves it to the script."""


class Stage:
    """Plays one script to any number of requests."""

    def __init__(self, script: Script, *, choose: Choose | None = None, keep: int = 1000) -> None:
        self.script = script
        self.counts = Counts()
        self.requests: list[Received] = []
        """The latest requests, at most twice `keep` of them."""
        self._choose = choose
        self._keep = keep
        self._played = 0
        self._draw = random.Random(script.seed)  # noqa: S311 - faults, not secrets

    def receive(self, received: Received) -> Plan:
        """Keep a request and work out what it gets."""
        performed = self._plan(received)
        headers: CIMultiDict[str] = CIMultiDict({"x-request-id": f"req_scripted_{self.counts.requests}"})
        headers.update(performed.headers)
        return replace(performed, headers=headers)

    def _plan(self, received: Received) -> Plan:
        self.counts.requests += 1
        self.requests.append(received)
        if len(self.requests) > 2 * self._keep:
            del self.requests[: self._keep]
        route = ROUTES.get(received.path.partition("?")[0].rstrip("/"))
        try:
            if received.method != "POST" or route is None:
                return self._other(received)
            return self._generate(received, route)
        except ScriptError as exc:
            return plan.error(Answer(status=400), route or "raw", str(exc))

    def open(self, performed: Plan) -> Opened:
        return Opened(self.counts, performed)

    def _generate(self, received: Received, route: RouteName) -> Plan:
        try:
            request = _decode(received.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            return plan.error(Answer(status=400), route, f"We could not parse the JSON body of your request: {exc}")
        if not isinstance(request, dict):
            return plan.error(Answer(status=400), route, "The body must be a JSON object.")
        answer = self._answer(received, request)
        if answer.status >= 300:
            return plan.error(answer, route)
        required = ("model", "input") if route == "embeddings" else APIS[route].required
        if missing := next((name for name in required if name not in request), None):
            return plan.error(Answer(status=400), route, f"Missing required parameter: '{missing}'.")
        if route == "embeddings":
            return self._embed(request, answer)
        return self._say(request, answer, route)

    def _say(self, request: Mapping[str, Any], answer: Answer, route: RouteName) -> Plan:
        api = APIS[route]
        ask = api.understand(request)
        if ask.n * ask.prompts > MOST_CHOICES:
            return plan.error(Answer(status=400), route, f"Invalid 'n': at most {MOST_CHOICES} choices.")
        speech = speak(ask, answer, seed=self.script.seed)
        if ask.stream and answer.body is None:
            performed = plan.stream(answer, route, api.events(ask, speech))
        else:
            said = api.whole(ask, speech)
            if "no_usage" in answer.style:
                del said["usage"]
            performed = plan.whole(answer, _encode(said), tokens=speech.output_tokens)
        return replace(performed, prompt_tokens=speech.prompt_tokens)

    def _embed(self, request: Mapping[str, Any], answer: Answer) -> Plan:
        ask = embeddings.understand(request)
        speech = speak(ask, Answer(text=""), seed=self.script.seed)
        performed = plan.whole(answer, _encode(embeddings.whole(request, speech)), tokens=0)
        return replace(performed, prompt_tokens=speech.prompt_tokens)

    def _other(self, received: Received) -> Plan:
        """List models; answer anything else with its own body, so that a raw relay can be checked."""
        path = received.path.partition("?")[0].rstrip("/")
        override = received.headers.get("x-script") if path != "/redirected" else None
        answer = Answer().but(overrides(override)) if override else Answer()
        if answer.status >= 300:
            return plan.error(answer, "raw")
        if received.method == "GET" and path == "/models":
            return plan.whole(answer, plan.model_list(self.script.models), tokens=0)
        if received.method == "GET" and path.startswith("/models/"):
            name = path.removeprefix("/models/")
            if name not in self.script.models:
                return plan.error(Answer(status=404), "raw", f"The model '{name}' does not exist")
            return plan.whole(answer, _encode(plan.model_entry(name)), tokens=0)
        echo = {"x-echo-method": received.method, "x-echo-path": received.path}
        content_type = received.headers.get("Content-Type", "application/octet-stream")
        return plan.whole(
            answer.but({"headers": {**echo, **answer.headers}}), received.body, tokens=0, content_type=content_type
        )

    def _answer(self, received: Received, request: Mapping[str, Any]) -> Answer:
        """The script's answer to this request, with the changes that the request itself asks for."""
        answer = self._chosen(received)
        for override in _overrides(received, request):
            answer = answer.but(overrides(override) if isinstance(override, str) else override)
        return answer

    def _chosen(self, received: Received) -> Answer:
        chosen = self._choose(received) if self._choose else None
        if chosen is not None:
            return self.script.but(chosen.given if isinstance(chosen, Answer) else {"text": chosen})
        script, turn = self.script, self._played
        self._played += 1
        if script.answers and (turn < len(script.answers) or script.cycle):
            return script.but(script.answers[turn % len(script.answers)].given)
        if script.error_rate and self._draw.random() < script.error_rate:
            return script.but(overrides(self._draw.choice(script.errors)))
        return script


def _overrides(received: Received, request: Mapping[str, Any]) -> list[str | Mapping[str, Any]]:
    """By model (`script:…`), by the body's member `script`, by the header `x-script`; the last wins."""
    found: list[Any] = []
    model = request.get("model")
    if isinstance(model, str) and model.startswith("script:"):
        found.append(model.removeprefix("script:"))
    if isinstance(request.get("script"), str | dict):
        found.append(request["script"])
    if header := received.headers.get("x-script"):
        found.append(header)
    return found


def headers_of(pairs: Mapping[str, str]) -> Mapping[str, str]:
    """A copy that is read without regard to case."""
    return CIMultiDict(pairs)


def as_script(given: Script | Answer | str | None) -> Script:
    """A script of what was given: one answer, or one text, to every request."""
    if isinstance(given, Script):
        return given
    if isinstance(given, str):
        return Script(text=given)
    return Script(**given.given) if given is not None else Script()
