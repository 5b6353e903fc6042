import torch

from predawn.kernels.tiny import number_line, train
from predawn.kernels.tiny.network import Network


def test_neighbours_are_alike_and_no_two_numbers_are_the_same():
    torch.manual_seed(0)
    network = Network(train.SHAPE, 120)
    number_line.lay(network, range(10, 110))
    waves = network.embed[10:110, 1 : 1 + 2 * len(number_line.PERIODS)]
    distances = torch.cdist(waves, waves) + torch.eye(100) * 9

    assert distances.min() > 0.1
    assert distances[50, 51] < distances[50, 25]


def test_other_tokens_and_the_place_of_the_constant_stay_as_they_were():
    torch.manual_seed(0)
    network = Network(train.SHAPE, 120)
    before = network.embed.clone()
    number_line.lay(network, range(10, 110))

    assert torch.equal(network.embed[:10], before[:10])
    assert torch.equal(network.embed[:, 0], before[:, 0])
