"""The files in deploy/ agree with the settings, with the commands and with each other.

What needs Helm, compose or a sandbox is in tests/deploy and runs by `make test-deploy`.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
import subprocess
import tomllib
from argparse import ArgumentParser
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from runpy import run_path
from typing import Any

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from tests.promises.sources import PACKAGES, ROOT

from predawn.proxy.cli import parser
from predawn.proxy.settings import ServerSettings, Settings
from predawn.proxy.settings_file import load, validate
from predawn.proxy.settings_yaml import parse

DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm"
CONTAINER = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DEFAULTS = ServerSettings()
LONGEST_STOP_S = DEFAULTS.drain_grace_s + DEFAULTS.drain_timeout_s
EXTRAS = {"server": ["jobs", "postgres", "redis", "redact", "verify"]}
EXTRAS["gpu"] = ["kernels", *EXTRAS["server"]]
UNITS = sorted((DEPLOY / "systemd").iterdir())


def read(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))


def services() -> dict[str, Any]:
    return dict(read("compose.yaml")["services"])


def ours() -> dict[str, Any]:
    """The composed services that run Predawn's own image."""
    return {name: service for name, service in services().items() if service["image"].startswith("predawn:")}


def admin_port() -> int:
    return DEFAULTS.port + 1000 if DEFAULTS.admin_port is None else DEFAULTS.admin_port


# --- settings


def test_the_settings_of_the_container_are_valid_with_the_variables_that_compose_sets() -> None:
    """Compose hands an empty string on for each variable that nobody set."""
    wanted = set(re.findall(r"\$\{(\w+)", (DEPLOY / "predawn.yaml").read_text(encoding="utf-8")))
    environment = dict.fromkeys(ours()["predawn"]["environment"], "")
    settings = load(DEPLOY / "predawn.yaml", {**environment, "UPSTREAM_URL": "http://h/v1"})

    assert wanted <= environment.keys()
    assert (settings.server.host, settings.access.keys) == ("0.0.0.0", "required")
    assert settings.server.admin_key is None


def test_the_settings_of_the_chart_are_valid() -> None:
    document = parse(yaml.safe_dump(read("helm/values.yaml")["config"]).encode(), {})

    assert document.problems == []
    assert validate(document.data) == []


# --- container


def test_the_container_exposes_the_default_ports_and_gets_every_package() -> None:
    copied = set(re.findall(r"^COPY (?!--)(.*) \S+$", CONTAINER, re.MULTILINE))
    let_in = {line[1:] for line in (DEPLOY / "Containerfile.dockerignore").read_text("utf-8").split() if line[0] == "!"}

    assert re.findall(r"^EXPOSE (.*)$", CONTAINER, re.MULTILINE) == [f"{DEFAULTS.port} {admin_port()}"]
    assert set(PACKAGES) <= copied
    assert [
        name
        for name in " ".join(copied).split()
        if not any(name == one or name.startswith(f"{one}/") for one in let_in)
    ] == []
    assert f"127.0.0.1:{admin_port()}/health" in CONTAINER


def test_each_image_is_pinned_by_digest_or_built_here() -> None:
    pinned = re.compile(r"[a-z0-9./-]+:[\w.-]+@sha256:[0-9a-f]{64}")
    bases = re.findall(r"^FROM (\S+)", CONTAINER, re.MULTILINE)
    (base,) = re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", CONTAINER, re.MULTILINE)
    foreign = [service["image"] for name, service in services().items() if name not in ours()]

    assert set(bases) == {"${PYTHON_IMAGE}"}
    assert [image for image in [base, *foreign] if not pinned.fullmatch(image)] == []
    assert {service["image"] for service in ours().values()} == {f"predawn:{PROJECT['project']['version']}"}


def test_the_gpu_variant_is_built_and_runs_in_every_service_of_ours() -> None:
    """A service left with the other image would have compose look for it in a registry, where it is not."""
    gpu = read("compose.gpu.yaml")["services"]

    assert gpu.keys() == ours().keys()
    assert {service["image"] for service in gpu.values()} == {f"predawn:{PROJECT['project']['version']}-gpu"}
    assert gpu["predawn"]["build"] == {"args": {"VARIANT": "gpu"}}


def test_nothing_is_installed_in_the_container_without_a_hash() -> None:
    installs = [
        line for line in CONTAINER.replace("\\\n", " ").splitlines() if re.search(r"\binstall\b.*\.(txt|whl)", line)
    ]

    assert len(installs) == 3
    assert [
        part
        for line in installs
        for part in line.split("&&")
        if " install " in part and "--require-hashes" not in part and "--no-index --no-deps" not in part
    ] == []


