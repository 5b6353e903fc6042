"""Why the engine refuses a request before it spends anything on it."""

from __future__ import annotations


class Refusal(Exception):  # noqa: N818 - a refusal is an answer, not a fault
    """The request was not taken; nothing of it is kept."""


class Overloaded(Refusal):
    """Too many requests wait already; one sent after `retry_after_s` will likely find room."""

    def __init__(self, waiting: int, retry_after_s: float) -> None:
        super().__init__(f"{waiting} requests are waiting already; try again in {retry_after_s:.1f} s")
        self.waiting = waiting
        self.retry_after_s = retry_after_s


class ContextOverflow(Refusal):
    """The prompt leaves no room for a single new token."""

    def __init__(self, prompt_tokens: int, max_context: int) -> None:
        super().__init__(
            f"the prompt has {prompt_tokens} tokens; the model's context holds {max_context} with the answer"
        )
        self.prompt_tokens = prompt_tokens
        self.max_context = max_context
