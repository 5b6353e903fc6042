"""A model's server that dies."""

import openai
import pytest
from tests.real.conftest import settings
from tests.real.requests_made import chat

from predawn.proxy.local_server import serving
from predawn.proxy.small_model.files import cache_folder, small_model
from predawn.proxy.small_model.report import Report
from predawn.proxy.small_model.server import running

pytestmark = pytest.mark.real


@pytest.fixture
def mortal(capsys):
    """A server of its own, to be killed."""
    import sys

    with running(small_model(cache_folder(), Report(sys.stdout)), context=512) as server:
        yield server


def test_a_killed_server_is_an_error_in_the_stream_and_then_a_refusal(mortal, tmp_path):
    with (
        serving(settings(mortal), folder=tmp_path) as predawn,
        openai.OpenAI(base_url=predawn.base_url, api_key="any", max_retries=0, timeout=30) as client,
    ):
        stream = iter(client.chat.completions.create(**chat(max_tokens=400, logit_bias={"2": -100}), stream=True))
        next(stream)
        mortal.child.process.kill()
        with pytest.raises(openai.APIError) as cut_off:
            list(stream)
        with pytest.raises(openai.InternalServerError) as refused:
            client.chat.completions.create(**chat())

    assert "upstream" in str(cut_off.value).lower()
    assert (refused.value.status_code, refused.value.code) == (502, "upstream_error")
