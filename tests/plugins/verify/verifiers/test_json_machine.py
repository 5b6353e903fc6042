"""The JSON machine: accepts what `json` accepts, piece by piece, and points at the first character that cannot be."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predawn.plugins.verify.verifiers.json_machine import JsonError, JsonMachine

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


def fault(text, size=None):
    """Where the machine stops, fed in pieces of `size`; `None` if it reads to the end."""
    machine = JsonMachine()
    size = size or max(len(text), 1)
    try:
        for at in range(0, len(text), size):
            list(machine.feed(text[at : at + size]))
        list(machine.finish())
    except JsonError as exc:
        return exc.at
    return None


@given(values, st.sampled_from([None, 1, 3]), st.integers(1, 7), st.booleans())
def test_what_json_writes_is_read(value, indent, size, escaped):
    text = json.dumps(value, indent=indent, ensure_ascii=escaped)

    assert fault(text, size) is None


def is_json(text):
    def once(pairs):
        if len(dict(pairs)) < len(pairs):
            raise ValueError
        return dict(pairs)

    def never(name):
        raise ValueError(name)

    try:
        json.loads(text, object_pairs_hook=once, parse_constant=never)
    except ValueError:
        return False
    return True


@given(st.text(alphabet='{}[]:,"\\ntrue01.-e \n', max_size=24), st.integers(1, 5))
def test_it_accepts_what_json_accepts_and_pieces_change_nothing(text, size):
    assert is_json(text) == (fault(text) is None)
    assert fault(text) == fault(text, size)


@given(values, st.data())
def test_the_fault_is_at_the_first_character_that_cannot_be(value, data):
    text = json.dumps(value)
    at = data.draw(st.integers(0, len(text)))
    broken = text[:at] + data.draw(st.sampled_from(list("}]:,x\x01"))) + text[at:]
    found = fault(broken)

    assert found is None or found >= at


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("{'a': 1}", 1),
        ('{"a": 01}', 7),
        ('{"a": 1,}', 8),
        ("[1 2]", 3),
        ("nul", 3),
        ("", 0),
        ('{"a":1} x', 8),
        ("[" * 300, 200),
    ],
)
def test_faults_are_told_where_they_are(text, at):
    assert at == fault(text)
