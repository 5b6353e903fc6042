"""Contexts for the bundled model: stories of quantities that it has not seen, each with several people to ask about."""

from dataclasses import replace
from random import Random

from tests.benchmarks.sleep.cases import Case, Question

from predawn.kernels.tiny import language, world
from predawn.kernels.tiny.world import Aside, Fact, Story

ASKED = 5
"""Foreseeable questions of each story."""
NEWS_LARGEST = 12


def cases(count: int, seed: str) -> list[Case]:
    """The first `count` stories of an endless row."""
    draw = Random(seed)
    found: list[Case] = []
    while len(found) < count:
        depth = 1 + len(found) % world.DEEPEST
        story = world.story(draw, depth, draw.randint(0, world.MOST_DISTRACTORS))
        while len(_derived(story)) < ASKED:  # a shallow one, with enough people in it
            story = world.story(draw, draw.randint(depth, world.DEEPEST), world.MOST_DISTRACTORS)
        found.append(case(draw, f"story-{len(found)}", _with_aside(draw, story)))
    return found


def case(draw: Random, ident: str, story: Story) -> Case:
    """Questions about five people in any order, and three that no notes foresee."""
    facts = draw.sample(_derived(story), ASKED)
    foreseeable = [Question(language.ask(story, fact.name), str(fact.value), depth=fact.depth) for fact in facts]
    news = _news(draw, story)
    unforeseeable = (replace(news, kind="news, apart", apart=True), replace(news, kind="news", names_context=True))
    return Case(ident, language.tell(story), (*foreseeable, _other_noun(draw, story), *unforeseeable))


def _derived(story: Story) -> list[Fact]:
    """Whose number has to be worked out: what the story says in so many words needs no thought."""
    return [fact for fact in story.facts if fact.depth]


def _with_aside(draw: Random, story: Story) -> Story:
    """The story with somebody who has something else, if it had nobody."""
    if any(isinstance(told, Aside) for told in story.sentences):
        return story
    told = list(story.sentences)
    aside = Aside(_newcomer(draw, story), draw.randint(1, world.LARGEST), _another(draw, story.noun))
    told.insert(draw.randint(0, len(told)), aside)
    return replace(story, sentences=tuple(told))


def _other_noun(draw: Random, story: Story) -> Question:
    """Somebody's number of something else: told in the story, and in no notes."""
    aside = draw.choice([told for told in story.sentences if isinstance(told, Aside)])
    return Question(f"How many {aside.noun} does {aside.name} have?", str(aside.value), "other noun")


def _news(draw: Random, story: Story) -> Question:
    """A question that brings a sentence with it: of somebody who is not in the story, compared with somebody who is.

    It can come as a message of its own, or at the end of the story's by a client that names the context.
    """
    parent = draw.choice([fact for fact in story.facts if fact.value < world.LARGEST])
    more = draw.randint(1, min(NEWS_LARGEST, world.LARGEST - parent.value))
    news = Fact(_newcomer(draw, story), parent.value + more, parent.name, "+", more, parent.depth + 1)
    said = language.sentence(news, story.noun, named=False)
    asked = f"How many {story.noun} does {news.name} have?"
    return Question(f"{said} {asked}", str(news.value), "news", news.depth)


def _newcomer(draw: Random, story: Story) -> str:
    return draw.choice([name for name in world.NAMES if name not in {told.name for told in story.sentences}])


def _another(draw: Random, noun: str) -> str:
    return draw.choice([other for other in world.NOUNS if other != noun])
