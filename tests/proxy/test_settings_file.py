"""Reading a settings file: every error at once, with its line, the nearest right name, and no secret."""

from __future__ import annotations

import os
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predawn.proxy.plugin import PluginSettings
from predawn.proxy.settings import PluginEntry, Settings
from predawn.proxy.settings_file import Problem, SettingsError, explain, load, nearest, validate
from predawn.proxy.settings_yaml import MAX_BYTES, MAX_VALUES, parse

GOOD = """\
server: {port: 8081}
upstreams:
  - {name: vllm, kind: openai, base_url: http://localhost:8000/v1, api_key: ${VLLM_KEY}}
  - name: claude
    kind: litellm
    model: anthropic/claude
models:
  - {name: qwen, upstream: vllm, model: Qwen/Qwen3-8B, fallbacks: [backup]}
  - {name: backup, upstream: claude}
plugins:
  - record
  - cache: {ttl_s: 5}
"""


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "predawn.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def errors(folder: Path, text: str | bytes, env: dict[str, str] | None = None) -> list[str]:
    """The lines of the error, without the file's name."""
    path = write(folder, text)
    with pytest.raises(SettingsError) as caught:
        load(path, env or {})
    return [line.removeprefix(str(path)).lstrip(":").strip() for line in str(caught.value).splitlines()]


def test_a_good_file_becomes_settings(tmp_path: Path) -> None:
    settings = load(write(tmp_path, GOOD), {"VLLM_KEY": "k-1", "PREDAWN_STATE": "/s.db"})

    assert settings.server.port == 8081
    assert settings.upstreams[0].api_key is not None
    assert settings.upstreams[0].api_key.get_secret_value() == "k-1"
    assert [model.name for model in settings.models] == ["qwen", "backup"]
    assert settings.plugins[1] == PluginEntry(name="cache", settings={"ttl_s": 5})
    assert settings.state == "/s.db"


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n", "---\n", "plugins:\n", "\ufeffplugins: []\n"])
def test_an_empty_file_gives_the_defaults(tmp_path: Path, text: str) -> None:
    assert load(write(tmp_path, text), {"PREDAWN_STATE": "s"}) == Settings(state="s")


def test_all_errors_are_shown_at_once_each_with_its_line(tmp_path: Path) -> None:
    found = errors(
        tmp_path,
        """\
server:
  prot: 8080
  log: {level: inof}
upstreams:
  - name: vllm
    base_url: ${NOWHERE}
  - name: claude
    kind: litelm
    relay: [1]
models:
  - name: qwen
    upstream: vlm
  - name: qwen
    fallbacks: [qwne]
    upstream: claude
plugins:
  - record
  - record: {}
  - {a: {}, b: {}}
""",
    )

    assert found == [
        "2: server.prot: unknown key — did you mean 'port'?",
        "3: server.log.level: must be 'debug', 'info', 'warning' or 'error' — did you mean 'info'?",
        "6: upstreams[0].base_url: the environment has no variable NOWHERE; set it, or write ${NOWHERE:-default}",
        "8: upstreams[1].kind: must be 'openai', 'litellm', 'scripted' or 'local' — did you mean 'litellm'?",
        "9: upstreams[1].relay: must be a valid boolean, or must be a valid string",
        "12: models[0].upstream: there is no upstream 'vlm' — did you mean 'vllm'?",
        "13: models[1].name: the name 'qwen' is already taken by models[0]",
        "14: models[1].fallbacks[0]: there is no model 'qwne' — did you mean 'qwen'?",
        "18: plugins[1].record: the name 'record' is already taken by plugins[0]",
        "19: plugins[2]: one entry names one plugin: `- name` or `- name: {key: value}`",
    ]


def test_an_error_names_file_line_and_place(tmp_path: Path) -> None:
    path = write(tmp_path, "\nserver: {port: high}\n")
    with pytest.raises(SettingsError) as caught:
        load(path, {})

    assert str(caught.value).startswith(f"{path}:2: server.port: must be a valid integer")
    assert caught.value.problems[0].where == ("server", "port")


