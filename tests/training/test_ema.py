"""The averaged weights against a loop of ten lines."""

import copy

import pytest
import torch
from torch import nn

from tuner.errors import BadInput
from tuner.training.ema import Ema


def make() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    return network.to(memory_format=torch.channels_last), torch.optim.SGD(network.parameters(), 0.5)


def train_step(network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    network(torch.randn(5, 3, 4, 4)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def copy_weights(network: nn.Module) -> dict[str, torch.Tensor]:
    return copy.deepcopy(network.state_dict())


@pytest.mark.parametrize("decay", [0.5, 0.999])
def test_it_is_the_average_by_its_definition(decay: float) -> None:
    network, optimizer = make()
    ema, expected = Ema(network, decay), copy_weights(network)
    for t in range(20):
        train_step(network, optimizer)
        ema.update(network)
        d = min(decay, (1 + t) / (10 + t))
        for name, value in network.state_dict().items():
            learned = "num_batches" not in name
            expected[name] = d * expected[name] + (1 - d) * value if learned else value.clone()
    with ema.swapped(network):
        torch.testing.assert_close(network.state_dict(), expected)


def test_the_raw_weights_come_back_exactly_and_in_their_place() -> None:
    network, optimizer = make()
    ema = Ema(network, 0.9)
    train_step(network, optimizer)
    ema.update(network)
    raw, places = copy_weights(network), [p.data_ptr() for p in network.parameters()]
    with pytest.raises(ZeroDivisionError), ema.swapped(network):
        assert not torch.equal(network.state_dict()["0.weight"], raw["0.weight"])
        raise ZeroDivisionError
    assert all(torch.equal(value, raw[name]) for name, value in network.state_dict().items())
    assert [p.data_ptr() for p in network.parameters()] == places


def test_looking_changes_nothing_of_the_training() -> None:
    weights = []
    for look in (False, True):
        network, optimizer = make()
        ema = Ema(network, 0.9)
        for _ in range(3):
            train_step(network, optimizer)
            ema.update(network)
            if look:
                with ema.swapped(network):
                    network.eval()
                    network(torch.ones(1, 3, 4, 4))
                network.train()
        weights.append({**network.state_dict(), **ema.state_dict()})
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_it_goes_on_from_its_state() -> None:
    network, optimizer = make()
    ema = Ema(network, 0.9)
    train_step(network, optimizer)
    ema.update(network)
    resumed = Ema(network, 0.9)
    resumed.load_state_dict(copy.deepcopy(ema.state_dict()))
    train_step(network, optimizer)
    for each in (ema, resumed):
        each.update(network)
    assert all(torch.equal(value, ema.state_dict()[name]) for name, value in resumed.state_dict().items())


def test_averages_of_another_network_are_refused() -> None:
    with pytest.raises(BadInput, match="belong to another model"):
        Ema(make()[0], 0.9).load_state_dict(Ema(nn.Linear(2, 2), 0.9).state_dict())
