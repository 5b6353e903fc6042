import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predawn.proxy.wire.patch import _members_by_token, _members_by_value, append, members, patch, splice

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(max_size=5), VALUES, max_size=6)
STYLES = st.sampled_from([{}, {"indent": 2}, {"separators": (",", ":")}, {"ensure_ascii": False}])


@given(OBJECTS, STYLES)
def test_members_point_at_each_value(value, style):
    text = json.dumps(value, **style).encode()

    found = {m.key: json.loads(text[m.value_start : m.value_end]) for m in members(text)}

    assert value == found


@given(OBJECTS, STYLES, OBJECTS, st.sets(st.text(max_size=5)))
def test_splice_sets_and_drops_members_and_nothing_else(value, style, put, drop):
    drop -= put.keys()
    text = json.dumps(value, **style).encode()

    changed = splice(text, {key: json.dumps(item).encode() for key, item in put.items()}, drop)

    assert {**{k: v for k, v in value.items() if k not in drop}, **put} == json.loads(changed)


@given(OBJECTS, STYLES, st.text(" \t\r\n"), st.text(" \t\r\n"))
def test_append_is_a_shorter_splice(value, style, before, after):
    text = (before + json.dumps(value, **style) + after).encode()
    value.pop("a", None)
    without = splice(text, {}, ["a"])

    assert splice(without, {"a": b"[1]"}) == append(without, "a", b"[1]")


TWICE = [
    b'{"a":"1}","a":10}',
    b'{"a":1,"a":12}',
    b'{"a":12,"a":1}',
    b'{"a":[1],"b":2,"a":"x"}',
    b'{"a": [1.50], "\\u0061": 5 }',
]


@pytest.mark.parametrize("text", TWICE)
def test_a_member_that_is_there_twice_has_two_places(text):
    found = [(member.key, json.loads(text[member.value_start : member.value_end])) for member in members(text)]

    assert json.loads(text, object_pairs_hook=list) == found


@given(OBJECTS, STYLES, st.text(" \t\r\n"))
def test_both_ways_through_an_object_find_the_same(value, style, before):
    text = (before + json.dumps(value, **style)).encode()

    assert (_members_by_value(text, len(before)) or []) == _members_by_token(text, len(before))


@given(OBJECTS, STYLES)
def test_splice_with_nothing_to_do_keeps_every_byte(value, style):
    text = json.dumps(value, **style).encode()

    assert text == splice(text, {}, ())


@given(VALUES, VALUES, STYLES)
def test_patch_gives_the_new_value_whatever_changed(old, new, style):
    text = json.dumps(old, **style).encode()

    assert json.loads(patch(text, old, new)) == new


def test_patch_keeps_the_bytes_of_what_did_not_change():
    text = b'{ "big": 1.000000000000000000001, "list": [1.50, "\\u00e9", {"a" : 1}], "model": "x" }'
    old = json.loads(text)
    new = {**old, "list": [*old["list"][:2], {"a": 2}]}

    assert b'{ "big": 1.000000000000000000001, "list": [1.50,"\\u00e9",{"a" : 2}], "model": "x" }' == patch(
        text, old, new
    )


def test_items_behind_one_that_was_put_in_or_left_out_keep_their_bytes():
    text = b'{"list": [{"a" : 1}, {"b" : 2.50}, {"c" : 3}]}'
    old = json.loads(text)
    first, second, third = old["list"]

    assert b'{"list": [{"a" : 1},{"new":0},{"b" : 2.50},{"c" : 3}]}' == patch(
        text, old, {"list": [first, {"new": 0}, second, third]}
    )
    assert b'{"list": [{"b" : 2.50},{"c" : 3}]}' == patch(text, old, {"list": [second, third]})


def test_a_change_of_type_is_a_change():
    assert b'{"a": true, "b": 1.0}' == patch(b'{"a": 1, "b": 1}', {"a": 1, "b": 1}, {"a": True, "b": 1.0})
