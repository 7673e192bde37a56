"""Stratified drawing: which images are held out, the same ones on every machine, and what makes that impossible."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tuner.errors import Problem
from tuner.spec.data import Data

Indices = NDArray[np.int64]

# One stream of random numbers a purpose: the validation images do not change when a subset is drawn first.
STREAMS = {"test": 0, "subset": 1, "validation": 2}


def stratify(
    labels: NDArray[np.int64], count: int, seed: int, stream: str, at_least: int = 1, leave: int = 0
) -> NDArray[np.bool_]:
    """Draw `count` of the images, each class by its share: a mask, shape (N,), true where drawn.

    Shares are rounded by the largest remainder, so every class is within one image of its exact share, unless
    `at_least` images a class (drawn) and `leave` images a class (not drawn) ask for more. `count` gives way to them
    too. Each class needs at_least + leave images.
    """
    totals = np.bincount(labels)
    count = min(max(count, at_least * len(totals)), len(labels) - leave * len(totals))
    wanted = _largest_remainder(totals, count, at_least, leave)
    # NumPy keeps the raw stream of PCG64 for ever, but not what its permutation() makes of it.
    order = np.argsort(np.random.PCG64([seed, STREAMS[stream]]).random_raw(len(labels)), kind="stable")
    mask = np.zeros(len(labels), dtype=np.bool_)
    for label, number in enumerate(wanted):
        mask[order[labels[order] == label][:number]] = True
    return mask


def _largest_remainder(totals: NDArray[np.int64], count: int, at_least: int, leave: int) -> list[int]:
    # Whole numbers throughout: a class's share is totals[i] * count / n, kept as the numerator over n.
    shares, n = [int(total) * count for total in totals], int(totals.sum())
    low, high = at_least, [int(total) - leave for total in totals]
    given = [min(max(share // n, low), top) for share, top in zip(shares, high, strict=True)]
    while sum(given) != count:
        step = 1 if sum(given) < count else -1
        free = [i for i, number in enumerate(given) if low <= number + step <= high[i]]
        chosen = max(free, key=lambda i: (step * (shares[i] - given[i] * n), -i))
        given[chosen] += step
    return given


def split(labels: NDArray[np.int64], own_validation: int, data: Data, seed: int) -> tuple[Indices, Indices]:
    """Indices of the training and of the validation images, each in ascending order.

    labels: of the images open to the search; the last `own_validation` of them came as a validation split of their
    own, which is then used whole. `data.subset` is drawn first and only from the training images, then
    `data.val_fraction` of what is left; with `data.train_on: all` the validation images are trained on too.
    """
    first_validation = len(labels) - own_validation
    pool = np.arange(first_validation, dtype=np.int64)
    if data.subset is not None:
        pool = pool[stratify(labels[pool], data.subset, seed, "subset", at_least=1 if own_validation else 2)]
    if own_validation:
        train, validation = pool, np.arange(first_validation, len(labels), dtype=np.int64)
    else:
        held_out = stratify(labels[pool], round(len(pool) * data.val_fraction), seed, "validation", leave=1)
        train, validation = pool[~held_out], pool[held_out]
    return (np.sort(np.concatenate([train, validation])) if data.train_on == "all" else train), validation


def find_problems(
    labels: NDArray[np.int64], places: Sequence[str], data: Data, own_validation: bool, own_test: bool
) -> list[Problem]:
    """Say why training images with these labels cannot be split as `data` asks; `places` names each class."""
    uses = ["train on", *([] if own_validation else ["validate with"]), *([] if own_test else ["test with"])]
    need = f"at least {len(uses)} {'is' if len(uses) == 1 else 'are'} needed: {', '.join(f'one to {u}' for u in uses)}"
    totals = np.bincount(labels, minlength=len(places))
    problems = [
        Problem(place, 0, 0, f"{total} image{'' if total == 1 else 's'}, but {need}; add images or leave the class out")
        for place, total in zip(places, totals.tolist(), strict=True)
        if total < len(uses)
    ]
    if data.subset is not None:
        smallest = len(places) * (1 if own_validation else 2)
        largest = len(labels) - (0 if own_test else round(len(labels) * data.test_fraction))
        if data.subset < smallest:
            rule = f"{data.subset} is too small for {len(places)} classes; at least {smallest}"
            problems.append(Problem("data.subset", 0, 0, rule))
        if data.subset > largest:
            rule = f"{data.subset}, but there are only {largest} images for it; at most {largest}, or leave it out"
            problems.append(Problem("data.subset", 0, 0, rule))
    return problems
