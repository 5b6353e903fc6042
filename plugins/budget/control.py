"""What one request asks of budget: `x-predawn-budget` or `extra_body["predawn"]["budget"]`; settings clamp it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from predawn.plugins import RequestError
from predawn.plugins.knobs import EFFORTS
from predawn.proxy.exchange import Effort

NAME: Final = "budget"
_PARAM: Final = "predawn.budget"
_NUMBERS: Final = ("samples", "rounds", "max_output_tokens")
_KNOWN: Final = frozenset({"tier", "effort", "verify", *_NUMBERS})


@dataclass(frozen=True, slots=True)
class Wish:
    """How a request wants to be treated; what is `None` is decided here."""

    is_on: bool = True
    tier: str | None = None
    effort: Effort | None = None
    samples: int | None = None
    rounds: int | None = None
    max_output_tokens: int | None = None
    verify: bool | None = None

    @property
    def is_own(self) -> bool:
        """True if the request is to get something else than a tier as it is."""
        asked = (self.effort, self.samples, self.rounds, self.max_output_tokens, self.verify)
        return asked != (None, None, None, None, None)


def read_wish(control: Mapping[str, Any], tiers: Collection[str]) -> Wish:
    """Raises `RequestError` 400 for what cannot be meant."""
    asked: Any = control.get(NAME)
    if isinstance(asked, bool) or (isinstance(asked, str) and asked.lower() in {"on", "off"}):
        return Wish(is_on=asked is True or (isinstance(asked, str) and asked.lower() == "on"))
    if isinstance(asked, str):
        asked = {"tier": asked}
    if not isinstance(asked, dict):
        raise _senseless(f"budget must be on, off, a tier ({', '.join(tiers)}), or an object.")
    unknown = sorted(str(key)[:64] for key in asked.keys() - _KNOWN)
    if unknown:
        raise _senseless(f"budget knows no {unknown[0]!r}; it knows {', '.join(sorted(_KNOWN))}.")
    tier, effort, verify = asked.get("tier"), asked.get("effort"), asked.get("verify")
    if tier is not None and tier not in tiers:
        raise _senseless(f"tier must be one of {', '.join(tiers)}.")
    if effort is not None and effort not in EFFORTS:
        raise _senseless(f"effort must be one of {', '.join(EFFORTS)}.")
    if verify is not None and not isinstance(verify, bool):
        raise _senseless("verify must be true or false.")
    for name in _NUMBERS:
        number = asked.get(name)
        if number is not None and (type(number) is not int or not 1 <= number <= 1 << 30):
            raise _senseless(f"{name} must be a whole number of at least 1.")
    numbers: dict[str, Any] = {name: asked.get(name) for name in _NUMBERS}
    return Wish(True, tier, effort, verify=verify, **numbers)


def _senseless(message: str) -> RequestError:
    return RequestError(400, message, param=_PARAM)
