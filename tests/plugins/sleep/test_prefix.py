"""`prefix`: equal links mean equal beginnings, and a question is cut off where people would cut it."""

import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from predawn.plugins.sleep import prefix

names = st.text(max_size=6)
blocks = st.fixed_dictionaries({"type": st.sampled_from(["text", "image_url"]), "text": names})
contents = st.one_of(names, st.none(), st.lists(blocks, max_size=2), st.dictionaries(names, names, max_size=2))
messages = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "t4:user", "tool"]), "content": contents},
    optional={"name": names, "tool_calls": st.lists(st.dictionaries(names, st.integers(), max_size=2), max_size=2)},
)
conversations = st.lists(messages, max_size=4)
keys = st.tuples(names, names, names)


def spelled(message):
    """A message with its two spellings of plain text made one."""
    content = message["content"]
    if isinstance(content, list) and len(content) == 1 and content[0]["type"] == "text" and len(message) == 2:
        content = content[0]["text"]
    return {**message, "content": content}


@given(keys, conversations, keys, conversations)
def test_links_are_equal_only_for_equal_beginnings(key, said, other_key, other_said):
    one, other = prefix.chain(*key, said), prefix.chain(*other_key, other_said)

    for at, link in enumerate(one):
        for other_at, other_link in enumerate(other):
            is_same = (key, [*map(spelled, said[: at + 1])]) == (
                other_key,
                [*map(spelled, other_said[: other_at + 1])],
            )
            assert (link == other_link) == is_same


@given(conversations, conversations)
def test_messages_on_end_never_look_like_others(said, other):
    assume([*map(spelled, said)] != [*map(spelled, other)])

    assert b"".join(map(prefix.canonical, said)) != b"".join(map(prefix.canonical, other))


@given(messages)
def test_the_order_of_members_does_not_matter(message):
    shuffled = dict(reversed(message.items()))

    assert prefix.canonical(message) == prefix.canonical(shuffled)


def test_half_characters_have_a_digest_too():
    assert len(prefix.chain("t", "", "m", [{"role": "user", "content": "\ud800"}])) == 1


def test_a_chain_goes_on_where_a_shorter_one_ended():
    said = [{"role": "user", "content": str(number)} for number in range(5)]

    assert prefix.chain("t", "n", "m", said)[:3] == prefix.chain("t", "n", "m", said[:3])


@pytest.mark.parametrize(
    ("live", "stable"),
    [(None, 4), (2, 2), ([3, 1], 1), (-1, 3), ([], 4), (9, 4), (True, 4), ("2", 4), ([None, 2], 2), (1.0, 4)],
)
def test_what_is_stable_ends_where_live_begins(live, stable):
    assert prefix.first_live([{}] * 4, live) == stable


@pytest.mark.parametrize(
    ("following", "may"),
    [
        ({"role": "user", "content": "x"}, True),
        ({"role": "tool", "content": "x"}, False),
        ({"role": "user", "content": [{"type": "tool_result", "content": "x"}]}, False),
        ({"role": "user", "content": [{"type": "text", "text": "x"}]}, True),
    ],
)
def test_nothing_stands_between_a_call_and_its_result(following, may):
    said = [{"role": "assistant", "content": None, "tool_calls": [{}]}, following]

    assert prefix.may_stand_at(said, 1) is may
    assert prefix.may_stand_at(said, 2)


SENTENCES = [
    ("Ann has 3.5 apples. How many has she?", "Ann has 3.5 apples.", "How many has she?"),
    ("It costs $1,234.56. Why?", "It costs $1,234.56.", "Why?"),
    ("We met Dr. Who. Where?", "We met Dr. Who.", "Where?"),
    ("By J. Smith. When?", "By J. Smith.", "When?"),
    ("He said “no.” Why?", "He said “no.”", "Why?"),
    ("Look (here.) Now?", "Look (here.)", "Now?"),
    ("One! Two?\n\nThree", "One! Two?", "Three"),
    ("So it ends... And then?  ", "So it ends...", "And then?  "),
    ("I say no. 5 is less. So?", "I say no. 5 is less.", "So?"),
    ("雪は白い。なぜ？", "雪は白い。", "なぜ？"),
    ("Ann = 3. Bob = 4. \n How many?", "Ann = 3. Bob = 4.", "How many?"),
]
WHOLE = ["One sentence only.", "See no. 5?", "Cost: 3.5", "1. What is this?", "x, e.g. y?", "", "   ", "...", "v1.2.3"]


