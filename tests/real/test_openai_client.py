"""The official client, a real model, Predawn between them."""

import json

import openai
import pytest
from tests.real.requests_made import ASKING_FOR_A_TOOL, CITY, FRANCE, LOOKUP, MODEL, SURE, chat, completion, tools

pytestmark = pytest.mark.real


def test_an_answer_is_the_models(client):
    answer = client.chat.completions.create(**chat(max_tokens=12))

    assert "Paris" in answer.choices[0].message.content
    assert answer.usage.completion_tokens <= 12


def test_a_stream_arrives_in_pieces_that_make_up_the_answer(client):
    whole = client.chat.completions.create(**chat(max_tokens=12)).choices[0].message.content
    chunks = list(client.chat.completions.create(**chat(max_tokens=12), stream=True))
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]

    assert "".join(pieces) == whole
    assert len(pieces) > 3


def test_several_choices_come_back(client):
    answer = client.chat.completions.create(**chat(n=2))

    assert sorted(choice.index for choice in answer.choices) == [0, 1]


def test_logprobs_come_back_per_token(client):
    answer = client.chat.completions.create(**chat(max_tokens=3, logprobs=True, top_logprobs=2))
    tokens = answer.choices[0].logprobs.content

    assert "".join(token.token for token in tokens) == answer.choices[0].message.content
    assert [len(token.top_logprobs) for token in tokens] == [2, 2, 2]


def test_a_seed_repeats_what_was_drawn(client):
    asked = chat(temperature=1.5, max_tokens=8)
    client.chat.completions.create(**asked)  # the cache must be in the same state for both
    first, second = (client.chat.completions.create(**asked).choices[0].message.content for _ in range(2))

    assert first == second


def test_a_stop_word_ends_the_answer(client):
    answer = client.chat.completions.create(**chat(max_tokens=12, stop=["France"]))

    assert answer.choices[0].finish_reason == "stop"
    assert "France" not in answer.choices[0].message.content


def test_a_tool_call_comes_back(client):
    answer = client.chat.completions.create(**tools())
    (call,) = answer.choices[0].message.tool_calls

    assert (call.function.name, json.loads(call.function.arguments)) == ("lookup", {"city": "Paris"})
    assert answer.choices[0].finish_reason == "tool_calls"


def test_a_tool_call_is_put_together_from_a_stream(client):
    with client.chat.completions.stream(
        model=MODEL, messages=ASKING_FOR_A_TOOL, tools=[LOOKUP], tool_choice="required", max_tokens=40, **SURE
    ) as stream:
        (call,) = stream.get_final_completion().choices[0].message.tool_calls

    assert (call.function.name, json.loads(call.function.arguments)) == ("lookup", {"city": "Paris"})


def test_an_answer_keeps_to_a_schema(client):
    answer = client.chat.completions.create(**chat(response_format=CITY, max_tokens=24))

    assert json.loads(answer.choices[0].message.content) == {"city": "Paris"}


def test_a_raw_prompt_is_continued(client):
    assert client.completions.create(**completion()).choices[0].text.startswith(" Paris")


def test_a_begun_answer_is_continued(client):
    begun = [FRANCE, {"role": "assistant", "content": "Its name is"}]
    answer = client.chat.completions.create(**chat(messages=begun, max_tokens=3))

    assert answer.choices[0].message.content.startswith("Its name is ")


def test_a_prompt_seen_before_is_found_in_the_cache(client):
    asked = chat(messages=[{"role": "user", "content": "Tell me of the hour before dawn, the one that lovers know."}])
    first, second = (client.chat.completions.create(**asked).usage for _ in range(2))

    assert first.prompt_tokens_details.cached_tokens < first.prompt_tokens // 2
    assert second.prompt_tokens_details.cached_tokens == second.prompt_tokens - 1


def test_embeddings_come_back_as_numbers(client):
    answer = client.embeddings.create(model=MODEL, input=["dawn", "dusk"])

    assert [len(entry.embedding) for entry in answer.data] == [576, 576]


def test_the_aliases_are_what_is_listed(client):
    assert sorted(entry.id for entry in client.models.list()) == ["alias", MODEL]


def test_a_refusal_of_the_server_is_the_clients_exception(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**chat(n=3))

    assert caught.value.body["message"] == "Field 'n': Value must be between 1 <= value <= 2, but got 3"


def test_an_unknown_model_is_refused_with_the_nearest_names(client):
    with pytest.raises(openai.NotFoundError, match=MODEL) as caught:
        client.chat.completions.create(**chat(model=MODEL[:-1]))

    assert caught.value.code == "model_not_found"


def test_connections_that_the_server_closed_are_not_used_again(client):
    """It hangs up after each stream without announcing it."""
    for _ in range(15):
        list(client.chat.completions.create(**chat(max_tokens=1), stream=True))

        assert client.chat.completions.create(**chat(max_tokens=1)).usage.completion_tokens == 1
