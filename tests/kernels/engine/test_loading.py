"""From an order to a desk: what is chosen where the order says nothing, and what is refused."""

import pytest
import torch
from tests.kernels.engine.random_models import SHARED, write_checkpoint

from predawn.kernels.engine import loading
from predawn.kernels.engine.loading import Reading
from predawn.kernels.engine.protocol import Ask, Open, Refused
from predawn.kernels.engine.worker import LoadError

PAGE_MB = 2 * SHARED.passes * 16 * SHARED.kv_heads * SHARED.head_dim * 4 / (1 << 20)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_checkpoint(folder)
    return str(folder)


def load(path, **order):
    return loading.load_engine(Open(path=path, threads=torch.get_num_threads(), **order), lambda text: None)


def test_a_model_is_ready_with_room_for_a_full_batch_of_full_contexts(path):
    _, ready = load(path)

    assert (ready.model, ready.device, ready.dtype, ready.context) == ("tiny", "cpu", "float32", 256)
    assert ready.pages == 16 * 256 / 16
    assert ready.execution in ("packed", "tiles", "row by row")


def test_memory_for_keys_is_what_the_order_says(path):
    _, ready = load(path, kv_memory_mb=3.5 * PAGE_MB)

    assert (ready.pages, ready.context) == (3, 48)


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ({"context": 300}, "context is 300, but the model was made for 256 tokens"),
        ({"kv_memory_mb": PAGE_MB}, "kv_memory_mb is too small"),
        ({"device": "cuda"}, "torch finds no GPU here"),
        ({"device": "meta", "most_width": 2}, "width is an experiment for CPUs"),
        ({"prefill_chunk": 20}, "prefill_chunk must be a multiple of 16"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_an_order_that_cannot_be_followed_is_refused_by_its_name(path, order, words):
    with pytest.raises(LoadError, match=words):
        load(path, **order)


def test_a_model_that_is_not_there_is_named(tmp_path):
    with pytest.raises(LoadError, match="no-model: is missing"):
        load(str(tmp_path / "no-model"))


def test_an_installation_without_the_bundled_model_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "__file__", str(tmp_path / "kernels" / "engine" / "loading.py"))

    with pytest.raises(LoadError, match="the bundled model predawn-tiny is not part of this installation"):
        loading.bundled()


def test_the_vote_of_trajectories_is_switched_on_by_the_order(path):
    def refusal(desk):
        session, calls = desk.prepare(Ask(1, "completions", b'{"prompt": "hello", "width": 2}'))
        return [said.param for said in desk.admit(session, calls) if isinstance(said, Refused)]

    (off, _), (on, _) = load(path), load(path, most_width=2)

    assert (refusal(off), refusal(on)) == (["width"], [])


def test_half_of_the_cores_compute(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(6)), raising=False)

    assert loading.default_threads() == 3


def test_how_far_a_large_model_has_been_read_is_told_now_and_then():
    now, told = [0.0], []
    reading = Reading("big", told.append, lambda: now[0])
    for time_s, done in [(0, 0), (1, 10), (6, 20), (7, 30), (12, 40), (20, 99)]:
        now[0] = time_s
        reading(done * 10**8, 99 * 10**8)

    assert told == ["loading big: 2.0 of 9.9 GB", "loading big: 4.0 of 9.9 GB"]


def test_a_model_is_read_under_the_eyes_of_whoever_waits(path, monkeypatch):
    monkeypatch.setattr(loading, "TELL_EVERY_S", -1.0)
    told = []
    loading.load_engine(Open(path=path, threads=torch.get_num_threads()), told.append)

    assert told[0].startswith("loading tiny from ")
    assert told[1:]
    assert all(line.startswith("loading tiny: 0.0 of 0.0 GB") for line in told[1:])