def test_the_container_runs_as_nobody_in_particular_and_compose_lets_it_write_nothing_but_its_state() -> None:
    assert re.findall(r"^USER (.*)$", CONTAINER, re.MULTILINE) == ["10001:10001"]
    for service in ours().values():
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
        assert service["security_opt"] == ["no-new-privileges:true"]
    published = [port for service in services().values() for port in service.get("ports", [])]

    assert [port for port in published if not port.startswith("127.0.0.1:")] == []


# --- locks


def pins(name: str) -> dict[str, tuple[Version, int]]:
    """Package → (version, number of hashes)."""
    text = (DEPLOY / "locks" / f"{name}.txt").read_text(encoding="utf-8").replace("\\\n", " ")
    found = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            requirement, *hashes = line.split(" --hash=")
            package = Requirement(requirement.strip())
            ((specifier,)) = package.specifier
            assert specifier.operator == "=="
            found[canonicalize_name(package.name)] = (Version(specifier.version), len(hashes))
    return found


def wanted(lock: str) -> list[Requirement]:
    if lock == "build":
        return [Requirement(one) for one in PROJECT["build-system"]["requires"]]
    project = PROJECT["project"]
    extras = [one for extra in EXTRAS[lock] for one in project["optional-dependencies"][extra]]
    return [Requirement(one) for one in [*project["dependencies"], *extras]]


def needed(start: list[Requirement]) -> Iterator[Requirement]:
    """Those and what they need in turn, as far as it is installed here."""
    seen: set[str] = set()
    waiting = list(start)
    while waiting:
        requirement = waiting.pop()
        if str(requirement) in seen or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        seen.add(str(requirement))
        yield requirement
        try:
            further = [Requirement(one) for one in distribution(requirement.name).requires or ()]
        except PackageNotFoundError:
            continue
        for one in further:
            if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in ("", *requirement.extras)):
                waiting.append(Requirement(str(one).partition(";")[0]))


@pytest.mark.parametrize("lock", ["server", "gpu", "build"])
def test_a_lock_has_all_that_is_needed_in_the_versions_that_the_tests_ran_with(lock: str) -> None:
    locked = pins(lock)
    tested = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, _, version = line.partition("==")
            tested[canonicalize_name(name)] = Version(version)

    assert [
        f"{one}: run make lock"
        for one in needed(wanted(lock))
        if not (found := locked.get(canonicalize_name(one.name)))
        or not one.specifier.contains(found[0], prereleases=True)
    ] == []
    assert {name: str(version) for name, (version, _) in locked.items() if tested.get(name, version) != version} == {}
    assert [name for name, (_, hashes) in locked.items() if not hashes] == []


def test_locks_are_made_for_the_extras_that_are_checked_here() -> None:
    script = (DEPLOY / "lock.sh").read_text(encoding="utf-8")

    assert re.findall(r"^extras=\((.*)\)$", script, re.MULTILINE) == [" ".join(EXTRAS["server"])]
    assert sorted(path.stem for path in (DEPLOY / "locks").iterdir()) == ["build", "gpu", "server"]


# --- stopping, starting


def test_what_stops_a_server_waits_for_its_streams() -> None:
    unit = dict(directives(DEPLOY / "systemd" / "predawn.service"))
    helpers = (CHART / "templates" / "_helpers.tpl").read_text(encoding="utf-8")
    defaults = re.findall(r'dig "(drain_\w+)" (\d+) \$server', helpers)

    assert float(ours()["predawn"]["stop_grace_period"].removesuffix("s")) > LONGEST_STOP_S
    assert float(unit["TimeoutStopSec"]) > LONGEST_STOP_S
    assert {name: float(value) for name, value in defaults} == {
        "drain_grace_s": DEFAULTS.drain_grace_s,
        "drain_timeout_s": DEFAULTS.drain_timeout_s,
    }


def directives(unit: Path) -> Iterator[tuple[str, str]]:
    for line in unit.read_text(encoding="utf-8").splitlines():
        if line and line[0] not in "#[":
            name, _, value = line.partition("=")
            yield name, value


