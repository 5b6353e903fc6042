"""Contexts for any model: the problems of GSM8K's socratic development set, all of each but its last sentence.

The last sentence is one question; the steps of the written solution ask the others, each with a number for an answer.
"""

import json
import re
from pathlib import Path

from tests.benchmarks.evidence import CHECKOUT
from tests.benchmarks.sleep.cases import Case, Question
from tests.benchmarks.sleep.grading import last_number, sentences

DATA = CHECKOUT / "tests" / "data" / "gsm8k" / "socratic_dev.jsonl"
_CALCULATION = re.compile(r"<<.*?>>")


def cases(count: int, path: Path = DATA) -> list[Case]:
    """The first `count` problems that have a context and a question."""
    found: list[Case] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        if len(found) == count:
            break
        problem = json.loads(line)
        made = case(f"problem-{number}", problem["question"], problem["answer"])
        if made is not None:
            found.append(made)
    return found


def case(ident: str, problem: str, solution: str) -> Case | None:
    """A problem as a context with its questions; `None` if it is a single sentence."""
    *context, last = sentences(problem)
    if not context:
        return None
    steps, _, final = solution.partition("\n####")
    questions = [Question(last, final.strip(), apart=False)]
    for step in steps.splitlines()[:-1]:  # the last step answers the problem's own question
        asked, _, answered = step.partition(" ** ")
        number = last_number(_CALCULATION.sub("", answered))
        if asked.strip().endswith("?") and number is not None:
            questions.append(Question(asked.strip(), str(number)))
    return Case(ident, " ".join(context), tuple(questions))
