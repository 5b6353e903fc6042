"""DBOS kept to its task: what it may log, how it writes values, and the pieces of its inside that we count on."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import msgspec

from predawn.proxy.jobs.protocol import StepError

if TYPE_CHECKING:
    from dbos import DBOS, Serializer

NAME = "predawn"
VERSION = "1"
"""Of the way in which jobs are stored: processes take only jobs of their own version. Not Predawn's own version, for
jobs outlive an upgrade."""
REPEAT_S = 60.0
END_S = 5.0
SELDOM_S = 4.0
"""PostgreSQL would end DBOS's session, which keeps a transaction open from one look to the next, after 5."""
MOST_THREADS = 64
"""Of the event loop: while a database cannot be reached, each step that stores its result holds one."""

_OUR_OWN_DOING = (
    "Asyncio task cancelled",  # a step was interrupted
    "is no longer owned",  # a job was taken over
    "was cancelled during execution",
    "outcome was not recorded",
)
_OUR_OWN_ERRORS = frozenset({"DBOSNonExistentWorkflowError", "DBOSAwaitedWorkflowCancelledError"})
"""A job was purged, or cancelled, while it ran or was picked up."""


class _Filter(logging.Filter):
    """Passes what matters, and of what is said again and again (while a database is away) one a minute."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        caught = record.exc_info[1] if record.exc_info else None
        if type(caught).__name__ in _OUR_OWN_ERRORS:
            return False
        if any(words in message for words in _OUR_OWN_DOING):
            return False
        if record.levelno >= logging.ERROR:
            return True
        kind, now = message[:30], record.created
        if now - self._said.get(kind, 0.0) < REPEAT_S:
            return False
        self._said[kind] = now
        return True


def hush() -> None:
    """Let DBOS log nothing but warnings, and those through our log."""
    logger = logging.getLogger("dbos")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())  # where it would put one that writes to the terminal
    if not any(isinstance(known, _Filter) for known in logger.filters):
        logger.addFilter(_Filter())


def unpickle_nothing() -> None:
    """Keep those who may write to the database from running code here: DBOS unpickles what a row calls a pickle."""
    from dbos import _serialization

    def refuse(_serialized: str) -> Any:
        raise ValueError("a value of the jobs' database was not written by Predawn")

    default: Any = _serialization.DBOSDefaultSerializer
    default.deserialize = refuse


def look_seldom(dbos: DBOS) -> None:
    """Let DBOS look less often than every second for what it never gets from us: jobs that are delayed or have a
    deadline, and its own. That took 4 ms of CPU a second, half of what it takes with nothing to do. Before its launch.
    """
    from dbos import _workflow_commands

    _workflow_commands._BACKGROUND_JOBS_INTERVAL_SEC = SELDOM_S  # noqa: SLF001
    dbos._registry.get_internal_queue()._polling_interval_sec = SELDOM_S  # noqa: SLF001


def keep_our_threads(dbos: DBOS) -> None:
    """Give our event loop threads of ours.

    DBOS sets its own as those of the loop, and ends them with itself: then nobody could use threads any more.
    """
    threads: Any = ThreadPoolExecutor(MOST_THREADS, thread_name_prefix="predawn-threads")
    threads.executor = dbos._executor  # noqa: SLF001 - by this it knows the threads it has set
    dbos._shared_executor_field = threads  # noqa: SLF001


async def end(dbos: DBOS) -> None:
    """Cancel what DBOS still has running, and let calls that wait for the database give up at their next try."""
    if dbos._sys_db_field is not None:  # noqa: SLF001
        dbos._sys_db_field._retry_connection_errors = False  # noqa: SLF001
    tasks = tuple(dbos._workflow_tasks)  # noqa: SLF001
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=END_S)


def serializer() -> Serializer:
    """Values and errors as JSON; DBOS's own way is to pickle them."""
    from dbos import Serializer

    class Json(Serializer):
        def name(self) -> str:
            return "predawn_json"

        def serialize(self, data: Any) -> str:
            if isinstance(data, BaseException):
                kind = data.kind if isinstance(data, StepError) else type(data).__name__
                return msgspec.json.encode({"error": kind, "message": str(data)}).decode()
            return msgspec.json.encode({"value": data}).decode()

        def deserialize(self, serialized_data: str) -> Any:
            stored: dict[str, Any] = msgspec.json.decode(serialized_data)
            return StepError(stored["message"], kind=stored["error"]) if "error" in stored else stored["value"]

    return Json()
