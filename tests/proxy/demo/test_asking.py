import io

import pytest
from tests.clients.scripted_process import scripted_process

from predawn.proxy.demo.asking import Asker, AskingError
from predawn.proxy.demo.ink import Ink
from predawn.proxy.demo.questions import STORIES, Question
from predawn.proxy.demo.tour import put
from predawn.proxy.small_model.report import Report


@pytest.fixture(scope="module")
def base_url():
    with scripted_process("--text", "Paris.") as address:
        yield f"{address}/v1"


def ask(base_url, model, **options):
    told = []
    answered = Asker(base_url, model).ask(Question("title", "question", options), lambda *piece: told.append(piece))
    return answered, told


def test_an_answer_is_told_as_it_comes_and_counted(base_url):
    answered, told = ask(base_url, "m")

    assert "".join(text for _, text in told) == answered.text == "Paris."
    assert {kind for kind, _ in told} == {"answer"}
    assert answered.first_s == answered.content_s <= answered.total_s
    assert answered.output_tokens == len(told)
    assert answered.prompt_tokens > 0


def test_thoughts_are_told_apart(base_url):
    answered, told = ask(base_url, "script:reasoning=so it is")
    kinds = [kind for kind, _ in told]

    assert kinds == sorted(kinds, reverse=True)
    assert answered.reasoning_tokens == kinds.count("thought") > 0
    assert answered.first_s < answered.content_s


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("script:status=401", "401"),
        ("script:no_done", "broke off"),
        ("script:die_mid_event", "failed|broke off"),
    ],
)
def test_an_answer_that_is_not_whole_is_an_error(base_url, model, reason):
    with pytest.raises(AskingError, match=reason):
        ask(base_url, model)


def test_a_server_that_is_not_there_is_told():
    with pytest.raises(AskingError, match="the request failed"):
        ask("http://127.0.0.1:9/v1", "m")


def test_a_question_and_its_answer_make_a_dialogue(base_url):
    out = io.StringIO()
    put(Question("title", "Where?", expected="Rome."), Asker(base_url, "m"), Report(out), Ink(out, {}))
    put(Question("title", "Where?", expected="Paris."), Asker(base_url, "m"), Report(out), Ink(out, {}))

    assert out.getvalue() == (
        "you     Where?\nmodel   Paris.  wrong: it is Rome.\n\nyou     Where?\nmodel   Paris.  right\n\n"
    )


def test_the_stories_have_right_answers():
    def count(text):
        known = {}
        for sentence in text.replace("Notes:", "").split(". "):
            words = sentence.rstrip(".?").split()
            if words[0] == "How" or "=" in words:
                continue
            name, number = words[0], {"twice": 2}.get(words[2]) or int(words[2])
            parent = known.get(words[-1])
            known[name] = (
                number
                if parent is None
                else parent * number
                if words[2] == "twice"
                else parent + number
                if "more" in words
                else parent - number
            )
        return known[text.split(" does ")[1].split()[0]]

    assert [str(count(story.text)) for story in STORIES] == [story.expected for story in STORIES]
