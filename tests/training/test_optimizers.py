from typing import Any

import pytest
import torch
from torch import nn

from tuner.spec.trial_config import KINDS
from tuner.training.optimizers import OPTIMIZERS

START = [1.0, -2.0, 0.5]
# Name -> torch's own, as a plain loop over tensors; and one change for each field.
TORCH = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD, "rmsprop": torch.optim.RMSprop}
FIELDS: dict[str, dict[str, Any]] = {
    "adam": {"lr": 0.2, "betas": [0.5, 0.9], "weight_decay": 0.1},
    "adamw": {"lr": 0.2, "betas": [0.5, 0.9], "weight_decay": 0.1},
    "sgd": {"lr": 0.2, "momentum": 0.5, "nesterov": True, "weight_decay": 0.1},
    "rmsprop": {"lr": 0.2, "alpha": 0.5, "momentum": 0.5, "weight_decay": 0.1},
}


def descend(optimizer: torch.optim.Optimizer, weight: nn.Parameter) -> list[float]:
    for _ in range(3):
        weight.grad = weight.detach() ** 3 + 1
        optimizer.step()
    return weight.tolist()


def run(name: str, fields: dict[str, Any]) -> list[float]:
    weight = nn.Parameter(torch.tensor(START))
    return descend(OPTIMIZERS[name](KINDS["train.optimizer"][name].model_validate(fields), [weight]), weight)


def test_every_kind_of_optimizer_is_there() -> None:
    assert set(OPTIMIZERS) == set(KINDS["train.optimizer"]) == set(TORCH)


@pytest.mark.parametrize("name", TORCH)
@pytest.mark.parametrize("fields", [False, True])
def test_an_optimizer_steps_as_torchs(name: str, fields: bool) -> None:
    values = KINDS["train.optimizer"][name].model_validate(FIELDS[name] if fields else {}).model_dump(exclude={"name"})
    weight = nn.Parameter(torch.tensor(START))
    expected = descend(TORCH[name]([weight], **values, foreach=False), weight)
    assert run(name, values) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("name", "field"), [(name, field) for name in FIELDS for field in FIELDS[name]])
def test_every_field_changes_the_steps(name: str, field: str) -> None:
    assert run(name, {"lr": 0.1, field: FIELDS[name][field]}) != run(name, {"lr": 0.1})
