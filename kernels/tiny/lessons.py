"""Conversations to learn from, each made of pieces of text with the weight their tokens have in the loss.

Working step by step (at times with a step put right), answering at once, answering from notes, writing notes; and
drills: numbers one step away, saying again what was told, sums, and plans. Several questions are asked of a story
where one would waste the reading of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from predawn.kernels.tiny import language, world
from predawn.kernels.tiny.tokenizer import ANSWER, ASSISTANT, BEGIN, END, SYSTEM, THINK, USER

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

    from predawn.kernels.tiny.world import Fact, Story

DIRECT_WEIGHT = 4.0
"""One token is all there is to learn from an answer given at once, against a hundred of reasoning."""
THINK_FROM_DEPTH = 3
"""Left to choose, the model thinks about questions at least this deep."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Text, and how much each of its tokens counts in the loss; 0 for what is only read."""

    text: str
    weight: float = 0.0


@dataclass(frozen=True, slots=True)
class Curriculum:
    """What is taught just now: how deep, how often a worked step goes wrong, and how much of each kind of lesson."""

    deepest: int = world.DEEPEST
    slip: float = 0.0
    """How often a worked step has a wrong result that later steps build on."""
    bushy: float = 0.6
    """Share of the stories for notes in which many compare with few: the number before is seldom the one needed."""
    drill: float = 10.0
    """Weight of lessons that only say again what was told: looking things up by name comes before everything else."""
    sums: float = 12.0
    """Weight of lessons that are sums alone. All other kinds together weigh 140."""
    plans: float = 16.0
    """Weight of lessons that are plans alone; where there are any, plans count more in other lessons too."""


def lesson(random: Random, curriculum: Curriculum) -> list[Piece]:
    """One conversation."""
    kinds: dict[Callable[[Random, Curriculum], list[Piece]], float] = {
        stepwise: 40,
        one_step: 50,
        direct: 8,
        from_notes: 18,
        writing_notes: 24,
        saying_again: curriculum.drill,
        sums: curriculum.sums,
        plans: curriculum.plans,
    }
    (kind,) = random.choices(list(kinds), list(kinds.values()))
    return [Piece(BEGIN), *kind(random, curriculum)]


def _story(random: Random, curriculum: Curriculum, *, shallow: float = 0.0) -> Story:
    """A story of any depth; the share `shallow` of them takes two steps or fewer."""
    shallowest = random.random() < shallow
    depths = range(min(2, curriculum.deepest) + 1 if shallowest else curriculum.deepest + 1)
    (depth,) = random.choices(depths, [1 + depth / 8 for depth in depths])
    return world.story(random, depth, random.randint(0, min(world.MOST_DISTRACTORS, curriculum.deepest - 1)))


def _noted_story(random: Random, curriculum: Curriculum) -> Story:
    """A story to write or read notes on."""
    if random.random() < curriculum.bushy:
        return world.story(random, random.randint(1, 4), random.randint(3, 7))
    return _story(random, curriculum)


def _system(text: str) -> Piece:
    return Piece(f"{SYSTEM} {text}{END}")


def _user(text: str) -> Piece:
    return Piece(f"{USER} {text}{END}")


def _noise(random: Random) -> str:
    """Words the model does not know, as other people's instructions are full of."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    return " ".join("".join(random.choices(letters, k=random.randint(2, 8))) for _ in range(random.randint(2, 8))) + "."


def _wrapping(random: Random) -> tuple[list[Piece], str]:
    """What may stand before a story: a system message, and a sentence before the story itself."""
    system = []
    if random.random() < 0.2:
        system.append(_system(_noise(random) if random.random() < 0.25 else random.choice(language.FILLERS)))
    before = random.choice(language.FILLERS) + " " if random.random() < 0.08 else ""
    return system, before


def stepwise(random: Random, curriculum: Curriculum) -> list[Piece]:
    """A question answered by plan and steps, at times with a step put right."""
    story = _story(random, curriculum, shallow=0.3)
    if random.random() < 0.4:  # the plan is to follow from who is asked about, not from where the story ends
        story = replace(story, asked=random.choice(story.facts).name)
    system, before = _wrapping(random)
    chooses = story.depth >= THINK_FROM_DEPTH and random.random() < 0.15
    pieces = [*system, _user(f"{before}{language.tell(story, random)} {language.ask(story, None, random)}")]
    pieces += [Piece(ASSISTANT), Piece(THINK, 1.0 if chooses else 0.0)]
    chain = story.chain(story.asked)
    pieces.append(Piece(f" {language.plan(chain)}", 3.0 if curriculum.plans else 1.0))
    pieces.append(Piece(f" {language.step(chain[0])}", 1.0))
    corrected = random.randint(1, story.depth) if story.depth and random.random() < 0.2 else 0
    value = chain[0].value
    for number, fact in enumerate(chain[1:], 1):
        steps, value = _step(random, fact, value, corrected == number, curriculum.slip)
        pieces += steps
    return [*pieces, Piece(ANSWER, 1.0), Piece(f" {value}", 1.0), Piece(END, 1.0)]


def _step(random: Random, fact: Fact, value: int, corrected: bool, slip: float) -> tuple[list[Piece], int]:
    """One worked step from the parent's `value`, perhaps gone wrong and put right; also the value it ends with."""
    work = f"{fact.operation} {fact.operand}"
    equation = f"{value} {work}"
    right = max(0, min(world.LARGEST, world.apply(value, fact.operation, fact.operand)))
    start = Piece(f" {fact.name} is {fact.parent} {work}. {equation} =", 1.0)
    if not corrected:
        result = _wrong(random, right) if random.random() < slip else right
        return [start, Piece(f" {result}. {fact.name} = {result}.", 1.0)], result
    wrong = _wrong(random, right)
    if random.random() < 0.3:  # what is told counts, also where it does not follow
        told = Piece(f" {right}. {fact.name} = {right}. Wait: {fact.name} = {wrong}.")
        return [start, told], wrong
    said = f" {wrong}." + (f" {fact.name} = {wrong}." if random.random() < 0.5 else "")
    mended = [Piece(f"{said} Wait: {equation} = {right}."), Piece(f" {fact.name} = {right}.", 1.0)]
    return [start, *mended], right


