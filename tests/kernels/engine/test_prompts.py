import pytest
from tests.kernels.engine.scripted_worker import ByteTokenizer, LinesTemplate, TemplateRefusal

from predawn.kernels.engine.asks import AskError, ChatAsk, CompletionAsk
from predawn.kernels.engine.prompts import Prompter

USER = {"role": "user", "content": "hello"}


def prompter(tokenizer=None, template=LinesTemplate, context=400):
    return Prompter(
        tokenizer or ByteTokenizer(),
        template and template(),
        vocabulary=259,
        context=context,
        template_errors=(TemplateRefusal,),
    )


def chat(*messages, template=LinesTemplate, **members):
    (prompt,) = prompter(template=template).prompts(ChatAsk(messages=list(messages), **members))
    return ByteTokenizer().decode(prompt.tokens), prompt.beginning, prompt.continues


def refused(ask, **options):
    with pytest.raises(AskError) as error:
        prompter(**options).prompts(ask)
    return error.value.code, error.value.param


def test_a_chat_is_rendered_by_the_template():
    assert chat(USER) == ("user: hello\nassistant: ", "open", False)


def test_thinking_is_switched_by_each_of_its_names():
    thinks = ("user: hello\nassistant: <think>", "reasoning", False)
    answers = ("user: hello\nassistant: </think>", "content", False)

    assert chat(USER, enable_thinking=True) == thinks
    assert chat(USER, chat_template_kwargs={"enable_thinking": True}) == thinks
    assert chat(USER, reasoning_effort="high", enable_thinking=True) == thinks
    assert chat(USER, enable_thinking=False) == answers
    assert chat(USER, enable_thinking=False, chat_template_kwargs={"enable_thinking": True}) == answers
    assert chat(USER, reasoning_effort="none") == answers
    assert chat(USER, reasoning_effort="minimal") == answers
    assert chat(USER, reasoning_effort="auto")[1] == "open"


def test_effort_reaches_the_template():
    class Effort(LinesTemplate):
        def render(self, messages, **variables):
            return str(variables.get("reasoning_effort"))

    assert chat(USER, template=Effort, reasoning_effort="high")[0] == "high"


def test_a_final_message_of_the_assistant_is_continued():
    prefill = {"role": "assistant", "content": "It is"}

    assert chat(USER, prefill) == ("user: hello\nassistant: It is", "content", True)
    assert chat(USER, prefill, continue_final_message=True)[2]
    assert chat(USER, prefill, continue_final_message=False)[0].endswith("It is\nassistant: ")
    assert chat(USER, prefill, add_generation_prompt=True)[0].endswith("It is\nassistant: ")


def test_thoughts_are_continued_as_thoughts():
    spelt = {"role": "assistant", "content": "<think> Ann = 3."}
    apart = {"role": "assistant", "reasoning_content": " Ann = 3.", "content": None}
    thinks = ("user: hello\nassistant: <think> Ann = 3.", "reasoning", True)

    assert chat(USER, spelt) == chat(USER, apart) == thinks


def test_tags_in_what_others_said_do_not_matter():
    earlier = {"role": "assistant", "content": "<think> so"}

    assert chat({"role": "user", "content": "what is <think>?"})[1] == "open"
    assert chat(USER, earlier, USER)[1] == "open"


@pytest.mark.parametrize("members", [{"continue_final_message": True}, {"continue_final_message": True, "n": 2}])
def test_nothing_but_an_assistants_message_can_be_continued(members):
    assert refused(ChatAsk(messages=[USER], **members)) == (None, "continue_final_message")


def test_continuing_and_a_new_turn_exclude_each_other():
    ask = ChatAsk(
        messages=[{"role": "assistant", "content": "a"}], continue_final_message=True, add_generation_prompt=True
    )

    assert refused(ask) == (None, "continue_final_message")


