"""`predawn` with a plugin whose jobs ask an upstream, step by step; run as a process of its own so that it can be killed.

python -m tests.acceptance.jobs_process worker --config predawn.yaml
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from typing import Any

from predawn.plugins import Exchange, Plugin, hookimpl
from predawn.proxy import loading
from predawn.proxy.cli import main

STEPS = 4


class Asking(Plugin[Any]):
    """Jobs called `asking`: each step asks the model one question and keeps the answer."""

    name = "asking"

    @hookimpl
    async def lifespan(self, app: Any) -> AsyncIterator[None]:
        async def ask(question: str) -> str:
            body = {"model": "m", "messages": [{"role": "user", "content": question}]}
            exchange = Exchange(json.dumps(body).encode(), model="m", id=question.replace(" ", "-"))
            async with exchange.scope:
                reply = await app.send(exchange)
                text = ""
                async for chunk in reply.chunks:
                    choices = (chunk.data or {}).get("choices") or [{}]
                    text += choices[0].get("delta", {}).get("content") or ""
            return text

        async def job(steps: Any, arguments: Any) -> Any:
            answers = []
            for number in range(STEPS):
                question = f"{steps.job_id} {number}"
                answers.append(await steps.run(f"ask-{number}", lambda question=question: ask(question)))
            return answers

        jobs = await app.jobs()
        jobs.register("asking", job)
        yield


if __name__ == "__main__":
    loading.BUILT_IN["asking"] = "tests.acceptance.jobs_process:Asking"
    sys.exit(main())
