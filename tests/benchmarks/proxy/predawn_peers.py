"""Predawn in the dresses that the bars speak of."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from tests.benchmarks.processes import free_port
from tests.benchmarks.proxy.installs import UnobtainableError, checkout_environment, peers_python, python_version
from tests.benchmarks.proxy.peers import CLIENT_KEY, Launch, Peer, Site

NOOP_PLUGINS = ("noop_one", "noop_two", "noop_three")
NOOP_FOLDER = Path(__file__).parent / "noop_plugin"

BUILT_IN = ("traces", "redact", "cache", "budget", "sampling", "verify", "sleep", "record")
SETTINGS = """\
server: {server}
state: {folder}/state.db
upstreams:
  - {{name: mock, kind: openai, base_url: "{upstream}/v1", api_key: sk-mock}}
models:
  - {{name: mock-model, upstream: mock}}
  - {{name: another, upstream: mock}}
plugins: {plugins}
"""


@dataclass(frozen=True, slots=True)
class Predawn:
    """`predawn serve` with a settings file of its own. `keys`: clients need one, made beforehand by `predawn keys create`.

    `models`: what plugins are limited to. `tests`: those that are worth its time; all of them when empty.
    `on_this_python`: run by the Python that runs the benchmark, and not by the one that peers run on.
    """

    name: str
    plugins: tuple[str, ...] = ()
    keys: bool = False
    models: tuple[str, ...] = ()
    server: Mapping[str, object] = field(default_factory=dict)
    tests: tuple[str, ...] = ()
    on_this_python: bool = False

    def obtain(self) -> str:
        if not self._program.exists():
            raise UnobtainableError(f"no `predawn` beside {Path(sys.executable).name}: install the checkout there")
        return metadata.version("predawn") if self.on_this_python else python_version("predawn", "predawn")

    def launch(self, site: Site) -> Launch:
        settings = site.folder / "predawn.yaml"
        server = {"admin_port": free_port(), "log": {"level": "warning"}, **self.server}
        limits = {"models": self.models} if self.models else {}
        plugins = [{name: limits} for name in self.plugins]
        settings.write_text(
            SETTINGS.format(
                server=json.dumps(server),
                folder=site.folder,
                upstream=site.upstream_url,
                plugins=json.dumps(plugins),  # which is YAML, too
            )
        )
        key = self._create_key(settings) if self.keys else CLIENT_KEY
        command = (
            str(self._program),
            "serve",
            "--config",
            str(settings),
            "--host",
            "127.0.0.1",
            "--port",
            str(site.port),
        )
        return Launch(site.port, command, self._env(), key=key)

    def _create_key(self, settings: Path) -> str:
        command = [str(self._program), "keys", "create", "bench", "--config", str(settings)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise RuntimeError(f"`predawn keys create` failed: {done.stderr.strip()[-300:]}")
        return done.stdout.strip().splitlines()[-1]

    @property
    def _program(self) -> Path:
        folder = Path(sys.executable).parent if self.on_this_python else checkout_environment("jobs,redact,verify")
        return folder / "predawn"

    def _env(self) -> dict[str, str]:
        """The no-op plugins are found by their entry points, which lie in a folder that only this process sees."""
        return {"PYTHONPATH": str(NOOP_FOLDER)} if set(self.plugins) & set(NOOP_PLUGINS) else {}


def predawn_peers() -> list[Peer]:
    peers: list[Peer] = [
        Predawn("predawn", ("record",), keys=True),
        Predawn("predawn-keys", keys=True),
        Predawn("predawn-this-python", keys=True, on_this_python=True, tests=("small", "large", "streams", "ttft")),
        Predawn("predawn-bare"),
        Predawn("predawn-idle", BUILT_IN, models=("another",), tests=("small", "fresh", "bodies")),
        Predawn("predawn-full", server={"fast_lane": False}, tests=("small", "bodies")),
        Predawn("predawn-noop3", NOOP_PLUGINS, tests=("small", "bodies")),
        Predawn(
            "predawn-slow",
            ("record",),
            keys=True,
            server={"fast_lane": False},
            tests=("small", "fresh", "large", "streams"),
        ),
    ]
    is_same = peers_python().resolve() == Path(sys.executable).resolve()
    return [peer for peer in peers if not (is_same and peer.name == "predawn-this-python")]
