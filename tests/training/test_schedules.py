"""The learning rate's courses against torch's own schedulers."""

import json
import math
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch.optim import lr_scheduler as torch_schedules

from tuner.spec.train import AnySchedule, Constant, OneCycle, Plateau
from tuner.spec.trial_config import KINDS
from tuner.training.schedules import COURSES, PlateauState, rate

PER_EPOCH = 10
EPOCHS = 4
TOTAL = PER_EPOCH * EPOCHS
ANY: TypeAdapter[Any] = TypeAdapter(AnySchedule)


def build(name: str, **fields: Any) -> Any:
    return ANY.validate_python({"name": name, **fields})


def list_rates(config: Any, lr: float = 0.5, total: int = TOTAL) -> list[float]:
    return [rate(config, lr, step, total, PER_EPOCH) for step in range(total)]


def list_torch_rates(make: Callable[[torch.optim.Optimizer], Any], lr: float = 0.5, total: int = TOTAL) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr)
    schedule = make(optimizer)
    rates = []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(rates) < total:
            schedule.step()
    return rates


def test_every_kind_of_schedule_is_there() -> None:
    assert set(COURSES) == set(KINDS["train.schedule"])


def test_constant_keeps_the_rate() -> None:
    assert {rate(Constant(), 0.3, step, 7, 7) for step in range(9)} == {0.3}


WARM = 12  # steps: warmup 0.3
MILESTONES = [7, 18]
AS_TORCH: dict[str, tuple[Any, Callable[[torch.optim.Optimizer, int], Any]]] = {
    "constant": (build("constant"), lambda o, steps: torch_schedules.ConstantLR(o, factor=1)),
    "step": (build("step", every=2, factor=0.3), lambda o, steps: torch_schedules.StepLR(o, 2 * PER_EPOCH, 0.3)),
    "multistep": (
        build("multistep", at=[3, 1], factor=0.2),
        lambda o, steps: torch_schedules.MultiStepLR(o, [PER_EPOCH, 3 * PER_EPOCH], 0.2),
    ),
    "exponential": (
        build("exponential", factor=0.7),
        lambda o, steps: torch_schedules.ExponentialLR(o, 0.7 ** (1 / PER_EPOCH)),
    ),
    "cosine": (
        build("cosine", final_lr=0.01),
        lambda o, steps: torch_schedules.CosineAnnealingLR(o, steps, eta_min=0.01),
    ),
    "polynomial": (build("polynomial", power=2.0), lambda o, steps: torch_schedules.PolynomialLR(o, steps, power=2)),
}


@pytest.mark.parametrize("name", AS_TORCH)
def test_without_warmup_it_equals_torchs(name: str) -> None:
    config, make = AS_TORCH[name]
    assert list_rates(config) == pytest.approx(list_torch_rates(lambda o: make(o, TOTAL)), rel=1e-9)


@pytest.mark.parametrize("name", ["cosine", "polynomial"])
def test_it_begins_after_the_warmup(name: str) -> None:
    config, make = AS_TORCH[name]
    expected = list_torch_rates(
        lambda o: torch_schedules.SequentialLR(
            o, [torch_schedules.LinearLR(o, 0.01, total_iters=WARM), make(o, TOTAL - WARM)], [WARM]
        )
    )
    assert list_rates(config.model_copy(update={"warmup": 0.3})) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", ["constant", "step", "multistep", "exponential"])
def test_it_counts_epochs_from_the_start_under_a_warmup(name: str) -> None:
    config, make = AS_TORCH[name]
    expected = list_torch_rates(
        lambda o: torch_schedules.ChainedScheduler(
            [make(o, TOTAL), torch_schedules.LinearLR(o, 0.01, total_iters=WARM)]
        )
    )
    assert list_rates(config.model_copy(update={"warmup": 0.3})) == pytest.approx(expected, rel=1e-9)


def test_a_polynomial_of_power_one_is_a_line_to_the_final_rate() -> None:
    rates = list_rates(build("polynomial", final_lr=0.1))
    assert rates == pytest.approx([0.5 - 0.4 * step / TOTAL for step in range(TOTAL)])


@pytest.mark.parametrize("shape", ["cosine", "linear"])
@pytest.mark.parametrize("warmup", [0.1, 0.25, 0.5])
@pytest.mark.parametrize("steps", [13, 40])
def test_one_cycle_equals_torchs(steps: int, warmup: float, shape: str) -> None:
    expected = list_torch_rates(
        lambda o: torch_schedules.OneCycleLR(
            o,
            0.7,
            steps,
            pct_start=warmup,
            div_factor=25,
            final_div_factor=400,
            cycle_momentum=False,
            anneal_strategy="cos" if shape == "cosine" else "linear",
        ),
        0.7,
        steps,
    )
    assert list_rates(build("onecycle", warmup=warmup, shape=shape), 0.7, steps) == pytest.approx(expected, rel=1e-9)


def test_one_cycle_without_warmup_starts_at_the_top_and_ends_where_it_is_told() -> None:
    rates = list_rates(build("onecycle", warmup=0, final_lr=0.01), 0.5, 11)
    assert rates == pytest.approx([0.01 + 0.245 * (1 + math.cos(math.pi * step / 10)) for step in range(11)])


def test_steps_beyond_the_last_keep_the_last_rate() -> None:
    assert rate(OneCycle(), 0.5, 99, 10, 5) == rate(OneCycle(), 0.5, 9, 10, 5) == pytest.approx(0.5 / 10_000)
    assert rate(build("step", every=1), 0.5, 99, 10, 5) == pytest.approx(0.05)


@pytest.mark.parametrize("name", [name for name in COURSES if name != "multistep"])
@pytest.mark.parametrize("warmup", [0, 0.5, 0.99])
def test_a_single_step_has_the_whole_rate(name: str, warmup: float) -> None:
    assert rate(build(name, warmup=warmup), 0.5, 0, 1, 1) == 0.5


# ---------------------------------------------------------------- plateau


@pytest.mark.parametrize(("patience", "least", "threshold"), [(0, 0.0, 0.0), (2, 0.0, 0.01), (1, 0.02, 0.1)])
def test_a_plateau_equals_torchs(patience: int, least: float, threshold: float) -> None:
    draw = random.Random(patience)
    losses = [2 * 0.95**epoch * draw.uniform(0.8, 1.2) for epoch in range(60)]
    config = Plateau(factor=0.5, patience=patience, least=least, threshold=threshold)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.4)
    reference = torch_schedules.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=patience, threshold=threshold, min_lr=least
    )
    state, rates, expected = PlateauState(), [], []
    for epoch, loss in enumerate(losses):
        state = PlateauState(**json.loads(json.dumps(state.step(config, 0.4, loss)._asdict())))
        rates.append(rate(config, 0.4, epoch, 60, 1, state.factor))
        reference.step(loss)
        expected.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx(expected, rel=1e-9)
    assert len(set(expected)) > 3


def test_a_plateau_never_raises_a_rate_that_is_below_the_least() -> None:
    state = PlateauState(best=1.0).step(Plateau(patience=0, least=0.1), 0.01, 1.0)
    assert rate(Plateau(least=0.1), 0.01, 0, 9, 3, state.factor) == 0.01


@pytest.mark.parametrize("best", [None, 0.5])
def test_a_loss_that_is_no_number_is_no_improvement(best: float | None) -> None:
    assert PlateauState(1.0, best, 0).step(Plateau(patience=1), 0.1, math.nan) == PlateauState(1.0, best, 1)
