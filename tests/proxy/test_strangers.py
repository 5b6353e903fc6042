import pytest
from multidict import CIMultiDict

from predawn.proxy.strangers import is_loopback, stranger


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"])
def test_this_machine_is_no_stranger(peer: str):
    assert stranger(CIMultiDict(), peer) is None


@pytest.mark.parametrize(
    "peer", ["", "10.0.0.3", "192.168.1.1", "::ffff:10.0.0.3", "fe80::1", "0.0.0.0", "localhost", "x"]
)
def test_every_other_address_is_one(peer: str):
    assert "this one came from" in (stranger(CIMultiDict(), peer) or "")
    assert not is_loopback(peer)


@pytest.mark.parametrize(
    "headers",
    [
        {"x-forwarded-for": "203.0.113.9"},
        {"X-Forwarded-For": "127.0.0.1, 203.0.113.9"},
        {"x-real-ip": "203.0.113.9"},
        {"forwarded": "for=127.0.0.1"},
        {"x-forwarded-for": "unknown"},
    ],
)
def test_a_proxy_on_this_machine_that_speaks_for_others_is_one(headers: dict[str, str]):
    assert stranger(CIMultiDict(headers), "127.0.0.1") == "this one came through a proxy"


def test_a_proxy_that_speaks_for_this_machine_is_none():
    assert stranger(CIMultiDict({"x-forwarded-for": "127.0.0.1"}), "127.0.0.1") is None


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://10.0.0.3:3000", "null", "http://[bad", "http://localhost.evil.example"]
)
def test_a_web_page_from_elsewhere_is_one(origin: str):
    assert stranger(CIMultiDict({"Origin": origin}), "127.0.0.1") == "this one was made by a web page from elsewhere"


@pytest.mark.parametrize(
    "origin", ["http://localhost:3000", "http://127.0.0.1", "http://app.localhost", "http://[::1]:80", "app://chat"]
)
def test_a_page_of_this_machine_is_none(origin: str):
    assert stranger(CIMultiDict({"Origin": origin}), "127.0.0.1") is None
