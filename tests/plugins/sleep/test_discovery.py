"""`Discovery`: what requests begin with again and again becomes a context, within bounds."""

from hypothesis import given
from hypothesis import strategies as st

from predawn.plugins.sleep.discovery import Discovery


def said(*texts):
    return [{"role": "user", "content": text} for text in texts]


def see(found, *texts, tenant="t", model="m", now=0.0, **more):
    return found.saw(tenant, "", model, said(*texts), now=now, **more)


LONG = "long " * 40


def small(**more):
    return Discovery(**{"min_tokens": 40, "min_uses": 3, **more})


def test_a_prefix_becomes_a_context_at_its_third_use():
    discovery = small()
    seen = [see(discovery, LONG, f"question {number}") for number in range(3)]

    assert seen[:2] == [None, None]
    assert seen[2].messages == tuple(said(LONG))
    assert (seen[2].source, seen[2].model) == ("discovered", "m")
    assert seen[2].tokens >= 40


def test_all_machines_name_it_alike():
    names = {[see(small_one, LONG, "q") for _ in range(3)][2].id for small_one in (small(), small())}

    assert len(names) == 1
    assert names.pop().startswith("ctx_")


def test_a_short_prefix_is_none():
    discovery = small()

    assert [see(discovery, "short", "q") for _ in range(9)] == [None] * 9
    assert len(discovery) == 0


def test_the_question_is_no_part_of_it():
    discovery = small()

    assert [see(discovery, LONG) for _ in range(9)] == [None] * 9


def test_tenants_and_models_are_counted_apart():
    discovery = small()
    seen = [see(discovery, LONG, "q", tenant=tenant, model=model) for tenant in "tu" for model in "mn" for _ in "12"]

    assert seen == [None] * 8


def test_the_longest_is_told_once_and_nothing_that_it_begins_with():
    discovery = small()
    seen = [see(discovery, LONG, LONG, LONG, "q") for _ in range(5)]

    assert [draft and len(draft.messages) for draft in seen] == [None, None, 3, None, None]


def test_what_goes_on_from_a_context_needs_a_length_of_its_own():
    discovery = small()
    seen = [see(discovery, LONG, "little", "q", known_at=1) for _ in range(9)]
    more = [see(discovery, LONG, LONG, "q", known_at=1) for _ in range(3)]

    assert seen == [None] * 9
    assert len(more[2].messages) == 2


def test_uses_too_far_apart_do_not_count_together():
    discovery = small(window_s=10)

    assert [see(discovery, LONG, "q", now=now) for now in (0, 11, 22, 33)] == [None] * 4
    assert see(discovery, LONG, "q", now=34) is None
    assert see(discovery, LONG, "q", now=35) is not None


def test_live_parts_are_never_looked_at():
    discovery = small()
    seen = [see(discovery, LONG, LONG, "q", live=1) for _ in range(3)]

    assert [see(discovery, LONG, "q", live=0) for _ in range(9)] == [None] * 9
    assert seen[2].messages == tuple(said(LONG))


def test_a_message_of_context_and_question_is_split_on_request():
    discovery = small()
    text = "Ann has 3.5. " * 20
    seen = [see(discovery, f"{text}Question {number}?", rule="last_sentence") for number in range(3)]

    assert seen[2].messages == tuple(said(text.strip()))
    assert [see(discovery, f"{text}Question {number}?") for number in range(9)] == [None] * 9


def test_nothing_is_cut_between_a_call_and_its_result():
    call = {"role": "assistant", "content": LONG, "tool_calls": [{}]}
    result = {"role": "tool", "content": "42"}
    discovery = small()

    assert [discovery.saw("t", "", "m", [call, result], now=0.0) for _ in range(9)] == [None] * 9


@given(st.lists(st.tuples(st.sampled_from("tuv"), st.integers(0, 40)), max_size=120))
def test_memory_is_bounded_per_tenant_and_in_all(requests):
    discovery = small(max_per_tenant=5, max_prefixes=8)
    for tenant, number in requests:
        see(discovery, f"{LONG}{number}", LONG, "q", tenant=tenant)

        assert len(discovery) == sum(map(len, discovery._tenants.values())) <= 8
        assert max(map(len, discovery._tenants.values()), default=0) <= 5


def test_a_noisy_tenant_pushes_out_nobody_else():
    discovery = small(max_per_tenant=10, max_prefixes=100)
    for _ in range(2):
        see(discovery, LONG, "q", tenant="quiet")
    for number in range(1000):
        see(discovery, f"{LONG}{number}", "q", tenant="noisy")

    assert see(discovery, LONG, "q", tenant="quiet") is not None


def test_nonsense_is_not_counted():
    discovery = small()

    assert discovery.saw("t", "", "m", [1, None], now=0.0) is None
    assert discovery.saw("t", "", "m", [], now=0.0) is None
    assert len(discovery) == 0


def test_no_context_goes_beyond_its_size_and_the_longest_that_fits_is_found():
    discovery = small(max_bytes=500)
    seen = [see(discovery, LONG, LONG, "x" * 1000, f"question {number}") for number in range(3)]

    assert seen[2].messages == tuple(said(LONG, LONG))


def test_what_is_too_long_at_its_beginning_is_no_context_and_is_not_hashed(monkeypatch):
    hashed = []
    monkeypatch.setattr("predawn.plugins.sleep.prefix.canonical", hashed.append)
    discovery = small(max_bytes=500)
    picture = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:" + "A" * 600}}]}
    seen = [discovery.saw("t", "", "m", [picture, *said("q")], now=0.0) for _ in range(9)]

    assert seen == [None] * 9
    assert hashed == []


def test_no_context_has_more_messages_than_it_may():
    discovery = small(max_messages=2)
    seen = [see(discovery, LONG, LONG, LONG, f"question {number}") for number in range(3)]

    assert len(seen[2].messages) == 2
