"""Turns the images of a source into the arrays of a prepared folder, the test images apart from the others.

search_images.npy, test_images.npy     uint8 (N, size, size, channels); absent where the images stay files
search_labels.npy, test_labels.npy     int64 (N,); the last `own_validation` search images came as a validation split
search_files.json, test_files.json     the paths of the images, in their order; null where they never were files
search_moments.npy, test_moments.npy   int64 (N, 2, channels): sum and sum of squares of each image's pixels
search_sample.npy                      int64 (n,): where the images stay files, those whose moments are kept
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tuner.errors import BadInput, Problem
from tuner.spec.data import Data
from tuner.training.decode import (
    LARGEST_DEFAULT,
    Resize,
    decode_all,
    default_size,
    drop_colour,
    open_all,
)
from tuner.training.piles import Pile, Piles, Source
from tuner.training.split import find_problems, stratify
from tuner.training.stream import too_large, write_files

UNREADABLE_SHARE = 0.01
NAMED = 5  # unreadable files named one by one
AT_ONCE = 2**24  # bytes of pixels summed up at once
SAMPLE = 2_000  # images decoded for mean and deviation where they stay files: a standard error of 1/45 deviation
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
        size = default_size(search.items)
        if size > LARGEST_DEFAULT:
            faster = f"data.image_size: {LARGEST_DEFAULT} would be faster"
            warnings.append(f"all images are {size} x {size} and are used at that size; {faster}")
    total = len(search.items) + len(test.items)
    files = not any(isinstance(pile.items, np.ndarray) for pile in (search, test))
    streamed = files and too_large(total, size, channels or 3, folder)
    if streamed:
        gigabytes = total * size * size * (channels or 3) / 1e9
        how = "they stay files, decoded anew in each epoch; a smaller data.image_size would be faster"
        warnings.append(f"all images would take {gigabytes:,.1f} GB decoded, too much for this machine: {how}")
    unreadable: list[Problem] = []
    labels: dict[str, NDArray[np.int64]] = {}
    digests: dict[str, list[bytes]] = {}
    for name, pile in (("search", search), ("test", test)):
        told = _told(progress, name, pile)
        found = (_index if streamed else _decode)(folder, name, pile, _Form(size, channels, data.resize), told)
        channels = found.channels  # of the search images; the test images have no say in it
        unreadable += [Problem(str(pile.items[i]), 0, 0, reason) for i, reason in found.unreadable.items()]
        labels[name], digests[name] = pile.labels[found.kept], found.digests
        np.save(folder / f"{name}_labels.npy", labels[name])
        kept = _choose(pile, found.kept).items
        write_files(folder / f"{name}_files.json", None if isinstance(kept, np.ndarray) else list(kept))
        if name == "search":
            # The validation images come last; test images may have been taken from those before them.
            own = int(found.kept[-len(piles.validation.labels) :].sum()) if piles.validation else 0
    if unreadable:
        warnings.append(_judge(unreadable, total))
    known = set(digests["search"])
    if twice := sum(digest in known for digest in digests["test"]) if not streamed else 0:
        warnings.append(f"{twice} of {len(labels['test'])} test images are among the others too, pixel by pixel")
    content = hashlib.blake2b(json.dumps([piles.classes, size, channels, own]).encode(), digest_size=16)
    for part in (*digests["search"], *digests["test"], *(values.astype("<i8").tobytes() for values in labels.values())):
        content.update(part)
    return {
        "dataset": data.dataset,
        "fingerprint": content.hexdigest(),
        "classes": piles.classes,
        "image_size": size,
        "channels": channels,
        "own_validation": own,
        "resize": data.resize,
        "streamed": streamed,
        "test": len(labels["test"]),
        "unreadable": len(unreadable),
        "unreadable_files": [str(problem) for problem in unreadable[:NAMED]],
        "warnings": warnings,
    }


class _Form(NamedTuple):
    """How the images shall be; channels None: as they are."""

    size: int
    channels: int | None
    resize: Resize


class _Found(NamedTuple):
    """What became of a pile. kept: mask over its images; unreadable: position -> reason; digests: of those kept."""

    kept: NDArray[np.bool_]
    unreadable: dict[int, str]
    digests: list[bytes]
    channels: int


def _decode(folder: Path, name: str, pile: Pile, form: _Form, told: Callable[[int], None]) -> _Found:
    """Write all images of a pile into a .npy file."""
    path = folder / f"{name}_images.npy"
    decoded = decode_all(pile.items, path, form.size, form.resize, form.channels or 3, told)
    channels = form.channels or (1 if drop_colour(path) else 3)
    digests, moments = _summarise(np.load(path, mmap_mode="r"))
    np.save(folder / f"{name}_moments.npy", moments)
    return _Found(decoded.kept, decoded.unreadable, digests, channels)


def _index(folder: Path, name: str, pile: Pile, form: _Form, told: Callable[[int], None]) -> _Found:
    """Open all images of a pile without decoding them, but for a sample of the search images.

    What is damaged behind the first bytes is found when it is decoded. Files are told apart by their paths below the
    folder of all, their sizes and the pixels of the sample: not by the time of change, which a copy does not keep.
    """
    kept, unreadable = open_all(pile.items, told)
    channels, digests = form.channels or 3, [form.resize.encode()]
    if name == "search":
        positions = np.flatnonzero(kept)
        sample = positions[:: max(1, -(-len(positions) // SAMPLE))]
        path = folder / "sample.npy"
        files = [str(pile.items[i]) for i in sample.tolist()]
        decoded = decode_all(files, path, form.size, form.resize, channels, lambda done: None)
        channels = form.channels or (1 if drop_colour(path) else 3)
        seen, moments = _summarise(np.load(path, mmap_mode="r"))
        digests += seen
        np.save(folder / "search_moments.npy", moments)
        path.unlink()
        for place, reason in decoded.unreadable.items():
            kept[sample[place]], unreadable[int(sample[place])] = False, reason
        np.save(folder / "search_sample.npy", np.cumsum(kept)[sample[decoded.kept]] - 1)  # places among those kept
    files = [str(pile.items[i]) for i in np.flatnonzero(kept).tolist()]
    root = os.path.commonpath([str(Path(str(item)).parent) for item in pile.items])
    digests += [repr((file.removeprefix(root), Path(file).stat().st_size)).encode() for file in files]
    return _Found(kept, unreadable, digests, channels)


def digest_of(image: NDArray[np.uint8]) -> bytes:
    """Tells images apart by their pixels."""
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()


def _search_and_test(piles: Piles, data: Data, seed: int) -> tuple[Pile, Pile]:
    train, test = piles.train, piles.test
    if test is None:
        leave = 1 if piles.validation else 2  # at least one to train on and one to validate with
        count = round(len(train.labels) * data.test_fraction)
        mask = stratify(train.labels, count, seed, "test", leave=leave)
        train, test = _choose(train, ~mask), _choose(train, mask)
    if piles.validation is not None:
        both = (train.items, piles.validation.items)
        items = np.concatenate(both) if isinstance(train.items, np.ndarray) else [*both[0], *both[1]]
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


def _summarise(images: NDArray[np.uint8]) -> tuple[list[bytes], NDArray[np.int64]]:
    # A digest of each image, and the sums from which the mean and deviation of any split follow exactly.
    digests = [digest_of(image) for image in images]
    moments = np.empty((len(images), 2, images.shape[3]), dtype=np.int64)
    step = max(1, AT_ONCE // int(np.prod(images.shape[1:])))
    for start in range(0, len(images), step):
        part = images[start : start + step]
        for moment, values in enumerate((part, np.square(part, dtype=np.uint16))):
            # One axis at a time, narrow first: 10 times faster than both at once.
            moments[start : start + step, moment] = values.sum(axis=1, dtype=np.uint32).sum(axis=1, dtype=np.int64)
    return digests, moments
