"""The settings on the page about llama.cpp, with the real thing behind them."""

import re

import openai
import pytest
import yaml
from docs.generate import DOCS

from predawn.proxy.local_server import serving

pytestmark = pytest.mark.real

PAGE = (DOCS / "in-front-of-llama-cpp.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(yaml|python)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def page(model, tmp_path_factory):
    settings = yaml.safe_load(next(code for language, code in BLOCKS if language == "yaml"))
    settings["upstreams"][0]["base_url"] = model.base_url
    with serving(settings, folder=tmp_path_factory.mktemp("page")) as server:
        yield server


def test_the_program_of_the_page_gets_an_answer(page):
    space = {}
    code = next(code for language, code in BLOCKS if language == "python")
    exec(code.replace("http://127.0.0.1:8080/v1", page.base_url), space)
    space["client"].close()

    assert space["answer"].choices[0].message.content
    assert space["answer"].usage.completion_tokens <= 20


def test_two_samples_side_by_side_vote(page):
    with openai.OpenAI(base_url=page.base_url, api_key="any", max_retries=0) as client:
        answer = client.chat.completions.with_raw_response.create(
            model="smollm2",
            messages=[{"role": "user", "content": "How much is 2 + 2? Answer with the number."}],
            max_tokens=20,
            extra_body={"predawn": {"sampling": {"strategy": "vote", "samples": 2, "fallback": "single"}}},
        )

    assert answer.headers["x-predawn-samples"] == "2"
    assert answer.headers["x-predawn-verify"] == "observe"
    assert answer.parse().usage.model_extra["predawn"]["calls"] == 2
