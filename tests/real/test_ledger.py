"""What the ledger says is what the server reported."""

import pytest
from tests.real.requests_made import MODEL, chat, completion, tools

pytestmark = pytest.mark.real


def tokens(ledger):
    return ledger["prompt"], ledger["cached_prompt"], ledger["output"]


def reported(usage):
    return usage.prompt_tokens, usage.prompt_tokens_details.cached_tokens, usage.completion_tokens


@pytest.mark.parametrize("asked", [chat(), tools(), chat(logprobs=True)], ids=["chat", "tools", "logprobs"])
def test_a_whole_answer_is_booked_as_reported(accounted, ledger_of, asked):
    reply = accounted.chat.completions.with_raw_response.create(**asked)
    record = ledger_of(reply.headers["x-request-id"])

    assert tokens(record["ledger"]) == reported(reply.parse().usage)
    assert (record["outcome"], record["status"], record["ledger"]["estimated"]) == ("ok", 200, False)


def test_a_stream_is_booked_as_reported(accounted, ledger_of):
    reply = accounted.chat.completions.with_raw_response.create(
        **chat(), stream=True, stream_options={"include_usage": True}
    )
    usage = [chunk.usage for chunk in reply.parse() if chunk.usage][-1]
    record = ledger_of(reply.headers["x-request-id"])

    assert tokens(record["ledger"]) == reported(usage)
    assert 0 < record["ledger"]["first_token_s"] <= record["total_s"]


def test_a_stream_whose_usage_nobody_asked_for_is_booked_all_the_same(accounted, ledger_of):
    usage = accounted.chat.completions.create(**chat()).usage
    reply = accounted.chat.completions.with_raw_response.create(**chat(), stream=True)
    seen = [chunk.usage for chunk in reply.parse() if chunk.usage]
    ledger = ledger_of(reply.headers["x-request-id"])["ledger"]

    assert seen == []
    assert (ledger["prompt"], ledger["output"]) == (usage.prompt_tokens, usage.completion_tokens)
    assert not ledger["estimated"]


def test_a_raw_completion_is_booked_as_reported(accounted, ledger_of):
    reply = accounted.completions.with_raw_response.create(**completion())
    record = ledger_of(reply.headers["x-request-id"])

    assert tokens(record["ledger"]) == reported(reply.parse().usage)


def test_embeddings_are_booked_as_prompt(accounted, ledger_of):
    reply = accounted.embeddings.with_raw_response.create(model=MODEL, input=["dawn", "dusk"])
    ledger = ledger_of(reply.headers["x-request-id"])["ledger"]

    assert (ledger["prompt"], ledger["output"]) == (reply.parse().usage.prompt_tokens, 0)


def test_a_refusal_costs_nothing_and_is_on_record(accounted, ledger_of):
    reply = accounted.chat.completions.with_raw_response
    with pytest.raises(Exception, match="Field 'n'") as caught:
        reply.create(**chat(n=3))
    record = ledger_of(caught.value.response.headers["x-request-id"])

    assert (record["status"], record["outcome"], tokens(record["ledger"])) == (400, "client_error", (0, 0, 0))


def test_two_choices_are_booked_as_the_server_counts_them(accounted, ledger_of):
    """It counts one choice, and says so twice in a stream: the ledger neither corrects nor doubles it."""
    whole = accounted.chat.completions.with_raw_response.create(**chat(n=2))
    stream = accounted.chat.completions.with_raw_response.create(**chat(n=2), stream=True)
    list(stream.parse())
    booked = [ledger_of(reply.headers["x-request-id"])["ledger"]["output"] for reply in (whole, stream)]

    assert booked == [whole.parse().usage.completion_tokens] * 2
