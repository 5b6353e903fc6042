from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from predawn.plugins import Exchange
from predawn.plugins.calls.bodies import side_body
from predawn.proxy.wire.outgoing import outgoing_body

decode, encode = msgspec.json.decode, msgspec.json.encode
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
BODY = encode(
    {
        "model": "m",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, IMAGE]}],
        "tools": [{"type": "function", "function": {"name": "look"}}],
        "response_format": {"type": "json_object"},
        "made_up": {"kept": [1, 2.50]},
        "predawn": {"sampling": {"samples": 3}},
    }
)
USAGE = {"stream": True, "stream_options": {"include_usage": True}}


def test_everything_the_client_wrote_goes_out_but_what_is_changed() -> None:
    sent = decode(side_body(Exchange(BODY), {"seed": 7}, (), stream=True))

    expected = decode(BODY)
    del expected["predawn"]
    assert sent == {**expected, "seed": 7, **USAGE}


def test_untouched_bytes_stay_as_they_are() -> None:
    body = b'{ "model":"m",  "messages" : [ {"role":"user","content":"\\u0041"} ] , "x": 1.00 }'

    sent = side_body(Exchange(body), {"seed": 7}, (), stream=False)

    assert sent.startswith(body.rstrip(b" }"))
    assert decode(sent)["seed"] == 7


def test_members_can_be_left_out() -> None:
    sent = decode(side_body(Exchange(BODY), {}, ("tools", "response_format"), stream=False))

    assert "tools" not in sent
    assert "response_format" not in sent
    assert "stream" not in sent


def test_options_of_the_stream_are_kept_beside_the_usage() -> None:
    body = b'{"model":"m","stream":true,"stream_options":{"include_obfuscation":false}}'

    sent = decode(side_body(Exchange(body), None, (), stream=True))

    assert sent["stream_options"] == {"include_obfuscation": False, "include_usage": True}


def test_a_call_that_does_not_stream_asks_for_none_of_it() -> None:
    body = b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}'

    assert side_body(Exchange(body), None, (), stream=False) == b'{"model":"m"}'


def test_what_plugins_further_out_changed_goes_out_and_later_changes_too() -> None:
    exchange = Exchange(BODY)
    exchange.edit()["user"] = "a"
    first = decode(side_body(exchange, {"seed": 1}, (), stream=True))
    exchange.edit()["user"] = "b"
    second = decode(side_body(exchange, {"seed": 1}, (), stream=True))

    assert (first["user"], second["user"]) == ("a", "b")


def test_other_dialects_get_no_stream_options() -> None:
    sent = decode(side_body(Exchange(b'{"model":"m"}', route="messages"), None, (), stream=True))

    assert sent == {"model": "m", "stream": True}


names = st.sampled_from(["model", "seed", "stream", "n", "stream_options", "predawn", "x", "messages"])
values: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.text(max_size=3)
    | st.just({"include_usage": False})
    | st.just([])
)


@given(
    request=st.dictionaries(names, values),
    changes=st.dictionaries(names.filter(lambda name: name not in ("stream", "stream_options", "predawn")), values),
    without=st.sets(names),
    stream=st.booleans(),
)
def test_the_body_is_the_request_without_and_with(
    request: dict[str, Any], changes: dict[str, Any], without: set[str], stream: bool
) -> None:
    sent = decode(side_body(Exchange(encode(request)), changes, without, stream=stream))

    kept = {name: value for name, value in request.items() if name not in without | {"predawn"}} | changes
    if stream:
        given_options = request.get("stream_options")
        kept |= {"stream": True}
        kept["stream_options"] = {
            **(given_options if isinstance(given_options, dict) else {}),
            "include_usage": True,
        }
    else:
        kept.pop("stream", None)
        kept.pop("stream_options", None)
    assert sent == kept


def test_a_child_is_the_clients_request_and_nothing_of_its_own_account() -> None:
    exchange = Exchange(BODY, tenant="t", key_id="k", model="m", headers={"x": "y"}, control={"a": 1}, started=5.0)
    exchange.edit()["user"] = "a"
    exchange.deadline = 9.0

    child = exchange.child(purpose="verify")

    shared = ("tenant", "key_id", "model", "headers", "control", "deadline", "budget", "difficulty", "started", "route")
    assert [getattr(child, name) for name in shared] == [getattr(exchange, name) for name in shared]
    assert (child.parent, child.call_purpose, child.parent_of_all) == (exchange, "verify", exchange)
    assert child.ledger is not exchange.ledger
    assert child.state is not exchange.state
    assert child.verdicts is not exchange.verdicts
    assert decode(outgoing_body(child, "m", None))["user"] == "a"


def test_changing_a_child_leaves_its_parent_as_it_is() -> None:
    exchange = Exchange(BODY)
    exchange.edit()["user"] = "a"

    exchange.child().edit()["messages"].clear()

    assert len(exchange.request["messages"]) == 1
