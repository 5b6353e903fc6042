from predawn.kernels.engine.lookup import MOST_DRAFT, Lookup


def test_what_followed_the_same_tokens_before_is_the_draft() -> None:
    assert Lookup([1, 2, 3, 4, 5, 6, 1, 2]).draft(3) == [3, 4, 5]


def test_the_latest_place_counts() -> None:
    assert Lookup([1, 2, 3, 1, 2, 4, 1, 2]).draft(1) == [4]


def test_the_longest_match_counts() -> None:
    assert Lookup([9, 1, 2, 3, 1, 2, 4, 9, 1, 2]).draft(1) == [3]


def test_a_loop_is_drafted_beyond_its_end() -> None:
    assert Lookup([7, 8, 7, 8]).draft(4) == [7, 8, 7, 8]


def test_news_has_no_draft() -> None:
    assert Lookup([1, 2, 3, 4]).draft(8) == []
    assert Lookup([1]).draft(8) == []
    assert Lookup().draft(8) == []
    assert Lookup([1, 2, 1]).draft(8) == []


def test_nothing_is_drafted_where_there_is_no_room() -> None:
    assert Lookup([1, 2, 1, 2]).draft(0) == []
    assert Lookup([1, 2, 1, 2]).draft(-1) == []


def test_tokens_pushed_later_are_found() -> None:
    lookup = Lookup([1, 2, 3])
    for token in (1, 2):
        lookup.push(token)

    assert lookup.draft(2) == [3, 1]


def test_drafts_grow_while_right_and_shrink_when_wrong() -> None:
    lookup = Lookup([5] * 8)
    first = len(lookup.draft(100))
    lookup.judge(first, first)
    grown = len(lookup.draft(100))
    lookup.judge(grown, 1)

    assert (first, grown, len(lookup.draft(100))) == (4, 8, 2)


def test_a_draft_with_its_own_token_fills_a_batch_at_most() -> None:
    lookup = Lookup([5] * 8)
    for _ in range(9):
        drafted = len(lookup.draft(100))
        lookup.judge(drafted, drafted)

    assert len(lookup.draft(100)) == MOST_DRAFT == 15
