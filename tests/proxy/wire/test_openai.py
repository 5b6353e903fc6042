import json
import time

import pytest

from predawn.proxy.exchange import RequestError
from predawn.proxy.wire.openai import (
    has_ended,
    is_usage_only,
    read_head,
    refuse_two_models,
    upstream_body,
    usage_of_body,
    usage_of_tail,
)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "not valid JSON"),
        (b"[]", "must be a JSON object"),
        (b"nonsense", "not valid JSON"),
        (b'{"messages": []}', "model"),
        (b'{"model": 5}', "model"),
        (b'{"model": "a", "x": NaN}', "not valid JSON"),
        (b'{"model": "\xff"}', "not UTF-8"),
        (b'{"model": "a", "x": ' + b"[" * 100_000, "too deeply"),
        (b'{"model": "a"} {}', "not valid JSON"),
    ],
)
def test_a_broken_body_is_refused_in_words(body, told):
    with pytest.raises(RequestError, match=told) as caught:
        read_head(body)

    assert 400 == caught.value.status


@pytest.mark.parametrize("body", [b'{"model": "a", "model": "b"}', b'{"model": "a", "mod\\u0065l": "b"}'])
def test_two_models_in_one_body_are_refused(body):
    with pytest.raises(RequestError, match="more than once"):
        refuse_two_models(body)


def test_a_member_name_may_be_written_with_escapes():
    assert "a" == read_head(b'{"mod\\u0065l": "a"}').model


def test_a_model_named_inside_a_message_is_no_second_model():
    body = json.dumps({"model": "a", "metadata": {"model": "b"}, "messages": [{"content": '"model": "c"'}]}).encode()

    refuse_two_models(body)

    assert "a" == read_head(body).model


def test_a_body_that_needs_no_change_is_the_same_object():
    body = b'{ "model":"a", "messages" : [] }'

    assert body is upstream_body(body, read_head(body), model="a", ask_usage=False, output_limit=None)


def test_only_the_models_name_changes_for_an_alias():
    body = b'{ "model" : "a" ,"n": 1.0, "messages":[{"model":"a"}]}'

    changed = upstream_body(body, read_head(body), model="org/b", ask_usage=False, output_limit=None)

    assert b'{ "model" : "org/b" ,"n": 1.0, "messages":[{"model":"a"}]}' == changed


@pytest.mark.parametrize("more", [b'"\xff":1,', b'"x":"\xff",', b'"\\"\xff":{"\xff":2},'])
def test_text_that_is_not_utf_8_goes_on_as_it_is(more):
    body = b'{"a":1,' + more + b'"stream":true,"model":"a"}'

    changed = upstream_body(body, read_head(body), model="b", ask_usage=True, output_limit=1)

    assert body.replace(b'"a"}', b'"b","stream_options":{"include_usage":true}}') == changed


def test_control_is_stripped_and_usage_is_asked_for():
    body = b'{"model":"a","predawn":{"cache":false},"stream":true,"stream_options":{"x": 1}}'

    changed = upstream_body(body, read_head(body), model="a", ask_usage=True, output_limit=None)

    assert b'{"model":"a","stream":true,"stream_options":{"x": 1,"include_usage":true}}' == changed


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        (b'{"model":"a"}', b'{"model":"a","stream_options":{"include_usage":true}}'),
        (b' { "model":"a" \n} \n', b' { "model":"a","stream_options":{"include_usage":true} \n} \n'),
        (b'{"stream_options":null,"model":"a"}', b'{"stream_options":{"include_usage":true},"model":"a"}'),
        (b'{"stream\\u005foptions":null,"model":"a"}', b'{"stream\\u005foptions":{"include_usage":true},"model":"a"}'),
        (
            b'{"model":"a","tools":[{"stream_options":1}]}',
            b'{"model":"a","tools":[{"stream_options":1}],"stream_options":{"include_usage":true}}',
        ),
    ],
)
def test_usage_is_asked_for_once(asked, sent):
    head = read_head(asked)

    assert sent == upstream_body(asked, head, model=head.model, ask_usage=True, output_limit=None)


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "max_output_tokens"])
def test_a_limit_is_lowered_where_it_stands_and_never_added(name):
    body = json.dumps({"model": "a", name: 900}).encode()

    changed = json.loads(upstream_body(body, read_head(body), model="a", ask_usage=False, output_limit=100))

    assert {"model": "a", name: 100} == changed


def test_no_limit_is_added_where_the_client_gave_none():
    body = b'{"model":"a"}'

    assert body == upstream_body(body, read_head(body), model="a", ask_usage=False, output_limit=100)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 3}}, (9, 3, 4, 0)),
        ({"input_tokens": 9, "output_tokens": 4, "output_tokens_details": {"reasoning_tokens": 2}}, (9, 0, 4, 2)),
        ({"input_tokens": 2, "output_tokens": 4, "cache_read_input_tokens": 7}, (9, 7, 4, 0)),
    ],
)
def test_usage_is_read_in_each_dialect(usage, expected):
    found = usage_of_body(json.dumps({"usage": usage}).encode())

    assert expected == (found.prompt, found.cached, found.output, found.reasoning)


def test_usage_is_found_in_a_tail_that_begins_within_an_event():
    tail = b'ices":[]}\n\ndata: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":6}}\n\ndata: [DONE]\n\n'

    assert (5, 6) == (usage_of_tail(tail).prompt, usage_of_tail(tail).output)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'"usage"', b'{"usage": 5}', b'{"usage": {"prompt_tokens": "x"}}', b'{"usage":']
)
def test_nonsense_has_no_usage(body):
    assert usage_of_body(body) is None


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (b'data: {"choices": [], "usage": {"prompt_tokens": 1}}\n\n', True),
        (b'data: {"choices":[{"delta":{}}],"usage":{"prompt_tokens":1}}\n\n', False),
        (b'data: {"choices":[],"usage":null}\n\n', False),
        (b"data: [DONE]\n\n", False),
    ],
)
def test_only_the_chunk_with_nothing_but_usage_is_hidden(event, expected):
    assert expected == is_usage_only(event)


@pytest.mark.parametrize(
    ("tail", "route", "expected"),
    [
        (b"data: {}\n\ndata: [DONE]\n\n", "chat", True),
        (b'data: {"choices":[]}\n\n', "chat", False),
        (b'data: {"error": {"message": "x"}}\n\n', "chat", True),
        (b"event: message_stop\ndata: {}\n\n", "messages", True),
        (b"event: ping\ndata: {}\n\n", "messages", False),
        (b'event: response.completed\ndata: {"type":"response.completed"}\n\n', "responses", True),
        (b"anything", "raw", True),
    ],
)
def test_a_stream_has_ended_only_with_its_mark(tail, route, expected):
    assert expected == has_ended(tail, route)


@pytest.mark.parametrize("count", [b"-7", b"1" + b"0" * 400, b"1e30"])
def test_a_usage_beyond_belief_is_no_usage(count):
    body = b'{"choices":[],"usage":{"prompt_tokens":' + count + b',"completion_tokens":1}}'

    assert (None, None) == (usage_of_body(body), usage_of_tail(b"data: " + body + b"\n\n"))


def test_the_end_of_a_long_event_is_found_at_once():
    tail = b"data: " + b"x" * (8 << 20) + b"\n\ndata: [DONE]\n\n"
    began = time.process_time()

    assert has_ended(tail, "chat")
    assert time.process_time() - began < 0.01
