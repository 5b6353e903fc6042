from random import Random

from hypothesis import given
from tests.kernels.tiny.test_world import told

from predawn.kernels.tiny import language, world
from predawn.kernels.tiny.world import Aside, Fact, Story

ANN = Fact("Ann", 3)
BOB = Fact("Bob", 7, "Ann", "+", 4, 1)
CAT = Fact("Cat", 14, "Bob", "*", 2, 2)
STORY = Story("apples", (ANN, BOB, Aside("Dan", 9, "pears"), CAT), "Cat")


def test_a_story_is_told_and_asked_in_plain_words():
    text = f"{language.tell(STORY)} {language.ask(STORY)}"

    assert text == (
        "Ann has 3 apples. Bob has 4 more than Ann. Dan has 9 pears. Cat has twice as many as Bob. "
        "How many apples does Cat have?"
    )


def test_each_operation_has_its_words():
    facts = [
        Fact("Bob", 1, "Ann", "-", 2),
        Fact("Bob", 9, "Ann", "*", 3),
        Fact("Bob", 4, "Ann", "/", 2),
    ]

    assert [language.sentence(fact, "eggs", named=True) for fact in facts] == [
        "Bob has 2 fewer eggs than Ann.",
        "Bob has three times as many eggs as Ann.",
        "Bob has half as many eggs as Ann.",
    ]


def test_notes_hold_the_work_in_the_order_told():
    assert language.worked_notes(STORY) == (
        "Ann = 3. Bob is Ann + 4. Ann = 3. 3 + 4 = 7. Bob = 7. Cat is Bob * 2. Bob = 7. 7 * 2 = 14. Cat = 14."
    )


def test_a_plan_goes_from_the_question_back():
    assert language.plan(STORY.chain("Cat")) == "Cat from Bob from Ann."


@given(told)
def test_claims_reads_back_what_notes_say(story):
    facts = [(fact.name, fact.value) for fact in story.facts]

    assert set(language.claims(language.worked_notes(story))) == set(facts)
    assert language.claims(language.short_notes(story.facts)) == facts


def test_claims_takes_no_equation_for_a_claim():
    assert language.claims("Bob is Ann + 4. 3 + 4 = 7.") == []


def test_the_last_number_of_an_answer_counts():
    assert language.last_number("3 + 4 = 7, so 7.") == 7
    assert language.last_number("no idea") is None


@given(told)
def test_wording_changes_no_fact(story):
    plain, varied = language.tell(story), language.tell(story, Random(1))

    assert varied.replace(f" {story.noun}", "") == plain.replace(f" {story.noun}", "")


def test_names_and_nouns_are_single_words():
    assert all(name.isalpha() for name in (*world.NAMES, *world.NOUNS))
    assert len(set(world.NAMES)) == len(world.NAMES)
