"""The end mark is looked for from the end; a plain search says the same."""

import re

from hypothesis import given
from hypothesis import strategies as st

from predawn.proxy.wire.openai import LAST_BYTES, has_ended

PLAIN = re.compile(rb"(?:^|[\r\n])data: ?\[DONE\]\s*(?:[\r\n]|$)")
PIECES = st.sampled_from([b"data:", b"data: ", b" ", b"[DONE]", b"[DO", b"x", b"\n", b"\r\n", b"\r", b"data: {}\n\n"])


@given(st.lists(PIECES, max_size=9).map(b"".join))
def test_a_stream_has_ended_where_a_line_says_so_and_nowhere_else(tail: bytes) -> None:
    assert has_ended(tail, "chat") == (PLAIN.search(tail) is not None)


def test_a_mark_far_behind_other_text_is_not_looked_for() -> None:
    assert not has_ended(b"data: [DONE]\n\n" + b"x" * LAST_BYTES, "chat")
    assert has_ended(b"x" * LAST_BYTES + b"\ndata: [DONE]\n\n", "chat")
