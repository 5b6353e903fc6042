"""Maskers: a text in pieces is masked as the whole is, whatever the patterns and the pieces."""

import json
import sys

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from predawn.plugins.redact.json_masker import JsonMasker
from predawn.plugins.redact.masker import Masker
from predawn.plugins.redact.rules import BUILT_IN, compile_rule, is_iban, is_luhn

RULES = tuple(compile_rule(name, rule.pattern, f"[{name}]", check=rule.check) for name, rule in BUILT_IN.items())
SECRETS = (
    "bob.smith@example.co.uk",
    "+49 170 1234567",
    "4111 1111 1111 1111",
    "5500005555555559",
    "GB82 WEST 1234 5698 7654 32",
    "sk-abcdefghijklmnopqrstuv",
    "@",
    "sk-",
    "4111",
)


def shown(segments):
    return "".join(segment.shown for segment in segments)


def masked(text, rules=RULES, window=256):
    return shown(Masker(rules, window).finish(text))


def fed(masker, pieces):
    segments = [segment for piece in pieces for segment in masker.feed(piece)]
    return shown(segments + masker.finish())


@st.composite
def cut(draw, texts):
    """A text and some way of cutting it into pieces."""
    text = draw(texts)
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=20)))
    return text, [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


prose = st.lists(st.one_of(st.sampled_from(SECRETS), st.text('ab1 @.-+\n\u00e9\U0001f642"\\', max_size=6)), max_size=12)


@given(cut(prose.map("".join)))
@settings(max_examples=300)
def test_pieces_are_masked_as_the_whole_text_is(case):
    text, pieces = case

    assert masked(text) == fed(Masker(RULES, 256), pieces)


@given(cut(prose.map("".join)), st.integers(1, 24))
@settings(max_examples=200)
def test_a_window_shorter_than_a_match_still_makes_all_cuts_equal(case, window):
    text, pieces = case

    assert masked(text, window=window) == fed(Masker(RULES, window), pieces)


ATOMS = ["a", "b", "1", "[ab]", r"\w", r"\d", " ", "."]
ENDS = [r"\b", r"\B", "$", r"\Z", "^", "(?<=a)", "(?<!b)", "(?=a)", "(?!1)"]
QUANTIFIERS = ["*", "+", "?", "{1,3}", "*?", "+?", "??", "*+", "?+"]


def patterns():
    return st.recursive(
        st.sampled_from(ATOMS + ENDS),
        lambda inner: st.one_of(
            st.tuples(inner, inner).map("".join),
            st.tuples(inner, inner).map(lambda pair: f"(?:{pair[0]}|{pair[1]})"),
            st.tuples(inner, st.sampled_from(QUANTIFIERS)).map(lambda pair: f"(?:{pair[0]}){pair[1]}"),
            inner.map(lambda pattern: f"(?={pattern})"),
            inner.map(lambda pattern: f"(?!{pattern})"),
            inner.map(lambda pattern: f"(?>{pattern})"),
        ),
        max_leaves=6,
    )


@given(patterns(), cut(st.text("aab1 \n", max_size=14)), st.sampled_from([4, 8, 256]))
@example(r"(?:.)+?(?<!a) b", (" a1a1  b", [" ", "a", "1a1  b"]), 16)
@example(r"(?>(?:b|.*?)(?<=a))", ("1a ", ["1", "a", " "]), 8)
@example(r"(?:\w\B){1,3}", ("b1a  a1ba", list("b1a  a1ba")), 256)
@settings(max_examples=500)
def test_any_pattern_masks_pieces_as_the_whole(pattern, case, window):
    try:
        rule = compile_rule("p", pattern, "<>", timeout_s=1)
    except ValueError:
        assume(False)
    text, pieces = case

    assert masked(text, [rule], window) == fed(Masker([rule], window), pieces)


@given(patterns(), st.text("aab1 ", max_size=14))
@settings(max_examples=300)
def test_masking_replaces_the_leftmost_matches(pattern, text):
    try:
        rule = compile_rule("p", pattern, "<>", timeout_s=1)
    except ValueError:
        assume(False)
    expected, at = [], 0
    while at < len(text):
        found = rule.pattern.match(text, at)
        if found is not None and found.end() > at:
            expected.append("<>")
            at = found.end()
        else:
            expected.append(text[at])
            at += 1

    assert "".join(expected) == masked(text, [rule])


def test_built_in_patterns_find_their_secrets_and_leave_the_rest():
    text = (
        "Write bob.smith@example.co.uk, call +49 170 1234567 or (555) 123-4567; card 4111 1111 1111 1111 12, "
        "IBAN GB82 WEST 1234 5698 7654 32 AND key sk-abcdefghijklmnopqrstuv. Order 4111111111111112 of 1732242424242."
    )
    expected = (
        "Write [email], call [phone] or [phone]; card [credit_card] 12, "
        "IBAN [iban] AND key [api_key]. Order 4111111111111112 of 1732242424242."
    )

    assert expected == masked(text)


def test_plain_words_leave_one_word_late_at_most():
    masker = Masker(RULES, 256)
    pieces = ["Hello", " world", ", how", " are", " you", "?"]
    seen = [shown(masker.feed(piece)) for piece in pieces]

    assert ["", "Hello ", "world, ", "how ", "are ", "you?"] == seen


def test_less_than_the_window_is_held_back():
    masker = Masker([compile_rule("all", "a.*z", "<>")], 16)
    out = shown(masker.feed("a" * 41))

    assert 41 - 15 == len(out)
    assert "a" * 15 == shown(masker.finish())


def test_check_digits_are_those_of_the_standards():
    assert is_luhn("4111111111111111")
    assert not is_luhn("4111111111111112")
    assert is_iban("GB82WEST12345698765432")
    assert not is_iban("GB83WEST12345698765432")


scalars = st.one_of(prose.map("".join), st.integers(-5, 10**18), st.booleans(), st.none())
documents = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text("abc", max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


def masked_value(value):
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return masked(str(value)) if masked(str(value)) != str(value) else value
    if isinstance(value, list):
        return [masked_value(item) for item in value]
    return {key: masked_value(item) for key, item in value.items()}


@given(documents, st.booleans(), st.randoms(use_true_random=False))
@settings(max_examples=200)
def test_json_in_pieces_keeps_its_structure_and_masks_each_value(value, escaped, source):
    text = json.dumps(value, ensure_ascii=escaped)
    pieces, at = [], 0
    while at < len(text):
        size = source.randint(1, 5)
        pieces.append(text[at : at + size])
        at += size

    assert masked_value(value) == json.loads(fed(JsonMasker(RULES, 256), pieces))


@given(cut(st.text('"\\u0041d8{}:, ab@.n', max_size=30)))
@settings(max_examples=300)
def test_text_that_is_no_json_loses_nothing_in_any_cut(case):
    text, pieces = case
    whole = shown(JsonMasker(RULES, 256).finish(text))

    assert whole == fed(JsonMasker(RULES, 256), pieces)
    assert "[" in whole or whole == text


def test_escaped_secrets_are_found_and_other_spellings_kept():
    text = r'{"a":"\u0062ob@example.com","b":"\u00e9\/\ud83d\ude42"}'

    assert r'{"a":"[email]","b":"\u00e9\/\ud83d\ude42"}' == shown(JsonMasker(RULES, 256).finish(text))


@pytest.mark.parametrize(
    ("pattern", "told"),
    [("(", "'p' is not a regular expression"), ("a*", "empty text"), (r"a\Kb", r"\\K"), ("(?:ab){e<=1}", "e<=1")],
)
def test_a_pattern_that_cannot_be_used_is_refused_by_name(pattern, told):
    with pytest.raises(ValueError, match=told) as caught:
        compile_rule("p", pattern, "<>")

    assert "'p'" in str(caught.value)


def test_a_pattern_that_runs_away_is_stopped():
    rule = compile_rule("p", r"(?:a|aa|aaa)+(?:b|c)!", "<>", timeout_s=0.01)
    with pytest.raises(TimeoutError):
        masked("a" * 200 + "d", [rule])


def test_without_its_engine_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "regex", None)
    with pytest.raises(ValueError, match=r"pip install 'predawn\[redact\]'"):
        compile_rule("p", "a", "<>")
