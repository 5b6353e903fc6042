from __future__ import annotations

import pytest
import yaml

from predawn.proxy.upstreams.scripted import Answer, Script, ScriptError, ToolCall
from predawn.proxy.upstreams.scripted.script import FAULTS, STYLES, overrides


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"chunk": 3}, "script.chunk: unknown key — did you mean 'chunks'?"),
        ({"answers": [{"txt": "hi"}]}, "script.answers[0].txt: unknown key — did you mean 'text'?"),
        ({"tool_calls": [{"name": "f", "args": {}}]}, "script.tool_calls[0].args: unknown key"),
        ({"fault": "die_mid_evnt"}, "did you mean 'die_mid_event'?"),
        ({"style": "crfl"}, "did you mean 'crlf'?"),
        ({"error_rate": 2}, "script.error_rate: must be less than or equal to 1"),
        ({"answers": 3}, "script.answers: must be a list"),
    ],
)
def test_a_script_that_cannot_be_read_names_the_culprit(data: dict, told: str) -> None:
    with pytest.raises(ScriptError) as caught:
        Script.read(data)

    assert told in str(caught.value)


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(ScriptError) as caught:
        Script.read({"chunk": 3, "status": 9, "answers": [{"fault": "none"}]})

    assert len(str(caught.value).splitlines()) == 3


def test_a_script_reads_from_yaml_with_the_short_forms() -> None:
    text = """
    text: I do not know.
    style: crlf
    answers:
      - first
      - {fault: die_mid_event, after: 2}
      - {raw: ["data: x\\n\\n"]}
    """

    script = Script.read(yaml.safe_load(text))

    assert script.answers[0] == Answer(text="first")
    assert script.answers[1] == Answer(fault="die_mid_event", after=2)
    assert script.answers[2].raw == (b"data: x\n\n",)
    assert script.style == ("crlf",)


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        ("", {}),
        ("stall_headers", {"fault": "stall_headers"}),
        ("crlf, comments", {"style": ("crlf", "comments")}),
        ("status=429, retry-after=1", {"status": 429, "headers": {"retry-after": "1"}}),
        ("text=hello there, chunks=3", {"text": "hello there", "chunks": 3}),
        ('{"text": "a, b", "style": "gzip"}', {"text": "a, b", "style": ("gzip",)}),
    ],
)
def test_an_override_is_a_word_a_pair_or_an_object(text: str, changes: dict) -> None:
    assert overrides(text) == changes


@pytest.mark.parametrize("text", ["die_mid_evnt", "{not json", "chunk=3", "status=abc", '{"after": -1}'])
def test_an_override_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ScriptError):
        Script().but(overrides(text))


@pytest.mark.parametrize("word", [*FAULTS, *STYLES])
def test_every_fault_and_style_can_be_asked_for_by_its_name(word: str) -> None:
    answer = Script().but(overrides(word))

    assert word in (answer.fault, *answer.style)


def test_an_answer_takes_what_it_does_not_give_from_its_script() -> None:
    script = Script(text="from the script", interval_ms=20, status=201)

    assert script.but({"fault": "no_done"}).text == "from the script"
    assert script.but({"pieces": ("a", "b")}).text is None
    assert script.but({"pieces": ("a", "b")}).interval_ms == 20


def test_a_script_of_strings_says_them_one_after_the_other() -> None:
    script = Script.of("one", Answer(tool_calls=(ToolCall(name="f"),)))

    assert [answer.text for answer in script.answers] == ["one", None]