@pytest.mark.parametrize(("text", "context", "question"), SENTENCES)
def test_the_last_sentence_is_the_question(text, context, question):
    split = prefix.split_question([{"role": "user", "content": text}], "last_sentence")

    assert (split.context["content"], split.question["content"]) == (context, question)


@pytest.mark.parametrize("text", WHOLE)
def test_what_is_one_sentence_is_not_split(text):
    assert prefix.split_question([{"role": "user", "content": text}], "last_sentence") is None


@given(st.lists(st.decimals(0, 10**6, places=3), min_size=1, max_size=8))
def test_decimals_are_never_split(numbers):
    story = " ".join(f"Item {at} costs {number} dollars." for at, number in enumerate(numbers))
    split = prefix.split_question(
        [{"role": "user", "content": f"{story} What is 1.5 times {numbers[0]}?"}], "last_sentence"
    )

    assert split.context["content"] == story


@given(st.text(alphabet="ab.!? \n\t0'\")", max_size=40), st.sampled_from(["last_sentence", "last_paragraph"]))
def test_a_split_keeps_every_character_but_the_space_between(text, rule):
    split = prefix.split_question([{"role": "user", "content": text}], rule)

    if split is not None:
        assert split.text[split.end : split.start].strip() == ""
        assert split.context["content"].strip()
        assert split.question["content"].strip()
        assert split.context["content"] + text[split.end : split.start] + split.question["content"] == text


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a\n\nb\n \t\nq?", ("a\n\nb", "q?")),
        ("a\r\n\r\nq", ("a", "q")),
        ("a\nb", None),
        ("\n\nq", None),
        ("a\n\n", None),
    ],
)
def test_the_last_paragraph_is_the_question(text, parts):
    split = prefix.split_question([{"role": "user", "content": text}], "last_paragraph")

    assert (split and (split.context["content"], split.question["content"])) == parts


@pytest.mark.parametrize(
    "said",
    [
        [],
        [{"role": "assistant", "content": "Aha. B?"}],
        [{"role": "user", "content": "Aha. B?", "name": "x"}],
        [{"role": "user", "content": [{"type": "image_url", "text": "Aha. B?"}]}],
        [{"role": "user", "content": None}],
    ],
)
def test_only_a_plain_text_of_the_user_is_split(said):
    assert prefix.split_question(said, "last_sentence") is None


def test_nothing_is_split_unasked():
    assert prefix.split_question([{"role": "user", "content": "Aha. B?"}], "off") is None


def test_a_text_in_one_block_is_split_like_a_text():
    block = [{"role": "user", "content": [{"type": "text", "text": "Aha. B?"}]}]
    split = prefix.split_question(block, "last_sentence")

    assert prefix.apart(block, split) == [{"role": "user", "content": "Aha."}, {"role": "user", "content": "B?"}]


def test_parts_do_not_tell_what_was_said():
    part = prefix.part({"role": "user", "content": "secret"})

    assert "secret" not in repr(part)
    assert (part.role, part.characters) == ("user", 6)
    assert json.dumps(part.digest.hex())


@given(st.dictionaries(st.text(), st.text() | st.lists(st.dictionaries(st.text(), st.text() | st.integers()))))
def test_least_bytes_are_no_more_than_there_are(message):
    try:
        encoded = prefix.canonical({"role": "user", **message})
    except UnicodeEncodeError:
        return

    assert prefix.least_bytes({"role": "user", **message}) <= len(encoded)


def test_least_bytes_of_a_lone_text_part_are_no_more_than_of_the_text():
    message = {"role": "", "content": [{"type": "text", "text": ""}]}

    assert prefix.least_bytes(message) <= len(prefix.canonical(message))
