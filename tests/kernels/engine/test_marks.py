from hypothesis import given
from hypothesis import strategies as st

from predawn.kernels.engine.marks import MarkSearch

TEXTS = st.text("ab<", max_size=20)


def until_mark(marks, pieces):
    search = MarkSearch(marks)
    out = ""
    for place, piece in enumerate(pieces):
        said, mark = search.feed(piece)
        out += said
        if mark is not None:
            return out, mark, search.rest() + "".join(pieces[place + 1 :])
    return out + search.rest(), None, ""


@given(st.lists(st.text("ab<", min_size=1, max_size=4), max_size=3), TEXTS, st.lists(st.integers(1, 5)))
def test_the_result_does_not_depend_on_the_split(marks, text, sizes):
    pieces, rest = [], text
    for size in sizes:
        pieces.append(rest[:size])
        rest = rest[size:]

    assert until_mark(marks, [*pieces, rest]) == until_mark(marks, list(text))


@given(st.lists(st.text("ab<", min_size=1, max_size=4), max_size=3), st.lists(TEXTS))
def test_nothing_is_lost_and_no_mark_goes_out(marks, pieces):
    out, mark, rest = until_mark(marks, pieces)

    assert out + (mark or "") + rest == "".join(pieces)
    assert not any(mark in out for mark in marks)


@given(st.text("ab<", min_size=1, max_size=4), st.lists(TEXTS))
def test_only_what_may_begin_a_mark_is_held_back(mark, pieces):
    search = MarkSearch([mark])
    for piece in pieces:
        _, found = search.feed(piece)
        held = search.rest()
        assert found or held == "" or mark.startswith(held)
        search.feed(held)


def test_of_two_marks_the_one_that_is_complete_first_counts():
    assert until_mark(["abcd", "bc"], ["abcd"]) == ("a", "bc", "d")
    assert until_mark(["ab", "abc"], ["abc"]) == ("", "ab", "c")
