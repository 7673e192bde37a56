"""Turns the images of a source into the arrays of a prepared folder, the test images apart from the others.

search_images.npy, test_images.npy   uint8 (N, size, size, channels)
search_labels.npy, test_labels.npy   int64 (N,); the last `own_validation` search images came as a validation split
search_moments.npy                   int64 (N, 2, channels): sum and sum of squares of each image's pixels
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.errors import BadInput, Problem
from tuner.spec.data import Data
from tuner.training.decode import LARGEST_DEFAULT, decode_all, default_size, drop_colour
from tuner.training.sources import Pile, Piles, Source
from tuner.training.split import find_problems, stratify

UNREADABLE_SHARE = 0.01
NAMED = 5  # unreadable files named one by one
AT_ONCE = 2**24  # bytes of pixels summed up at once
Progress = Callable[[str, int, int], None]


def build(folder: Path, source: Source, data: Data, seed: int, progress: Progress | None) -> dict[str, Any]:
    """Decode all images of `source` into `folder`; returns what its meta.json says.

    Raises:
        BadInput: a class has too few images, or more than one file in a hundred cannot be read.
    """
    piles = source.load()
    own_validation, own_test = piles.validation is not None, piles.test is not None
    places = [f"class {name}" for name in piles.classes]
    if problems := find_problems(piles.train.labels, places, data, own_validation, own_test):
        raise BadInput(problems)
    search, test = _search_and_test(piles, data, seed)

    size, channels = data.image_size or source.image_size, data.channels or source.channels
    warnings = []
    if size is None:
        size = default_size([item for item in search.items if isinstance(item, str)])
        if size > LARGEST_DEFAULT:
            faster = f"data.image_size: {LARGEST_DEFAULT} would be faster"
            warnings.append(f"all images are {size} x {size} and are used at that size; {faster}")
    unreadable: list[Problem] = []
    labels: dict[str, NDArray[np.int64]] = {}
    for name, pile in (("search", search), ("test", test)):
        path = folder / f"{name}_images.npy"
        decoded = decode_all(pile.items, path, size, data.resize, channels or 3, _told(progress, name, pile))
        if channels is None:  # the test images have no say in it
            channels = 1 if drop_colour(path) else 3
        unreadable += [Problem(str(pile.items[i]), 0, 0, reason) for i, reason in decoded.unreadable.items()]
        labels[name] = pile.labels[decoded.kept]
        np.save(folder / f"{name}_labels.npy", labels[name])
        if name == "search":
            own = int(decoded.kept[len(piles.train.labels) :].sum()) if own_validation else 0
    if unreadable:
        warnings.append(_judge(unreadable, len(search.items) + len(test.items)))

    digests, moments = _summarise(folder / "search_images.npy")
    test_digests, _ = _summarise(folder / "test_images.npy")
    np.save(folder / "search_moments.npy", moments)
    known = set(digests)
    if twice := sum(digest in known for digest in test_digests):
        warnings.append(f"{twice} of {len(test_digests)} test images are among the others too, pixel by pixel")
    content = hashlib.blake2b(json.dumps([piles.classes, size, channels, own]).encode(), digest_size=16)
    for part in (*digests, *test_digests, *(values.astype("<i8").tobytes() for values in labels.values())):
        content.update(part)
    return {
        "dataset": data.dataset,
        "fingerprint": content.hexdigest(),
        "classes": piles.classes,
        "image_size": size,
        "channels": channels,
        "own_validation": own,
        "test": len(test_digests),
        "unreadable": len(unreadable),
        "unreadable_files": [str(problem) for problem in unreadable[:NAMED]],
        "warnings": warnings,
    }


def _search_and_test(piles: Piles, data: Data, seed: int) -> tuple[Pile, Pile]:
    train, test = piles.train, piles.test
    if test is None:
        leave = 1 if piles.validation else 2  # at least one to train on and one to validate with
        count = round(len(train.labels) * data.test_fraction)
        mask = stratify(train.labels, count, seed, "test", leave=leave)
        train, test = _choose(train, ~mask), _choose(train, mask)
    if piles.validation is not None:
        items = [*train.items, *piles.validation.items]
        train = Pile(items, np.concatenate([train.labels, piles.validation.labels]))
    return train, test


def _choose(pile: Pile, mask: NDArray[np.bool_]) -> Pile:
    if isinstance(pile.items, np.ndarray):
        return Pile(pile.items[mask], pile.labels[mask])
    return Pile([item for item, chosen in zip(pile.items, mask, strict=True) if chosen], pile.labels[mask])


def _told(progress: Progress | None, name: str, pile: Pile) -> Callable[[int], None]:
    return lambda done: progress(f"{name} images", done, len(pile.items)) if progress else None


def _judge(unreadable: list[Problem], total: int) -> str:
    count = f"{len(unreadable)} of {total} images cannot be read"
    if len(unreadable) > UNREADABLE_SHARE * total:
        rule = f"{count}, at most {UNREADABLE_SHARE:.0%} may; repair or remove them"
        raise BadInput([*unreadable[:NAMED], Problem("data.root", 0, 0, rule)])
    return f"{count} and are left out, such as {unreadable[0]}"


def _summarise(path: Path) -> tuple[list[bytes], NDArray[np.int64]]:
    # A digest of each image, and the sums from which the mean and deviation of any split follow exactly.
    images = np.load(path, mmap_mode="r")
    digests = [hashlib.blake2b(image, digest_size=16).digest() for image in images]
    moments = np.empty((len(images), 2, images.shape[3]), dtype=np.int64)
    step = max(1, AT_ONCE // int(np.prod(images.shape[1:])))
    for start in range(0, len(images), step):
        part = images[start : start + step]
        for moment, values in enumerate((part, np.square(part, dtype=np.uint16))):
            # One axis at a time, narrow first: 10 times faster than both at once.
            moments[start : start + step, moment] = values.sum(axis=1, dtype=np.uint32).sum(axis=1, dtype=np.int64)
    return digests, moments
