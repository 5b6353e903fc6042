"""The models of the settings: what they accept, what they refuse, and what they keep secret."""

from __future__ import annotations

import pytest
from pydantic import SecretStr, ValidationError

from predawn.proxy.settings import PluginEntry, ServerSettings, Settings, UpstreamSettings, default_state

UPSTREAM = {"name": "u", "base_url": "http://127.0.0.1:9/v1"}


def test_no_settings_at_all_are_valid() -> None:
    settings = Settings()

    assert (settings.upstreams, settings.models, settings.plugins) == ((), (), ())


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Settings().server.port = 1


def test_a_key_without_a_value_is_as_good_as_absent() -> None:
    settings = Settings.model_validate({"plugins": None, "server": {"port": None, "log": None}})

    assert settings == Settings()


def test_an_unknown_key_is_refused_even_without_a_value() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        Settings.model_validate({"plugin": None})


@pytest.mark.parametrize(
    "given",
    [
        ["record", {"cache": {"ttl_s": 5}}, {"redact": None}],
        [{"name": "record"}, {"name": "cache", "settings": {"ttl_s": 5}}, {"redact": {}}],
    ],
)
def test_plugins_may_be_named_shortly_or_at_length(given: list[object]) -> None:
    entries = Settings.model_validate({"plugins": given}).plugins

    assert [(entry.name, entry.settings) for entry in entries] == [
        ("record", {}),
        ("cache", {"ttl_s": 5}),
        ("redact", {}),
    ]


@pytest.mark.parametrize("item", [{"a": {}, "b": {}}, {}, {"a": "text"}, {"a": [1]}, 5, "", ["a"]])
def test_what_is_no_plugin_entry_is_refused(item: object) -> None:
    with pytest.raises(ValidationError):
        PluginEntry.model_validate(item)


@pytest.mark.parametrize(
    "url",
    ["ftp://host/v1", "localhost:8000/v1", "http://", "http://:8000", "http://host:port/v1", "http://[::1/v1", ""],
)
def test_a_base_url_must_be_http_and_name_a_host(url: str) -> None:
    with pytest.raises(ValidationError):
        UpstreamSettings.model_validate({"name": "u", "base_url": url})


@pytest.mark.parametrize(
    "wrong",
    [
        {"headers": {"x y": "1"}},
        {"headers": {"x": "a\r\nhost: evil"}},
        {"headers": {"Host": "evil"}},
        {"headers": {"Transfer-Encoding": "chunked"}},
        {"api_key": "key\n"},
        {"api_key": "schlüssel"},
        {"relay": ["files"]},
        {"timeouts": {"connect_s": float("inf")}},
        {"timeouts": {"connect_s": float("nan")}},
        {"timeouts": {"connect_s": 0}},
        {"retries": {"attempts": 0}},
    ],
)
def test_an_upstream_refuses_what_could_not_be_used(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        UpstreamSettings.model_validate({**UPSTREAM, **wrong})


def test_an_empty_key_is_no_key() -> None:
    upstream = UpstreamSettings.model_validate({**UPSTREAM, "api_key": ""})

    assert upstream.api_key is None


def test_an_upstream_of_kind_openai_needs_an_address_and_others_do_not() -> None:
    with pytest.raises(ValidationError, match="needs a base_url"):
        UpstreamSettings(name="u")

    assert UpstreamSettings(name="u", kind="scripted").base_url is None


@pytest.mark.parametrize("given", [{}, {"upstream": "a", "targets": [{"upstream": "b"}]}])
def test_a_model_has_either_an_upstream_or_targets(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="either an upstream or targets"):
        Settings.model_validate({"models": [{"name": "m", **given}]})


def test_one_upstream_is_one_target_with_the_models_name_there() -> None:
    (model,) = Settings.model_validate({"models": [{"name": "m", "upstream": "u", "model": "org/m"}]}).models

    (target,) = model.all_targets

    assert (target.upstream, target.model, target.weight) == ("u", "org/m", 1)


@pytest.mark.parametrize("network", ["10.0.0.0/8", "::1", "192.168.1.7"])
def test_trusted_proxies_are_addresses_or_networks(network: str) -> None:
    assert ServerSettings(trusted_proxies=(network,)).trusted_proxies == (network,)


def test_a_name_is_no_trusted_proxy() -> None:
    with pytest.raises(ValidationError, match="networks such as"):
        ServerSettings(trusted_proxies=("proxy.local",))


def test_no_secret_is_in_a_repr_or_a_dump() -> None:
    secret = "correct-horse"
    settings = Settings.model_validate(
        {
            "state": f"postgresql+asyncpg://u:{secret}@db/p",
            "access": {"secret": secret, "limits_url": f"redis://:{secret}@r"},
            "upstreams": [
                {
                    "name": "u",
                    "base_url": f"http://u:{secret}@h/v1",
                    "http_proxy": f"http://u:{secret}@h",
                    "api_key": secret,
                    "headers": {"x-key": secret},
                    "options": {"key": secret},
                    "script": {"key": secret},
                }
            ],
            "plugins": [{"record": {"token": secret}}],
        }
    )

    assert secret not in repr(settings)
    assert secret not in str(settings)
    assert settings.upstreams[0].headers == {"x-key": SecretStr(secret)}


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"PREDAWN_STATE": "/var/p.db", "XDG_STATE_HOME": "/x"}, "/var/p.db"),
        ({"XDG_STATE_HOME": "/x"}, "/x/predawn/state.db"),
    ],
)
def test_the_state_is_where_the_environment_says(env: dict[str, str], expected: str) -> None:
    assert default_state(env) == expected
