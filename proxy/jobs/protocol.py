"""What plugins see of background work: the engine, a job's steps, and how a step says that it failed or must wait.

    async def consolidate(steps: Steps, arguments: Any) -> Json:
        text = await steps.run("think", lambda: think(arguments["context_id"]))
        return await steps.run("accept", lambda: accept(text))

    jobs = await app.jobs()
    jobs.register("consolidate", consolidate)
    await jobs.submit("consolidate", f"consolidate:{context_id}:{version}", {"context_id": context_id})

A job survives `kill -9`: it goes on at the step that was in flight.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from predawn.proxy.store_errors import StoreError

Json: TypeAlias = "bool | int | float | str | list[Any] | dict[str, Any] | None"
State: TypeAlias = Literal["queued", "running", "done", "failed", "cancelled"]
Step: TypeAlias = "Callable[[], Awaitable[Json]]"
JobFunction: TypeAlias = "Callable[[Steps, Any], Awaitable[Json]]"

DEFAULT_QUEUE = "sleep"
DEFAULT_PRIORITY = 100


class JobsError(StoreError):
    """The store of jobs cannot be opened; the message says what to do."""


class StepError(Exception):
    """Raised by a step, or a subclass of it: the step is over and has failed.

    That is stored as a result is: `Steps.run` raises it again after a restart without calling the step, always as a
    plain `StepError` whose `kind` is the name of the class that was raised. Any other exception ends the whole job.
    """

    def __init__(self, message: str = "", *, kind: str = "") -> None:
        super().__init__(message)
        self.kind = kind or type(self).__name__


class Postponed(Exception):  # noqa: N818 - nothing is wrong: the step is to be called again
    """Raised by a step, or a subclass of it: not now. Nothing is stored; the step is called again after a while."""

    def __init__(self, seconds: float = 1.0) -> None:
        super().__init__(f"try again in {seconds:g} s")
        self.seconds = seconds


@dataclass(frozen=True, slots=True)
class Job:
    """What the engine knows of a job."""

    id: str
    name: str
    queue: str
    state: State
    result: Json = None
    """What the function returned, once `done`."""
    error: str = ""
    """Why it `failed`."""


class Steps(Protocol):
    """The steps of one running job."""

    @property
    def job_id(self) -> str: ...

    async def run(self, name: str, function: Step) -> Any:
        """Call `function` and store what it returns, or return what is stored already.

        After a crash the job's function runs again from its start, and finished steps return what they returned then.
        So everything that costs or changes anything belongs into a step, and the code between steps must decide by
        arguments and results alone. A step that was in flight is called again: once more per crash. `name` is unique
        within the job. Steps may run side by side if they are begun together (`asyncio.gather`).

        The step waits while its queue is paused. Cancellation means that the job is stopped here, to go on later or
        elsewhere, or for good; let it through.
        """
        ...


class JobEngine(Protocol):
    """Durable background work. Several processes that name one PostgreSQL share its jobs.

    Calls raise `StoreError` where the store of jobs cannot be reached.
    """

    def register(self, name: str, function: JobFunction) -> None:
        """Say what does the jobs called `name`; the newest wins. A job without a function waits for one.

        Plugins call it in `lifespan`, before their `yield`: jobs begin when all plugins are open.
        """
        ...

    async def submit(
        self,
        name: str,
        job_id: str,
        arguments: Json,
        queue: str = DEFAULT_QUEUE,
        priority: int = DEFAULT_PRIORITY,
    ) -> None:
        """Put a job into a queue; smaller priorities run sooner. Does nothing if this id is known, whatever its state.

        Ids of finished jobs are forgotten after `jobs.keep_finished_h`. Give ids, not texts, as arguments.
        """
        ...

    async def cancel(self, job_ids: Collection[str]) -> None:
        """End jobs for good: in this process at once, in others within about a second. Finished ones stay finished."""
        ...

    async def purge(self, job_ids: Collection[str]) -> None:
        """Cancel jobs and forget them: arguments, results of steps, all of it. Their ids are free again."""
        ...

    async def state(self, job_id: str) -> Job | None:
        """What is known of a job; `None` if nothing is."""
        ...

    def pause(self, queue: str = DEFAULT_QUEUE) -> None:
        """Begin no job and no step of this queue in this process until `resume`; a step in flight goes on."""
        ...

    def resume(self, queue: str = DEFAULT_QUEUE) -> None:
        """Undo `pause`."""
        ...
