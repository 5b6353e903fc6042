"""What verification is worth to the bundled model: the same stories asked in six ways, through a real server."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.benchmarks.evidence import Bar
from tests.benchmarks.sleep.curves import interval, mean, median
from tests.benchmarks.sleep.grading import is_right
from tests.benchmarks.sleep.journal import Bar as ProgressBar
from tests.benchmarks.sleep.journal import Journal
from tests.benchmarks.verify import truth
from tests.benchmarks.verify.asking import Answer, Client, serving

from predawn.kernels.tiny import evaluate, language
from predawn.kernels.tiny.world import Story

ALIAS = "asked"
TEMPERATURE = 0.8
SAMPLES = 4
RETRIES = 5
"""As many as may be set: to be as often right as with corrections is what a comparison of tokens needs."""
CORRECTIONS = 12
MAX_TOKENS = 1024
INSTRUCTION = "Work it out step by step, one equation in each sentence, and end with the number alone."
"""For models that do not know the stories."""
POINTS_GAINED = 8.0
TOKENS = 1.5
POINTS_EQUAL = 1.0
"""Less than this apart counts as equally often right."""
FALSE = 0.01
SEED = 7
SEEDS_APART = 1000
"""Samples and corrections of one story count their seeds up from the story's."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way of asking, as `predawn` in the request says it."""

    name: str
    control: Mapping[str, Any] = field(default_factory=dict[str, Any])
    stream: bool = True


VOTE = {"strategy": "vote", "samples": SAMPLES, "min_samples": SAMPLES}
NOTHING = Way("nothing", {"verify": False})
OBSERVE = Way("observe", {"verify": {"mode": "observe"}})
RETRY = Way("gate + retry", {"verify": {"mode": "gate", "then": "retry", "retries": RETRIES}}, stream=False)
"""Not streamed: what a client has seen cannot be begun again."""
INTERVENE = Way("intervene", {"verify": {"mode": "intervene"}})
VOTED = Way(f"vote@{SAMPLES}", {"verify": False, "sampling": VOTE})
BOTH = Way(f"intervene + vote@{SAMPLES}", {"verify": {"mode": "intervene"}, "sampling": VOTE})
WAYS = (NOTHING, OBSERVE, RETRY, INTERVENE, VOTED, BOTH)


