from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predawn.kernels.tiny import language, lessons, tokenizer, world

TOKENIZER = tokenizer.build()


@pytest.mark.parametrize("word", [word for word in tokenizer.words()])
def test_every_word_of_the_world_is_one_token(word):
    assert len(TOKENIZER.encode(f" {word}").ids) == 1


@given(st.text(max_size=60))
def test_any_text_comes_back_with_its_white_space_made_plain(text):
    plain = " ".join(text.split())
    back = TOKENIZER.decode(TOKENIZER.encode(text).ids)

    assert " ".join(back.split()) == plain


def test_lessons_are_spelt_in_words_not_bytes():
    random = Random(5)
    story = world.story(random, 8, 3)
    text = f" {language.tell(story, random)} {language.ask(story)} {language.worked_notes(story)}"
    tokens = TOKENIZER.encode(text).tokens

    assert not [token for token in tokens if len(token) == 1 and token not in ".?:,"]


def test_control_tokens_are_one_token_each():
    assert [len(TOKENIZER.encode(text).ids) for text in tokenizer.SPECIAL] == [1] * len(tokenizer.SPECIAL)


def test_it_is_the_same_each_time():
    assert TOKENIZER.to_str() == tokenizer.build().to_str()


def test_encoding_pieces_apart_is_encoding_them_together():
    random = Random(2)
    for _ in range(200):
        pieces = [piece.text for piece in lessons.lesson(random, lessons.Curriculum(8, 0.1))]
        apart = [number for piece in pieces for number in TOKENIZER.encode(piece).ids]

        assert apart == TOKENIZER.encode("".join(pieces)).ids
