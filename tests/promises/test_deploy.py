"""The files in deploy/ agree with the settings and with each other."""

from __future__ import annotations

import re
import tomllib
from argparse import ArgumentParser
from typing import Any

import pytest
import yaml
from tests.promises.sources import PACKAGES, ROOT

from predawn.proxy.commands import worker
from predawn.proxy.settings import ServerSettings
from predawn.proxy.settings_file import load, validate
from predawn.proxy.settings_yaml import parse

DEPLOY = ROOT / "deploy"
CONTAINER = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
DEFAULTS = ServerSettings()
LONGEST_STOP_S = DEFAULTS.drain_grace_s + DEFAULTS.drain_timeout_s


def read(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))


def admin_port() -> int:
    return DEFAULTS.port + 1000 if DEFAULTS.admin_port is None else DEFAULTS.admin_port


def test_the_settings_of_the_container_are_valid() -> None:
    settings = load(DEPLOY / "predawn.yaml", {"UPSTREAM_URL": "http://h/v1"})

    assert (settings.server.host, settings.access.keys) == ("0.0.0.0", "required")


def test_the_settings_of_the_chart_are_valid() -> None:
    config = read("helm/values.yaml")["config"]
    document = parse(yaml.safe_dump(config).encode(), {})

    assert document.problems == []
    assert validate(document.data) == []


def test_the_container_exposes_the_default_ports_and_copies_every_package() -> None:
    assert re.findall(r"^EXPOSE (.*)$", CONTAINER, re.MULTILINE) == [f"{DEFAULTS.port} {admin_port()}"]
    assert set(PACKAGES) <= set(re.findall(r"^COPY (\w+) \w+$", CONTAINER, re.MULTILINE))
    assert f"127.0.0.1:{admin_port()}/health" in CONTAINER


def test_extras_of_the_container_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (extras,) = re.findall(r"^ARG EXTRAS=(.*)$", CONTAINER, re.MULTILINE)

    assert set(extras.split(",")) <= project["optional-dependencies"].keys()


def test_what_stops_a_container_waits_for_its_streams() -> None:
    compose = read("compose.yaml")["services"]["predawn"]

    assert float(compose["stop_grace_period"].removesuffix("s")) > LONGEST_STOP_S
    assert read("helm/values.yaml")["terminationGracePeriodSeconds"] > LONGEST_STOP_S


def test_workers_are_started_as_the_command_line_wants_it() -> None:
    parser = ArgumentParser()
    worker.add_parser(parser.add_subparsers())
    options = parser.parse_args(read("compose.yaml")["services"]["worker"]["command"])
    chart = (DEPLOY / "helm" / "templates" / "worker.yaml").read_text(encoding="utf-8")
    arguments = re.findall(
        r"^ {12}- (\S+|\{\{.*\}\})$", chart.partition("args:")[2].partition("envFrom:")[0], re.MULTILINE
    )

    assert (options.admin_port, options.config.name) == (admin_port(), "predawn.yaml")
    assert parser.parse_args([*arguments[:-1], "9"]).config == options.config


def test_workers_are_no_servers() -> None:
    """Pods of workers answer no requests, so the service must not find them by its labels."""
    labels = [
        re.findall(r"app.kubernetes.io/name: (\S+)", (DEPLOY / "helm" / "templates" / name).read_text(encoding="utf-8"))
        for name in ("service.yaml", "worker.yaml")
    ]

    assert [set(one) for one in labels] == [{"predawn"}, {"predawn-worker"}]


def test_prometheus_scrapes_the_admin_port_of_the_composed_service() -> None:
    (job,) = read("prometheus.yml")["scrape_configs"]

    assert job["static_configs"] == [{"targets": [f"predawn:{admin_port()}"]}]
    assert "predawn" in read("compose.yaml")["services"]


def test_files_that_are_mounted_exist() -> None:
    mounts = [volume for service in read("compose.yaml")["services"].values() for volume in service["volumes"]]
    local = [volume.partition(":")[0] for volume in mounts if volume.startswith("./")]

    assert local
    assert all((DEPLOY / name).is_file() for name in local)


def test_the_chart_has_the_version_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    assert read("helm/Chart.yaml")["appVersion"] == project["version"]


@pytest.mark.parametrize("template", sorted((DEPLOY / "helm" / "templates").iterdir()), ids=lambda path: path.name)
def test_templates_use_only_values_that_exist(template: Any) -> None:
    values = read("helm/values.yaml")
    for path in re.findall(r"\.Values((?:\.\w+)+)", template.read_text(encoding="utf-8")):
        found: Any = values
        for part in path.strip(".").split("."):
            assert part in found, f"{template.name}: .Values{path}"
            found = found[part]
