import http.server
import json
import threading
from contextlib import ExitStack

import pytest

from predawn.proxy.demo import upstream as demo_upstream
from predawn.proxy.settings import Settings
from predawn.proxy.small_model.download import SetupError


@pytest.fixture
def endpoint():
    """An endpoint that lists models and remembers who asked."""

    class Handler(http.server.BaseHTTPRequestHandler):
        seen = []
        models = ["text-embedding-3", "gpt-small", "gpt-large"]
        body = None

        def do_GET(self):
            self.seen.append((self.path, self.headers.get("authorization")))
            body = self.body or json.dumps({"data": [{"id": name} for name in self.models]}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    Handler.url = f"http://127.0.0.1:{server.server_port}/v1"
    yield Handler
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_first_chat_model_of_the_users_endpoint_is_taken(endpoint):
    upstream = demo_upstream.users_own(f"{endpoint.url}/", {"OPENAI_API_KEY": "sk-mine"})

    assert upstream.alias == "gpt-small"
    assert endpoint.seen == [("/v1/models", "Bearer sk-mine")]


def test_a_named_model_is_taken_without_asking(endpoint):
    upstream = demo_upstream.users_own(endpoint.url, {"OPENAI_MODEL": "gpt-large"})

    assert (upstream.alias, endpoint.seen) == ("gpt-large", [])


def test_the_key_is_not_written_into_the_settings():
    settings = demo_upstream.users_own(
        "https://api.example/v1", {"OPENAI_API_KEY": "sk-mine", "OPENAI_MODEL": "m"}
    ).as_settings()

    assert "sk-mine" not in json.dumps(settings)
    assert settings["upstreams"][0]["api_key"] == "${OPENAI_API_KEY}"


def test_the_generated_settings_are_valid():
    settings = Settings.model_validate(
        demo_upstream.users_own("https://api.example/v1", {"OPENAI_MODEL": "m"}).as_settings()
    )

    assert (settings.models[0].name, settings.plugins[0].name) == ("m", "record")


def test_the_users_http_proxy_is_used_for_the_users_endpoint_only(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "inside.example")
    outside, inside = (
        demo_upstream.users_own(f"https://{host}/v1", {"OPENAI_MODEL": "m"}).settings.get("http_proxy")
        for host in ("outside.example", "inside.example")
    )

    assert (outside, inside) == ("http://proxy.example:3128", None)


def test_an_endpoint_that_lists_no_chat_model_needs_one_named(endpoint):
    endpoint.models = ["text-embedding-3", "whisper-1"]

    with pytest.raises(SetupError, match="OPENAI_MODEL"):
        demo_upstream.users_own(endpoint.url, {})


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"data": [1]}', b'{"data": null}'])
def test_an_endpoint_that_lists_no_models_is_explained(endpoint, body):
    endpoint.body = body

    with pytest.raises(SetupError, match="does not answer with a list of models"):
        demo_upstream.users_own(endpoint.url, {})


def test_an_endpoint_that_nobody_serves_is_explained():
    with pytest.raises(SetupError, match="unset OPENAI_BASE_URL"):
        demo_upstream.users_own("http://127.0.0.1:9/v1", {})


def test_the_bundled_model_is_asked_where_nothing_else_is_named():
    with ExitStack() as stack:
        bundled = demo_upstream.choose(None, {}, None, stack)
        wished = demo_upstream.choose("predawn-tiny", {"OPENAI_BASE_URL": "http://h/v1"}, None, stack)
    settings = Settings.model_validate(bundled.as_settings())

    assert bundled == wished
    assert (settings.models[0].name, settings.upstreams[0].kind) == ("predawn-tiny", "local")
    assert len(bundled.questions_for(None)) == 4
    assert [question.text for question in bundled.questions_for("Why?")] == ["Why?"]


def test_an_address_that_is_none_is_refused():
    with pytest.raises(SetupError, match="must begin with http"):
        demo_upstream.users_own("localhost:8000/v1", {})
