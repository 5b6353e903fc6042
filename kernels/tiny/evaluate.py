"""What the bundled model can do on stories it has not seen: what each way of spending compute is worth."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random
from typing import Any, Protocol, TypeAlias

from predawn.kernels.tiny import language, world
from predawn.kernels.tiny.world import Story

Message: TypeAlias = Mapping[str, str]

SAMPLES = 16
TEMPERATURE = 0.8
STEPWISE_TOKENS = 320
NOTES_TOKENS = 400
DIRECT_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation to go on with; its last message is continued where it is the assistant's."""

    messages: tuple[Message, ...]
    thinking: bool


@dataclass(frozen=True, slots=True)
class Written:
    """What a model wrote, reasoning included, and how many tokens that took, the last included."""

    text: str
    tokens: int


class Writer(Protocol):
    """A model as the evaluation sees it."""

    def write(
        self, prompts: Sequence[Prompt], *, max_tokens: int, temperature: float = 0.0, n: int = 1
    ) -> list[list[Written]]:
        """`n` continuations of each prompt."""
        ...


@dataclass(slots=True)
class Scores:
    """Right answers and tokens by depth."""

    right: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    tokens: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))

    def add(self, depth: int, right: float, tokens: int) -> None:
        """One story: whether it was right, or the share of samples that were."""
        self.right[depth].append(right)
        self.tokens[depth].append(tokens)

    def share(self, depths: Sequence[int] = range(world.DEEPEST + 1)) -> float:
        """The share right among stories of these depths; NaN if there are none."""
        scores = [score for depth in depths for score in self.right.get(depth, ())]
        return sum(scores) / len(scores) if scores else float("nan")

    def mean_tokens(self, depths: Sequence[int] = range(world.DEEPEST + 1)) -> float:
        counts = [count for depth in depths for count in self.tokens.get(depth, ())]
        return sum(counts) / len(counts) if counts else float("nan")

    def as_json(self) -> dict[str, Any]:
        """Share right and mean tokens, overall and by depth."""
        depths = sorted(self.right)
        return {
            "right": self.share(),
            "tokens": self.mean_tokens(),
            "by_depth": {str(depth): self.share([depth]) for depth in depths},
            "tokens_by_depth": {str(depth): self.mean_tokens([depth]) for depth in depths},
        }


def stories(count: int, seed: str) -> list[Story]:
    """Held-out stories: as many of each depth from 1 up, with 0 to 3 distractors."""
    random = Random(seed)
    return [
        world.story(random, 1 + number % world.DEEPEST, random.randint(0, world.MOST_DISTRACTORS))
        for number in range(count)
    ]


def measure(writer: Writer, told: Sequence[Story], seed: str, progress: Callable[[str], None]) -> dict[str, Scores]:
    """All scores, by name of the way of working."""
    found: dict[str, Scores] = {}
    for way in (_stepwise, _direct, _with_notes, _own_notes, _sampled):
        progress(way.__name__.strip("_").replace("_", " "))
        found |= way(writer, told)
    progress("corrected")
    return found | {"corrected": _corrected(writer, told, Random(f"{seed}/corrected"))}


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _question(story: Story) -> str:
    return f"{language.tell(story)} {language.ask(story)}"


def _answer(written: Written, *, thinking: bool) -> int | None:
    """The number that is answered, after any reasoning; None where reasoning did not come to its end."""
    _, ended, answer = written.text.rpartition("</think>")
    return None if thinking and not ended else language.last_number(answer)


def _stepwise(writer: Writer, told: Sequence[Story]) -> dict[str, Scores]:
    return {"stepwise": _answered(writer, told, [Prompt((_user(_question(s)),), True) for s in told], STEPWISE_TOKENS)}


def _direct(writer: Writer, told: Sequence[Story]) -> dict[str, Scores]:
    return {"direct": _answered(writer, told, [Prompt((_user(_question(s)),), False) for s in told], DIRECT_TOKENS)}


def _answered(writer: Writer, told: Sequence[Story], prompts: Sequence[Prompt], max_tokens: int) -> Scores:
    scores = Scores()
    answers = writer.write(prompts, max_tokens=max_tokens)
    for story, prompt, (written,) in zip(told, prompts, answers, strict=True):
        right = _answer(written, thinking=prompt.thinking) == story.answer
        scores.add(story.depth, float(right), written.tokens)
    return scores


def _sampled(writer: Writer, told: Sequence[Story]) -> dict[str, Scores]:
    single, vote = Scores(), Scores()
    prompts = [Prompt((_user(_question(story)),), True) for story in told]
    drawn = writer.write(prompts, max_tokens=STEPWISE_TOKENS, temperature=TEMPERATURE, n=SAMPLES)
    for story, samples in zip(told, drawn, strict=True):
        answers = [_answer(sample, thinking=True) for sample in samples]
        tokens = sum(sample.tokens for sample in samples)
        single.add(
            story.depth, sum(answer == story.answer for answer in answers) / len(answers), tokens // len(samples)
        )
        leader = Counter(answer for answer in answers if answer is not None).most_common(1)
        vote.add(story.depth, float(bool(leader) and leader[0][0] == story.answer), tokens)
    return {"single sample": single, f"vote of {SAMPLES}": vote}