def test_an_unknown_key_with_no_near_name_lists_the_known_ones(tmp_path: Path) -> None:
    (found,) = errors(tmp_path, "access: {zzz: 1}")

    assert found == "1: access.zzz: unknown key; known: keys, secret, limits_url, tenant_classes"


def test_a_missing_key_is_shown_where_it_is_missing(tmp_path: Path) -> None:
    found = errors(tmp_path, "upstreams:\n  - kind: scripted\n")

    assert found == ["2: upstreams[0].name: this key is missing"]


# -- YAML


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("server: {port: 1}\nserver: {port: 2}\n", "2: server: this key stands here twice"),
        ("server:\n  port: 1\n  port: 2\n", "3: server.port: this key stands here twice"),
        ("- a\n- b\n", "1: the file must be a mapping of keys such as `upstreams:` and `models:`"),
        ("just words", "1: the file must be a mapping of keys such as `upstreams:` and `models:`"),
        ("server: !!python/object/apply:os.system [true]\n", "1: server: the tag tag:yaml.org,2002:python/object"),
        ("server: !env X\n", "1: server: the tag !env is not supported"),
        ("state: !!binary aGk=\n", "1: state: the tag tag:yaml.org,2002:binary is not supported"),
        ("server:\n  port: [1\n", "3: not YAML: expected ',' or ']'"),
        ("server: *nothing\n", "1: not YAML: found undefined alias 'nothing'"),
        ("server: {a: 1}\n---\nserver: {}\n", "2: not YAML: but found another document"),
        ("a: 1\n\tb: 2\n", "2: not YAML"),
        (b"a: 1\nb: \x00\n", "2: the character U+0000 is not allowed in YAML"),
        (b"a: 1\n\nb: \xff\n", "3: the file is not UTF-8 text"),
        ("server: {port: 1}".encode("utf-16"), "1: the file is not UTF-8 text"),
        ("a: " + "[" * 50_000, "nested too deeply"),
        ("a: " + "{a: " * 50_000, "nested too deeply"),
        ("server: &s {log: *s}\n", "server.log: an alias must not stand inside what it names"),
        ("? {a: 1}\n: 2\n", "1: a key must be a word"),
        ("server: {port: " + "9" * 5000 + "}", "1: server.port: not a usable int"),
        ("server: {<<: 5}", "1: server: `<<` takes a mapping or a list of mappings"),
    ],
)
def test_a_broken_file_is_explained(tmp_path: Path, text: str | bytes, expected: str) -> None:
    found = errors(tmp_path, text)

    assert expected in found[0]


def test_a_bomb_of_aliases_is_refused(tmp_path: Path) -> None:
    layers = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    layers += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    found = errors(tmp_path, "\n".join(layers))

    assert found == [f"more than {MAX_VALUES} values (aliases counted each time)"]


@pytest.mark.parametrize("piece", ["$${", "${A:-", "${", "$", "${A", "\ue000", "${A}"])
@pytest.mark.timeout(20)
def test_references_are_found_in_linear_time(piece: str) -> None:
    text = f"a: '{piece * (200_000 // len(piece))}'"

    assert isinstance(parse(text.encode(), {"A": "b"}).data, dict)


def test_a_huge_file_is_refused_without_being_parsed(tmp_path: Path) -> None:
    assert errors(tmp_path, b"#" * (MAX_BYTES + 1)) == ["larger than 512 KiB; this is no settings file"]


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.yaml", Path("/dev/zero")):
        with pytest.raises(SettingsError) as caught:
            load(path, {})

        assert str(caught.value).startswith(f"{path}: ")


def test_words_follow_yaml_1_2() -> None:
    document = parse(b"a: [off, no, yes, on, y, 1:30, 012, 2024-01-01, ~, null, true, False, .5, 1e3, 0x1f]", {})

    expected = ["off", "no", "yes", "on", "y", "1:30", 12, "2024-01-01", None, None, True, False, 0.5, 1000.0, "0x1f"]

    assert document.data["a"] == expected


def test_keys_off_is_not_read_as_false(tmp_path: Path) -> None:
    assert load(write(tmp_path, "access: {keys: off}"), {}).access.keys == "off"


