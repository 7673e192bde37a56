"""Differences between runs against noise: with repeats, with some, with none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from analysis.comparison.differences import Difference, Result, judge
from analysis.style import Metric

ACCURACY = Metric("val_accuracy", "validation accuracy", "validation accuracy (%)", 100.0, "highest")


def measured(name: str, value: float, *seeds: float, n: int | None = 1000, metric: str = "val_accuracy") -> Result:
    return Result(name, value, seeds, metric, n)


def over(first: Result, second: Result) -> Difference:
    return judge(first, second, (0, 1), ACCURACY)


def test_two_repeated_runs_are_judged_by_welchs_interval() -> None:
    one, two = (0.60, 0.62, 0.61), (0.66, 0.70, 0.68, 0.67)
    found = over(measured("a", 0.62, *one), measured("b", 0.7, *two))
    interval = stats.ttest_ind(two, one, equal_var=False).confidence_interval(0.95)
    assert found.basis == "welch"
    assert (found.change - found.margin, found.change + found.margin) == pytest.approx(tuple(interval))  # type: ignore[operator]
    assert found.better is True
    assert over(measured("b", 0.7, *two), measured("a", 0.62, *one)).better is False


def test_seeds_that_overlap_are_within_noise() -> None:
    found = over(measured("a", 0.62, 0.55, 0.62, 0.6), measured("b", 0.63, 0.56, 0.63, 0.6))
    assert found.better is None
    assert "within the noise between seeds" in found.text


def test_where_one_run_was_repeated_its_noise_is_taken_for_both() -> None:
    found = over(measured("a", 0.62, 0.60, 0.61, 0.62), measured("b", 0.70))
    assert found.basis == "one repeated"
    assert found.change == pytest.approx(0.08)
    assert found.margin == pytest.approx(stats.t.ppf(0.975, 2) * 0.01 * 2**0.5)
    assert "if both scatter as the 3 seeds of a do" in found.text


def test_without_repeats_noise_is_not_known_and_the_images_bound_what_means_anything() -> None:
    found = over(measured("a", 0.70), measured("b", 0.72))
    assert (found.basis, found.better) == ("validation size", None)
    assert "cannot be known: nothing was repeated" in found.text
    assert "(n = 1,000), differences below 4.0 points mean nothing." in found.text


def test_the_margin_of_the_images_is_where_a_share_of_equal_runs_differs_by_chance() -> None:
    """1,000 images, both right on 70%: about one pair in twenty lies further apart than the margin."""
    draws = np.random.default_rng(0).binomial(1000, 0.7, (20_000, 2)) / 1000
    margin = over(measured("a", 0.7), measured("b", 0.7)).margin
    assert margin is not None
    assert np.mean(np.abs(draws[:, 0] - draws[:, 1]) > margin) == pytest.approx(0.05, abs=0.01)


def test_welchs_interval_is_right_about_as_often_as_it_says() -> None:
    """3 and 3 seeds of the same mean and another spread: the interval leaves 0 out in at most about 5%."""
    random = np.random.default_rng(1)
    pairs = zip(random.normal(0.7, 0.01, (1000, 3)), random.normal(0.7, 0.02, (1000, 3)), strict=True)
    wrong = [over(measured("a", 0, *one), measured("b", 0, *two)).better is not None for one, two in pairs]
    assert np.mean(wrong) < 0.065


def test_of_what_is_no_share_of_images_nothing_is_said() -> None:
    found = over(measured("a", 0.7, metric="val_macro_f1"), measured("b", 0.9, metric="val_macro_f1"))
    assert (found.basis, found.margin) == ("nothing", None)


def test_repeats_that_do_not_differ_tell_nothing() -> None:
    found = over(measured("a", 0.7, 0.7, 0.7), measured("b", 0.9))
    assert found.basis == "validation size"
    assert "the repeats do not differ at all" in found.text
