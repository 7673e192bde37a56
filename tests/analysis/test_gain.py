"""What more trials should gain: against truths that are known, and against exact results."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from analysis.gain import Gain, enough, gain, gained, noise

Draw = Callable[[np.random.Generator, int], np.ndarray]
TRUTHS: dict[str, Draw] = {
    "normal": lambda r, n: r.normal(0.6, 0.1, n),
    "a ceiling": lambda r, n: 0.1 + 0.8 * r.beta(4, 1.2, n),
    "a smooth peak": lambda r, n: 0.8 - (r.normal(0, 0.2, (n, 4)) ** 2).sum(1),
    "exponential": lambda r, n: r.exponential(0.02, n),
}


def told(values: object, more: int = 20, floor: float = 0.01, *, maximise: bool = True, most: float = math.inf) -> Gain:
    found = gain(values, maximise=maximise, more=more, noise=floor, most=most)  # type: ignore[arg-type]
    assert found is not None
    return found


@pytest.mark.parametrize("truth", TRUTHS)
def test_the_interval_holds_the_gain_of_as_many_trials_again(truth: str) -> None:
    random, inside = np.random.default_rng(0), []
    for _ in range(120):
        seen, later = np.split(TRUTHS[truth](random, 60), 2)
        found, did = told(seen, 30), max(0.0, later.max() - seen.max())
        inside.append(found.low <= did <= found.high)
    assert 0.7 < np.mean(inside) <= 1  # 80% is meant; a gain of 0 lies inside wherever no gain is likely


@pytest.mark.parametrize("truth", TRUTHS)
def test_the_chance_of_a_new_best_is_that_of_exchangeable_draws(truth: str) -> None:
    random = np.random.default_rng(1)
    chances = [told(TRUTHS[truth](random, 40), 20, floor=0.0).chance for _ in range(100)]
    assert np.mean(chances) == pytest.approx(20 / 60, abs=0.1)  # m / (n + m), whatever they are drawn from


def test_more_trials_gain_more_and_more_noise_leaves_less_chance() -> None:
    seen = np.random.default_rng(2).normal(0, 1, 40)
    gains = [told(seen, more) for more in (1, 10, 40)]
    assert sorted(gains) == gains and gains[0] < gains[2]
    chances = [told(seen, floor=floor).chance for floor in (0.0, 0.3, 3.0)]
    assert sorted(chances, reverse=True) == chances and chances[0] > chances[2]


def test_a_loss_is_a_score_upside_down_and_units_do_not_matter() -> None:
    seen = np.random.default_rng(3).normal(0, 1, 40)
    assert told(-seen, maximise=False) == told(seen)
    scaled = told(1000 * seen + 7, floor=10.0)
    assert scaled[:3] == pytest.approx([1000 * end for end in told(seen)[:3]], rel=1e-6)


def test_trials_that_were_stopped_make_a_new_best_rarer() -> None:
    seen = np.random.default_rng(4).normal(0, 1, 20)
    stopped = [value for pair in zip(seen, [math.nan] * 20, strict=True) for value in pair]
    assert told(stopped).expected < told(seen).expected


def test_nothing_is_gained_on_a_plateau_nor_beyond_what_there_is() -> None:
    assert told([0.5] * 30) == (0, 0, 0, 0)
    found = told(np.random.default_rng(5).normal(0.95, 0.02, 30), most=0.001)
    assert 0 < found.expected <= found.high <= 0.001 and found.chance == 0


@pytest.mark.parametrize("values", [[], [0.1] * 7, [0.1, 0.2, 0.3, 0.4] + [math.nan] * 20])
def test_few_trials_tell_nothing(values: list[float]) -> None:
    assert gain(values, maximise=True, more=10) is None
    assert enough(values, maximise=True, more=10, metric="val_accuracy", validation=100) == ""


def test_the_noise_is_that_of_the_seeds_else_of_the_images_else_of_the_last_epochs() -> None:
    curves = [[0.1, 0.5, 0.52, 0.5, 0.52, 0.5], [0.2, 0.4, 0.42, 0.4, 0.42, 0.4]]
    seeds = noise(0.5, metric="val_accuracy", repeats=[0.5, 0.52], validation=1000, curves=curves)
    assert seeds.size == pytest.approx(0.02 / math.sqrt(2)) and seeds.source == "the noise between 2 seeds"
    images = noise(0.5, metric="val_accuracy", validation=1000, curves=curves)
    assert images.size == pytest.approx(math.sqrt(0.25 / 1000))
    assert images.source == "the noise of 1,000 validation images"
    for metric, count in (("val_loss", 1000), ("val_accuracy", None)):
        assert noise(0.5, metric=metric, validation=count, curves=curves).source.startswith("the leaders' jitter")
    assert noise(1.0, metric="val_accuracy", validation=100).size > 0  # all right does not mean no noise
    assert math.isnan(noise(0.5, metric="val_loss").size)


def test_the_jitter_of_a_curve_is_the_noise_of_its_epochs_and_not_its_slope() -> None:
    random = np.random.default_rng(6)
    curves = [0.1 * np.arange(9) + random.normal(0, 0.03, 9) for _ in range(400)]
    found = noise(0.5, metric="loss", curves=[curve.tolist() for curve in curves])
    assert found.size == pytest.approx(0.03, rel=0.1)


def test_what_the_last_trials_gained_is_the_rise_of_the_best() -> None:
    values = [0.1, 0.5, 0.2, math.nan, 0.6, 0.55]
    assert gained(values, maximise=True, more=2) == pytest.approx(0.1)
    assert gained(values, maximise=True, more=99) == pytest.approx(0.1)  # the later half
    assert gained(values, maximise=False, more=2) == 0
    assert gained([math.nan, math.nan, 0.5], maximise=True, more=1) == math.inf


def test_enough_is_a_sentence_where_more_gains_less_than_the_noise() -> None:
    flat = (0.8 - np.random.default_rng(7).gamma(2, 0.001, 40)).tolist()
    said = enough(flat, maximise=True, more=10, metric="val_accuracy", validation=1000)
    assert said.startswith(
        "another 10 trials should gain 0.0 points, less than the noise 1.3 points (the noise of 1,000"
    )
    climbing = [0.1 + 0.002 * number for number in range(40)]
    assert enough(climbing, maximise=True, more=10, metric="val_accuracy", validation=1000) == ""
    rising = np.random.default_rng(8).uniform(0.1, 0.6, 40).tolist()
    assert enough(rising, maximise=True, more=10, metric="val_accuracy", validation=100_000) == ""
