from hypothesis import given
from hypothesis import strategies as st
from tests.kernels.engine.scripted_worker import EOS, ByteTokenizer, Said

from predawn.kernels.engine.channels import Channels
from predawn.kernels.engine.utterance import Utterance


def hear(text, *, beginning="plain", finish="stop", stops=(), scored=False, step=lambda pieces, piece: None):
    """All pieces of an answer that says `text` and then ends."""
    tokenizer = ByteTokenizer()
    utterance = Utterance((1, 0), tokenizer.stream(), tokenizer, Channels(beginning), stops=stops, scored=scored)
    tokens = tokenizer.encode(text, special=True) if isinstance(text, str) else list(text)
    said = [Said("1/0", 0, token, -0.5 if scored else None) for token in tokens]
    if finish == "stop":
        said.append(Said("1/0", 0, EOS, -0.5, finish="stop"))
    else:
        said[-1].finish = finish
    pieces = []
    for token in said:
        if utterance.is_over:
            break
        if (piece := utterance.hear(token)) is not None:
            pieces.append(piece)
    return utterance, pieces


def told(pieces):
    return "".join(piece.text for piece in pieces), "".join(piece.reasoning for piece in pieces), pieces[-1].finish


def test_each_token_is_a_piece():
    _, pieces = hear("abc")

    assert [piece.text for piece in pieces] == ["a", "b", "c", ""]
    assert [piece.finish for piece in pieces] == [None, None, None, "stop"]


def test_half_a_character_waits_for_its_other_half():
    _, pieces = hear("é!")

    assert [piece.text for piece in pieces] == ["é", "!", ""]


def test_half_a_character_at_the_end_is_shown_as_such():
    assert told(hear([*b"a", 0xC3], finish="length")[1]) == ("a\ufffd", "", "length")


def test_a_stop_string_across_tokens_ends_the_answer_and_is_left_out():
    utterance, pieces = hear("one. Two. Three.", stops=[". T", "never"])

    assert told(pieces) == ("one", "", "stop")
    assert utterance.output_tokens == len("one. T")


def test_what_only_looks_like_a_stop_string_is_said_in_the_end():
    assert told(hear("abcab", stops=["abd", "cabx"])[1]) == ("abcab", "", "stop")
    assert told(hear("ab", stops=["abc"], finish="length")[1]) == ("ab", "", "length")


def test_a_stop_string_that_is_complete_only_with_the_last_bytes_counts():
    assert told(hear([*b"a", 0xC3], stops=["\ufffd"], finish="length")[1]) == ("a", "", "stop")


@given(st.text("ab.", max_size=12), st.lists(st.text("ab.", min_size=1, max_size=3), max_size=3))
def test_the_answer_ends_before_the_stop_string_that_is_complete_first(text, stops):
    ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
    wanted = text
    if ends:
        wanted = text[: min(ends) - max(len(stop) for stop in stops if text[: min(ends)].endswith(stop))]

    assert told(hear(text, stops=stops)[1]) == (wanted, "", "stop")


def test_thoughts_are_told_apart_and_counted():
    utterance, pieces = hear("so it is</think> 4", beginning="reasoning")

    assert told(pieces) == ("4", "so it is", "stop")
    assert (utterance.output_tokens, utterance.reasoning_tokens) == (12, 9)


def test_thoughts_that_were_cut_off_are_no_content():
    utterance, pieces = hear("so it", beginning="reasoning", finish="length")

    assert told(pieces) == ("", "so it", "length")
    assert utterance.reasoning_tokens == 5


def scores(pieces, name="scores"):
    return [(score.text, score.offset) for piece in pieces for score in getattr(piece, name)]


def test_scores_go_with_the_text_they_belong_to():
    _, pieces = hear("so</think>4é", beginning="reasoning", scored=True)

    assert scores(pieces, "reasoning_scores") == [("s", 0), ("o", 1)]
    assert scores(pieces) == [("4", 10), ("bytes:\\xc3", 11), ("bytes:\\xa9", 11)]


def test_scores_of_what_a_stop_string_cut_off_are_left_out():
    _, pieces = hear("ab\n\nc", stops=["\n\n"], scored=True)

    assert scores(pieces) == [("a", 0), ("b", 1)]


def test_scores_of_the_last_half_character_come_with_the_end():
    _, pieces = hear([*b"a", 0xC3], finish="length", scored=True)

    assert scores(pieces) == [("a", 0), ("bytes:\\xc3", 1)]
    assert told(pieces)[0] == "a\ufffd"


def test_without_logprobs_there_are_no_scores():
    _, pieces = hear("ab")

    assert {piece.scores for piece in pieces} == {None}
