import io

import pytest

from predawn.proxy.demo.ink import Ink


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_colours():
    assert Ink(Terminal(), {})("bold", "text") == "\x1b[1mtext\x1b[0m"


@pytest.mark.parametrize(
    ("out", "env"), [(io.StringIO(), {}), (Terminal(), {"NO_COLOR": "1"}), (Terminal(), {"TERM": "dumb"})]
)
def test_nobody_else_does(out, env):
    assert Ink(out, env)("bold", "text") == "text"


def test_nothing_needs_no_colour():
    assert Ink(Terminal(), {"NO_COLOR": ""})("bold", "") == ""
