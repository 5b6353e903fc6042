"""How likely questions are, given a context: by the agreement of guessed questions with those that came.

Words that all guesses share ("how many ... have") say little; those that set one guess apart from the others say much.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

_WORD = re.compile(r"[^\W_]+(?:[.,'’][^\W_]+)*")  # noqa: RUF001 - the apostrophe that typesetters use
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]{2,}")
MOST_CHARS = 2_000
"""Only the last so many characters of a question count."""
PREDICTABILITY = "predictability"
"""The kind of estimate that holds how well questions were foreseen."""
PRIOR = 0.5
PRIOR_WEIGHT = 2.0
"""What is thought of a context before questions came, and how many questions that counts as."""


def words(text: str) -> frozenset[str]:
    """What a text is compared by: its words without case; pairs of characters where words have no spaces between."""
    found: set[str] = set()
    for word in _WORD.findall(text[-MOST_CHARS:].casefold()):
        if _UNSPACED.search(word):
            found.update(word[i : i + 2] for i in range(len(word) - 1))
        else:
            found.add(word)
    return frozenset(found)


class Guesses:
    """Questions that were guessed for one context, ready to be compared with those that come."""

    def __init__(self, questions: Iterable[str]) -> None:
        self._guesses = [guess for guess in map(words, questions) if guess]
        self._counts = Counter(word for guess in self._guesses for word in guess)

    def __len__(self) -> int:
        return len(self._guesses)

    def agreement(self, question: str) -> float:
        """How well the best guess fits a question, from 0 to 1: by the weight of the words that both have."""
        asked = words(question)
        return max((self._overlap(asked, guess) for guess in self._guesses), default=0.0)

    def _overlap(self, asked: frozenset[str], guess: frozenset[str]) -> float:
        shared = sum(map(self._weight, asked & guess))
        total = sum(map(self._weight, asked)) + sum(map(self._weight, guess))
        return round(2 * shared / total, 9) if total else 0.0

    def _weight(self, word: str) -> float:
        """Rarer among the guesses weighs more; a word of no guess counts as if half a guess had it."""
        return math.log1p(len(self._guesses) / max(self._counts[word], 0.5))


def likelihood(logprobs: Sequence[float]) -> float:
    """How likely a model found a question's tokens, from 0 to 1: the geometric mean of their probabilities."""
    finite = [min(0.0, logprob) for logprob in logprobs if logprob == logprob]  # noqa: PLR0124 - without NaN
    if not finite:
        return 0.0
    return math.exp(max(-50.0, sum(max(-50.0, logprob) for logprob in finite) / len(finite)))


def is_covered(question: str, known: frozenset[str], needed: float = 0.5) -> bool:
    """False where notes cannot help: most of what sets a question apart, its names and numbers, stands nowhere in them.

    `known` are `words_of_all` of the notes. Cheap enough for the request path; for a caller that would rather put in
    nothing than distract.
    """
    telling = telling_words(question)
    return not telling or len(telling & known) / len(telling) >= needed


def telling_words(question: str) -> frozenset[str]:
    """What sets a question apart: names and numbers, without case. A capital that begins a sentence makes no name."""
    found: set[str] = set()
    for sentence in _SENTENCE.split(question[-MOST_CHARS:]):
        first, *others = _WORD.findall(sentence) or [""]
        found.update(word.casefold() for word in others if word[:1].isupper() or word[:1].isdigit())
        if first[:1].isdigit():
            found.add(first.casefold())
    return frozenset(found)


def words_of_all(text: str) -> frozenset[str]:
    """Every word of a text of any length, without case."""
    return frozenset(_WORD.findall(text.casefold()))
