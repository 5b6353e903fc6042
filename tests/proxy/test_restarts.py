"""What a running process cannot follow."""

from __future__ import annotations

from typing import Any

import pytest

from predawn.proxy.restarts import FOLLOWED, fixed
from predawn.proxy.settings import ServerSettings, Settings

TLS = {"cert_file": "a.crt", "key_file": "a.key"}


def settings(state: str = "a.db", **server: Any) -> Settings:
    return Settings.model_validate({"server": server, "state": state})


@pytest.mark.parametrize(
    ("old", "new", "names"),
    [
        ({}, {}, []),
        ({}, {"port": 1, "workers": 3}, ["server.port", "server.workers"]),
        ({}, {"state": "b.db"}, ["state"]),
        ({}, {"max_choices": 2, "log": {"level": "debug"}, "admin_key": "k" * 16}, []),
        ({}, {"tls": TLS}, ["server.tls"]),
        ({"tls": TLS}, {"tls": {**TLS, "cert_file": "b.crt"}}, []),
    ],
    ids=str,
)
def test_only_what_waits_for_a_start_is_named(old: Any, new: Any, names: list[str]) -> None:
    assert fixed(settings(**old), settings(**new)) == names


def test_every_part_that_is_followed_exists() -> None:
    assert ServerSettings.model_fields.keys() >= FOLLOWED