def test_anchors_and_merges_share_settings(tmp_path: Path) -> None:
    text = """\
upstreams:
  - &base {name: a, base_url: "http://a/v1", timeouts: {connect_s: 1}}
  - {<<: *base, name: b}
"""
    a, b = load(write(tmp_path, text), {}).upstreams

    assert (a.name, b.name, a.timeouts, b.base_url) == ("a", "b", b.timeouts, "http://a/v1")


# -- the environment


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${A}", "apple"),
        ("${A}-${B}", "apple-banana"),
        ("${NONE:-fallback}", "fallback"),
        ("${EMPTY:-fallback}", "fallback"),
        ("${NONE:-}", ""),
        ("${A:-fallback}", "apple"),
        ("${NONE:-a: b, {c}", "a: b, {c"),
        ("$${A}", "${A}"),
        ("$A", "$A"),
        ("pa$$word", "pa$$word"),
    ],
)
@pytest.mark.parametrize("quote", ["", '"', "'"])
@pytest.mark.parametrize("form", ["state: {}", "{{state: {}, server: {{}}}}"])
def test_references_are_filled_in_however_they_are_written(form: str, quote: str, text: str, expected: str) -> None:
    raw = form.replace("{}", f"{quote}{text}{quote}", 1).replace("{{", "{").replace("}}", "}")

    document = parse(raw.encode(), {"A": "apple", "B": "banana", "EMPTY": ""})

    assert document.problems == []
    assert document.data["state"] == expected


def test_a_number_may_come_from_the_environment(tmp_path: Path) -> None:
    assert load(write(tmp_path, "server: {port: ${PORT}}"), {"PORT": "81"}).server.port == 81


def test_what_comes_from_the_environment_is_never_yaml(tmp_path: Path) -> None:
    hostile = "x}\nplugins: [evil]\n# ${HOME} *a &b !!c"

    assert load(write(tmp_path, "state: ${S}"), {"S": hostile}).state == hostile


def test_keys_and_comments_are_not_filled_in(tmp_path: Path) -> None:
    text = "upstreams:\n  - {name: u, base_url: http://h/v1, headers: {$${X: 1}} # ${GONE}\n"
    document = parse(text.replace("$${X", '"${X}"').encode(), {"X": "y"})

    assert document.problems == []
    assert document.data["upstreams"][0]["headers"] == {"${X}": 1}


@pytest.mark.parametrize("text", ["${1A}", "${A", "${A:?gone}", "${}", "${A B}"])
def test_a_malformed_reference_is_an_error(tmp_path: Path, text: str) -> None:
    (found,) = errors(tmp_path, f"\nstate: '{text}'\n", {"A": "apple"})

    assert found.startswith("2: state: not a reference")


@given(st.dictionaries(st.sampled_from("ABC"), st.text(max_size=30)))
def test_any_value_of_a_variable_arrives_unchanged(env: dict[str, str]) -> None:
    document = parse(b"{a: ${A:-none}, b: [${B:-none}], c: '${C:-none}'}", env)

    assert document.data == {
        "a": env.get("A") or "none",
        "b": [env.get("B") or "none"],
        "c": env.get("C") or "none",
    }


@given(
    st.binary(max_size=200) | st.text(alphabet=string.printable + "${}:-&*!<\ue000\ue001", max_size=200).map(str.encode)
)
def test_no_file_makes_the_reader_crash(raw: bytes) -> None:
    document = parse(raw, {"A": "b"})

    assert isinstance(document.data, dict)


def test_no_file_means_one_upstream_from_the_environment() -> None:
    settings = load(None, {"OPENAI_BASE_URL": "http://h:1/v1", "OPENAI_API_KEY": "sk-x", "PREDAWN_STATE": "s"})
    (upstream,) = settings.upstreams
    (model,) = settings.models

    assert (upstream.name, upstream.base_url, model.name, model.upstream) == (
        "default",
        "http://h:1/v1",
        "*",
        "default",
    )
    assert upstream.api_key is not None
    assert settings.state == "s"


