"""What DBOS may say in our log."""

import logging

import pytest

from predawn.proxy.jobs.quiet import hush


class DBOSAwaitedWorkflowCancelledError(Exception):
    """Named like DBOS's own."""


@pytest.fixture
def dbos():
    hush()
    return logging.getLogger("dbos")


@pytest.mark.parametrize(("error", "count"), [(DBOSAwaitedWorkflowCancelledError("job"), 0), (ValueError("odd"), 1)])
def test_a_job_that_was_cancelled_is_no_error(dbos, caplog, error, count):
    with caplog.at_level(logging.ERROR, "dbos"):
        dbos.error("Exception encountered in asynchronous workflow:", exc_info=error)

    assert len(caplog.records) == count