def test_parts_of_text_are_joined():
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]

    assert chat({"role": "user", "content": parts})[0] == "user: one\ntwo\nassistant: "


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"content": "hello"}, "messages[0].role"),
        ({"role": 5, "content": "hello"}, "messages[0].role"),
        ({"role": "user"}, "messages[0].content"),
        ({"role": "user", "content": 5}, "messages[0].content"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, "messages[0].content"),
        ({"role": "user", "content": ["hello"]}, "messages[0].content"),
        ({"role": "assistant", "tool_calls": ["f"]}, "messages[0].tool_calls"),
        ({"role": "assistant", "tool_calls": 5}, "messages[0].tool_calls"),
        (
            {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]},
            "messages[0].tool_calls",
        ),
        ({"role": "nobody", "content": "hello"}, "messages"),
    ],
)
def test_messages_that_make_no_sense_are_refused_by_their_place(message, param):
    assert refused(ChatAsk(messages=[message])) == (None, param)


def test_arguments_of_tool_calls_are_handed_to_the_template_as_objects():
    class Calls(LinesTemplate):
        def render(self, messages, **variables):
            return repr(messages[-1]["tool_calls"])

    call = {"type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}

    assert "'arguments': {'a': 1}" in chat(USER, {"role": "assistant", "tool_calls": [call]}, template=Calls)[0]


def test_tools_are_for_templates_that_know_them():
    class Tools(LinesTemplate):
        source = "{{ tools }}"

        def render(self, messages, **variables):
            return repr(variables.get("tools"))

    tools = [{"type": "function"}]

    assert chat(USER, template=Tools, tools=tools)[0] == repr(tools)
    assert chat(USER, template=Tools, tools=tools, tool_choice="none")[0] == "None"
    assert refused(ChatAsk(messages=[USER], tools=tools)) == ("unsupported_parameter", "tools")


def test_templates_that_know_no_developer_call_him_system():
    class Developer(LinesTemplate):
        source = "developer"

    message = {"role": "developer", "content": "be brief"}

    assert chat(message)[0].startswith("system: ")
    assert chat(message, template=Developer)[0].startswith("developer: ")


@pytest.mark.parametrize("name", ["messages", "tools", "add_generation_prompt", "continue_final", "bos_token"])
def test_variables_of_the_engine_cannot_be_replaced(name):
    assert refused(ChatAsk(messages=[USER], chat_template_kwargs={name: 1})) == (None, "chat_template_kwargs")


def test_a_model_without_a_template_does_not_chat():
    assert refused(ChatAsk(messages=[USER]), template=None) == ("unsupported_parameter", "messages")


def test_completions_continue_what_they_are_given():
    ask = CompletionAsk(prompt=["ab", "</think>c"], echo=True)
    first, second = prompter().prompts(ask)

    assert (first.tokens, first.text, first.beginning) == ([97, 98], "ab", "plain")
    assert second.tokens == [258, 99]


def test_tokens_are_continued_as_they_are():
    (prompt,) = prompter().prompts(CompletionAsk(prompt=[104, 105], echo=True))

    assert (prompt.tokens, prompt.text) == ([104, 105], "hi")


@pytest.mark.parametrize("prompt", [[259], [-1], "", []])
def test_prompts_that_cannot_be_continued_are_refused(prompt):
    assert refused(CompletionAsk(prompt=prompt)) == (None, "prompt")


def test_a_raw_prompt_begins_as_its_model_has_it():
    class Begins(ByteTokenizer):
        adds_bos, bos_id = True, 257

    (plain,) = prompter(Begins()).prompts(CompletionAsk(prompt="a"))
    (spelt,) = prompter(Begins()).prompts(CompletionAsk(prompt="<think>a"))

    assert plain.tokens == spelt.tokens == [257, 97]


@pytest.mark.parametrize(
    ("ask", "param"),
    [
        (ChatAsk(messages=[{"role": "user", "content": "a" * 385}]), "messages"),
        (CompletionAsk(prompt="a" * 400), "prompt"),
        (CompletionAsk(prompt=[97] * 400), "prompt"),
    ],
)
def test_a_prompt_that_fills_the_context_is_refused(ask, param):
    assert refused(ask) == ("context_length_exceeded", param)


def test_a_huge_prompt_is_refused_without_being_read():
    class Reads(ByteTokenizer):
        def encode(self, text, *, special):
            raise AssertionError("it was read")

    assert refused(CompletionAsk(prompt="a" * 10_000), tokenizer=Reads()) == ("context_length_exceeded", "prompt")
