"""What clients write in `POST /v1/contexts`, read strictly: every mistake is named with its place."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from predawn.plugins import RequestError
from predawn.plugins.sleep.contexts import Message, Policy, SleepOptions
from predawn.plugins.sleep.drafts import Draft
from predawn.plugins.sleep.prefix import first_live, may_stand_at

if TYPE_CHECKING:
    from predawn.proxy.access import Identity

NAME = r"^[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}\Z"
_UNKNOWN = re.compile(r"unknown field `(.*)`", re.DOTALL)
_PLACE = re.compile(r" - at `\$\.?(.*)`$", re.DOTALL)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one tenant may register, and have discovered."""

    max_contexts: int = 1000
    """Of each source."""
    max_bytes: int = 4 << 20
    """Of one context."""
    max_tenant_bytes: int = 256 << 20
    """Of all its contexts."""
    max_discovered_bytes: int = 1 << 20
    """Of one context that was discovered."""
    max_messages: int = 1000


class _SleepWish(msgspec.Struct, forbid_unknown_fields=True):
    policy: Policy | None = None
    max_passes: Annotated[int, Meta(ge=1, le=100)] | None = None
    budget_tokens: Annotated[int, Meta(ge=1, le=1_000_000_000)] | None = None
    drafts: Annotated[int, Meta(ge=1, le=16)] | None = None
    questions: Annotated[int, Meta(ge=0, le=100)] | None = None
    warm: bool | None = None

    def options(self) -> SleepOptions:
        return SleepOptions(**msgspec.structs.asdict(self))


class _NewContext(msgspec.Struct, forbid_unknown_fields=True):
    id: Annotated[str, Meta(pattern=NAME)] | None = None
    text: str | None = None
    messages: list[dict[str, Any]] | None = None
    model: Annotated[str, Meta(max_length=200, pattern=r"^[^\x00-\x1f]*\Z")] | None = None
    ttl_s: Annotated[float, Meta(gt=0, le=10 * 365 * 86_400)] | None = None
    live: int | list[int] | None = None
    sleep: _SleepWish | bool | Literal["always", "worthwhile", "off"] | None = None


def read_draft(body: bytes, identity: Identity, namespace: str, limits: Limits, now: float) -> Draft:
    """The context that a body describes. Raises `RequestError`."""
    wish = _decoded(body, _NewContext)
    messages, live = _content(wish, limits)
    model = wish.model or ""
    _check_key(identity, model)
    try:
        draft = Draft.of(
            identity.tenant,
            messages,
            id=wish.id or "",
            model=model,
            namespace=namespace,
            live=live,
            options=_options(wish.sleep),
            expires_at=None if wish.ttl_s is None else now + wish.ttl_s,
        )
    except (RecursionError, UnicodeEncodeError) as exc:
        raise RequestError(400, "messages cannot be written as JSON.", param="messages") from exc
    if draft.size > limits.max_bytes:
        message = f"The context has {draft.size} bytes, and {limits.max_bytes} are allowed (max_context_bytes)."
        raise RequestError(413, message, code="context_too_large", param=_given(wish))
    return draft


def read_options(body: bytes) -> SleepOptions:
    """The options in the body of `POST /v1/contexts/{id}/sleep`; an empty body has none. Raises `RequestError`."""
    return _decoded(body, _SleepWish).options() if body.strip() else SleepOptions()


def _decoded(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as exc:
        text = str(exc)
        place = _PLACE.search(text)
        unknown = _UNKNOWN.search(text)
        param = place[1] if place else unknown[1] if unknown else None
        raise RequestError(400, f"{text[:500]}.", param=param[:200] if param else None) from exc
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
        raise RequestError(400, f"The request body is not valid JSON: {exc}", code="invalid_json") from exc


def _content(wish: _NewContext, limits: Limits) -> tuple[list[Message], list[int]]:
    """The messages, and which of them are live."""
    if (wish.text is None) == (wish.messages is None):
        raise RequestError(400, "Give either text or messages.", param="text")
    if wish.text is not None:
        text = wish.text.rstrip()
        if not text:
            raise RequestError(400, "text is empty.", param="text")
        return [{"role": "user", "content": text}], []
    given = wish.messages or []
    if not 1 <= len(given) <= limits.max_messages:
        message = f"messages has {len(given)} messages; 1 to {limits.max_messages} are allowed."
        raise RequestError(400, message, param="messages")
    messages, live = _marked(given)
    asked = [] if wish.live is None else [wish.live] if isinstance(wish.live, int) else wish.live
    if any(not -len(given) <= place < len(given) for place in asked):
        raise RequestError(400, f"live names a message that is not there; there are {len(given)}.", param="live")
    live += asked
    stable = first_live(messages, live)
    if stable == 0:
        raise RequestError(400, "All of it is live: nothing is left to think about beforehand.", param="live")
    if stable < len(messages) and not may_stand_at(messages, stable):
        raise RequestError(400, "A tool's result cannot be live without its call.", param="live")
    return messages, live


def _marked(given: Sequence[dict[str, Any]]) -> tuple[list[Message], list[int]]:
    """The messages without their mark `live`, and which had it."""
    live: list[int] = []
    messages: list[Message] = []
    for at, message in enumerate(given):
        if not isinstance(role := message.get("role"), str) or not role:
            raise RequestError(400, f"messages[{at}] has no role.", param=f"messages[{at}].role")
        if not message.keys() & {"content", "tool_calls"}:
            raise RequestError(400, f"messages[{at}] has no content.", param=f"messages[{at}].content")
        mark = message.get("live", False)
        if not isinstance(mark, bool):
            raise RequestError(400, "live is true or false.", param=f"messages[{at}].live")
        if mark:
            live.append(at)
        messages.append({name: value for name, value in message.items() if name != "live"})
    return messages, live


def _options(wish: _SleepWish | bool | str | None) -> SleepOptions:
    if isinstance(wish, _SleepWish):
        return wish.options()
    if isinstance(wish, bool):
        return SleepOptions(policy="always" if wish else "off")
    return SleepOptions(policy=wish)  # type: ignore[arg-type]


def _given(wish: _NewContext) -> str:
    return "text" if wish.text is not None else "messages"


def _check_key(identity: Identity, model: str) -> None:
    key = identity.key
    if key is not None and key.models is not None and model not in key.models:
        what = f"the model {model!r}" if model else "every model, so name one"
        message = f"This API key may not use {what}. It may use: {', '.join(sorted(key.models))}."
        raise RequestError(403, message, type="permission_error", code="model_not_allowed", param="model")