def _with_notes(writer: Writer, told: Sequence[Story]) -> dict[str, Scores]:
    """Answers given at once, from right notes in either form."""
    prompts = [
        _noted(story, language.worked_notes(story) if number % 2 else language.short_notes(story.facts))
        for number, story in enumerate(told)
    ]
    return {"direct, right notes": _answered(writer, told, prompts, DIRECT_TOKENS)}


def _noted(story: Story, notes: str) -> Prompt:
    text = f"{language.tell(story)} {language.NOTES_HEADING} {notes} {language.ask(story)}"
    return Prompt((_user(text),), False)


def _own_notes(writer: Writer, told: Sequence[Story]) -> dict[str, Scores]:
    prompts = [Prompt((_user(f"{language.tell(story)} {language.SLEEP_REQUESTS[0]}"),), False) for story in told]
    notes = [written for (written,) in writer.write(prompts, max_tokens=NOTES_TOKENS)]
    correct = Scores()
    for story, written in zip(told, notes, strict=True):
        correct.add(story.depth, float(notes_are_right(story, written.text)), written.tokens)
    used = [_noted(story, written.text.strip()) for story, written in zip(told, notes, strict=True)]
    return {"own notes": correct, "direct, own notes": _answered(writer, told, used, DIRECT_TOKENS)}


def notes_are_right(story: Story, notes: str) -> bool:
    """Whether notes hold everyone's number and nothing else."""
    return set(language.claims(notes)) == {(fact.name, fact.value) for fact in story.facts}


def _corrected(writer: Writer, told: Sequence[Story], random: Random) -> Scores:
    """Reasoning with one wrong result, put right by a remark: half with the equation, half with another number told."""
    wanted, prompts, depths = [], [], []
    for number, story in enumerate(told):
        text, used = _broken(random, story, counterfactual=number % 2 == 1)
        prompts.append(Prompt((_user(_question(story)), {"role": "assistant", "reasoning_content": text}), True))
        wanted.append(used)
        depths.append(story.depth)
    scores = Scores()
    for depth, used, (written,) in zip(depths, wanted, writer.write(prompts, max_tokens=STEPWISE_TOKENS), strict=True):
        scores.add(depth, float(used(written.text)), written.tokens)
    return scores


def _broken(random: Random, story: Story, *, counterfactual: bool) -> tuple[str, Callable[[str], bool]]:
    """Reasoning up to a corrected step, and whether what follows goes on from the correction to the end."""
    chain = story.chain(story.asked)
    place = random.randint(1, story.depth)
    steps = [language.plan(chain), language.step(chain[0])]
    steps += [language.step(fact, parent.value) for parent, fact in pairwise(chain[:place])]
    fact, parent = chain[place], chain[place - 1]
    work = f"{fact.operation} {fact.operand}"
    wrong = random.choice([value for value in (fact.value - 1, fact.value + 1) if 1 <= value <= world.LARGEST])
    said, told = (fact.value, wrong) if counterfactual else (wrong, fact.value)
    steps.append(f"{fact.name} is {fact.parent} {work}. {parent.value} {work} = {said}. {fact.name} = {said}.")
    steps.append(f"Wait: {fact.name} = {told}." if counterfactual else f"Wait: {parent.value} {work} = {told}.")

    def used(text: str) -> bool:
        """The next operand, or at the end the answer, is the number told."""
        reasoning, _, answer = text.partition("</think>")
        if place == story.depth:
            return language.last_number(answer) == told
        return f" {told} {chain[place + 1].operation} " in reasoning

    return " ".join(steps), used


@dataclass(frozen=True, slots=True)
class Target:
    """One thing the model has to show. `value` is a share, a difference of shares, or a ratio."""

    name: str
    value: float
    bar: float
    at_least: bool = True

    @property
    def holds(self) -> bool:
        return self.value >= self.bar if self.at_least else self.value <= self.bar


def targets(found: Mapping[str, Scores]) -> list[Target]:
    """The bars of the bundled model."""
    stepwise, direct, noted = found["stepwise"], found["direct"], found["direct, right notes"]
    vote = found[f"vote of {SAMPLES}"]
    return [
        Target("stepwise, greedy", stepwise.share(), 0.85),
        Target("stepwise, greedy, 1 and 2 steps", stepwise.share([1, 2]), 0.97),
        Target("direct, 1 step", direct.share([1]), 0.90),
        Target("direct, 4 steps and more", direct.share(range(4, 9)), 0.45, at_least=False),
        Target("vote of 16 over a single sample, points", 100 * (vote.share() - found["single sample"].share()), 6.0),
        Target("direct with right notes, worst depth", min(noted.share([depth]) for depth in noted.right), 0.95),
        Target("tokens with notes, of stepwise", noted.mean_tokens() / stepwise.mean_tokens(), 0.2, at_least=False),
        Target("own notes right", found["own notes"].share(), 0.80),
        Target("corrections used", found["corrected"].share(), 0.90),
    ]
