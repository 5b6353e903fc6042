"""Logs: one line per record, JSON or text, with secrets blotted out; never a prompt and never an answer.

The rest of the program uses stdlib logging as it is. What a record may carry beside its message is in `EXTRA`, given as
`log.info("…", extra={"request_id": exchange.id})`. Blotting happens where a record becomes text, so that arguments,
tracebacks and the records of other libraries go through it too.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, TextIO

from pydantic import BaseModel, SecretStr

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from predawn.proxy.settings import LogSettings

EXTRA: Final = ("request_id", "route", "model", "upstream", "plugin", "status", "outcome", "seconds")
BLOT: Final = "[redacted]"
MESSAGE_LIMIT: Final = 8_000
"""Characters of a message and of a traceback; an upstream's error page must not fill the disk."""
SHORTEST_SECRET: Final = 6
"""A configured secret shorter than this is not looked for: it would be found inside ordinary words."""

_NAMED = (
    r"api[_-]?key|x-api-key|access[_-]?token|auth[_-]?token|refresh[_-]?token|client[_-]?secret|secret|password|passwd"
)
_PATTERNS: Final = (
    (re.compile(r"\b((?i:bearer))\s+(?!tokens?\b)[\w.~+/=-]{4,}"), rf"\1 {BLOT}"),
    (re.compile(r"\b((?i:basic))\s+(?=[\w+/=-]*[0-9A-Z=])[\w+/=-]{4,}"), rf"\1 {BLOT}"),
    (re.compile(r"\b(sk|pd|rk|xai|gsk|hf|ghp|AIza)([-_])[\w-]{6,}"), rf"\1\2{BLOT}"),
    (re.compile(r"(://[^\s/:@\"']*):[^\s/@\"']+@"), rf"\1:{BLOT}@"),
    (
        re.compile(rf"(?i)\b((?:\w{{0,40}}_)?(?:{_NAMED}))(\\?[\"']?\s*[:=]\s*\\?[\"']?)(?!\[)[^\s\"'&,;)}}\]\\]+"),
        rf"\1\2{BLOT}",
    ),
)
# what would start a new line, move a terminal's cursor, or turn the direction of writing
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def redact(text: str) -> str:
    """The text without credentials: authorization values, provider and client keys, passwords in URLs, `api_key=…`."""
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def secrets_in(settings: BaseModel) -> set[str]:
    """Every secret in the settings, for `configure` to look for literally."""
    return {found for found in _secrets(settings) if len(found) >= SHORTEST_SECRET}


def _secrets(value: object) -> Iterator[str]:
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _secrets(getattr(value, name))
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _secrets(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _secrets(item)


class LineFormatter(logging.Formatter):
    """A record as one safe line of text for people; a traceback follows in lines that begin with `|`."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__()
        longest_first = sorted({secret for secret in secrets if secret}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def format(self, record: logging.LogRecord) -> str:
        extra = " ".join(f"{key}={value}" for key, value in self._extra(record).items())
        head = f"{_time(record)} {record.levelname:<7} {record.name}: {self._message(record)}"
        line = _escaped(f"{head} {extra}" if extra else head)
        return "\n".join([line, *(f"  | {_escaped(row)}" for row in self._traceback(record).splitlines())])

    def _message(self, record: logging.LogRecord) -> str:
        try:
            message = record.getMessage()
        except (TypeError, ValueError, KeyError):
            # stdlib would print the arguments to stderr, past this formatter
            message = f"{record.msg} (its arguments do not fit)"
        return self._clean(message)

    def _extra(self, record: logging.LogRecord) -> dict[str, object]:
        found = {key: vars(record).get(key) for key in EXTRA}
        return {
            key: value if isinstance(value, (int, float)) else self._clean(str(value))
            for key, value in found.items()
            if value is not None
        }

    def _traceback(self, record: logging.LogRecord) -> str:
        parts: list[str] = []
        if record.exc_info and record.exc_info[0] is not None:
            parts.append(self.formatException(record.exc_info))
        if record.stack_info:
            parts.append(record.stack_info)
        return self._clean("\n".join(parts), keep_end=True)

    def _clean(self, text: str, *, keep_end: bool = False) -> str:
        if self._known is not None:
            text = self._known.sub(BLOT, text)
        text = redact(text)
        if len(text) > MESSAGE_LIMIT:
            # of a traceback the end tells what happened
            text = "… " + text[-MESSAGE_LIMIT:] if keep_end else text[:MESSAGE_LIMIT] + " …"
        return text


class JsonFormatter(LineFormatter):
    """A record as one JSON object in ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self._message(record),
        }
        line.update(self._extra(record))
        if traceback := self._traceback(record):
            line["exception"] = traceback
        return json.dumps(line)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _escaped(text: str) -> str:
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), text)


class _Handler(logging.StreamHandler[TextIO]):
    """Ours, to be found again by the next `configure`."""


def configure(settings: LogSettings, *, secrets: Iterable[str] = (), stream: TextIO | None = None) -> None:
    """Send all logs through our formatter; call it again after a reload. `secrets` (see `secrets_in`) never appear.

    Other libraries are heard from `warning` up, whatever our own level.
    """
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Handler)]:
        root.removeHandler(handler)
    handler = _Handler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(secrets) if settings.format == "json" else LineFormatter(secrets))
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("predawn").setLevel(settings.level.upper())
    logging.raiseExceptions = False  # a broken record is dropped; stdlib would print it with its arguments
    logging.captureWarnings(capture=True)
