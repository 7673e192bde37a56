import math

import pytest
import torch

from tuner.spec.train import Constant, OneCycle
from tuner.spec.trial_config import KINDS
from tuner.training.schedules import SCHEDULES, rate


def one_cycle(**fields: float) -> OneCycle:
    return OneCycle.model_validate(fields)


def list_torch_rates(lr: float, steps: int, warmup: float) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, lr, steps, pct_start=warmup, div_factor=25, final_div_factor=400, cycle_momentum=False
    )
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(rates) < steps:
            schedule.step()
    return rates


def test_every_kind_of_schedule_is_there() -> None:
    assert set(SCHEDULES) == set(KINDS["train.schedule"])


def test_constant_keeps_the_rate() -> None:
    assert {rate(Constant(), 0.3, step, 7) for step in range(9)} == {0.3}


@pytest.mark.parametrize("warmup", [0.1, 0.25, 0.5])
@pytest.mark.parametrize("steps", [13, 40])
def test_one_cycle_equals_torchs(steps: int, warmup: float) -> None:
    rates = [rate(one_cycle(warmup=warmup), 0.7, step, steps) for step in range(steps)]
    assert rates == pytest.approx(list_torch_rates(0.7, steps, warmup), rel=1e-12)


def test_one_cycle_without_warmup_starts_at_the_top_and_ends_where_it_is_told() -> None:
    rates = [rate(one_cycle(warmup=0, final_lr=0.01), 0.5, step, 11) for step in range(11)]
    assert rates == pytest.approx([0.01 + 0.245 * (1 + math.cos(math.pi * step / 10)) for step in range(11)])


def test_steps_beyond_the_last_keep_the_last_rate() -> None:
    assert rate(one_cycle(), 0.5, 99, 10) == rate(one_cycle(), 0.5, 9, 10) == pytest.approx(0.5 / 10_000)


@pytest.mark.parametrize("warmup", [0, 0.5, 0.99])
def test_a_single_step_has_a_rate(warmup: float) -> None:
    assert rate(one_cycle(warmup=warmup), 0.5, 0, 1) == 0.5
