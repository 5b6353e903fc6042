"""The sockets of a fleet: who has which port, what a newer plan takes over, and what is refused."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from predawn.proxy.settings import Settings
from predawn.proxy.workers.plan import Plan


@pytest.fixture
def plan() -> Iterator[Any]:
    made: list[Plan] = []

    def build(before: Plan | None = None, **server: Any) -> Plan:
        settings = Settings.model_validate({"server": {"port": 0, "workers": 2, **server}, "state": "state.db"})
        made.append(Plan.read(b"", settings).bound(before))
        return made[-1]

    yield build
    for one in made:
        one.close()


def ports(plan: Plan) -> list[tuple[int, int]]:
    return [(both.api[0].getsockname()[1], both.admin[0].getsockname()[1]) for both in plan.sockets]


def admin_base() -> int:
    """The first of three ports in a row."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            first: int = probe.getsockname()[1]
        try:
            for more in range(3):
                socket.create_server(("127.0.0.1", first + more)).close()
        except OSError:
            continue
        return first


def test_all_share_the_api_s_port_and_each_has_an_admin_port(plan: Any) -> None:
    base = admin_base()
    (api, first), (same, second) = ports(plan(admin_port=base))

    assert api == same
    assert (first, second) == (base, base + 1)


def test_a_newer_plan_takes_over_the_sockets_of_the_same_addresses(plan: Any) -> None:
    old = plan()
    new = plan(old, workers=3)
    old.close(unlike=new)

    assert new.sockets[:2] == old.sockets
    assert all(one.fileno() > 0 for one in new.every)


def test_a_plan_for_fewer_workers_gives_up_the_others_sockets(plan: Any) -> None:
    old = plan()
    new = plan(old, workers=1)
    old.close(unlike=new)

    assert [one.fileno() > 0 for one in old.every] == [True, True, False, False]


def test_another_port_is_bound_beside_the_old_one(plan: Any) -> None:
    old = plan()
    new = plan(old, port=admin_base(), admin_port=0)

    assert not {one.api[0] for one in old.sockets} & {one.api[0] for one in new.sockets}
    assert [one.admin for one in old.sockets] == [one.admin for one in new.sockets]


def test_a_port_on_which_others_listen_is_refused_though_it_could_be_shared(plan: Any) -> None:
    listening = plan().sockets[0].api[0]
    listening.listen()

    with pytest.raises(OSError, match="by another program"):
        plan(port=listening.getsockname()[1], admin_port=0)


def test_a_taken_admin_port_is_refused_and_nothing_stays_bound(plan: Any) -> None:
    base = admin_base()
    with (
        socket.create_server(("127.0.0.1", base + 1)),
        pytest.raises(OSError, match=f"127.0.0.1:{base + 1}.*by another program"),
    ):
        plan(port=base + 2, admin_port=base)

    socket.create_server(("127.0.0.1", base)).close()


def test_nobody_waits_where_a_worker_left_the_port(plan: Any) -> None:
    both = plan()
    first, second = (one.api[0] for one in both.sockets)
    first.listen()
    second.listen()
    both.leave(2)
    clients = [socket.create_connection(first.getsockname()) for _ in range(20)]
    accepted = [first.accept()[0] for _ in clients]
    for one in (*clients, *accepted):
        one.close()

    assert len(accepted) == 20
    assert second.fileno() < 0
    assert ports(both)[0][0] == ports(both)[1][0]


@pytest.mark.parametrize(
    ("workers", "words"), [(1, "1 worker serves http://127.0.0.1:"), (2, "2 workers share http://127.0.0.1:")]
)
def test_it_says_in_a_line_where_everything_is(workers: int, words: str, plan: Any) -> None:
    base = admin_base()
    shown = f"port {base}" if workers == 1 else f"ports {base} to {base + 1}"
    line = str(plan(workers=workers, admin_port=base))

    assert line.startswith(words)
    assert line.endswith(shown)
