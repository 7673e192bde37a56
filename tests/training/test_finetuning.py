"""The six hand-made networks of the ready-made space cifar10_finetuning: parameters, layers, dropout, arithmetic."""

from pathlib import Path

import pytest
from torch import nn

from tuner.spec.space import Space, load_space
from tuner.spec.trial_config import TrialConfig
from tuner.training.cost import count
from tuner.training.networks import make_network

FILE = Path(__file__).parents[2] / "search_spaces" / "cifar10_finetuning.yaml"
LABELS = ("FT-1", "FT-2", "FT-3", "FT-4", "FT-5", "FT-6")
# label -> parameters, million multiply-adds, layers of dropout in each block, in the head
TRUTH = {
    "FT-1": (177_302, 17.0, (4, 3, 2, 3), 0),
    "FT-2": (179_318, 41.3, (4, 3, 2, 3), 0),
    "FT-3": (144_426, 31.8, (3, 3, 3, 2), 0),
    "FT-4": (144_426, 31.8, (1, 1, 1, 1), 0),
    "FT-5": (144_426, 31.8, (1, 1, 1, 1), 0),
    "FT-6": (144_426, 31.8, (1, 1, 1, 1), 1),
}


@pytest.fixture(scope="module")
def space() -> Space:
    return load_space(FILE)


def start(space: Space, label: str) -> TrialConfig:
    fixed = next(start.fixed for start in space.starts if start.label == label)

    return space.resolve(lambda parameter: fixed[parameter.name])


def network(space: Space, label: str) -> nn.Module:
    return make_network(start(space, label).model, classes=10, in_channels=3, image_size=32)


def drops(network: nn.Module) -> list[str]:
    return [name for name, layer in network.named_modules() if isinstance(layer, nn.Dropout | nn.Dropout2d)]


@pytest.mark.parametrize("label", LABELS)
def test_a_hand_made_network_has_the_parameters_and_multiply_adds_of_its_log(space: Space, label: str) -> None:
    cost = count(start(space, label), classes=10, image_size=32, channels=3)
    millions = round(cost.multiply_adds / 1e6, 1)
    places = " ".join(name.removesuffix(".drop").removeprefix("body.") for name in drops(network(space, label)))
    print(f"{label}: {cost.params:,} parameters, {millions} million multiply-adds, dropout after {places}")
    assert (cost.params, millions) == TRUTH[label][:2]


@pytest.mark.parametrize("label", LABELS)
def test_dropout_stands_where_the_hand_made_network_had_it(space: Space, label: str) -> None:
    found = drops(network(space, label))
    assert tuple(sum(name.startswith(f"body.block{i}.") for name in found) for i in (1, 2, 3, 4)) == TRUTH[label][2]
    assert sum(name.startswith("head.") for name in found) == TRUTH[label][3]
    assert len(found) == sum(TRUTH[label][2]) + TRUTH[label][3]


def test_the_last_step_drops_after_each_reduction_the_last_convolution_and_the_hidden_units(space: Space) -> None:
    places = [f"body.block{i}.drop" for i in (1, 2, 3)] + ["body.block4.conv2.drop", "head.drop"]
    assert drops(network(space, "FT-6")) == places


def test_there_are_four_graphs_under_the_dropout(space: Space) -> None:
    def graph(label: str) -> str:
        layers = (layer for layer in network(space, label).modules() if not any(layer.children()))
        return "\n".join(
            str(layer) for layer in layers if not isinstance(layer, nn.Dropout | nn.Dropout2d | nn.Identity)
        )

    graphs = [graph(label) for label in LABELS]
    assert [graphs.index(each) for each in graphs] == [0, 1, 2, 2, 4, 4]


def test_the_starting_points_are_trained_as_they_were(space: Space) -> None:
    trained = [start(space, label).train for label in LABELS]
    assert [(t.batch_size, t.optimizer.lr) for t in trained] == [
        *((128, 0.005), (128, 0.05), (128, 0.05)),
        *((256, 0.075), (128, 0.05), (128, 0.05)),
    ]
    assert all(each.to_the_end for each in space.starts)
    assert {start(space, label).model.drop.rate for label in LABELS} == {0.05}  # type: ignore[union-attr]
