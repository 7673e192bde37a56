"""Health of a dataset: what a person should know of the images before any network learns from them."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.spec.data import Data
from tuner.training.build import digest_of
from tuner.training.datasets import Prepared, name_images, open_dataset, open_test
from tuner.training.decode import measure
from tuner.training.stream import Pixels, Streamed

TINY = 20
"""Training images below which a class is called tiny: beside them some five are left to validate with."""

UNBALANCED = 3.0
"""Times as many images as the rarest class: above it accuracy says little of the rare ones."""

LONG = 2.0
"""Longer side over the shorter, above which a square distorts or crops a good deal."""

NAMED = 3
"""Groups or files named in a sentence."""


@dataclass(frozen=True)
class Twins:
    """Images that are the same, pixel by pixel at the size that is trained with: where they are, and their classes."""

    images: tuple[str, ...]
    classes: tuple[str, ...]
    splits: tuple[str, ...]


@dataclass(frozen=True)
class Health:
    """What was found.

    classes: name -> images of (train, validation, test). duplicates: same class, same split; contradictions: the same
    image in several classes; leaks: the same image in several splits. tiny: classes with fewer than 20 training images.
    balance: images of the largest class for one of the smallest, in training. constant: images of one value in each
    channel. sizes: of up to 1,000 files, smallest, median and largest (width, height); long: share of those whose
    sides differ by more than twice; enlarged: share of those smaller than the size that is trained with; both None
    where the images never were files. unreadable: files that were left out.
    """

    classes: dict[str, tuple[int, int, int]]
    image_size: int
    duplicates: tuple[Twins, ...]
    contradictions: tuple[Twins, ...]
    leaks: tuple[Twins, ...]
    tiny: tuple[str, ...]
    balance: float
    constant: tuple[str, ...]
    sizes: tuple[tuple[int, int], tuple[int, int], tuple[int, int]] | None
    long: float | None
    enlarged: float | None
    unreadable: int
    unreadable_files: tuple[str, ...]

    @property
    def unbalanced(self) -> bool:
        """Whether the classes differ so much in size that accuracy should not be the metric."""
        return self.balance >= UNBALANCED

    @property
    def sentences(self) -> tuple[str, ...]:
        """What is worth a word, the gravest first; empty for a dataset in good health."""
        return tuple(_tell(self))

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values, the sentences among them."""
        return {**asdict(self), "sentences": list(self.sentences)}


def examine(prepared: Prepared, data: Data, seed: int) -> Health:
    """Look through all images of a prepared dataset, the test images included, though none is judged by a network.

    Where the images stay files, those are compared byte by byte, which reads each of them once.

    Raises:
        BadInput: the prepared folder is not complete.
    """
    folder, facts = prepared.folder, prepared.facts
    dataset, (test_images, test_labels) = open_dataset(folder, data, seed), open_test(folder)
    splits = np.full(len(dataset.labels), "", dtype="<U10")
    splits[dataset.train], splits[dataset.validation] = "train", "validation"
    used = np.flatnonzero(splits != "")  # a subset leaves some out
    search_files, test_files = name_images(folder, "search"), name_images(folder, "test")
    images = [
        *_images(dataset.images, dataset.labels, used, splits, facts.classes, search_files),
        *_images(
            test_images, test_labels, np.arange(len(test_labels)), np.full(len(test_labels), "test"),
            facts.classes, test_files,
        ),
    ]  # fmt: skip
    counts = [
        np.bincount(part, minlength=len(facts.classes)).tolist()
        for part in (dataset.labels[dataset.train], dataset.labels[dataset.validation], test_labels)
    ]
    train = counts[0]
    measured = measure([*(search_files or []), *(test_files or [])])
    inner = [size for size in measured if min(size) > 0]
    duplicates, contradictions, leaks = _twins(images)
    names = [image.name for image in images]
    constant = _constant(folder, used, dataset.image_size)
    return Health(
        classes={name: (a, b, c) for name, a, b, c in zip(facts.classes, *counts, strict=True)},
        image_size=facts.image_size,
        duplicates=duplicates,
        contradictions=contradictions,
        leaks=leaks,
        tiny=tuple(name for name, count in zip(facts.classes, train, strict=True) if count < TINY),
        balance=max(train) / max(1, min(train)),
        constant=tuple(names[i] for i in constant),
        sizes=_spread(inner),
        long=_share(max(size) > LONG * min(size) for size in inner) if inner else None,
        enlarged=_share(max(size) < facts.image_size for size in inner) if inner else None,
        unreadable=facts.unreadable,
        unreadable_files=facts.unreadable_files,
    )


@dataclass(frozen=True)
class _Image:
    name: str
    label: str
    split: str
    digest: bytes


def _images(
    pixels: Pixels,
    labels: NDArray[np.int64],
    used: NDArray[np.int64],
    splits: NDArray[np.str_],
    classes: Sequence[str],
    files: Sequence[str] | None,
) -> list[_Image]:
    return [
        _Image(
            files[i] if files else f"image {i} of {splits[i]}",
            classes[labels[i]],
            str(splits[i]),
            _digest_of_file(files[i]) if isinstance(pixels, Streamed) and files else digest_of(pixels[i]),
        )
        for i in used.tolist()
    ]