def commands() -> Iterator[Any]:
    for name, service in ours().items():
        yield pytest.param(service.get("command", ["serve", "--config", "x"]), id=f"compose {name}")
    for unit in UNITS:
        for name, value in directives(unit):
            if name in {"ExecStart", "ExecStartPre"}:
                yield pytest.param(shlex.split(value)[1:], id=f"{unit.name} {name}")
    (command,) = re.findall(r"^CMD (\[.*\])$", CONTAINER, re.MULTILINE)
    yield pytest.param(json.loads(command), id="container")
    chart = (CHART / "templates" / "worker.yaml").read_text(encoding="utf-8")
    arguments = re.findall(r"^ {12}- (.*)$", chart.partition("args:")[2].partition("ports:")[0], re.MULTILINE)
    yield pytest.param(["1" if argument.startswith("{{") else argument for argument in arguments], id="chart worker")


@pytest.mark.parametrize("command", list(commands()))
def test_commands_are_given_as_the_command_line_wants_them(command: list[str]) -> None:
    parsed: ArgumentParser = parser()

    assert parsed.parse_args(command).run


def test_units_are_hardened_alike() -> None:
    own = {"Description", "After", "ExecStart", "ExecStartPre", "TimeoutStopSec"}
    server, worker = (
        {(name, value) for name, value in directives(unit) if name not in own} for unit in reversed(UNITS)
    )

    assert [unit.name for unit in UNITS] == ["predawn-worker.service", "predawn.service"]
    assert server == worker


# --- watching


def test_prometheus_scrapes_the_admin_ports_of_the_composed_services() -> None:
    (job,) = read("prometheus.yml")["scrape_configs"]

    assert job["static_configs"] == [{"targets": [f"predawn:{admin_port()}"]}]
    assert job["dns_sd_configs"] == [{"names": ["worker"], "type": "A", "port": admin_port()}]
    assert {"predawn", "worker"} <= services().keys()
    assert "--enable-feature=exemplar-storage" in services()["prometheus"]["command"]


def test_files_that_are_mounted_exist_and_are_where_they_are_looked_for() -> None:
    mounts = [volume.split(":") for service in services().values() for volume in service.get("volumes", [])]
    local = {(DEPLOY / source).resolve(): target for source, target, *_ in mounts if source.startswith(".")}
    (provider,) = yaml.safe_load((ROOT / "grafana/provisioning/dashboards/predawn.yaml").read_text("utf-8"))[
        "providers"
    ]

    assert local
    assert [path for path in local if not path.exists()] == []
    assert provider["options"]["path"] == local[ROOT / "grafana" / "dashboards"]
    assert local[ROOT / "grafana" / "prometheus"] == "/etc/prometheus/rules"
    assert read("prometheus.yml")["rule_files"] == ["rules/*.yml"]


# --- chart


def test_the_chart_has_the_version_of_the_project() -> None:
    assert read("helm/Chart.yaml")["appVersion"] == PROJECT["project"]["version"]


def test_the_chart_carries_the_dashboards_and_rules_that_are_committed() -> None:
    """By links in a checkout, as copies in a source archive."""
    for inside, outside, kind in (("dashboards", "dashboards", "*.json"), ("rules", "prometheus", "*.yml")):
        carried = {path.name: path.read_bytes() for path in (CHART / inside).glob(kind)}
        committed = {path.name: path.read_bytes() for path in (ROOT / "grafana" / outside).glob(kind)}

        assert carried
        assert carried == committed


def test_workers_are_no_servers() -> None:
    """Pods of workers answer no requests, so the service must not find them by its labels."""
    parts = {
        name: set(re.findall(r"component: (\S+)", (CHART / "templates" / f"{name}.yaml").read_text(encoding="utf-8")))
        for name in ("deployment", "service", "disruption", "worker")
    }

    assert parts == {"deployment": {"server"}, "service": {"server"}, "disruption": {"server"}, "worker": {"worker"}}


@pytest.mark.parametrize("template", sorted((CHART / "templates").iterdir()), ids=lambda path: path.name)
def test_templates_use_only_values_that_exist(template: Path) -> None:
    values = read("helm/values.yaml")
    for path in re.findall(r"\.Values((?:\.\w+)+)", template.read_text(encoding="utf-8")):
        found: Any = values
        for part in path.strip(".").split("."):
            assert part in found, f"{template.name}: .Values{path}"
            found = found[part]


def test_the_schema_of_values_knows_each_value_and_each_part_of_the_settings() -> None:
    schema = read("helm/values.schema.json")
    values = read("helm/values.yaml")
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.Draft7Validator(schema).validate(values)

    assert schema["properties"].keys() - {"global"} == values.keys()
    assert schema["properties"]["config"]["properties"].keys() == Settings.model_fields.keys()


def test_values_that_the_page_shows_are_taken_by_the_chart() -> None:
    schema = read("helm/values.schema.json")
    page = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    shown = [yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)]
    values = [one for one in shown if one.keys() <= schema["properties"].keys()]

    assert values
    for one in values:
        jsonschema.Draft7Validator(schema).validate(merged(read("helm/values.yaml"), one))


