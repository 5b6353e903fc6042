"""Things to try sleep out with: a context, a scripted model, a job that is killed wherever one likes."""

import asyncio
from collections.abc import Callable

from predawn.plugins.sleep.contexts import Asked, Context, SleepOptions
from predawn.plugins.sleep.desk import MemoryDesk, Subject
from predawn.plugins.sleep.work import ThinkingRules, Work
from predawn.plugins.testing import ManualClock

STORY = "Ann has 3 apples. Bob has 4 more than Ann."
SUBJECT = Subject("acme", "ctx", 1)


def context(text=STORY, *, tenant="acme", name="ctx", version=1, state="new", role="user", **given):
    return Context(
        id=name,
        tenant=tenant,
        model="m",
        namespace="",
        source="registered",
        version=version,
        state=state,
        messages=({"role": role, "content": text},),
        prefix_digest=b"",
        tokens=given.pop("tokens", 500),
        options=given.pop("options", SleepOptions()),
        created_at=given.pop("created_at", 1_700_000_000.0),
        expires_at=None,
        **given,
    )


class Model:
    """An `Ask` that answers by script: a list in order, or a function of messages and options."""

    def __init__(self, script, *, prompt_tokens=100, output_tokens=20):
        self.script = script
        self.calls = []
        self.prompt_tokens, self.output_tokens = prompt_tokens, output_tokens

    async def __call__(self, messages, options):
        await asyncio.sleep(0)
        said = self.script(messages, options) if callable(self.script) else self.script[len(self.calls)]
        self.calls.append((messages, options))
        if isinstance(said, BaseException):
            raise said
        if isinstance(said, Asked):
            return said
        return Asked(said, prompt_tokens=self.prompt_tokens, output_tokens=self.output_tokens)

    @property
    def purposes(self):
        return [options.purpose for _, options in self.calls]

    def prompt(self, number):
        return "\n".join(str(message["content"]) for message in self.calls[number][0])


class KilledError(BaseException):
    """The process died."""


class Steps:
    """Steps whose results outlive the process; `dies` says before or after which step it does."""

    def __init__(self, stored=None, *, dies: Callable[[str, str], bool] = lambda name, when: False):
        self.stored = stored if stored is not None else {}
        self.dies = dies

    job_id = "job"

    async def run(self, name, function):
        if name in self.stored:
            return self.stored[name]
        result = await function()
        if self.dies(name, "unstored"):
            raise KilledError
        self.stored[name] = result
        if self.dies(name, "stored"):
            raise KilledError
        return result


def work(ask, desk=None, *, subject=SUBJECT, model="m", **rules):
    clock = ManualClock()
    if desk is None:
        desk = MemoryDesk(clock)
        desk.put(context())
    return Work(ask, desk, clock, subject, model, ThinkingRules(**rules))


def notes(*lines):
    return "<notes>\n" + "\n".join(f"- {line}" for line in lines) + "\n</notes>"
