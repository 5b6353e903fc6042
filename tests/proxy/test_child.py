import os
import signal
import subprocess
import sys
import time

import pytest

from predawn.proxy.child import Child, leashed

WAITS = "import sys; print('up', flush=True); sys.stdin.read()"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"


def wait_for(condition, seconds=10):
    give_up_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up_at, "nothing happened"
        time.sleep(0.02)


def gone(pid):
    """True when the process ended, also if nobody has collected its status yet."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_child_that_reads_its_input_ends_in_order(tmp_path):
    with Child([sys.executable, "-c", WAITS], log=tmp_path / "log") as child:
        wait_for(lambda: child.tail() == "up")

    assert child.status == 0


def test_a_child_that_ignores_everything_is_killed(tmp_path):
    child = Child([sys.executable, "-c", DEAF], log=tmp_path / "log")
    wait_for(lambda: child.tail() == "up")
    child.stop(grace_s=0.1)

    assert child.status == -signal.SIGKILL


def test_stopping_twice_is_harmless(tmp_path):
    child = Child([sys.executable, "-c", WAITS], log=tmp_path / "log")
    child.stop()
    child.stop()

    assert child.status is not None


def test_output_goes_where_it_is_wanted_and_errors_to_the_log(tmp_path):
    program = "import sys; print('words'); sys.exit('trouble')"
    child = Child([sys.executable, "-c", program], log=tmp_path / "log", out=tmp_path / "out")
    child.process.wait(10)
    child.stop()

    assert ((tmp_path / "out").read_text(), child.tail(), child.status) == ("words\n", "trouble", 1)


def test_a_leashed_function_gets_its_arguments_and_its_result_is_the_status(tmp_path):
    (tmp_path / "sample.py").write_text("import sys\ndef main():\n    print(sys.argv)\n    return 3\n")
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    child = Child(leashed(sys.executable, "sample:main", "--one", "two"), log=tmp_path / "log", env=env)
    child.process.wait(10)
    child.stop()

    assert (child.tail(), child.status) == ("['sample:main', '--one', 'two']", 3)


def test_a_leashed_module_that_ends_by_itself_ends_without_complaint(tmp_path):
    child = Child(leashed(sys.executable, "json.tool", "--help"), log=tmp_path / "log")
    child.process.wait(10)
    child.stop()

    assert child.status == 0
    assert "usage" in child.tail(50)


def test_a_leashed_program_ends_when_the_leash_is_let_go(tmp_path):
    program = tmp_path / "program.py"
    program.write_text("import time\nprint('up', flush=True)\ntime.sleep(60)\n")
    child = Child(leashed(sys.executable, str(program)), log=tmp_path / "log")
    wait_for(lambda: child.tail() == "up")
    child.process.stdin.close()
    child.process.wait(10)

    assert child.status == -signal.SIGTERM


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
def test_a_child_does_not_outlive_a_killed_parent(tmp_path):
    program = tmp_path / "program.py"
    program.write_text("import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(60)\n")
    parent_program = (
        "import sys, time, pathlib\n"
        "from predawn.proxy.child import Child, leashed\n"
        f"Child(leashed(sys.executable, {str(program)!r}), log=pathlib.Path({str(tmp_path / 'log')!r}))\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", parent_program])
    log = tmp_path / "log"
    wait_for(lambda: log.exists() and log.read_text().endswith("\n"))
    parent.kill()
    parent.wait()

    wait_for(lambda: gone(int(log.read_text())))
