"""Where images come from: one small function a dataset, named as in the space file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tuner.errors import BadInput, Problem
from tuner.spec.data import Data
from tuner.training.decode import Items
from tuner.training.folder import Listing, scan
from tuner.training.shapes import DEFAULT_SIZE, class_names, draw
from tuner.training.split import find_problems


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


def digits(data: Data, seed: int) -> Source:
    """1,797 handwritten digits of 8 x 8 grey pixels, from scikit-learn."""

    def load() -> Piles:
        from sklearn.datasets import load_digits

        found = load_digits()
        pixels = np.rint(found.images * (255 / 16)).astype(np.uint8)
        return Piles(tuple(map(str, found.target_names)), Pile(pixels, found.target.astype(np.int64)))

    return Source(
        load,
        _carved(data, seed),
        image_size=8,
        channels=1,
        ignored={"root": "the digits come with the program", **NOT_DRAWN},
    )


def shapes(data: Data, seed: int) -> Source:
    """Shapes drawn for this seed; the test images are drawn too, from another stream of random numbers."""

    def pile(stream: int, count: int) -> Pile:
        images, labels, _ = draw(data, [seed, stream], count)
        return Pile(images[..., 0] if images.shape[3] == 1 else images, labels)

    def load() -> Piles:
        test_count = max(round(data.images * data.test_fraction), data.classes)
        return Piles(class_names(data), pile(0, data.images), test=pile(1, test_count))

    depends_on = {**_carved(data, seed), **data.model_dump(include=set(DRAWN))}
    return Source(load, depends_on, image_size=DEFAULT_SIZE, channels=3, ignored={"root": "shapes are drawn"})


def cifar10(data: Data, seed: int) -> Source:
    """CIFAR-10 (Krizhevsky, 2009): 50,000 and 10,000 colour images of 32 x 32, through torchvision.

    torchvision checks the files against known sums, so that what is cached depends on nothing but the size.
    """
    root = Path(data.root or "data").expanduser().absolute()

    def load() -> Piles:
        from torchvision.datasets import CIFAR10

        try:
            train, test = (CIFAR10(root, train=part, download=True) for part in (True, False))
        except (OSError, RuntimeError) as error:
            todo = (
                "put the folder cifar-10-batches-py (from https://www.cs.toronto.edu/~kriz/cifar.html) there,"
                " or use dataset: image_folder with a folder of your own"
            )
            raise BadInput(
                [Problem(str(root), 0, 0, f"no CIFAR-10 here, nor could it be loaded ({error}); {todo}")]
            ) from error
        piles = [Pile(found.data, np.array(found.targets, dtype=np.int64)) for found in (train, test)]
        return Piles(tuple(train.classes), piles[0], test=piles[1])

    return Source(
        load, {}, image_size=32, channels=3, ignored={"test_fraction": "CIFAR-10 has test images", **NOT_DRAWN}
    )


def image_folder(data: Data, seed: int) -> Source:
    """Class folders under `data.root`, as `tuner.training.folder` finds them.

    Raises:
        BadInput: with all that is wrong with the folder.
    """
    root = Path(data.root or ".").expanduser().resolve()
    try:
        found = scan(root)
    except OSError as error:
        raise BadInput([Problem(str(error.filename), 0, 0, f"cannot be listed: {error.strerror}")]) from error
    own_validation, own_test = found.validation is not None, found.test is not None
    problems = [*found.problems, *find_problems(found.train.labels, found.places, data, own_validation, own_test)]
    if problems:
        raise BadInput(problems, hint="\n".join(found.warnings))

    ignored = dict(NOT_DRAWN)
    if own_validation:
        ignored["val_fraction"] = "the folder has a val/ of its own"
    if own_test:
        ignored["test_fraction"] = "the folder has a test/ of its own"

    def pile(listing: Listing | None) -> Pile | None:
        return Pile(listing.files, listing.labels) if listing else None

    listings = [listing for listing in (found.train, found.validation, found.test) if listing]
    stamps = hashlib.blake2b(repr([listing.stamps for listing in listings]).encode(), digest_size=16).hexdigest()
    return Source(
        lambda: Piles(
            found.classes, Pile(found.train.files, found.train.labels), pile(found.validation), pile(found.test)
        ),
        {"root": str(root), "files": stamps, **({} if own_test else _carved(data, seed))},
        image_size=None,
        channels=None,
        ignored=ignored,
        warnings=found.warnings,
    )


def _carved(data: Data, seed: int) -> dict[str, object]:
    return {"seed": seed, "test_fraction": data.test_fraction}


SOURCES: dict[str, Callable[[Data, int], Source]] = {
    "digits": digits,
    "shapes": shapes,
    "image_folder": image_folder,
    "cifar10": cifar10,
}