def _digest_of_file(path: str) -> bytes:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()


def _twins(images: Sequence[_Image]) -> tuple[tuple[Twins, ...], tuple[Twins, ...], tuple[Twins, ...]]:
    groups: dict[bytes, list[_Image]] = defaultdict(list)
    for image in images:
        groups[image.digest].append(image)
    duplicates, contradictions, leaks = [], [], []
    for group in groups.values():
        if len(group) == 1:
            continue
        twins = Twins(
            tuple(image.name for image in group),
            tuple(sorted({image.label for image in group})),
            tuple(sorted({image.split for image in group})),
        )
        if len(twins.classes) > 1:
            contradictions.append(twins)
        if len(twins.splits) > 1:
            leaks.append(twins)
        if len(twins.classes) == len(twins.splits) == 1:
            duplicates.append(twins)
    return tuple(duplicates), tuple(contradictions), tuple(leaks)


def _constant(folder: Path, used: NDArray[np.int64], size: int) -> list[int]:
    # n times the sum of squares equals the squared sum exactly where all n values are the same (Cauchy-Schwarz).
    # Positions among the images used, then the test images; where images stay files, those of the sample alone.
    def flat(moments: NDArray[np.int64]) -> NDArray[np.bool_]:
        same: NDArray[np.bool_] = (moments[:, 1] * size**2 == moments[:, 0] ** 2).all(axis=1)
        return same

    search = flat(np.load(folder / "search_moments.npy"))
    if (folder / "search_sample.npy").exists():
        known = np.load(folder / "search_sample.npy")[search]
        return np.flatnonzero(np.isin(used, known)).tolist()
    test = flat(np.load(folder / "test_moments.npy"))
    return [*np.flatnonzero(search[used]).tolist(), *(len(used) + np.flatnonzero(test)).tolist()]


Size = tuple[int, int]


def _spread(sizes: Sequence[Size]) -> tuple[Size, Size, Size] | None:
    if not sizes:
        return None
    by_area = sorted(sizes, key=lambda size: size[0] * size[1])
    middle = (int(median(width for width, _ in sizes)), int(median(height for _, height in sizes)))
    return by_area[0], middle, by_area[-1]


def _share(flags: Iterable[bool]) -> float:
    found = Counter(flags)
    return found[True] / found.total()


# ---------------------------------------------------------------- in words


def _tell(health: Health) -> Iterable[str]:
    if health.contradictions:
        which = _some([f"{' = '.join(t.images)} ({' and '.join(t.classes)})" for t in health.contradictions])
        yield f"{_count(health.contradictions, 'image')} in several classes, so that no network can be right: {which}."
    if health.leaks:
        which = _some([f"{' = '.join(t.images)} ({' and '.join(t.splits)})" for t in health.leaks])
        yield f"{_count(health.leaks, 'image')} in several splits, so that scores come out too good: {which}."
    if health.unreadable:
        which = _some(health.unreadable_files, health.unreadable)
        yield f"{_files(health.unreadable)} cannot be read and {_is(health.unreadable)} left out: {which}."
    if health.constant:
        yield f"{_count(health.constant, 'image')} of one colour all over: {_some(health.constant)}."
    if health.duplicates:
        extra = sum(len(t.images) - 1 for t in health.duplicates)
        which = _some([" = ".join(t.images) for t in health.duplicates])
        yield f"{_count(health.duplicates, 'image')} more than once in one class and split, {extra} too many: {which}."
    if health.tiny:
        few = [f"{name} ({health.classes[name][0]})" for name in health.tiny]
        noun = "class has" if len(few) == 1 else "classes have"
        yield f"{len(few)} {noun} fewer than {TINY} training images: {_some(few)}."
    if health.unbalanced:
        largest = max(health.classes, key=lambda name: health.classes[name][0])
        smallest = min(health.classes, key=lambda name: health.classes[name][0])
        yield (
            f"Unbalanced: {health.classes[largest][0]} training images of {largest}, {health.classes[smallest][0]} of "
            f"{smallest}. search.metric: val_macro_f1 and train.class_weights: balanced count each class alike."
        )
    if health.sizes and health.long:
        smallest_size, middle, largest_size = (f"{w} x {h}" for w, h in health.sizes)
        sizes = f"Sizes from {smallest_size} to {largest_size}, in the middle {middle}"
        yield f"{sizes}; {health.long:.0%} are more than twice as long as wide or high: see data.resize."
    if health.enlarged:
        yield f"{health.enlarged:.0%} of the images are smaller than {health.image_size} pixels and are enlarged."


def _count(found: Sequence[object], noun: str) -> str:
    return f"1 {noun} is" if len(found) == 1 else f"{len(found):,} {noun}s are"


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count:,} files"


def _is(count: int) -> str:
    return "is" if count == 1 else "are"


def _some(names: Sequence[str], total: int | None = None) -> str:
    more = (len(names) if total is None else total) - min(NAMED, len(names))
    return "; ".join(names[:NAMED]) + (f"; and {more:,} more" if more > 0 else "")
