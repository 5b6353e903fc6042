"""The gateways that Predawn is measured against, each with the settings its documentation gives for this job."""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tests.benchmarks.processes import free_port
from tests.benchmarks.proxy.installs import debian_program, npm_package, python_environment, python_version

CLIENT_KEY = "sk-test"


@dataclass(frozen=True, slots=True)
class Site:
    """Where one peer is set up: a folder of its own, its port, and the upstream's."""

    folder: Path
    port: int
    upstream_port: int

    @property
    def upstream_url(self) -> str:
        return f"http://127.0.0.1:{self.upstream_port}"


@dataclass(frozen=True, slots=True)
class Launch:
    """How a peer is started and spoken to. No command: nothing is started, the load goes to `port` itself."""

    port: int
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    key: str = CLIENT_KEY
    headers: tuple[str, ...] = ()
    patience_s: float = 90


class Peer(Protocol):
    """Something between client and upstream."""

    @property
    def name(self) -> str: ...

    @property
    def tests(self) -> tuple[str, ...]:
        """Tests that are worth its time; all of them when empty."""

    def obtain(self) -> str:
        """Makes it available and returns its version; raises UnobtainableError with the reason."""

    def launch(self, site: Site) -> Launch:
        """Writes what it needs into the site's folder and says how to start it there."""


class Direct:
    """No gateway: what the mock upstream and the load generator take by themselves."""

    name = "direct"
    tests = ()

    def obtain(self) -> str:
        return "-"

    def launch(self, site: Site) -> Launch:
        return Launch(site.upstream_port)


class Nginx:
    """The floor: a byte relay in C, one worker, connections to the upstream kept alive, streams unbuffered."""

    name = "nginx"
    tests = ()

    def obtain(self) -> str:
        program = debian_program("nginx", "nginx-light")
        return (
            subprocess.run([str(program), "-v"], check=True, capture_output=True, text=True)
            .stderr.strip()
            .rpartition("/")[2]
        )

    def launch(self, site: Site) -> Launch:
        config = site.folder / "nginx.conf"
        config.write_text(NGINX.format(folder=site.folder, port=site.port, upstream=site.upstream_port))
        program = debian_program("nginx", "nginx-light")
        return Launch(site.port, (str(program), "-c", str(config), "-e", str(site.folder / "error.log")))


NGINX = """\
daemon off; master_process on; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
worker_rlimit_nofile 16384;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  client_max_body_size 64m; client_body_buffer_size 1m; keepalive_requests 1000000;
  upstream mock {{ server 127.0.0.1:{upstream}; keepalive 1024; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://mock; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_request_buffering off; proxy_read_timeout 600s;
    }}
  }}
}}
"""


class LiteLLM:
    """LiteLLM's proxy, one worker, no database, quiet, the cost map from its own package.

    1.107 is left out: that release is reported as compromised. Only wheels are installed.
    """

    name = "litellm"
    tests = ()

    def obtain(self) -> str:
        python_environment("litellm", "litellm[proxy]>=1.101,<2,!=1.107.*", "litellm")
        return python_version("litellm", "litellm")

    def launch(self, site: Site) -> Launch:
        config = site.folder / "litellm.yaml"
        config.write_text(LITELLM.format(upstream=site.upstream_url))
        program = python_environment("litellm", "litellm[proxy]", "litellm")
        command = (
            str(program), "--config", str(config), "--host", "127.0.0.1", "--port", str(site.port),
            "--num_workers", "1", "--telemetry", "False",
        )  # fmt: skip
        env = {
            "LITELLM_MASTER_KEY": CLIENT_KEY,
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_LOG": "ERROR",
            "LITELLM_TELEMETRY": "False",
        }
        return Launch(site.port, command, env, patience_s=150)


LITELLM = """\
model_list:
  - model_name: mock-model
    litellm_params: {{model: openai/mock-model, api_base: "{upstream}/v1", api_key: sk-mock}}
litellm_settings: {{telemetry: false, num_retries: 0, request_timeout: 600}}
general_settings: {{}}
"""


class Portkey:
    """Portkey's gateway from npm: the target is named by headers of each request.

    Its server adapter is pinned: with @hono/node-server 1.14 and later, which it admits, each stream ends in
    `TypeError: immutable` and a 500.
    """

    name = "portkey"
    tests = ()

    def obtain(self) -> str:
        return str(json.loads((self._script().parents[1] / "package.json").read_text())["version"])

    def launch(self, site: Site) -> Launch:
        return Launch(
            site.port,
            ("node", str(self._script()), "--headless", f"--port={site.port}"),
            {"NODE_ENV": "production"},
            headers=("x-portkey-provider: openai", f"x-portkey-custom-host: {site.upstream_url}/v1"),
        )

    def _script(self) -> Path:
        pins = {"@hono/node-server": "1.13.8"}
        return npm_package("portkey", "@portkey-ai/gateway", "build/start-server.js", version="^1.15.2", overrides=pins)


class VllmRouter:
    """vLLM's router, written in Rust: its wheel needs a small web framework and no torch."""

    name = "vllm-router"
    tests = ()

    def obtain(self) -> str:
        python_environment("vllm-router", "vllm-router==0.1.17", "vllm-router")
        return python_version("vllm-router", "vllm-router")

    def launch(self, site: Site) -> Launch:
        program = python_environment("vllm-router", "vllm-router==0.1.17", "vllm-router")
        command = (
            str(program), "--worker-urls", site.upstream_url, "--host", "127.0.0.1", "--port", str(site.port),
            "--policy", "round_robin", "--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port()),
            "--log-level", "error",
        )  # fmt: skip
        return Launch(site.port, command)


@dataclass(frozen=True, slots=True)
class Extra:
    """A peer given on the command line: `name=command`, with {port}, {upstream} and {folder} filled in."""

    name: str
    template: str
    tests: tuple[str, ...] = ()

    def obtain(self) -> str:
        return "given on the command line"

    def launch(self, site: Site) -> Launch:
        words = self.template.format(port=site.port, upstream=site.upstream_port, folder=site.folder).split()
        return Launch(site.port, tuple(words))


def foreign_peers() -> list[Peer]:
    return [Direct(), Nginx(), LiteLLM(), Portkey(), VllmRouter()]