def merged(values: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """As Helm lays values over the chart's: mappings key by key, anything else as a whole."""
    both = {name: merged(values[name], more[name]) for name in more if isinstance(values.get(name), dict)}
    return {**values, **more, **both}


@pytest.mark.parametrize(
    "wrong",
    [
        {"replica": 2},
        {"replicas": "2"},
        {"image": {"repository": "predawn", "digest": "sha256:12"}},
        {"config": {"server": {"host": "127.0.0.1"}}},
    ],
    ids=json.dumps,
)
def test_the_schema_of_values_refuses_what_cannot_work(wrong: dict[str, Any]) -> None:
    values = {**read("helm/values.yaml"), **wrong}

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(read("helm/values.schema.json")).validate(values)


# --- supply chain


def package(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "version": "1", "vulns": [], **more}


@pytest.mark.parametrize(
    ("packages", "status", "word"),
    [
        ([package("a"), package("b")], 0, "2 packages, no known"),
        ([package("a", vulns=[{"id": "PYSEC-1", "fix_versions": ["2"]}])], 1, "a 1: PYSEC-1, mended in 2"),
        (
            [package("a", vulns=[{"id": "PYSEC-1", "fix_versions": []}]), {"name": "b", "skip_reason": "?"}],
            1,
            "no release",
        ),
        ([package("a"), {"name": "b", "skip_reason": "not found"}], 2, "NOT AUDITED"),
        ([], 2, "NOT AUDITED"),
    ],
    ids=["clean", "vulnerable", "vulnerable and skipped", "skipped", "empty"],
)
def test_an_audit_that_asked_about_nothing_is_not_clean(packages: list[Any], status: int, word: str) -> None:
    verdict = run_path(str(DEPLOY / "audit.py"))["verdict"]({"dependencies": packages})

    assert verdict[0] == status
    assert word in verdict[1]


def test_an_audit_that_fails_is_told_from_one_that_finds_something(tmp_path: Path) -> None:
    broken = tmp_path / "pip-audit"
    broken.write_text("#!/bin/sh\necho 'no route to host' >&2\nexit 1\n", encoding="utf-8")
    broken.chmod(0o755)
    status, words = run_path(str(DEPLOY / "audit.py"))["audit"](str(broken), DEPLOY / "locks" / "build.txt")

    assert status == 2
    assert "no route to host" in words


def test_pinning_writes_the_digest_of_what_the_registry_says(tmp_path: Path) -> None:
    for name in ("pin.sh", "Containerfile", "compose.yaml"):
        shutil.copy(DEPLOY / name, tmp_path)
    fake = tmp_path / "bin" / "skopeo"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\nprintf "index of $3"\n', encoding="utf-8")
    fake.chmod(0o755)
    path = {"PATH": f"{fake.parent}:/usr/bin:/bin"}
    subprocess.run([tmp_path / "pin.sh"], check=True, env=path, stdout=subprocess.DEVNULL)
    found = re.findall(
        r"([a-z0-9./-]+:[\w.-]+)@sha256:([0-9a-f]{64})",
        "".join((tmp_path / name).read_text(encoding="utf-8") for name in ("Containerfile", "compose.yaml")),
    )
    again = subprocess.run([tmp_path / "pin.sh"], check=True, env=path, capture_output=True, text=True)

    assert len(found) == 5
    assert {tag: digest for tag, digest in found} == {
        tag: hashlib.sha256(f"index of docker://{tag}".encode()).hexdigest() for tag, _ in found
    }
    assert "renewed" not in again.stdout


def test_each_threat_names_its_defence_and_a_test_that_holds_it() -> None:
    page = (ROOT / "THREAT_MODEL.md").read_text(encoding="utf-8")
    table = page.partition("## Threats and answers")[2].partition("\n## ")[0]
    rows = [line.strip().strip("|").split("|") for line in table.splitlines() if line.startswith("| ")][1:]
    code = [path for row in rows for path in re.findall(r"`([\w/.-]+)`", row[-2])]
    tests = {row[0].strip(): re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", row[-1]) for row in rows}

    assert len(rows) > 40
    assert [path for path in code if not (ROOT / path).exists()] == []
    assert [threat for threat, named in tests.items() if not named] == []
    assert [
        f"{path}::{name}"
        for named in tests.values()
        for path, name in named
        if not (ROOT / path).is_file() or f"def {name}(" not in (ROOT / path).read_text(encoding="utf-8")
    ] == []
