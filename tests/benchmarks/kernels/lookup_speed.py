"""n-gram lookup against plain decoding in the same engine, one request at a time: `run.py --parts lookup`.

- repetitive: a question asked again after its answer, so that most of the second answer was said before
- new: the question alone, where little repeats: what lookup costs when it is of no use

The tokens are compared every time: one difference is an error, not a figure.
"""

import random
from collections.abc import Sequence
from statistics import median

from tests.benchmarks.kernels.contenders import Ours, Work, model_folder, quartiles
from tests.benchmarks.kernels.engine_speed import cpu_s
from tests.benchmarks.kernels.figures import AtLeast, Figures

SEED = 21
QUESTIONS = 4
NEW_TOKENS = 96
BAR = 1.3
NAMES, NOUNS = ("Ann", "Bob", "Dan", "Eve", "Gus", "Kim"), ("apples", "books", "coins", "cups")


def stories() -> list[str]:
    """Questions of the kind that the bundled model answers."""
    pick = random.Random(SEED)
    found = []
    for _ in range(QUESTIONS):
        first, second, third = pick.sample(NAMES, 3)
        noun, start, more, fewer = pick.choice(NOUNS), pick.randrange(5, 20), pick.randrange(2, 9), pick.randrange(1, 5)
        found.append(
            f"{first} has {start} {noun}. {second} has {more} more {noun} than {first}. "
            f"{third} has {fewer} fewer {noun} than {second}. How many {noun} does {third} have?"
        )
    return found


def questions(ours: Ours) -> list[list[int]]:
    """As prompts, in the model's own template if it has one."""
    known = ours.checkpoint
    texts = [known.chat.render([{"role": "user", "content": story}]) if known.chat else story for story in stories()]
    return [known.tokenizer.encode(text, special=True) for text in texts]


def asked_again(ours: Ours, prompt: list[int]) -> list[int]:
    """The question, the answer to it, and the question once more."""
    [answer] = ours.generate([Work(prompt, NEW_TOKENS)])
    return prompt + answer + prompt


def run(rounds: int) -> Figures:
    """Both cases. The bar is the median of the repetitive one."""
    import torch

    torch.set_num_threads(1)
    with model_folder() as (folder, name):
        ours = Ours(folder)
    figures = Figures(
        settings={"model": name, "rounds": rounds, "threads": 1, "questions": QUESTIONS, "new": NEW_TOKENS}
    )
    figures.seeds["questions"] = SEED
    new = questions(ours)
    gain = _case(figures, ours, "repetitive", [asked_again(ours, prompt) for prompt in new], rounds)
    figures.bars["lookup on repetitive text"] = AtLeast(gain, BAR, "× plain decoding")
    _case(figures, ours, "new", new, rounds)
    return figures


def _case(figures: Figures, ours: Ours, case: str, prompts: Sequence[list[int]], rounds: int) -> float:
    works = [Work(prompt, NEW_TOKENS) for prompt in prompts]
    for work in works:
        if ours.generate([work]) != ours.generate([work], lookup=True):
            raise AssertionError(f"lookup changed the answer to a {case} prompt")
    tokens = sum(work.new_tokens for work in works)

    def took(lookup: bool) -> float:
        return cpu_s(lambda: [ours.generate([work], lookup=lookup) for work in works])

    pairs = [(took(lookup=True), took(lookup=False)) for _ in range(rounds)]
    gains = quartiles([plain / drafted for drafted, plain in pairs])
    row = {
        "case": case,
        "lookup_tokens_per_s": tokens / median(drafted for drafted, _ in pairs),
        "plain_tokens_per_s": tokens / median(plain for _, plain in pairs),
        "gain": gains["median"],
        "gain_low": gains["low"],
        "gain_high": gains["high"],
    }
    figures.rows.append(row)
    print(f"  {case}: {gains['median']:.2f}× ({gains['low']:.2f}–{gains['high']:.2f}), the same tokens", flush=True)
    return gains["median"]
