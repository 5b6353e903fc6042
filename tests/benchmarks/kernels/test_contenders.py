"""The parts of the engine's benchmark that decide something without measuring."""

import pytest
from tests.benchmarks.kernels import contenders, engine_speed, lookup_speed
from tests.benchmarks.kernels.contenders import Ours, Work, agreement, quartiles


def test_texts_agree_up_to_the_first_difference() -> None:
    assert agreement([[1, 2, 3, 4], [5, 6]], [[1, 2, 9, 4], [5, 6]]) == 4 / 6
    assert agreement([[1]], [[1]]) == 1.0


def test_one_ratio_is_its_own_quartiles() -> None:
    assert quartiles([2.0]) == {"median": 2.0, "low": 2.0, "high": 2.0}
    assert quartiles([1.0, 2.0, 3.0])["median"] == 2.0


def test_the_same_requests_arrive_in_every_round() -> None:
    assert engine_speed.arriving(100, 0.5) == engine_speed.arriving(100, 0.5)
    assert len({work.arrives_s for work in engine_speed.arriving(100, 0.5)}) == engine_speed.ARRIVALS


def test_a_model_that_is_not_there_is_named(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(contenders.MODEL, str(tmp_path))

    with pytest.raises(SystemExit, match="there is no model.safetensors in"), contenders.model_folder():
        pass


@pytest.fixture
def ours(tmp_path) -> Ours:
    from tests.kernels.engine.random_models import write_checkpoint

    write_checkpoint(tmp_path / "model", vocab=300)
    return Ours(tmp_path / "model")


def test_time_between_arrivals_passes_without_work(ours) -> None:
    prompt = [1, 2, 3]
    served = ours.serve([Work(prompt, 4), Work(prompt, 4, arrives_s=1000.0)])

    assert 1000.0 < served.makespan_s < 1010.0
    assert served.latency_s < 10.0
    assert served.answers[0] == served.answers[1] == ours.generate([Work(prompt, 4)])[0]


def test_a_question_asked_again_follows_its_answer(ours) -> None:
    prompt = lookup_speed.questions(ours)[0][:50]
    again = lookup_speed.asked_again(ours, prompt)

    assert again[:50] == again[-50:] == prompt
    assert len(again) == 2 * 50 + lookup_speed.NEW_TOKENS
