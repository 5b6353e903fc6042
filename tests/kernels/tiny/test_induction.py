from dataclasses import replace

import pytest
import torch

from predawn.kernels.tiny import induction, train
from predawn.kernels.tiny.network import Network, Places, normalised, rotated


@pytest.fixture
def network():
    torch.manual_seed(3)
    made = Network(train.SHAPE, 200)
    induction.lay(made)
    return made


def attended(block, head, x, places):
    """Where a head looks most, from each position of `x [1, T, D]`."""
    size, groups = block.shape.head_dim, block.shape.heads // block.shape.kv_heads
    seen = normalised(x, block.input_layernorm, block.shape.eps).float()
    q, k = seen @ block.q_proj.T, seen @ block.k_proj.T
    q = rotated(q.view(1, x.shape[1], -1, size), places)[0, :, head]
    k = rotated(k.view(1, x.shape[1], -1, size), places)[0, :, head // groups]
    scores = q @ k.T + places.mask[: len(q), : len(q)].float()
    return scores.argmax(-1).tolist()


@pytest.mark.parametrize(("head", "distance"), [(0, 1), (1, 2)])
def test_two_heads_look_back_whatever_the_tokens_are(network, head, distance):
    tokens = torch.randint(0, 200, (1, 40))
    found = attended(network.blocks[0], head, network.embed[tokens], Places.table(train.SHAPE, 64))

    assert found[distance:] == list(range(40 - distance))


def test_a_head_finds_the_number_that_stands_after_a_name(network):
    """Notes `name = number .` four times, then a name and `=`: the head that matches looks at that name's number."""
    equals, dot, names, numbers = 1, 2, [10, 11, 12, 13], [50, 51, 52, 53]
    notes = [token for name, number in zip(names, numbers, strict=True) for token in (name, equals, number, dot)]
    places = Places.table(train.SHAPE, 64)
    for asked, name in enumerate(names):
        x = network.embed[torch.tensor([[*notes, name, equals]])]
        block = network.blocks[0]
        carried = block.attended(x, places)

        assert attended(network.blocks[1], 0, carried, places)[-1] == 4 * asked + 2


def test_without_the_circuit_the_same_head_looks_anywhere():
    torch.manual_seed(3)
    plain = Network(train.SHAPE, 200)
    tokens = torch.randint(0, 200, (1, 40))
    found = attended(plain.blocks[0], 0, plain.embed[tokens], Places.table(train.SHAPE, 64))

    assert found[1:] != list(range(39))


def test_the_rest_of_the_network_stays_as_it_was():
    torch.manual_seed(3)
    plain = Network(replace(train.SHAPE, layers=3), 50)
    before = {name: value.clone() for name, value in plain.named_parameters()}
    induction.lay(plain)
    changed = {name for name, value in plain.named_parameters() if not torch.equal(value, before[name])}

    assert changed == {
        "embed",
        *(f"blocks.{block}.{part}" for block in (0, 1) for part in ("q_proj", "k_proj", "v_proj", "o_proj")),
    }
