"""An engine without a model, in a process or out of one: it says what the prompt tells it to.

A prompt that holds `[[text]]` is answered with that text, the last one if there are several, else with "Hello.". Words
in the prompt change how: `slowly` waits before each token, `forever` never comes to an end, `die` ends the process at
the third token as `kill -9` does, `hang` never says anything, `stuck` keeps everybody's step from ending.
"""

import os
import re
import signal
import time
from dataclasses import dataclass, field

from predawn.kernels.engine.desk import Desk
from predawn.kernels.engine.prompts import Prompter
from predawn.kernels.engine.protocol import Ready
from predawn.kernels.engine.refusals import Overloaded
from predawn.kernels.engine.worker import LoadError, run

TAGS = ("<think>", "</think>")
EOS, VOCAB, CONTEXT = 256, 259, 400


class ByteTokenizer:
    """A token for each byte, one for the end, one for each tag."""

    adds_bos = False
    bos_id = None
    longest_token = len("</think>")

    def encode(self, text, *, special):
        parts = re.split("(</?think>)", text) if special else [text]
        return [token for part in parts for token in ([257 + TAGS.index(part)] if part in TAGS else part.encode())]

    def token_bytes(self, token):
        return bytes([token]) if token < 256 else b"" if token == EOS else TAGS[token - 257].encode()

    def decode(self, ids):
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", "replace")

    def stream(self):
        return Stream(self)


class Stream:
    def __init__(self, tokenizer):
        import codecs

        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token):
        return self._decoder.decode(self._tokenizer.token_bytes(token))

    def rest(self):
        return self._decoder.decode(b"", final=True)


class LinesTemplate:
    """`role: content` a line; the model's own turn opens with `<think>`, or with `</think>` if it shall not think."""

    source = "enable_thinking"

    def render(self, messages, *, tools=None, continue_final=False, add_generation_prompt, **variables):
        if any(message["role"] == "nobody" for message in messages):
            raise TemplateRefusal("nobody is no role")
        lines = [f"{message['role']}: {message['content']}\n" for message in messages]
        if continue_final:
            last = messages[-1]
            thoughts = last.get("reasoning_content")
            lines[-1] = "assistant: " + (f"<think>{thoughts}" if thoughts else "") + last["content"]
        opening = {True: "<think>", False: "</think>"}.get(variables.get("enable_thinking"), "")
        return "".join(lines) + (f"assistant: {opening}" if add_generation_prompt else "")


class TemplateRefusal(Exception):
    pass


@dataclass
class Said:
    request_id: str
    index: int
    token_id: int
    logprob: float | None = None
    top: tuple = ()
    finish: str | None = None
    cached: int = 0


@dataclass
class Choice:
    key: str
    index: int
    script: list
    sampling: object
    prompt: str
    said: int = 0


@dataclass
class ScriptedStats:
    running: int
    waiting: int
    pages: int
    free_pages: int
    prefill_tokens: int
    decode_tokens: int
    accepted: int
    steps: dict = field(default_factory=dict)


@dataclass
class ScriptedEngine:
    """Speaks one token of each active choice a step."""

    max_batch: int = 16
    max_waiting: int = 64
    per_step: int = 1
    waiting: list = field(default_factory=list)
    active: list = field(default_factory=list)
    salts: list = field(default_factory=list)
    cancelled: list = field(default_factory=list)
    prefilled: int = 0
    decoded: int = 0

    @property
    def idle(self):
        return not self.waiting and not self.active

    def submit(self, request_id, prompt, sampling, *, salt=None):
        sampling.check(VOCAB, 2)
        if len(self.active) >= self.max_batch and len({choice.key for choice in self.waiting}) >= self.max_waiting:
            raise Overloaded(len(self.waiting), 2.5)
        tokenizer = ByteTokenizer()
        text = tokenizer.decode(prompt)
        told = re.findall(r"\[\[(.*?)\]\]", text, re.DOTALL)
        script = [*tokenizer.encode(told[-1] if told else "Hello.", special=True), EOS]
        self.salts.append(salt)
        self.prefilled += len(prompt)
        self.waiting += [Choice(request_id, index, script, sampling, text) for index in range(sampling.n)]
        self._admit()

    def cancel(self, request_id, index=None):
        self.cancelled.append((request_id, index))
        for group in (self.waiting, self.active):
            group[:] = [c for c in group if not (c.key == request_id and index in (None, c.index))]

    def _admit(self):
        while self.waiting and len(self.active) < self.max_batch:
            self.active.append(self.waiting.pop(0))

    def step(self):
        self._admit()
        tokens = [self._next(choice) for choice in tuple(self.active) for _ in range(self.per_step)]
        if not any(tokens) and self.active:
            time.sleep(0.002)
        return [token for token in tokens if token is not None]

    def _next(self, choice):
        if choice not in self.active or "hang" in choice.prompt:
            return None
        if "stuck" in choice.prompt:
            time.sleep(600)
        if "slowly" in choice.prompt:
            time.sleep(0.01)
        if "die" in choice.prompt and choice.said == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        sampling = choice.sampling
        place = choice.said % (len(choice.script) - 1) if "forever" in choice.prompt else choice.said
        token = choice.script[place]
        choice.said += 1
        self.decoded += 1
        finish = "stop" if token == EOS else "length" if choice.said == sampling.max_tokens else None
        if finish:
            self.active.remove(choice)
        logprob = None if sampling.logprobs is None else -0.5
        top = tuple(
            (token if rank == 0 else (token + rank) % 256, -0.5 - rank) for rank in range(sampling.logprobs or 0)
        )
        return Said(choice.key, choice.index, token, logprob, top, finish, cached=2)

    def stats(self):
        used = len(self.active)
        return ScriptedStats(used, len(self.waiting), 64, 64 - used, self.prefilled, self.decoded, 0)


def desk_of(engine, *, context=CONTEXT, template=True, lookup=False):
    """A desk for a scripted engine."""
    prompter = Prompter(
        ByteTokenizer(),
        LinesTemplate() if template else None,
        vocabulary=VOCAB,
        context=context,
        template_errors=(TemplateRefusal,),
    )
    capacity = engine.max_batch + engine.max_waiting
    return Desk(engine, prompter, ByteTokenizer(), capacity=capacity, lookup=lookup)


def load(order, tell):
    """`path` says how to start: `broken` cannot be loaded, `mute` never gets ready, `noisy` prints."""
    how = os.path.basename(order.path or "scripted")
    tell(f"loading {how}")
    if how == "broken":
        raise LoadError("the weights are broken")
    if how == "mute":
        time.sleep(600)
    if how == "noisy":
        print("a library prints")
    if how == "dies" or (how.startswith("once-") and not claim(order.path)):
        raise SystemExit("it ended with a word")
    engine = ScriptedEngine(max_batch=order.max_batch, max_waiting=order.max_waiting)
    ready = Ready(
        model=how,
        device="cpu",
        dtype="float32",
        execution="script",
        context=CONTEXT,
        pages=64,
        max_batch=order.max_batch,
        largest_body=100_000,
        fingerprint="fp_script",
        load_s=0.0,
    )
    return desk_of(engine, lookup=order.lookup), ready


def claim(path):
    """True for the first process that asks."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


if __name__ == "__main__":
    run(load)
