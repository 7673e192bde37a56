"""The range test on curves whose answer is known, and on a quadratic bowl that can be computed by hand."""

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from tuner.spec.trial_config import TrialConfig
from tuner.training.dataset import Dataset
from tuner.training.lr_find import Found, draw, find, read_curve, try_rates
from tuner.training.trainer import Trainer

Configure = Callable[..., TrialConfig]
MakeImages = Callable[..., Dataset]

RATES = np.geomspace(1e-7, 10, 200)


def make_curve(fall: float, bottom: float, noise: float = 0.0) -> Found:
    """A loss that falls like a sigmoid around the rate `fall` and rises steeply above the rate `bottom`."""
    at, rng = np.log10(RATES), np.random.default_rng(0)
    losses = 2.3 - 2 / (1 + np.exp(-4 * (at - math.log10(fall)))) + np.exp(6 * (at - math.log10(bottom)) - 3)
    return read_curve(RATES.tolist(), (losses + noise * rng.standard_normal(200)).tolist())


@pytest.mark.parametrize("noise", [0.0, 0.05])
@pytest.mark.parametrize("fall", [1e-4, 1e-2])
def test_it_suggests_where_the_loss_falls_fastest(fall: float, noise: float) -> None:
    found = make_curve(fall, bottom=fall * 30, noise=noise)
    assert found.suggestion is not None and found.least is not None
    assert math.log10(found.suggestion) == pytest.approx(math.log10(fall), abs=0.3)
    assert found.suggestion < found.least < fall * 40
    assert f"{found.suggestion:.2g}" in found.why and f"{found.least / 10:.2g}" in found.why


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("seed", range(10))
def test_noise_as_large_as_that_of_dropout_hardly_moves_the_suggestion(seed: int, noise: float) -> None:
    """exp(-rate / 0.02) is steepest over log(rate) at 0.02; it falls by 1, and a step's noise is up to 0.3 of that."""
    losses = 1.3 + np.exp(-RATES / 0.02) + np.exp(6 * np.log10(RATES) - 3)
    found = read_curve(RATES.tolist(), (losses + noise * np.random.default_rng(seed).standard_normal(200)).tolist())
    assert math.log10((found.suggestion or 0) / 0.02) == pytest.approx(0, abs=0.05 + noise)


@pytest.mark.parametrize("noise", [0.05, 0.3])
def test_a_loss_that_never_falls_suggests_nothing_and_says_so(noise: float) -> None:
    found = read_curve(RATES.tolist(), np.random.default_rng(0).normal(2.3, noise, 200).tolist())
    assert (found.suggestion, found.least, found.tenth) == (None, None, None)
    assert "hardly falls below the 2.3" in found.why


@pytest.mark.parametrize("losses", [[0.0] * 5, [2.0], [1.0, 2.0, 3.0]])
def test_a_curve_with_nothing_to_read_suggests_nothing(losses: list[float]) -> None:
    found = read_curve(RATES[: len(losses)].tolist(), losses)
    assert found.suggestion is None and draw(found)


def test_two_tests_of_a_network_with_dropout_are_one_curve(configure: Configure, make_images: MakeImages) -> None:
    config, images = configure(model={"dropout": 0.5}), make_images()
    once = try_rates(Trainer(config, images), steps=10)
    torch.rand(7)  # what others draw meanwhile
    assert try_rates(Trainer(config, images), steps=10) == once
    assert try_rates(Trainer(configure(), images), steps=10).raw != once.raw


def test_accumulated_batches_are_the_curve_of_one_that_large(configure: Configure, make_images: MakeImages) -> None:
    def try_batches(size: int, accumulate: int) -> tuple[float, ...]:
        train = {"batch_size": size, "accumulate": accumulate, "optimizer": {"name": "sgd"}}
        config = configure(model={"norm": "none"}, train=train)
        return try_rates(Trainer(config, make_images()), steps=30).raw

    whole = try_batches(16, 1)
    assert try_batches(4, 4) == pytest.approx(whole, rel=1e-3)
    assert try_batches(4, 1)[-10:] != pytest.approx(whole[-10:], rel=1e-2)


def test_gradient_descent_in_a_bowl_ends_when_it_blows_up() -> None:
    """On x**2 / 2 a step multiplies x by 1 - rate: it converges below a rate of 2 and diverges above."""
    x, tried, told = [3.0], [], []

    def step(rate: float) -> float:
        tried.append(rate)
        loss = x[0] ** 2 / 2 + 0.1
        x[0] *= 1 - rate
        return loss

    found = find(step, low=1e-4, high=100, steps=120, tell=lambda number, rate, loss: told.append((number, rate)))
    assert 0.02 < (found.suggestion or 0) < 1
    assert 2 < tried[-1] < 50
    assert told == list(enumerate(tried)) == list(enumerate(found.rates))
    assert [b / a for a, b in pairwise(tried)] == pytest.approx([1e6 ** (1 / 119)] * (len(tried) - 1))


def test_a_loss_that_is_no_number_ends_it_and_is_left_out() -> None:
    losses = iter([2.0, 1.8, 1.2, 1.0, math.nan, 0.1])
    found = find(lambda rate: next(losses), low=1e-5, high=1, steps=6)
    assert found.raw == (2.0, 1.8, 1.2, 1.0)
    assert len(found.rates) == len(found.losses) == 4


def test_a_loss_that_is_no_number_from_the_start_is_said() -> None:
    found = find(lambda rate: math.nan)
    assert found.suggestion is None and "not a number at the lowest rate" in found.why
    assert draw(found)


def test_losses_beyond_all_measure_do_not_hide_the_curve() -> None:
    found = make_curve(1e-3, bottom=3e-2)
    wild = read_curve(found.rates, [*found.raw[:-1], 1e30])
    assert wild.suggestion == pytest.approx(found.suggestion)


def test_the_picture_shows_the_curve_and_both_suggestions(tmp_path: Path) -> None:
    found = make_curve(1e-3, bottom=3e-2)
    figure = draw(found)
    (axes,) = figure.axes
    lines = {str(line.get_label()): line.get_xydata() for line in axes.get_lines()}
    assert axes.get_xscale() == "log"
    assert np.array_equal(lines["smoothed"], np.column_stack([found.rates, found.losses]))
    assert f"falls fastest: {found.suggestion:.2g}" in lines
    assert f"a tenth of the rate at the minimum: {found.tenth:.2g}" in lines
    low, high = axes.get_ylim()
    assert low < min(found.raw) and max(found.raw[:10]) < high < 1.5 * found.raw[0] < max(found.raw)
    figure.savefig(tmp_path / "found.png")
    assert (tmp_path / "found.png").read_bytes().startswith(b"\x89PNG")
