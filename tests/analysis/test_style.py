"""Words, numbers and ticks as people read them."""

from __future__ import annotations

import math
from typing import Any

import pytest

from analysis import style
from analysis.plots import canvas


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0027123, "0.00271"), (3.2e-5, "3.2e-5"), (1e-4, "1e-4"), (374000, "374,000"), (0.1 + 0.2, "0.3"),
     (True, "True"), (64.0, "64"), (0.0, "0"), (math.nan, "–"), ("adam", "adam"), (-0.25, "-0.25"), (2.5e10, "2.5e10")],
)  # fmt: skip
def test_numbers_have_three_digits(value: Any, text: str) -> None:
    assert style.number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.42, "0.4 s"), (45, "45 s"), (238.2, "3m 58s"), (7500, "2h 05m"), (None, "–")]
)
def test_durations_read_like_durations(seconds: Any, text: str) -> None:
    assert style.duration(seconds) == text


def test_labels_are_short_and_longer_where_two_collide() -> None:
    columns = [
        "train.optimizer.name",
        "train.optimizer.lr",
        "head.lr",
        "model.width.0",
        "data.augment.Flip.p",
        "model.depth",
    ]
    assert list(style.labels(columns).values()) == [
        "optimizer", "optimizer learning rate", "head learning rate", "width 1", "Flip p", "depth",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(1e-4, 1e-1, [1e-4, 1e-3, 1e-2, 1e-1]), (1e-3, 1e-2, [1e-3, 2e-3, 5e-3, 1e-2]), (0.04, 0.045, [])],
)  # fmt: skip
def test_logarithmic_ticks_are_round(low: float, high: float, ticks: list[float]) -> None:
    assert style.log_ticks(low, high) == pytest.approx(ticks)


def test_of_many_ticks_ten_are_left_with_the_first_and_the_last() -> None:
    places, texts = canvas.few((tuple(map(float, range(1000))), tuple(map(str, range(1000)))))
    assert len(places) == 10 and (places[0], places[-1]) == (0, 999)
    assert texts == tuple(f"{place:.0f}" for place in places)
    assert canvas.few(((1.0,), ("one",))) == ((1.0,), ("one",)) and canvas.few(((), ())) == ((), ())


def test_a_name_is_cut_to_one_line() -> None:
    assert canvas.cut("a\nb  c") == "a b c" and canvas.cut("word " * 9, 10) == "word word…"
    assert canvas.cut("x" * 32) == "x" * 32 and len(canvas.cut("x" * 33)) == 32
