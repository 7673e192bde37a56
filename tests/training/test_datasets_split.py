from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tuner.spec.data import Data
from tuner.training.split import split, stratify

counts = st.lists(st.integers(2, 60), min_size=2, max_size=8)
seeds = st.integers(0, 2**32 - 1)


def labels_of(counts: list[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.repeat(np.arange(len(counts)), counts).astype(np.int64)


def digits(**fields: object) -> Data:
    return Data.model_validate({"dataset": "digits", **fields})


@given(counts, st.floats(0.01, 0.99), seeds)
def test_shares_are_exact_in_sum_and_within_one_image_a_class(counts: list[int], share: float, seed: int) -> None:
    labels, count = labels_of(counts), round(sum(counts) * share)
    drawn = np.bincount(labels[stratify(labels, count, seed, "test", at_least=0)], minlength=len(counts))
    assert drawn.sum() == count
    assert all(abs(n - total * count / sum(counts)) < 1 for n, total in zip(drawn, counts, strict=True))


@given(counts, st.floats(0.01, 0.99), seeds)
def test_every_class_is_on_both_sides(counts: list[int], val_fraction: float, seed: int) -> None:
    labels = labels_of(counts)
    train, validation = split(labels, 0, digits(val_fraction=val_fraction), seed)
    assert set(labels[train]) == set(labels[validation]) == set(range(len(counts)))
    assert sorted([*train, *validation]) == list(range(len(labels)))


@given(counts, st.data(), seeds)
def test_a_subset_has_its_size_and_splits_too(counts: list[int], data: st.DataObject, seed: int) -> None:
    labels = labels_of(counts)
    subset = data.draw(st.integers(2 * len(counts), len(labels)))
    train, validation = split(labels, 0, digits(subset=subset), seed)
    assert len(train) + len(validation) == subset == len({*train, *validation})
    assert set(labels[train]) == set(labels[validation]) == set(range(len(counts)))


def test_subset_comes_first_then_val_fraction() -> None:
    train, validation = split(labels_of([500] * 10), 0, digits(subset=1000, val_fraction=0.25), 0)
    assert (len(train), len(validation)) == (750, 250)


def test_largest_remainders_get_the_images_left_over() -> None:
    labels = labels_of([10, 25, 65])  # shares of 7: 0.7, 1.75, 4.55
    assert np.bincount(labels[stratify(labels, 7, 0, "test", at_least=0)]).tolist() == [1, 2, 4]


def test_a_validation_split_of_its_own_is_taken_whole_and_not_subset() -> None:
    labels = np.concatenate([labels_of([20, 20]), labels_of([3, 2])])
    train, validation = split(labels, 5, digits(subset=10), 0)
    assert validation.tolist() == [40, 41, 42, 43, 44]
    assert len(train) == 10 and train.max() < 40


def test_the_seed_alone_decides() -> None:
    labels = labels_of([30, 30])
    first, again, other = (split(labels, 0, digits(), seed)[1].tolist() for seed in (1, 1, 2))
    assert first == again != other


def test_the_drawing_is_the_same_on_every_machine() -> None:
    # Written down once: a change would silently move images between splits of runs that are resumed.
    assert np.flatnonzero(stratify(labels_of([8, 8]), 6, 7, "validation")).tolist() == [0, 4, 6, 8, 10, 14]
