"""Where images come from: one small function a dataset, named as in the space file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial

import numpy as np

from tuner.errors import BadInput, Problem
from tuner.spec.data import Data, expand_home
from tuner.training.arrays import npz, own_function
from tuner.training.folder import Listing, scan
from tuner.training.piles import DRAWN, NOT_DRAWN, Pile, Piles, Source, carved, has_own
from tuner.training.published import PUBLISHED, published
from tuner.training.shapes import DEFAULT_SIZE, class_names, draw
from tuner.training.split import find_problems
from tuner.training.table import table


def digits(data: Data, seed: int) -> Source:
    """1,797 handwritten digits of 8 x 8 grey pixels, from scikit-learn."""

    def load() -> Piles:
        from sklearn.datasets import load_digits

        found = load_digits()
        pixels = np.rint(found.images * (255 / 16)).astype(np.uint8)
        return Piles(tuple(map(str, found.target_names)), Pile(pixels, found.target.astype(np.int64)))

    return Source(
        load,
        carved(data, seed),
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

    depends_on = {**carved(data, seed), **data.model_dump(include=set(DRAWN))}
    return Source(load, depends_on, image_size=DEFAULT_SIZE, channels=3, ignored={"root": "shapes are drawn"})


def image_folder(data: Data, seed: int) -> Source:
    """Class folders under `data.root`, as `tuner.training.folder` finds them.

    Raises:
        BadInput: with all that is wrong with the folder.
    """
    root = expand_home(data.root or ".").resolve()
    try:
        found = scan(root)
    except OSError as error:
        raise BadInput([Problem(str(error.filename), 0, 0, f"cannot be listed: {error.strerror}")]) from error
    own_validation, own_test = found.validation is not None, found.test is not None
    problems = [*found.problems, *find_problems(found.train.labels, found.places, data, own_validation, own_test)]
    if problems:
        raise BadInput(problems, hint="\n".join(found.warnings))

    def pile(listing: Listing | None) -> Pile | None:
        return Pile(listing.files, listing.labels) if listing else None

    listings = [listing for listing in (found.train, found.validation, found.test) if listing]
    stamps = hashlib.blake2b(repr([listing.stamps for listing in listings]).encode(), digest_size=16).hexdigest()
    return Source(
        lambda: Piles(
            found.classes, Pile(found.train.files, found.train.labels), pile(found.validation), pile(found.test)
        ),
        {"root": str(root), "files": stamps, **({} if own_test else carved(data, seed))},
        image_size=None,
        channels=None,
        ignored={**has_own(own_validation, own_test, "the folder"), **NOT_DRAWN},
        warnings=found.warnings,
    )


SOURCES: dict[str, Callable[[Data, int], Source]] = {
    "digits": digits,
    "shapes": shapes,
    "image_folder": image_folder,
    "npz": npz,
    "csv": table,
    **{name: partial(published, name) for name in PUBLISHED},
}


def find_source(data: Data, seed: int) -> Source:
    """The source that `data.dataset` names: one of `SOURCES`, or the user's own function.

    Raises:
        BadInput: with all that is wrong with what it names.
    """
    return (own_function if ":" in data.dataset else SOURCES[data.dataset])(data, seed)
