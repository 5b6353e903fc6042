"""A model on this machine, asked by the official client over real sockets."""

import asyncio
import json
import threading
import time

import openai
import pytest

pytest.importorskip("torch")

from tests.acceptance.local_models import served, write_model

from predawn.proxy.local_server import fetch

HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("local")
    with served(write_model(folder / "tiny"), folder, max_batch=4, max_waiting=4) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=server.base_url, api_key="any", max_retries=0, timeout=60) as client:
        yield client


def chat(client, messages=HELLO, *, extra=None, **members):
    return client.chat.completions.create(
        model="m", messages=messages, extra_body=extra, **{"max_tokens": 12, "seed": 3, **members}
    )


def test_it_answers_and_counts(client):
    answer = chat(client)

    assert answer.model == "m"
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.completion_tokens <= 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.completion_tokens_details.reasoning_tokens == 0


def test_a_seed_gives_the_same_answer_streamed_or_not(client):
    whole = chat(client, temperature=1.5)
    chunks = list(chat(client, temperature=1.5, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)

    assert text == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage
    assert chat(client, temperature=1.5).choices == whole.choices


def test_tokens_come_as_they_are_made(client):
    members = {"stream": True, "max_tokens": 200, "temperature": 0}
    chunks = list(chat(client, extra={"ignore_eos": True}, **members))

    assert len([chunk for chunk in chunks if chunk.choices[0].delta.content]) > 20
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices[0].finish_reason] == ["length"]


def test_choices_are_drawn_apart(client):
    answer = chat(client, n=3, temperature=2, extra={"ignore_eos": True})

    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) > 1
    assert answer.usage.completion_tokens == 36


def test_thoughts_come_as_reasoning_content(client):
    extra = {"enable_thinking": True, "ignore_eos": True, "logit_bias": {"60": -100}}  # no "<", so no end of them
    answer = chat(client, extra=extra)
    chunks = list(chat(client, extra=extra, stream=True))

    assert answer.choices[0].message.content == ""
    assert answer.choices[0].message.reasoning_content
    assert answer.usage.completion_tokens_details.reasoning_tokens == 12
    assert "".join(getattr(chunk.choices[0].delta, "reasoning_content", None) or "" for chunk in chunks) == (
        answer.choices[0].message.reasoning_content
    )


def test_log_probabilities_are_told_in_both_shapes(client):
    content = chat(client, logprobs=True, top_logprobs=2).choices[0].logprobs.content
    legacy = client.completions.create(model="m", prompt="hello", max_tokens=4, logprobs=2).choices[0].logprobs

    assert all(score.logprob <= 0 and len(score.top_logprobs) == 2 for score in content)
    assert all(score.top_logprobs[0].logprob >= score.top_logprobs[1].logprob for score in content)
    assert len(legacy.tokens) == len(legacy.token_logprobs) == len(legacy.top_logprobs) == len(legacy.text_offset)


def test_a_stop_string_ends_the_answer(client):
    whole = chat(client, temperature=0, max_tokens=40, extra={"ignore_eos": True}).choices[0].message.content
    stop = whole[5:8]
    cut = chat(client, temperature=0, max_tokens=40, stop=[stop], extra={"ignore_eos": True}).choices[0]

    assert cut.message.content == whole.partition(stop)[0]
    assert cut.finish_reason == "stop"


def test_a_bias_forces_a_token(client):
    answer = chat(client, logit_bias={"65": 100}, temperature=1).choices[0].message.content

    assert len(set(answer)) == 1


def test_a_prefill_is_continued_and_not_repeated(client):
    told = [*HELLO, {"role": "assistant", "content": "It is"}]
    plain = chat(client, told, temperature=0)
    named = chat(client, told, temperature=0, extra={"continue_final_message": True, "add_generation_prompt": False})

    assert plain.choices[0].message.content == named.choices[0].message.content
    assert not plain.choices[0].message.content.startswith("It is")


def test_raw_text_is_continued_as_it_stands(client):
    def complete(prompt, **members):
        return client.completions.create(model="m", prompt=prompt, max_tokens=6, temperature=0, **members)

    first = complete("hello").choices[0].text
    as_tokens = complete(list(range(3)))
    both = complete(["hello", "hello"])
    echoed = complete("hello", echo=True).choices[0].text

    assert [choice.text for choice in both.choices] == [first, first]
    assert echoed == "hello" + first
    assert as_tokens.usage.prompt_tokens == 3