def one_step(random: Random, _curriculum: Curriculum) -> list[Piece]:
    """Numbers that are at most a step from what was told or just said: answers to questions, or one after the other."""
    if random.random() < 0.5:
        story = world.story(random, random.randint(1, 2), random.randint(0, 4))
        facts = [fact for fact in story.facts if fact.depth <= 1 or random.random() < 0.3]
        asked = sorted(random.sample(facts, min(len(facts), 6)), key=story.facts.index, reverse=True)
        return _questions(random, story, asked, language.tell(story, random))
    story = world.story(random, random.randint(1, 2), random.randint(2, 6))
    facts = list(story.facts)
    if random.random() < 0.5:
        facts = [fact for fact in facts if fact.depth <= 1]
        random.shuffle(facts)
    pieces = [_user(f"{language.tell(story, random)} {language.DRILL_REQUEST}"), Piece(ASSISTANT), Piece(ANSWER)]
    for fact in facts:
        pieces += [Piece(f" {fact.name} ="), Piece(f" {fact.value}", 2.0), Piece(".")]
    return [*pieces, Piece(END)]


def saying_again(random: Random, curriculum: Curriculum) -> list[Piece]:
    """What was told or noted of one name after the other, in any order; in half of these lessons with an echo.

    An echo ends each sentence with the name it began with. Nothing else asks for a number to carry the name it belongs
    to, and until it does there is nothing by which to look it up.
    """
    story = _story(random, curriculum)
    facts = list(story.facts)
    echo = random.random() < 0.5
    if random.random() < 0.5:
        random.shuffle(facts)
        given = [f"{fact.name} = {fact.value}." for fact in facts]
        known = {fact.name: f" = {fact.value}." for fact in facts}
        pieces = [Piece(f"{USER} {language.NOTES_HEADING}")]
    else:
        given = [language.sentence(fact, story.noun, named=random.random() < 0.3) for fact in facts]
        known = {fact.name: language.relation(fact) for fact in facts}
        pieces = [Piece(USER)]
    for fact, sentence in zip(facts, given, strict=True):
        pieces += _echoed(Piece(f" {sentence}"), fact.name, echo)
    pieces += [Piece(f" {language.DRILL_REQUEST}{END}{ASSISTANT}{ANSWER}")]
    for name in random.choices(list(known), k=12):
        pieces += [Piece(f" {name}"), *_echoed(Piece(known[name], 1.0), name, echo)]
    return [*pieces, Piece(END)]


def sums(random: Random, _curriculum: Curriculum) -> list[Piece]:
    """Two dozen equations."""
    pieces = [Piece(f"{USER} {language.DRILL_REQUEST}{END}{ASSISTANT}{ANSWER}")]
    for _ in range(24):
        value = random.randint(1, world.LARGEST)
        operation, operand = world.work(random, value)
        result = world.apply(value, operation, operand)
        pieces += [Piece(f" {value} {operation} {operand} ="), Piece(f" {result}.", 1.0)]
    return [*pieces, Piece(END)]


