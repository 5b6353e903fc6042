import argparse
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from predawn.proxy.commands import keys
from predawn.proxy.keys import Digester
from predawn.proxy.secret import find_secret
from predawn.proxy.settings import Settings
from predawn.proxy.spend import Usage, UsageBook
from predawn.proxy.store import open_store


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "predawn" / "state.db"
    monkeypatch.setenv("PREDAWN_STATE", str(path))
    monkeypatch.delenv("PREDAWN_SECRET", raising=False)
    return path


@pytest.fixture
def predawn(state: Path) -> Callable[..., int]:
    def run(*words: str) -> int:
        parser = argparse.ArgumentParser(prog="predawn")
        keys.add_parser(parser.add_subparsers(required=True))
        options = parser.parse_args(["keys", *words])
        return options.run(options)

    return run


def rows(state: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(state)) as connection:
        return connection.execute("SELECT id, digest, name, tenant, models FROM keys").fetchall()


def test_the_key_alone_is_the_last_line_of_standard_output(
    predawn: Callable[..., int], state: Path, capsys: pytest.CaptureFixture[str]
):
    status = predawn("create", "Ann", "--tenant", "acme", "--models", "a, b")
    out, err = capsys.readouterr()

    ((_, digest, name, tenant, models),) = rows(state)
    secret = find_secret(Settings(), {})
    assert (status, name, tenant, models) == (0, "Ann", "acme", '["a","b"]')
    assert re.fullmatch(r"pd-[\w-]{43}\n", out)
    assert secret is not None
    assert digest == Digester(secret)(out.strip()).hex()
    assert "from now on every client needs a key" in err
    assert out.strip() not in err


def test_the_list_shows_limits_and_states(predawn: Callable[..., int], capsys: pytest.CaptureFixture[str]):
    predawn("create", "Ann", "--rpm", "5", "--tpm", "1000", "--concurrency", "2", "--usd-per-day", "2.5")
    predawn("create", "Bob", "--expires", "2999-12-31", "--models", "tiny")
    capsys.readouterr()
    status = predawn("list")
    out = capsys.readouterr().out

    assert status == 0
    assert "active  5 requests/min, 1000 tokens/min, 2 at a time, $2.5/day\n" in out
    assert "active  models tiny, until 3000-01-01 00:00 UTC\n" in out


def test_a_revoked_key_is_listed_as_such(predawn: Callable[..., int], state: Path, capsys: pytest.CaptureFixture[str]):
    predawn("create", "Ann")
    ident = str(rows(state)[0][0])
    statuses = [predawn("revoke", ident), predawn("revoke", ident), predawn("revoke", "key_0")]
    err = capsys.readouterr().err
    predawn("list")

    assert statuses == [0, 1, 1]
    assert f"{ident} was revoked before" in err
    assert "key_0 is not a key's id" in err
    assert "revoked" in capsys.readouterr().out


def test_the_list_can_be_that_of_one_tenant(predawn: Callable[..., int], capsys: pytest.CaptureFixture[str]):
    predawn("create", "Ann", "--tenant", "acme")
    predawn("create", "Bob", "--tenant", "globex")
    capsys.readouterr()
    predawn("list", "--tenant", "globex")
    out = capsys.readouterr().out

    assert "Bob" in out
    assert "Ann" not in out


async def test_usage_is_shown_by_day_and_key(state: Path, capsys: pytest.CaptureFixture[str]):
    from predawn.proxy.clock import SystemClock

    store = await open_store(str(state))
    book = UsageBook(SystemClock())
    book.book("acme", "k", Usage(2, 30, 10, 40, 1_234_567_890))
    await book.sync(store, reads_spend=False)
    await keys._usage(argparse.Namespace(days=1, tenant="acme"), Settings(), store)
    await keys._usage(argparse.Namespace(days=1, tenant="globex"), Settings(), store)
    await store.aclose()

    head, row, empty = capsys.readouterr().out.splitlines()
    assert head.split() == empty.split()
    assert row.split()[1:] == ["acme", "k", "-", "2", "30", "10", "40", "1.234568"]


def test_looking_makes_no_state(predawn: Callable[..., int], state: Path, capsys: pytest.CaptureFixture[str]):
    statuses = [predawn("list"), predawn("usage"), predawn("revoke", "key_0")]

    assert statuses == [0, 0, 1]
    assert f"no keys yet: {state} does not exist" in capsys.readouterr().err
    assert not state.parent.exists()


def test_the_settings_file_names_the_state(
    predawn: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    config = tmp_path / "predawn.yaml"
    config.write_text(f"state: {tmp_path / 'other.db'}\naccess: {{keys: 'off'}}\n")
    status = predawn("create", "Ann", "--config", str(config))

    assert status == 0
    assert len(rows(tmp_path / "other.db")) == 1
    assert "no client needs it" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content", [None, "stat: x", "state: postgresql://127.0.0.1:1/x\naccess: {secret: 0123456789abcdef}"]
)
def test_settings_and_states_that_do_not_work_are_one_message(
    content: str | None, predawn: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    config = tmp_path / "predawn.yaml"
    if content is not None:
        config.write_text(content)
    status = predawn("create", "Ann", "--config", str(config))
    out, err = capsys.readouterr()

    assert (status, out) == (1, "")
    assert "Traceback" not in err
    assert err


@pytest.mark.parametrize(
    "words",
    [
        ["create"],
        ["create", ""],
        ["create", "a\nb"],
        ["create", "x" * 201],
        ["create", "x", "--rpm", "0"],
        ["create", "x", "--rpm", "-1"],
        ["create", "x", "--tpm", "1.5"],
        ["create", "x", "--concurrency", "9999999999"],
        ["create", "x", "--usd-per-day", "nan"],
        ["create", "x", "--usd-per-day", "inf"],
        ["create", "x", "--usd-per-day", "0"],
        ["create", "x", "--expires", "1990-01-01"],
        ["create", "x", "--expires", "0d"],
        ["create", "x", "--expires", "soon"],
        ["create", "x", "--expires", "9999-12-31"],
        ["create", "x", "--models", "a,,b"],
        ["create", "x", "--tenant", ""],
        ["usage", "--days", "0"],
        ["revoke"],
        [],
    ],
)
def test_nonsense_is_refused_before_anything_happens(words: list[str], predawn: Callable[..., int], state: Path):
    with pytest.raises(SystemExit, match="2"):
        predawn(*words)

    assert not state.parent.exists()
