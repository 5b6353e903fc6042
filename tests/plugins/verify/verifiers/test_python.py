"""`python`: syntax and names of fenced code; runs only in a sandbox of the settings."""

import asyncio
import os
import socket
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.benchmarks.verify.plants.code import BROKEN, SOUND
from tests.plugins.verify.verifiers.reading import read, violations

from predawn.plugins.verify.verifiers import create, sandbox
from predawn.plugins.verify.verifiers.code_blocks import blocks, code_block
from predawn.proxy.tasks import Tasks

FILL = {"a": "total", "b": "count", "f": "solve", "F": "Tree", "missing": "undefined_thing", "known": "sales_frame"}
CONTEXT = {"messages": [{"role": "user", "content": "My data is in sales_frame."}]}
SANDBOX = {"sandbox": [sys.executable, "-I", "-"], "sandbox_timeout_s": 10}


def fenced(code):
    return f"Here:\n\n```python\n{code}\n```\n\nDone.\n"


@pytest.mark.parametrize("code", [template.format(**FILL) for template in SOUND])
async def test_sound_code_passes(code):
    assert await violations(create("python"), fenced(code), request=CONTEXT) == []


@pytest.mark.parametrize("code", [template.format(**FILL) for template in BROKEN])
async def test_broken_code_is_told(code):
    assert len(await violations(create("python"), fenced(code), request=CONTEXT)) == 1


async def test_only_blocks_marked_as_python_are_read():
    assert await violations(create("python"), "```\nx = (\n```\n\n```js\nlet x = (\n```\n\n`y = (`\n") == []


async def test_a_block_knows_what_blocks_before_it_defined():
    text = fenced("rows = [1]") + fenced("print(rows, others)")

    (verdict,) = await violations(create("python"), text)

    assert verdict.where == "others (line 1)"


async def test_a_block_that_is_never_closed_is_read_at_the_end():
    assert len(await violations(create("python"), "```python\nx = (")) == 1


async def test_names_can_be_known_or_not_looked_at():
    assert await violations(create("python", {"known": ["spark"]}), fenced("spark.sql('x')")) == []
    assert await violations(create("python", {"names": False}), fenced("spark.sql('x')")) == []


async def test_large_code_is_parsed_in_a_process_of_its_own():
    large = "x = 1\n" * 3000

    assert await violations(create("python", {"timeout_s": 30}), fenced(large)) == []
    assert (
        "was never closed"
        in (await violations(create("python", {"timeout_s": 30}), fenced(large + "x = (")))[0].feedback
    )


async def test_code_for_an_older_python_must_suit_it():
    assert (
        len(await violations(create("python", {"python": [3, 9]}), fenced("match 1:\n    case 1:\n        pass"))) == 1
    )


async def test_nothing_is_run_without_a_sandbox(tmp_path):
    mark = tmp_path / "ran"

    await read(create("python"), fenced(f"open({str(mark)!r}, 'w')"))

    assert not mark.exists()


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("print(1)", "pass"),
        ("1 / 0", "violation"),
        ("x = [0] * 10**9", "violation"),
        ("import os\nassert 'HOME' in os.environ and len(os.environ) < 6", "pass"),
    ],
)
async def test_a_sandbox_says_how_the_code_ran(code, outcome):
    verdicts = await read(create("python", SANDBOX), fenced(code))

    assert outcome in {verdict.outcome for verdict in verdicts}


@pytest.mark.parametrize("code", ["while True: pass", "import time; time.sleep(60)"])
async def test_a_run_that_does_not_end_is_killed(code):
    verdicts = await read(create("python", {**SANDBOX, "sandbox_timeout_s": 0.5}), fenced(code))

    assert [verdict.outcome for verdict in verdicts if verdict.feedback] == ["unsure"]


async def test_endless_output_is_cut_off():
    verdicts = await read(create("python", SANDBOX), fenced("while True: print('x' * 1000)"))

    assert [verdict.outcome for verdict in verdicts if verdict.feedback] == ["violation"]


@given(
    st.lists(
        st.sampled_from(["```python\n", "```\n", "~~~\n", "x = 1\n", "\n", "text", "`a`", "    ", "````\n"]),
        max_size=16,
    ).map("".join),
    st.integers(1, 9),
)
async def test_steps_end_where_blocks_do(text, size):
    """No block is cut in two, except the one that never ends."""
    ends, at = set(), 0
    while length := code_block(text[at:]):
        at += length
        ends.add(at)
    for block in await blocks(text):
        assert not any(block.start < end < block.stop for end in ends)


@pytest.mark.parametrize(
    "code",
    [
        "class A[T]:\n    x: T",
        "type X[T] = list[T]",
        'd = {}\nprint(f"{d["a"]}")',
        'a = 1\nprint("%s"\n      % a)',
        "a = 1\nprint(a\n      != 2)",
        "files = !ls\nprint(files)",
        "display(3)",
        "vars()['x'] = 1\nprint(x)",
    ],
)
async def test_code_that_some_python_takes_is_no_violation(code):
    assert await violations(create("python"), fenced(code)) == []


@pytest.mark.parametrize("command", [["false"], ["sh", "-c", "echo no namespaces; exit 1"]])
async def test_a_sandbox_that_fails_by_itself_breaks_no_code(command):
    verifier = create("python", {"sandbox": command})

    verdicts = await read(verifier, fenced("print(1)"))

    assert [verdict.outcome for verdict in verdicts if verdict.feedback] == ["unsure"]


@pytest.fixture
def ready():
    verifier = create("python", {"timeout_s": 2})
    verifier.open()
    yield verifier
    verifier.close()


LARGE = "x = 1\n" * 3000


async def test_large_code_goes_to_the_process_that_is_ready(ready, monkeypatch):
    monkeypatch.setattr(sandbox, "run", None)  # none is started

    assert await violations(ready, fenced(LARGE)) == []
    assert "was never closed" in (await violations(ready, fenced(LARGE + "x = (")))[0].feedback


async def test_code_that_takes_too_long_harms_no_other(ready):
    report = ready._parser.report
    slow, sound = f"{LARGE}x = {'(' * 90}{'1+' * 150_000}1{')' * 90}".encode(), LARGE.encode()

    assert await report(slow, (), 0.001) == b""
    assert await report(sound, (), 2.0) == b'{"undefined": []}'


async def test_a_parse_that_ends_before_it_has_read_the_code_is_no_end_of_the_process(ready, monkeypatch):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        monkeypatch.setattr(ready._parser, "_socket", ours)
        report = Tasks().spawn(ready._parser.report(LARGE.encode(), (), 2.0), "report")
        await asyncio.sleep(0.01)
        _, (copy,), _, _ = socket.recv_fds(theirs, 1 << 10, 1)
        os.close(copy)

        assert await report == b""
    monkeypatch.undo()

    assert await ready._parser.report(LARGE.encode(), (), 2.0) == b'{"undefined": []}'


async def test_the_version_of_the_settings_is_parsed_elsewhere_too(ready):
    assert b"error" in await ready._parser.report(b"match x:\n    case 1: pass\n", (3, 9), 2.0)
    assert b"error" not in await ready._parser.report(b"match x:\n    case 1: pass\n", (), 2.0)


async def test_without_that_process_code_is_given_one_of_its_own(ready):
    ready._parser._process.kill()
    ready._parser._process.wait()

    assert "was never closed" in (await violations(ready, fenced(LARGE + "x = (")))[0].feedback
    assert ready._parser is None


def test_the_process_ends_with_its_owner():
    verifier = create("python")
    verifier.open()
    process = verifier._parser._process
    verifier.close()

    assert process.returncode is not None