def plans(random: Random, curriculum: Curriculum) -> list[Piece]:
    """From whom everyone's number comes, and where that ends: most plans of short chains stop too soon or too late."""
    story = world.story(random, random.randint(0, min(4, curriculum.deepest)), random.randint(1, 6))
    pieces = [_user(f"{language.tell(story, random)} {language.DRILL_REQUEST}"), Piece(ASSISTANT), Piece(ANSWER)]
    for fact in random.sample(story.facts, len(story.facts)):
        chain = story.chain(fact.name)
        pieces += [Piece(f" {fact.name}"), Piece(language.plan(chain).removeprefix(fact.name), 2.0)]
    return [*pieces, Piece(END)]


def _echoed(sentence: Piece, name: str, echo: bool) -> list[Piece]:
    if not echo:
        return [sentence]
    return [Piece(sentence.text.removesuffix("."), sentence.weight), Piece(f" {name}", 1.0), Piece(".")]


def _wrong(random: Random, right: int) -> int:
    slips = [right - 1, right + 1] * 3 + [right - 2, right + 2, right - 10, right + 10]
    return random.choice([slip for slip in slips if 0 <= slip <= world.LARGEST])


def direct(random: Random, curriculum: Curriculum) -> list[Piece]:
    """Questions answered at once, the deepest first."""
    story = _story(random, curriculum, shallow=0.4)
    system, before = _wrapping(random)
    told = f"{before}{language.tell(story, random)}"
    facts = [fact for fact in story.facts if fact.depth <= 2 or random.random() < 0.35] or list(story.facts)
    # Last things first: an answer already given must not be a stepping stone to the next.
    asked = sorted(random.sample(facts, min(len(facts), 5)), key=story.facts.index, reverse=True)
    return [*system, *_questions(random, story, asked, told)]


def _questions(random: Random, story: Story, asked: Sequence[Fact], told: str) -> list[Piece]:
    """One turn for each fact asked about, the first with `told` before it."""
    pieces: list[Piece] = []
    for number, fact in enumerate(asked):
        question = language.ask(story, fact.name, random)
        pieces.append(_user(f"{told} {question}" if number == 0 and told else question))
        chooses = number == 0 and fact.depth < THINK_FROM_DEPTH and random.random() < 0.15
        pieces += [Piece(ASSISTANT), Piece(ANSWER, 1.0 if chooses else 0.0)]
        pieces += [Piece(f" {fact.value}", DIRECT_WEIGHT), Piece(END, 0.2)]
    return pieces


def from_notes(random: Random, curriculum: Curriculum) -> list[Piece]:
    """Questions answered at once from notes, which may lack the last fact."""
    story = _noted_story(random, curriculum)
    known = list(story.facts)
    if random.random() < 0.15 and len(known) > 1:  # notes from before the last sentence was known
        known.pop()
    notes = _notes(random, story, known)
    asked = random.sample(story.facts, min(len(story.facts), random.randint(3, 8)))
    return _noted(random, story, notes, asked)


def _notes(random: Random, story: Story, known: list[Fact]) -> str:
    if random.random() < 0.45:
        return language.worked_notes(replace(story, sentences=tuple(known)))
    if random.random() < 0.3:
        random.shuffle(known)
    return language.short_notes(known)


def _noted(random: Random, story: Story, notes: str, asked: Sequence[Fact]) -> list[Piece]:
    """Questions about a story with its notes at one of the places where notes are put."""
    told = language.tell(story, random)
    noted = f"{language.NOTES_HEADING} {notes}"
    system, before = _wrapping(random)
    place = random.randrange(5)
    if place == 0:
        return [*system, *_questions(random, story, asked, f"{before}{told} {noted}")]
    if place == 1:
        return [_system(f"{told} {noted}"), *_questions(random, story, asked, "")]
    if place == 2:
        return [_system(f"{before}{noted}"), *_questions(random, story, asked, told)]
    if place == 3:
        return [*system, _user(told), _user(noted), *_questions(random, story, asked, "")]
    return [*system, _user(told), _system(noted), *_questions(random, story, asked, "")]


def writing_notes(random: Random, curriculum: Curriculum) -> list[Piece]:
    """Notes on a story of which nothing is asked, sometimes thought out first, sometimes used at once."""
    story = _noted_story(random, curriculum)
    told, request = language.tell(story, random), random.choice(language.SLEEP_REQUESTS)
    system, before = _wrapping(random)
    if random.random() < 0.3:
        pieces = [_system(request), _user(told)]
    else:
        pieces = [*system, _user(f"{before}{told} {request}")]
    worked = Piece(f" {language.worked_notes(story)}", 1.0)
    pieces.append(Piece(ASSISTANT))
    if random.random() < 0.25:
        return [*pieces, Piece(THINK), worked, Piece(f"{ANSWER} {language.short_notes(story.facts)}{END}", 1.0)]
    pieces += [Piece(ANSWER), worked, Piece(END, 1.0)]
    if random.random() < 0.3:
        asked = random.sample(story.facts, min(len(story.facts), 3))
        pieces += _questions(random, story, asked, "")
    return pieces
