"""Logs: one safe line per record, whatever is in it, and no secret."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predawn.proxy.logs import BLOT, MESSAGE_LIMIT, JsonFormatter, LineFormatter, configure, redact, secrets_in
from predawn.proxy.settings import LogSettings, Settings


@pytest.fixture
def logged() -> Iterator[Callable[..., io.StringIO]]:
    """Configures logging for the test and puts everything back."""
    root, ours = logging.getLogger(), logging.getLogger("predawn")
    before = (root.handlers[:], root.level, ours.level, logging.raiseExceptions)

    def start(format: str = "json", level: str = "info", secrets: tuple[str, ...] = ()) -> io.StringIO:
        stream = io.StringIO()
        configure(LogSettings.model_validate({"format": format, "level": level}), secrets=secrets, stream=stream)
        return stream

    yield start
    logging.captureWarnings(capture=False)
    root.handlers[:], logging.raiseExceptions = before[0], before[3]
    root.setLevel(before[1])
    ours.setLevel(before[2])


def record(message: str, *args: object, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("predawn.test", logging.INFO, "file", 1, message, args, None)
    vars(made).update(extra)
    return made


def test_a_record_is_one_json_object_with_its_extras(logged: Callable[..., io.StringIO]) -> None:
    stream = logged()
    logging.getLogger("predawn.relay").info("served %d", 3, extra={"request_id": "r-1", "status": 200, "nonsense": "x"})

    line = json.loads(stream.getvalue())

    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "logger": "predawn.relay",
        "message": "served 3",
        "request_id": "r-1",
        "status": 200,
    }


def test_an_exception_is_part_of_its_line(logged: Callable[..., io.StringIO]) -> None:
    stream = logged()
    try:
        raise OSError("cannot connect with Bearer abcdef123456")
    except OSError:
        logging.getLogger("predawn").exception("failed")

    (line,) = stream.getvalue().splitlines()

    assert "OSError: cannot connect with Bearer [redacted]" in json.loads(line)["exception"]
    assert "abcdef" not in line


def test_text_for_people_begins_every_further_line_with_a_bar(logged: Callable[..., io.StringIO]) -> None:
    stream = logged("text")
    try:
        raise OSError("boom\n2026-01-01T00:00:00.000Z ERROR   predawn: forged")
    except OSError:
        logging.getLogger("predawn").exception("failed", extra={"request_id": "r-2"})

    first, *rest = stream.getvalue().splitlines()

    assert first.endswith("ERROR   predawn: failed request_id=r-2")
    assert rest
    assert all(line.startswith("  | ") for line in rest)


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer {}",
        "authorization=basic {}==",
        "{{'Authorization': 'Bearer {}'}}",
        "key sk-{} was refused",
        "key sk-ant-api03-{} was refused",
        "pd-{}",
        "https://user:{}@host/v1",
        "redis://:{}@host:6379/0",
        "postgresql+asyncpg://predawn:{}@db/predawn",
        "GET /v1?api_key={}&x=1",
        'body {{"api_key": "{}"}}',
        "x-api-key: {}",
        "api-key={}",
        "OPENAI_API_KEY={}",
        "password: {}, next",
        "client_secret='{}'",
        'escaped \\"password\\": \\"{}\\"',
    ],
)
def test_credentials_are_blotted_out(text: str) -> None:
    secret = "Zx81qQ7LmNopR2"

    redacted = redact(text.format(secret))

    assert secret not in redacted
    assert BLOT in redacted


@pytest.mark.parametrize(
    "text",
    [
        "time to first token: 0.25 s",
        "max_tokens=512 prompt_tokens: 9",
        "listening on http://127.0.0.1:8080",
        "upstream 'vllm': connection refused (http://localhost:8000/v1)",
        "the basic rule",
        "plugin sk-1 ok",
        "me@example.com wrote",
    ],
)
def test_ordinary_words_stay(text: str) -> None:
    assert redact(text) == text


def test_redaction_takes_linear_time_on_hostile_text() -> None:
    for piece in ("sk-", "://a:", "api_key=", "bearer ", "a_", "secret secret", "x" * 50 + "_", '\\"'):
        redact(piece * 20_000)


@given(st.text(), st.text(), st.sampled_from([JsonFormatter, LineFormatter]))
def test_nothing_starts_a_line_or_moves_the_cursor(
    message: str, value: str, kind: Callable[[], logging.Formatter]
) -> None:
    line = kind().format(record("%s", message, request_id=value))

    assert len(line.splitlines()) == 1
    assert line.isprintable() or not any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 for char in line)
    line.encode()


@pytest.mark.parametrize("kind", [JsonFormatter, LineFormatter])
def test_a_surrogate_or_an_escape_sequence_is_written_out(kind: Callable[[], logging.Formatter]) -> None:
    line = kind().format(record("\x1b[31mred\ud800\u202e\r\nnext"))

    assert line.isascii()
    assert "\x1b" not in line


def test_known_secrets_are_found_wherever_they_stand() -> None:
    formatter = JsonFormatter(["correct horse (battery)", "correct horse"])

    line = formatter.format(record("got %r", {"any": "correct horse (battery)"}, model="correct horse"))

    assert "horse" not in line
    assert "battery" not in line


def test_secrets_are_gathered_from_every_part_of_the_settings() -> None:
    settings = Settings.model_validate(
        {
            "access": {"secret": "access-secret"},
            "upstreams": [
                {
                    "name": "u",
                    "base_url": "http://h/v1",
                    "api_key": "upstream-key",
                    "headers": {"x": "header-value", "y": "1"},
                }
            ],
        }
    )

    assert secrets_in(settings) == {"access-secret", "upstream-key", "header-value"}


def test_arguments_that_do_not_fit_lose_nothing_but_themselves(
    logged: Callable[..., io.StringIO], capsys: pytest.CaptureFixture[str]
) -> None:
    stream = logged()
    template = "%d of %s"
    logging.getLogger("predawn").info(template, "hunter2hunter2")

    assert json.loads(stream.getvalue())["message"] == f"{template} (its arguments do not fit)"
    assert capsys.readouterr().err == ""


def test_an_argument_that_raises_does_not_reach_stderr(
    logged: Callable[..., io.StringIO], capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("hunter2hunter2")

    logged()
    logging.getLogger("predawn").info("%s", Broken())

    assert capsys.readouterr().err == ""


def test_a_long_message_is_cut_and_a_long_traceback_keeps_its_end() -> None:
    made = record("x" * 100_000)
    try:
        raise OSError("y" * 100_000 + " the end")
    except OSError as exc:
        made.exc_info = (type(exc), exc, exc.__traceback__)

    line: dict[str, Any] = json.loads(JsonFormatter().format(made))

    assert len(line["message"]) <= MESSAGE_LIMIT + 2
    assert len(line["exception"]) <= MESSAGE_LIMIT + 2
    assert line["exception"].endswith("the end")


def test_configuring_again_replaces_the_first(logged: Callable[..., io.StringIO]) -> None:
    first = logged()
    second = logged("text", "warning")
    logging.getLogger("predawn").info("unheard")
    logging.getLogger("predawn").warning("heard")

    assert first.getvalue() == ""
    assert len(second.getvalue().splitlines()) == 1


def test_other_libraries_are_heard_from_warning_up(logged: Callable[..., io.StringIO]) -> None:
    stream = logged(level="debug")
    logging.getLogger("aiohttp.access").info("GET /")
    logging.getLogger("asyncio").error("never retrieved")

    assert [json.loads(line)["logger"] for line in stream.getvalue().splitlines()] == ["asyncio"]
