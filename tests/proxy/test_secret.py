import stat
import threading
from pathlib import Path

import pytest

from predawn.proxy.secret import find_or_make_secret, find_secret
from predawn.proxy.settings import Settings
from predawn.proxy.store_errors import StoreError


def settings_for(state: Path | str, **access: str) -> Settings:
    return Settings.model_validate({"state": str(state), "access": access})


def test_the_settings_come_before_the_environment_and_that_before_the_file(tmp_path: Path):
    state = tmp_path / "state.db"
    in_file = find_or_make_secret(settings_for(state), {})

    env = {"PREDAWN_SECRET": "from the environment"}
    assert find_secret(settings_for(state, secret="from the settings"), env) == b"from the settings"
    assert find_secret(settings_for(state), env) == b"from the environment"
    assert find_secret(settings_for(state), {}) == in_file


def test_looking_for_a_secret_makes_none(tmp_path: Path):
    assert find_secret(settings_for(tmp_path / "x" / "state.db"), {}) is None
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_for_its_owner_alone(tmp_path: Path):
    secret = find_or_make_secret(settings_for(tmp_path / "new" / "state.db"), {})

    file = tmp_path / "new" / "state.db-secret"
    assert len(secret) == 32
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [file.name] == [path.name for path in file.parent.iterdir()]


def test_all_who_make_it_at_once_get_the_same(tmp_path: Path):
    made: list[bytes] = []
    start = threading.Barrier(8)

    def make() -> None:
        start.wait()
        made.append(find_or_make_secret(settings_for(tmp_path / "state.db"), {}))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(made) == 8
    assert len(set(made)) == 1


@pytest.mark.parametrize("env", [{}, {"PREDAWN_SECRET": ""}])
def test_servers_that_share_a_database_must_be_told_the_secret(env: dict[str, str]):
    with pytest.raises(StoreError, match=r"access\.secret: .*set it, or PREDAWN_SECRET"):
        find_secret(settings_for("postgresql://host/db"), env)


def test_a_short_secret_is_refused_without_repeating_it(tmp_path: Path):
    with pytest.raises(StoreError, match=r"access\.secret: a secret has at least 16 characters"):
        find_secret(settings_for(tmp_path / "state.db", secret="short"), {})


def test_a_secret_that_cannot_be_read_is_named(tmp_path: Path):
    (tmp_path / "state.db-secret").mkdir()

    with pytest.raises(StoreError, match="state.db-secret: Is a directory"):
        find_secret(settings_for(tmp_path / "state.db"), {})


def test_a_secret_that_cannot_be_made_is_named(tmp_path: Path):
    (tmp_path / "file").touch()

    with pytest.raises(StoreError, match="set PREDAWN_SECRET"):
        find_or_make_secret(settings_for(tmp_path / "file" / "state.db"), {})
