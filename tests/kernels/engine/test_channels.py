import pytest
from hypothesis import given
from hypothesis import strategies as st

from predawn.kernels.engine.channels import Channels, beginning_after


def split(channels, pieces):
    segments = [segment for piece in pieces for segment in channels.feed(piece)] + channels.end()
    texts = {channel: "".join(s.text for s in segments if s.channel == channel) for channel in ("reasoning", "content")}
    return texts["reasoning"], texts["content"], sum(segment.size for segment in segments)


@pytest.mark.parametrize(
    ("beginning", "said", "reasoning", "content"),
    [
        ("open", "<think> so </think> 4", "so ", "4"),
        ("open", "\n<think>so", "so", ""),
        ("open", "</think> 4", "", "4"),
        ("open", " 4 <think>", "", "4 <think>"),
        ("open", "<thi", "", "<thi"),
        ("reasoning", " so </think>\n\n4 </think>", "so ", "4 </think>"),
        ("reasoning", "so </thi", "so </thi", ""),
        ("reasoning", "</think>", "", ""),
        ("content", " 4 <think>", "", "4 <think>"),
        ("plain", " <think>4", "", " <think>4"),
        ("open", "", "", ""),
    ],
)
def test_reasoning_stands_between_the_tags(beginning, said, reasoning, content):
    assert split(Channels(beginning), [said]) == (reasoning, content, len(said))


@given(
    st.sampled_from(["open", "reasoning", "content", "plain"]),
    st.booleans(),
    st.lists(st.sampled_from(["<think>", "</think>", " ", "a", "<", "</", "think", ">"])),
    st.lists(st.integers(1, 5)),
)
def test_the_split_does_not_depend_on_the_pieces(beginning, continues, words, sizes):
    text = rest = "".join(words)
    pieces = []
    for size in sizes:
        pieces.append(rest[:size])
        rest = rest[size:]

    found = split(Channels(beginning, continues=continues), [*pieces, rest])

    assert found == split(Channels(beginning, continues=continues), [text])
    assert found[2] == len(text)


def test_a_prefill_is_continued_with_its_own_blanks():
    assert split(Channels("reasoning", continues=True), [" 3 </think> 7"])[:2] == (" 3 ", "7")
    assert split(Channels("content", continues=True), [" 3"])[:2] == ("", " 3")


@pytest.mark.parametrize(
    ("opening", "continues", "beginning"),
    [
        ("assistant: <think>", False, "reasoning"),
        ("assistant: <think>\n\n</think>\n\n", False, "content"),
        ("assistant: </think>", False, "content"),
        ("assistant: ", False, "open"),
        ("assistant: It is", True, "content"),
        ("assistant: <think> Ann = 3.", True, "reasoning"),
    ],
)
def test_where_an_answer_begins_is_read_from_its_opening(opening, continues, beginning):
    assert beginning_after(opening, continues=continues) == beginning
