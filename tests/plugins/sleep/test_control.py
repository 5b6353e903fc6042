"""What a request may ask of sleep, by header or in its body."""

import pytest

from predawn.plugins import RequestError
from predawn.plugins.sleep.control import Wish, read_wish
from predawn.proxy.control import read_control

STANDARD = Wish(rule="last_sentence")


def test_a_request_that_says_nothing_is_treated_as_the_settings_say():
    assert read_wish({"cache": False}, STANDARD) is STANDARD


@pytest.mark.parametrize("word", ["off", "OFF", "no", "false"])
def test_sleep_is_off_by_header(word):
    assert not read_wish(read_control([("sleep", word)], None), STANDARD).sleeps


@pytest.mark.parametrize("word", [True, "on", "yes"])
def test_sleep_is_on_in_the_body(word):
    assert read_wish({"sleep": word}, STANDARD).sleeps


def test_a_context_is_named_also_by_a_number():
    assert read_wish(read_control([("context", "42")], None), STANDARD).context == "42"


def test_live_messages_and_the_rule_of_splitting_are_read():
    wish = read_wish({"live": [-1, 3], "split": "last_paragraph"}, STANDARD)

    assert wish == Wish(live=[-1, 3], rule="last_paragraph")


@pytest.mark.parametrize(
    ("control", "param"),
    [
        ({"sleep": "perhaps"}, "predawn.sleep"),
        ({"sleep": {}}, "predawn.sleep"),
        ({"sleep": 2}, "predawn.sleep"),
        ({"context": True}, "predawn.context"),
        ({"context": ["a"]}, "predawn.context"),
        ({"live": "last"}, "predawn.live"),
        ({"live": [True]}, "predawn.live"),
        ({"split": "nowhere"}, "predawn.split"),
        ({"split": []}, "predawn.split"),
    ],
)
def test_what_cannot_be_meant_is_refused(control, param):
    with pytest.raises(RequestError) as refused:
        read_wish(control, STANDARD)

    assert (refused.value.status, refused.value.param) == (400, param)