@pytest.mark.parametrize("env", [{}, {"OPENAI_API_KEY": "sk-x"}, {"OPENAI_BASE_URL": ""}])
def test_without_an_address_the_bundled_model_is_served_and_no_key_is_used(env: dict[str, str]) -> None:
    settings = load(None, env)
    (upstream,) = settings.upstreams
    (model,) = settings.models

    assert (upstream.kind, upstream.path, upstream.api_key) == ("local", None, None)
    assert (model.name, model.prefill) == ("predawn-tiny", True)


def test_an_unusable_environment_is_explained() -> None:
    with pytest.raises(SettingsError) as caught:
        load(None, {"OPENAI_BASE_URL": "nowhere"})

    assert str(caught.value).startswith("environment: upstreams[0].base_url: must be a URL")


def test_the_real_environment_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "PREDAWN_STATE", "from-here")

    assert load(write(tmp_path, "")).state == "from-here"


# -- secrets


def test_no_secret_is_in_an_error(tmp_path: Path) -> None:
    text = """\
upstreams:
  - {name: u, kind: ${KEY}, base_url: ${KEY}, api_key: [sk-literal-in-the-file], headers: {x: {y: sk-deep-secret}}}
models:
  - {name: m, upstream: ${KEY}, prefill: pd-other-secret, price: sk-price-secret}
server: {port: ${KEY}}
"""
    found = "\n".join(errors(tmp_path, text, {"KEY": "hunter2-and-more"}))

    assert "hunter2" not in found
    assert "secret" not in found
    assert "literal" not in found
    assert "there is no upstream '${KEY}'" in found


# -- between parts


def problems(data: dict[str, Any]) -> list[str]:
    return [str(problem) for problem in validate(data)]


def models(*given: dict[str, Any]) -> dict[str, Any]:
    return {
        "upstreams": [{"name": "u", "base_url": "http://h/v1"}],
        "models": [{"upstream": "u", **one} for one in given],
    }


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (models({"name": "a", "fallbacks": ["a"]}), ["models[0].fallbacks[0]: 'a' cannot fall back to itself"]),
        (
            models({"name": "a", "fallbacks": ["b"]}, {"name": "b", "fallbacks": ["a"]}),
            ["models[0].fallbacks: fallbacks go round in a circle: a → b → a"],
        ),
        (
            models(
                {"name": "x", "fallbacks": ["a"]}, {"name": "a", "fallbacks": ["b"]}, {"name": "b", "fallbacks": ["a"]}
            ),
            ["models[1].fallbacks: fallbacks go round in a circle: a → b → a"],
        ),
        (models({"name": "a", "fallbacks": ["b", "c"]}, {"name": "b", "fallbacks": ["c"]}, {"name": "c"}), []),
        (
            models({"name": "a", "fallbacks": ["u"]}),
            ["models[0].fallbacks[0]: 'u' is an upstream; fallbacks name models, so add a model that uses it"],
        ),
        (
            models({"name": "gpt-*"}),
            ["models[0].name: 'gpt-*' is no pattern: `*` alone takes any name, and other names are literal"],
        ),
        (
            {"models": [{"name": "a", "targets": [{"upstream": "v"}]}]},
            ["models[0].targets[0].upstream: there is no upstream 'v'; none is defined"],
        ),
        (
            {"server": {"port": 80, "admin_port": 80}},
            ["server.admin_port: the admin ports 80 to 80 include the API's port 80"],
        ),
        (
            {"server": {"port": 82, "admin_port": 80, "workers": 4}},
            ["server.admin_port: the admin ports 80 to 83 include the API's port 82"],
        ),
        ({"server": {"port": 65000}}, ["server.port: admin ports would reach 66000; the last possible is 65535"]),
        ({"server": {"port": 0, "admin_port": 0}}, []),
        (
            {"upstreams": [{"name": "u", "base_url": "http://localhost:8080/v1"}]},
            ["upstreams[0].base_url: this is Predawn's own address; name the server behind it"],
        ),
        ({"upstreams": [{"name": "u", "base_url": "http://localhost:8080/v1"}], "server": {"port": 1}}, []),
        (
            {"upstreams": [{"name": "u", "base_url": "http://h/v1", "script": {"a": 1}}]},
            ["upstreams[0].script: only upstreams of kind scripted have this key"],
        ),
        (
            {"upstreams": [{"name": "u", "base_url": "http://h/v1", "path": "model", "engine": {"threads": 1}}]},
            [
                "upstreams[0].path: only upstreams of kind local have this key",
                "upstreams[0].engine: only upstreams of kind local have this key",
            ],
        ),
        (
            {"upstreams": [{"name": "u", "kind": "local", "base_url": "http://h/v1", "api_key": "sk-x"}]},
            [
                "upstreams[0].base_url: an upstream of kind local sends nothing anywhere",
                "upstreams[0].api_key: an upstream of kind local sends nothing anywhere",
            ],
        ),
        (
            {
                "upstreams": [
                    {"name": "u", "kind": "local", "engine": {"thread": 2, "dtype": "fp16", "prefill_chunk": 100}}
                ]
            },
            [
                "upstreams[0].engine.dtype: must be 'auto', 'float32', 'bfloat16' or 'float16'",
                "upstreams[0].engine.prefill_chunk: must be a multiple of 16",
                "upstreams[0].engine.thread: unknown key — did you mean 'threads'?",
            ],
        ),
        ({"upstreams": [{"name": "u", "kind": "local", "path": "m.gguf", "engine": {"kv_memory_mb": 64}}]}, []),
        (
            models({"name": "a", "price": {"inptu_usd_per_mtok": 1}}),
            ["models[0].price.inptu_usd_per_mtok: unknown key — did you mean 'input_usd_per_mtok'?"],
        ),
        ({"upstreams": {}}, ["upstreams: must be a list"]),
        ({"server": 5}, ["server: must be a mapping of keys to values"]),
    ],
)
def test_parts_must_fit_each_other(data: dict[str, Any], expected: list[str]) -> None:
    assert problems(data) == expected


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["u", "a", "b", "*", "", "http://[", "é"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "server",
                    "port",
                    "admin_port",
                    "workers",
                    "upstreams",
                    "models",
                    "plugins",
                    "name",
                    "upstream",
                    "targets",
                ]
                + ["fallbacks", "base_url", "kind", "script", "options", "allow_plugins", "price"]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=25,
)


