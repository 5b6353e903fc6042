"""What is asked: stories that the bundled model has not seen, or for any other model the problems of GSM8K."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.benchmarks.evidence import CHECKOUT

from predawn.kernels.tiny import language, world

DATA = CHECKOUT / "tests" / "data" / "gsm8k" / "socratic_dev.jsonl"
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class Problem:
    id: str
    depth: int
    """Dependent steps to the answer; 0 where nobody knows."""
    question: str
    answer: str


def stories(count: int, seed: str) -> list[Problem]:
    """As many of each depth from 1 up, with 0 to 3 sentences that do not matter, each question another one."""
    draw = Random(seed)
    found: dict[str, Problem] = {}
    while len(found) < count:
        depth = 1 + len(found) % world.DEEPEST
        story = world.story(draw, depth, draw.randint(0, world.MOST_DISTRACTORS))
        text = f"{language.tell(story)} {language.ask(story)}"
        found.setdefault(text, Problem(f"{seed}-{len(found)}", depth, text, str(story.answer)))
    return list(found.values())


def school(count: int, path: Path = DATA) -> list[Problem]:
    """The first `count` problems of GSM8K's development set."""
    lines = path.read_text(encoding="utf-8").splitlines()[:count]
    read = (json.loads(line) for line in lines)
    return [
        Problem(f"problem-{number}", 0, one["question"], one["answer"].rpartition("####")[2].strip().replace(",", ""))
        for number, one in enumerate(read)
    ]


def is_right(text: str, answer: str) -> bool:
    """Whether the last number of an answer is the expected one."""
    numbers = _NUMBER.findall(text)
    return bool(numbers) and float(numbers[-1].replace(",", "")) == float(answer)