def test_equal_prompts_are_computed_once(client):
    prompt = list(range(200)) + list(range(200))
    for _ in range(2):
        usage = client.completions.create(model="m", prompt=prompt, max_tokens=1).usage

    assert usage.prompt_tokens_details.cached_tokens == 256


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"temperature": 3}, "temperature"),
        ({"n": 0}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"logit_bias": {"99999": 1}}, "logit_bias"),
        ({"extra": {"repeat": 3}}, "repeat"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "messages[0].content"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_by_its_name(client, members, param):
    with pytest.raises(openai.BadRequestError) as refused:
        chat(client, **members)

    assert refused.value.param == param


def test_a_prompt_that_is_too_long_is_told_as_such(client):
    with pytest.raises(openai.BadRequestError) as refused:
        chat(client, [{"role": "user", "content": "a" * 600}])

    assert refused.value.code == "context_length_exceeded"
    assert "maximum context length is 512 tokens" in refused.value.message


def said(client, **extra):
    """A greedy answer that never ends by itself."""
    answer = chat(client, temperature=0, max_tokens=40, extra={"ignore_eos": True, **extra})
    return answer.choices[0].message.content


def test_passes_are_chosen_per_request(client):
    assert said(client, repeat=2) == said(client)
    assert said(client, repeat=1) != said(client)


def test_lookup_changes_no_answer(client):
    assert said(client, lookup=True) == said(client)


@pytest.mark.parametrize(
    "extra",
    [{"top_k": 2**64}, {"chat_template_kwargs": {"self": 1}}, {"logit_bias": {str(n): -100 for n in range(259)}}],
)
def test_odd_values_do_not_end_the_engine(client, server, extra):
    assert chat(client, temperature=1, extra=extra).choices
    assert 'predawn_engine_starts_total{upstream="local"} 1.0' in fetch(f"{server.admin_url}/metrics").decode()


def test_unknown_members_are_skipped(client):
    assert chat(client, user="me", extra={"something_new": {"a": 1}}).choices


def test_the_model_is_listed_and_the_engine_told_about(client, server):
    health = json.loads(fetch(f"{server.admin_url}/health"))
    metrics = fetch(f"{server.admin_url}/metrics").decode()

    assert [model.id for model in client.models.list()] == ["m"]
    assert health == {"status": "ok", "engines": {"local": "ready"}}
    assert 'predawn_engine_info{device="cpu",dtype="float32",execution="' in metrics
    assert 'predawn_engine_starts_total{upstream="local"} 1.0' in metrics


def test_the_page_for_people_tells_what_runs(server):
    page = fetch(f"{server.admin_url}/status").decode()

    assert "<td>m<td>local" in page
    assert "<td>local<td>local<td>0<td>ready" in page


def gauge(server, name):
    lines = fetch(f"{server.admin_url}/metrics").decode().splitlines()
    return float(next(line for line in lines if line.startswith(name)).rpartition(" ")[2])


def settled(condition):
    give_up_at = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up_at, "nothing happened"
        time.sleep(0.02)


RUNNING = 'predawn_engine_requests{state="running"'
LONG = {"max_tokens": 120, "temperature": 0}


def test_a_client_that_leaves_frees_its_place(client, server):
    stream = chat(client, stream=True, extra={"ignore_eos": True}, **LONG)
    next(iter(stream))
    stream.close()

    settled(lambda: gauge(server, RUNNING) == 0)


def test_a_crowd_is_told_when_to_come_back(server):
    async def crowd():
        async with openai.AsyncOpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
            asked = [chat(client, n=4, extra={"ignore_eos": True}, **LONG) for _ in range(24)]
            return await asyncio.gather(*asked, return_exceptions=True)

    answers = asyncio.run(crowd())
    refused = [answer for answer in answers if isinstance(answer, openai.RateLimitError)]

    assert len(refused) + len([answer for answer in answers if not isinstance(answer, Exception)]) == 24
    assert refused
    assert {answer.code for answer in refused} == {"rate_limit_exceeded"}
    assert all(float(answer.response.headers["retry-after"]) >= 1 for answer in refused)
    assert gauge(server, RUNNING) == 0


def test_the_event_loop_turns_while_the_engine_computes(client, server):
    """The page of /health waits for nothing but the loop."""
    over = threading.Event()

    def work():
        while not over.is_set():
            chat(client, n=4, stream=True, extra={"ignore_eos": True}, **LONG).close()
            list(chat(client, n=4, stream=True, extra={"ignore_eos": True}, max_tokens=100))

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    took_s = []
    for _ in range(100):
        began = time.perf_counter()
        fetch(f"{server.admin_url}/version")
        took_s.append(time.perf_counter() - began)
    over.set()
    for worker in workers:
        worker.join()
    p90_s = sorted(took_s)[90]
    print(f"p50 {sorted(took_s)[50] * 1e3:.1f} ms, p90 {p90_s * 1e3:.1f} ms, p99 {sorted(took_s)[98] * 1e3:.1f} ms")

    assert p90_s < 0.1
