"""`predawn upstream scripted` as a process of its own."""

import os
import re
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from predawn.proxy.child import Child, leashed

START_TIMEOUT_S = 20


@contextmanager
def scripted_process(*options):
    """Serve the fake provider on a free port; gives its address, without `/v1`."""
    command = leashed(sys.executable, "predawn.proxy.cli:main", "upstream", "scripted", "--port", "0", *options)
    with tempfile.TemporaryDirectory() as folder:
        out, log = Path(folder) / "out", Path(folder) / "log"
        with Child(command, log=log, out=out, env={**os.environ, "PYTHONUNBUFFERED": "1"}) as child:
            give_up_at = time.monotonic() + START_TIMEOUT_S
            while not (found := re.search(r"http://\S+(?=\s)", out.read_text())):
                assert child.status is None, child.tail()
                assert time.monotonic() < give_up_at, "not ready"
                time.sleep(0.05)
            yield found[0].removesuffix("/v1")
