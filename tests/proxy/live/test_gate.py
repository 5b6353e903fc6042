import pytest
from multidict import CIMultiDict
from pydantic import SecretStr

from predawn.proxy.exchange import RequestError
from predawn.proxy.live import gate

KEY = SecretStr("an-admin-key-of-some-length")
HERE = {"Host": "localhost:9080"}


def refused(peer: str = "127.0.0.1", key: SecretStr | None = None, **headers: str) -> int | None:
    """The status that such a request is refused with; `None` if it passes."""
    given = CIMultiDict({**HERE, **{name.replace("_", "-"): value for name, value in headers.items()}})
    try:
        gate.check(given, peer, key)
    except RequestError as exc:
        return exc.status
    return None


@pytest.mark.parametrize("host", ["localhost:9080", "127.0.0.1:9080", "[::1]:9080", "predawn.localhost", "127.1.2.3"])
def test_this_machine_looks_without_a_key(host: str) -> None:
    assert refused(Host=host) is None
    assert refused("::1", Host=host) is None


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "192.168.1.7:9080", "", "[::1", "a b", "0"])
def test_a_name_that_was_made_to_point_here_gets_nothing(host: str) -> None:
    assert refused(Host=host) == 403


@pytest.mark.parametrize("peer", ["192.168.1.7", "10.0.0.1", "2001:db8::1", "", "unix"])
def test_others_get_nothing_while_there_is_no_key(peer: str) -> None:
    assert refused(peer) == 403
    assert refused(peer, x_predawn_admin_key="anything") == 403


def test_what_a_proxy_on_this_machine_passes_on_is_not_of_this_machine() -> None:
    assert refused(X_Forwarded_For="203.0.113.9") == 403
    assert refused(Forwarded="for=203.0.113.9") == 403


def test_a_key_is_asked_of_everybody_once_there_is_one() -> None:
    assert refused(key=KEY) == 401
    assert refused("203.0.113.9", KEY) == 401
    assert refused("203.0.113.9", KEY, x_predawn_admin_key="an-admin-key-of-some-lengtH") == 401
    assert refused("203.0.113.9", KEY, x_predawn_admin_key="é" * 27) == 401
    assert refused("203.0.113.9", KEY, x_predawn_admin_key="") == 401


def test_the_key_opens_from_anywhere_under_any_name() -> None:
    assert refused("203.0.113.9", KEY, Host="predawn.example", x_predawn_admin_key=KEY.get_secret_value()) is None


@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize(
    "headers",
    [
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:3000"},
        {"Origin": "http://[::1"},
    ],
)
def test_pages_from_elsewhere_get_nothing_even_with_the_key(key: SecretStr | None, headers: dict[str, str]) -> None:
    given = {"x_predawn_admin_key": KEY.get_secret_value()} if key is not None else {}

    assert refused(key=key, **headers, **given) == 403


def test_our_own_page_passes() -> None:
    assert refused(Origin="http://localhost:9080", Sec_Fetch_Site="same-origin") is None


@pytest.mark.parametrize("headers", [{}, {"X-Predawn-Live": "0"}, {"X-Predawn-Live": ""}])
def test_what_a_form_could_send_is_not_taken(headers: dict[str, str]) -> None:
    with pytest.raises(RequestError) as caught:
        gate.check_own(CIMultiDict(headers))

    assert caught.value.status == 403
