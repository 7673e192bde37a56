"""What every source of images gives: piles of images not yet decoded, with labels, and what decides which they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tuner.spec.data import Data
from tuner.training.decode import Items


@dataclass(frozen=True)
class Pile:
    """Images not yet decoded, with labels, int64 (N,)."""

    items: Items
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Piles:
    """All images of a dataset. Where `test` is None, it is set apart from `train`; likewise validation, later."""

    classes: tuple[str, ...]
    train: Pile
    validation: Pile | None = None
    test: Pile | None = None


@dataclass(frozen=True)
class Source:
    """A dataset that was looked at, but not read.

    depends_on: everything that decides which images it has, as JSON: two equal ones have the same. image_size,
    channels: its own; None where the images must be looked at. ignored: fields of `Data` without effect, and why.
    """

    load: Callable[[], Piles]
    depends_on: dict[str, object]
    image_size: int | None
    channels: int | None
    ignored: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


DRAWN = ("classes", "images", "noise")
NOT_DRAWN = dict.fromkeys(DRAWN, "it is for shapes")


def carved(data: Data, seed: int) -> dict[str, object]:
    """What decides which images are set apart as test images where a dataset has none of its own."""
    return {"seed": seed, "test_fraction": data.test_fraction}


def has_own(validation: bool, test: bool, what: str) -> dict[str, str]:
    """Fields that have no effect where a dataset comes with splits of its own; `what` names it in the reason."""
    return {
        **({"val_fraction": f"{what} has validation images of its own"} if validation else {}),
        **({"test_fraction": f"{what} has test images of its own"} if test else {}),
    }
