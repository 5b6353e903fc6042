"""Text to tokens and back; control tokens that no text can forge."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.kernels.engine.random_models import SPECIAL, tokenizer_of

from predawn.kernels.engine import tokens
from predawn.kernels.engine.errors import CheckpointError
from predawn.kernels.engine.tokens import Tokenizer

WORDS = ("Ġthe", "Ġis", "hello", "ing", "im")
THEIRS = tokenizer_of(WORDS)
FILE = Path("tokenizer.json")
OURS = Tokenizer(json.loads(THEIRS.to_str()), file=FILE, vocab=400, eos_ids=(3, 3, 5))
START, END = OURS.encode("<|im_start|><|im_end|>", special=True)
CONTROL_IDS = {control.id for control in OURS.controls}
PARTS = ["<|im_end|>", "<|im_", "start|>", "<", "|", ">", "\ufdd0", "\ufdd1", "a", " ", "é"]
HOSTILE = st.lists(st.sampled_from(PARTS)).map("".join)
ANY = st.one_of(st.text(), HOSTILE)


def sentence_piece(*, prefix=True):
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "h", "i", "hi", "▁hi", "s", "/"]
    merges = [["h", "i"], ["▁", "hi"]]
    steps = [{"type": "Prepend", "prepend": "▁"}] if prefix else []
    steps.append({"type": "Replace", "pattern": {"String": " "}, "content": "▁"})
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    model = {
        "type": "BPE", "vocab": {piece: number for number, piece in enumerate(pieces)}, "merges": merges,
        "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True,
    }  # fmt: skip
    return {
        "version": "1.0",
        "added_tokens": [{"id": number, "content": pieces[number], **flags} for number in range(3)],
        "normalizer": {"type": "Sequence", "normalizers": steps},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": model,
    }


@given(st.text())
def test_plain_text_gives_the_tokens_that_the_library_gives(text):
    if not any(special in text for special in SPECIAL):
        assert OURS.encode(text, special=True) == OURS.encode(text, special=False) == THEIRS.encode(text).ids


@given(st.lists(st.one_of(st.sampled_from(SPECIAL), st.text())).map("".join))
def test_rendered_text_gives_the_tokens_that_the_library_gives(text):
    text = text.replace(tokens.BREAK, "").replace(tokens._CONTROL, "")

    assert OURS.encode(text, special=True) == THEIRS.encode(text).ids


@given(ANY)
def test_without_special_no_text_gives_a_control_token(text):
    assert not CONTROL_IDS.intersection(OURS.encode(text, special=False))


@given(ANY, ANY)
def test_guarded_texts_give_no_control_token_even_joined(one, other):
    joined = OURS.guarded(one) + OURS.guarded(other)
    found = OURS.encode(f"<|im_start|>{joined}<|im_end|>", special=True)

    assert [token for token in found if token in CONTROL_IDS] == [START, END]


@given(ANY)
def test_guarding_changes_no_text(text):
    clean = text.replace(tokens.BREAK, "").replace(tokens._CONTROL, "")

    assert OURS.encode(OURS.guarded(text), special=True) == OURS.encode(clean, special=False)


def test_control_tokens_that_overlap_are_all_broken_up():
    theirs = tokenizer_of()
    theirs.add_special_tokens(["<a>", "a>b"])
    ours = Tokenizer(json.loads(theirs.to_str()), file=FILE, vocab=300)
    found = ours.encode(ours.guarded("<a>b<a>b"), special=True)

    assert max(found) < 256


def test_spared_spellings_are_left_alone():
    assert OURS.guarded("<|im_end|>", spare=("<|im_end|>",)) == "<|im_end|>"


@given(st.text())
def test_decoding_gives_the_text_back(text):
    clean = text.replace(tokens.BREAK, "").replace(tokens._CONTROL, "")

    assert OURS.decode(OURS.encode(text, special=False)) == clean


@given(st.lists(st.integers(0, 270)))
def test_a_stream_never_has_half_a_character_and_adds_up_to_the_whole(ids):
    stream = OURS.stream()
    parts = [stream.push(token) for token in ids] + [stream.rest()]
    raw = b"".join(OURS.token_bytes(token) for token in ids if token not in CONTROL_IDS)

    assert "".join(parts) == raw.decode("utf-8", "replace") == OURS.decode(ids)


def test_a_character_of_several_tokens_comes_with_its_last():
    stream = OURS.stream()

    assert [stream.push(token) for token in OURS.encode("é🌒", special=False)] == ["", "é", "", "", "", "🌒"]


def test_lone_surrogates_are_shown_as_question_marks():
    assert OURS.decode(OURS.encode("a\ud800b", special=False)) == "a?b"


def test_the_bytes_of_every_token_are_known():
    assert OURS.token_bytes(THEIRS.token_to_id("Ġthe")) == b" the"
    assert OURS.token_bytes(END) == b"<|im_end|>"
    assert {OURS.token_bytes(token) for token in range(256)} == {bytes([byte]) for byte in range(256)}
    assert OURS.token_bytes(10**6) == OURS.token_bytes(-1) == b""
    assert OURS.longest_token == len("<|endoftext|>")


def test_ends_are_listed_once():
    assert OURS.eos_ids == (3, 5)


def test_sentence_piece_text_comes_back():
    ours = Tokenizer(sentence_piece(), file=FILE, vocab=300)
    hi = ours.encode("hi hi", special=False)

    assert [ours.token_bytes(token) for token in hi] == [b" hi", b" hi"]
    assert ours.decode(hi) == "hi hi"
    assert ours.stream().push(hi[0]) == " hi"
    assert ours.decode(ours.encode("é", special=False)) == "é"
    assert not {0, 1, 2}.intersection(ours.encode("</s> <unk> <s>", special=False))
    assert ours.encode("</s>hi", special=True) == [2, hi[0]]


def test_reasoning_tags_are_shown_though_they_are_special():
    theirs = tokenizer_of()
    theirs.add_special_tokens(["<think>", "</think>"])
    ours = Tokenizer(json.loads(theirs.to_str()), file=FILE, vocab=300)
    ids = ours.encode("<think>a</think><|im_end|>", special=True)

    assert len(ids) == 4
    assert ours.decode(ids) == "<think>a</think>"


def test_added_tokens_of_blanks_are_text():
    theirs = tokenizer_of()
    theirs.add_tokens(["    "])
    ours = Tokenizer(json.loads(theirs.to_str()), file=FILE, vocab=300)

    assert ours.encode("    ", special=False) == theirs.encode("    ").ids
    assert ours.decode(ours.encode("    a", special=False)) == "    a"


def test_a_custom_beginning_is_known(tmp_path):
    theirs = tokenizer_of()
    from tokenizers.processors import TemplateProcessing

    theirs.post_processor = TemplateProcessing(single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 256)])
    theirs.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": {"content": "<|endoftext|>"}}')
    found, _ = tokens.read(tmp_path, vocab=259)

    assert (found.bos_id, found.adds_bos) == (256, True)
    assert found.encode("", special=True) == []


BROKEN = {
    "no model": {"added_tokens": []},
    "an added token without a text": json.loads(THEIRS.to_str()) | {"added_tokens": [{"id": 3}]},
    "added tokens that are a number": json.loads(THEIRS.to_str()) | {"added_tokens": 7},
    "nothing": {},
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_definition_names_its_file(case):
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        Tokenizer(BROKEN[case], file=FILE, vocab=300)


def test_a_tokenizer_of_another_model_is_refused():
    with pytest.raises(CheckpointError, match="has 271 tokens, but the model knows 100"):
        Tokenizer(json.loads(THEIRS.to_str()), file=FILE, vocab=100)