@dataclass(frozen=True, slots=True)
class Plan:
    """Who is asked how much."""

    stories: int = 400
    seed: str = "held out, verified"
    weights: Path | None = None
    """Another checkpoint in place of the bundled one."""
    threads: int = 1
    streams: int = 16
    base_url: str | None = None
    """An OpenAI endpoint in place of the local engine."""
    model: str = "predawn-tiny"
    prefill: bool = True

    @property
    def timed(self) -> int:
        """Stories that are asked one at a time."""
        return max(self.stories // 10, min(self.stories, 4))

    def settings(self) -> dict[str, Any]:
        """The server's."""
        upstream: dict[str, Any] = {"name": "there"}
        model: dict[str, Any] = {"name": ALIAS, "upstream": "there", "prefill": self.prefill}
        if self.base_url is not None:
            upstream |= {"base_url": self.base_url, "api_key": "${OPENAI_API_KEY:-}"}
            model["model"] = self.model
        else:
            batch = SAMPLES * self.streams
            upstream["kind"] = "local"
            upstream["engine"] = {"threads": self.threads, "max_batch": batch, "max_waiting": 4 * batch}
            model["reasoning"] = "reasoning_effort"
        if self.weights is not None:
            upstream["path"] = str(self.weights)
        verify = {
            "verifiers": ["arithmetic"],
            "when": "asked",
            "corrections": CORRECTIONS,
            "retries": RETRIES,
            "tells_why": self.base_url is not None,
        }
        return {
            "upstreams": [upstream],
            "models": [model],
            "plugins": [{"sampling": {"at_once": SAMPLES}}, {"verify": verify}, {"record": {"flush_s": 0.05}}],
        }

    def body(self, number: int, story: Story, way: Way) -> dict[str, Any]:
        """The same seed for a story in all ways: they differ where verification makes them differ."""
        said = f"{language.tell(story)} {language.ask(story)}"
        if self.base_url is not None:
            said = f"{said} {INSTRUCTION}"
        return {
            "model": ALIAS,
            "messages": [{"role": "user", "content": said}],
            "temperature": TEMPERATURE,
            "seed": SEEDS_APART * number,
            "max_tokens": evaluate.STEPWISE_TOKENS if self.base_url is None else MAX_TOKENS,
            "predawn": dict(way.control),
        }


Named = tuple[str, int, Story]


@dataclass(frozen=True, slots=True)
class Graded:
    """An answer and whether it was right."""

    story: Story
    answer: Answer
    right: bool

    @property
    def is_complete(self) -> bool:
        return self.answer.finish == "stop"


class Interview:
    """Asks all stories in all ways; what was answered before an interruption is not asked again."""

    def __init__(self, plan: Plan, client: Client, journal: Journal) -> None:
        self._plan, self._client, self._journal = plan, client, journal

    async def in_turns(self, stories: Sequence[Named]) -> None:
        """One at a time, each story in all ways, in an order that turns round: for figures of time."""
        bar = ProgressBar("one at a time", len(stories))
        for name, number, story in stories:
            for place in range(len(WAYS)):
                await self._one(WAYS[(number + place) % len(WAYS)], name, number, story)
            bar.step()

    async def at_once(self, stories: Sequence[Named]) -> None:
        """Several at a time, one way after the other."""
        for way in WAYS:
            bar = ProgressBar(way.name, len(stories))
            left = iter(stories)
            async with asyncio.TaskGroup() as group:
                for _ in range(self._plan.streams):
                    group.create_task(self._rest(way, left, bar))

    async def _rest(self, way: Way, left: Iterator[Named], bar: ProgressBar) -> None:
        for name, number, story in left:
            await self._one(way, name, number, story)
            bar.step()

    async def _one(self, way: Way, name: str, number: int, story: Story) -> None:
        key = f"{way.name}/{name}"
        if key not in self._journal:
            answer = await self._client.ask(self._plan.body(number, story, way), stream=way.stream)
            self._journal.add(key, answer.as_json())


def named(plan: Plan) -> list[Named]:
    """The stories, each with a name that stays the same between runs."""
    told = evaluate.stories(plan.stories, plan.seed)
    return [(f"story-{number}", number, story) for number, story in enumerate(told)]


async def measure(plan: Plan, folder: Path) -> dict[str, Any]:
    """All figures; what is in `folder` from an interrupted run is not asked again."""
    stories = named(plan)
    with Journal(folder / "answers.jsonl") as journal:
        async with serving(folder / "server", plan.settings(), ALIAS) as client:
            interview = Interview(plan, client, journal)
            await interview.in_turns(stories[: plan.timed])
            await interview.at_once(stories[plan.timed :])
        return figures(plan, {way.name: graded(journal, way, stories) for way in WAYS})


def graded(journal: Journal, way: Way, stories: Sequence[Named]) -> list[Graded]:
    found = []
    for name, _, story in stories:
        answer = Answer.of(journal[f"{way.name}/{name}"])
        found.append(Graded(story, answer, is_right(answer.text, str(story.answer))))
    return found


def figures(plan: Plan, found: Mapping[str, Sequence[Graded]]) -> dict[str, Any]:
    """What the answers came to."""
    plain = found[NOTHING.name]
    told = {
        "stories": len(plain),
        "ways": {name: _scores(answers, plan.timed) for name, answers in found.items()},
        "points_over_nothing": {name: gained(plain, answers) for name, answers in found.items()},
        "intervene_over_retry": gained(found[RETRY.name], found[INTERVENE.name]),
        "same_answers_observed": _share(
            [one.answer.text == other.answer.text for one, other in zip(plain, found[OBSERVE.name], strict=True)]
        ),
    }
    if plan.base_url is None:  # others think in words that nobody can judge here
        told["interventions"] = interventions(found[OBSERVE.name])
        told["left_wrong"] = {
            name: left_wrong(found[name]) for name in (NOTHING.name, RETRY.name, INTERVENE.name, BOTH.name)
        }
    return told


def _scores(answers: Sequence[Graded], timed: int) -> dict[str, Any]:
    """What a way of asking came to; tokens are those of all calls for a story, on average."""
    low, high = interval([[float(one.right)] for one in answers], SEED)
    alone, busy = answers[:timed], answers[timed:]
    output, prompt = (mean([float(count) for count in counts]) for counts in _tokens(answers))
    depths = sorted({one.story.depth for one in answers})
    return {
        "right": mean([float(one.right) for one in answers]),
        "right_interval": [low, high],
        "right_by_depth": {
            str(depth): mean([float(one.right) for one in answers if one.story.depth == depth]) for depth in depths
        },
        "output_tokens": output,
        "prompt_tokens": prompt,
        "all_tokens": output + prompt,
        "calls": mean([float(one.answer.calls) for one in answers]),
        "without_answer": sum(not one.is_complete for one in answers),
        "alone_mean_s": mean([one.answer.seconds for one in alone]),
        "alone_median_s": median([one.answer.seconds for one in alone]),
        "alone_first_median_s": median([one.answer.first_s for one in alone]),
        "busy_mean_s": mean([one.answer.seconds for one in busy]),
        "busy_median_s": median([one.answer.seconds for one in busy]),
    }


def _tokens(answers: Sequence[Graded]) -> tuple[list[int], list[int]]:
    return [one.answer.output_tokens for one in answers], [one.answer.prompt_tokens for one in answers]


def gained(before: Sequence[Graded], after: Sequence[Graded]) -> dict[str, Any]:
    """Accuracy of one way less that of another, in points, story by story; with an interval."""
    points = [100.0 * (other.right - one.right) for one, other in zip(before, after, strict=True)]
    return {"points": mean(points), "interval": list(interval([[value] for value in points], SEED))}


def interventions(observed: Sequence[Graded]) -> dict[str, Any]:
    """What a verifier would have stepped in for, against what the story says: of thoughts as the model wrote them."""
    flagged = {True: [0, 0], False: [0, 0]}
    shown: list[dict[str, Any]] = []
    for one in observed:
        thoughts = one.answer.thoughts
        if one.right and truth.all_right(one.story, thoughts):
            kind = True
        elif not truth.sums_right(thoughts):
            kind = False
        else:
            continue
        flagged[kind][0] += 1
        flagged[kind][1] += bool(one.answer.flags)
        if bool(one.answer.flags) is kind and len(shown) < 20:
            shown.append({"kind": "false" if kind else "missed", "thoughts": thoughts, "flags": one.answer.flags})
    (right, false), (wrong, caught) = flagged[True], flagged[False]
    return {
        "correct_traces": right,
        "flagged_though_correct": false,
        "false_share": false / right if right else None,
        "traces_with_wrong_sums": wrong,
        "flagged_with_wrong_sums": caught,
        "caught_share": caught / wrong if wrong else None,
        "examples": shown,
    }


def left_wrong(answers: Sequence[Graded]) -> dict[str, Any]:
    """Why answers are wrong that are: by what is wrong in their thoughts."""
    found = {"no answer": 0, "a wrong sum": 0, "right sums of the wrong things": 0, "right thoughts, wrong answer": 0}
    shown: list[dict[str, Any]] = []
    for one in answers:
        if one.right:
            continue
        thoughts = one.answer.thoughts
        if not one.is_complete:
            why = "no answer"
        elif not truth.sums_right(thoughts):
            why = "a wrong sum"
        elif not truth.all_right(one.story, thoughts):
            why = "right sums of the wrong things"
        else:
            why = "right thoughts, wrong answer"
        found[why] += 1
        if len(shown) < 10:
            told = {"why": why, "thoughts": thoughts, "answer": one.answer.text, "expected": one.story.answer}
            shown.append({**told, "story": language.tell(one.story), "flags": one.answer.flags})
    return {**found, "examples": shown}


def _share(values: Sequence[bool]) -> float:
    return mean([float(value) for value in values])


def bars(found: Mapping[str, Any]) -> dict[str, Bar]:
    """What is promised of the bundled model."""
    ways = found["ways"]
    plain, mended, retried = (ways[way.name] for way in (NOTHING, INTERVENE, RETRY))
    over_retry = found["intervene_over_retry"]["points"]
    judged = found.get("interventions", {"false_share": None})
    return {
        "intervene over nothing": Bar(
            found["points_over_nothing"][INTERVENE.name]["points"], POINTS_GAINED, "points", at_least=True
        ),
        "tokens written with intervene, of those with nothing": Bar(
            mended["output_tokens"] / plain["output_tokens"], TOKENS, "×"
        ),
        "all tokens with intervene, prompts too, of those with nothing": Bar(
            mended["all_tokens"] / plain["all_tokens"], TOKENS, "×"
        ),
        "intervene over gate + retry": Bar(over_retry, -POINTS_EQUAL, "points", at_least=True),
        "tokens written with intervene, of those with gate + retry": Bar(
            mended["output_tokens"] / retried["output_tokens"], 1.0, "×"
        ),
        "interventions in correct traces": Bar(
            judged["false_share"],
            FALSE,
            "of them",
            "" if judged["false_share"] is not None else "thoughts of other models cannot be judged",
        ),
    }
