"""One list of messages, whatever API a request came by."""

import pytest

from predawn.plugins.sleep.conversation import Conversation

SYSTEM = {"role": "system", "content": "Be brief."}
TEXT = {"role": "user", "content": "a long text"}
QUESTION = {"role": "user", "content": "why?"}
NOTE = {"role": "user", "content": "Notes: because."}


def test_chat_is_taken_as_it_is():
    found = Conversation.of("chat", {"messages": [SYSTEM, QUESTION]})

    assert found is not None
    assert list(found.messages) == [SYSTEM, QUESTION]


@pytest.mark.parametrize(
    ("route", "request_"),
    [
        ("messages", {"system": "Be brief.", "messages": [TEXT, QUESTION]}),
        ("responses", {"instructions": "Be brief.", "input": [TEXT, QUESTION]}),
        (
            "responses",
            {
                "instructions": "Be brief.",
                "input": [{"type": "message", **TEXT}, {"role": "user", "content": "why?"}],
            },
        ),
    ],
)
def test_other_apis_say_the_same_in_chats_words(route, request_):
    found = Conversation.of(route, request_)

    assert found is not None
    assert list(found.messages) == [SYSTEM, TEXT, QUESTION]


def test_parts_of_a_response_have_the_names_of_chat():
    item = {
        "role": "user",
        "content": [{"type": "input_text", "text": "why?"}, {"type": "input_image", "file_id": "f"}],
    }
    found = Conversation.of("responses", {"input": [item]})

    assert found is not None
    assert found.messages[0]["content"][0] == {"type": "text", "text": "why?"}
    assert found.messages[0]["content"][1] == item["content"][1]


@pytest.mark.parametrize("route", ["chat", "messages", "responses"])
@pytest.mark.parametrize("said", [None, "", {}, []])
def test_a_request_without_a_conversation_has_none(route, said):
    given = {"input": said} if route == "responses" else {"messages": said}
    found = Conversation.of(route, given)

    assert found is None or said == ""


@pytest.mark.parametrize("member", ["previous_response_id", "conversation", "prompt"])
def test_a_response_whose_beginning_is_elsewhere_is_left_alone(member):
    assert Conversation.of("responses", {"input": "why?", member: "x"}) is None


@pytest.mark.parametrize("route", ["completions", "embeddings", "raw"])
def test_other_routes_have_no_conversation(route):
    assert Conversation.of(route, {"messages": [QUESTION], "input": "x", "prompt": "y"}) is None


def test_what_is_put_into_messages_leaves_the_system_where_it_is():
    edited = {"system": "Be brief.", "messages": [TEXT, QUESTION]}
    found = Conversation.of("messages", edited)
    found.put(edited, [found.messages[0], TEXT, NOTE, QUESTION])

    assert edited == {"system": "Be brief.", "messages": [TEXT, NOTE, QUESTION]}


def test_what_is_put_into_a_response_leaves_its_own_items_as_they_came():
    call = {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"}
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a long text"}]}
    edited = {"input": [item, call, QUESTION]}
    found = Conversation.of("responses", edited)
    found.put(edited, [found.messages[0], NOTE, *found.messages[1:]])

    assert edited["input"] == [item, NOTE, call, QUESTION]
    assert edited["input"][0] is item


def test_a_response_to_a_plain_text_gets_items():
    edited = {"input": "why?"}
    found = Conversation.of("responses", edited)
    found.put(edited, [NOTE, *found.messages])

    assert edited["input"] == [NOTE, QUESTION]


@pytest.mark.parametrize("route", ["chat", "messages", "responses"])
@pytest.mark.parametrize("odd", ["said", 5, None, []])
def test_what_is_no_message_makes_no_conversation(route, odd):
    """Its upstream says what is wrong with it; a plugin that failed over it would be a 502."""
    said = [TEXT, odd, QUESTION]

    assert Conversation.of(route, {"input" if route == "responses" else "messages": said}) is None