@given(json_values)
def test_validate_accepts_exactly_what_settings_accept_or_says_why(data: Any) -> None:
    found = validate(data)

    assert all(problem.message for problem in found)
    if not found:
        Settings.model_validate(data)


def test_a_check_of_plugins_is_asked_even_if_the_rest_is_wrong(tmp_path: Path) -> None:
    asked: list[tuple[list[str], Any]] = []

    def check(entries: Any, allowed: Any) -> list[Problem]:
        asked.append(([entry.name for entry in entries], allowed))
        return [Problem(("plugins", 1, "cache", "ttl"), "unknown key")]

    path = write(
        tmp_path, "server: 5\nallow_plugins: [x]\nplugins:\n  - record\n  - cache:\n      ttl: 1\n  - {a: 1, b: 2}\n"
    )
    with pytest.raises(SettingsError) as caught:
        load(path, {}, check_plugins=check)

    assert asked == [(["record", "cache", ""], ["x"])]
    assert f"{path}:6: plugins[1].cache.ttl: unknown key" in str(caught.value)


# -- names


def test_nearest_gives_one_name_or_nothing() -> None:
    assert nearest("VLM", ["vllm", "claude"]) == " — did you mean 'vllm'?"
    assert nearest("zebra", ["vllm", "claude"]) == ""
    assert nearest("x", []) == ""


def test_explain_speaks_of_a_plugins_own_settings() -> None:
    from pydantic import ValidationError

    try:
        PluginSettings.model_validate({"on_eror": "fail"})
    except ValidationError as exc:
        (problem,) = explain(exc, ("plugins", 0, "record"), model=PluginSettings)

    assert str(problem) == "plugins[0].record.on_eror: unknown key — did you mean 'on_error'?"
