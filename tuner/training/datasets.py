"""Decodes a dataset once into a cache on disk, and opens it for the search without its test images."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tuner.errors import BadInput, Problem
from tuner.spec.data import Data
from tuner.training.build import Progress, build
from tuner.training.cache import build_once, cache_root, read_meta
from tuner.training.dataset import Dataset
from tuner.training.sources import find_source
from tuner.training.split import find_problems, split
from tuner.training.stream import Pixels, Streamed, read_files

FORMAT = 4  # of the cache; raise it when the same files would give other pixels or another fingerprint


@dataclass(frozen=True)
class DataFacts:
    """What is known of a prepared dataset.

    fingerprint: hash of pixels, labels and class names, those of the test images included; where the images stay
    files, of their paths below the folder of all, their sizes and a sample of their pixels. train, validation, test:
    numbers of images, after `subset` and `val_fraction`. unreadable: number of files left out; unreadable_files: the
    first few, each with the reason. warnings: what a user should know before the search starts.
    """

    dataset: str
    fingerprint: str
    classes: tuple[str, ...]
    image_size: int
    channels: int
    train: int
    validation: int
    test: int
    unreadable: int
    unreadable_files: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Prepared:
    """A dataset on disk: `folder` is for `open_dataset` in every worker, and for `open_test` at the very end."""

    folder: Path
    facts: DataFacts


def prepare(data: Data, seed: int, cache: Path | None = None, progress: Progress | None = None) -> Prepared:
    """Decode the images of `data` to uint8, once for all processes and runs, and say what they are.

    Nothing is decoded where the cache holds the same files (path, size, time of change) in the same form already.
    cache: default $HYPERTUNE_CACHE, else ~/.cache/hypertune. progress: called with "search images" or "test images",
    the number done and the number of all.

    Raises:
        BadInput: with everything that is wrong with the images, or with `data.subset`.
        NoSpace: the disk of the cache is full.
    """
    source = find_source(data, seed)
    size, channels = data.image_size or source.image_size, data.channels or source.channels
    form = {"format": FORMAT, "dataset": data.dataset, "size": size, "channels": channels, "resize": data.resize}
    key = hashlib.blake2b(json.dumps({**form, **source.depends_on}, sort_keys=True).encode(), digest_size=8)
    folder = cache_root(cache) / f"{data.dataset.replace(':', '.')}-{size or 'own'}-{key.hexdigest()}"
    meta = build_once(folder, lambda aside: build(aside, source, data, seed, progress))
    train, validation = _split(folder, meta, data, seed)
    ignored = [
        f"data.{name}: {value} has no effect, {source.ignored[name]}"
        for name, value in data
        if name in source.ignored and value != Data.model_fields[name].default
    ]
    facts = DataFacts(
        dataset=data.dataset,
        fingerprint=meta["fingerprint"],
        classes=tuple(meta["classes"]),
        image_size=meta["image_size"],
        channels=meta["channels"],
        train=len(train),
        validation=len(validation),
        test=meta["test"],
        unreadable=meta["unreadable"],
        unreadable_files=tuple(meta["unreadable_files"]),
        warnings=(*ignored, *source.warnings, *meta["warnings"]),
    )
    return Prepared(folder, facts)


def open_dataset(folder: Path, data: Data, seed: int) -> Dataset:
    """Open a prepared folder for the search: a read-only memory map, or files, split as `data` and `seed` say.

    The same on every machine and in every process. Reads no test image.

    Raises:
        BadInput: the folder is not complete, or `data.subset` does not fit.
    """
    meta = _meta(folder)
    train, validation = _split(folder, meta, data, seed)
    mean, mean_square = _moments(folder, train, meta).mean(axis=0) / meta["image_size"] ** 2
    deviation = np.sqrt(np.maximum(mean_square - mean**2, 0))
    return Dataset(
        name=data.dataset,
        images=_pixels(folder, "search", meta),
        labels=np.load(folder / "search_labels.npy"),
        train=train,
        validation=validation,
        classes=tuple(meta["classes"]),
        mean=tuple(float(value) / 255 for value in mean),
        # A channel of one value everywhere: dividing by 1 leaves it at 0.
        std=tuple(float(value) / 255 or 1.0 for value in deviation),
        fingerprint=meta["fingerprint"],
    )


def open_test(folder: Path) -> tuple[Pixels, NDArray[np.int64]]:
    """Open the test images of a prepared folder, uint8 (N, size, size, channels), and their labels, int64 (N,).

    For the final evaluation only: whoever calls this while a search still chooses spoils the number it reports.

    Raises:
        BadInput: the folder is not complete.
    """
    meta = _meta(folder)
    return _pixels(folder, "test", meta), np.load(folder / "test_labels.npy")


def name_images(folder: Path, split: Literal["search", "test"]) -> list[str] | None:
    """Paths of the image files of a prepared folder, in the order of its images; None where they never were files.

    Raises:
        BadInput: the folder is not complete.
    """
    _meta(folder)
    return read_files(folder / f"{split}_files.json")


def check_batch(facts: DataFacts, batch_size: int) -> None:
    """Refuse a batch that is larger than the training split.

    Raises:
        BadInput: naming both numbers.
    """
    if batch_size > facts.train:
        rule = f"{batch_size}, but there are only {facts.train} images to train on; at most {facts.train}"
        raise BadInput([Problem("train.batch_size", 0, 0, rule)])


def _meta(folder: Path) -> dict[str, Any]:
    meta = read_meta(folder)
    if meta is None:
        raise BadInput([Problem(str(folder), 0, 0, "no complete prepared dataset; prepare it again")])
    return meta


def _pixels(folder: Path, name: str, meta: dict[str, Any]) -> Pixels:
    if not meta["streamed"]:
        images: NDArray[np.uint8] = np.load(folder / f"{name}_images.npy", mmap_mode="r")
        return images
    files = read_files(folder / f"{name}_files.json") or []
    return Streamed(files, meta["image_size"], meta["channels"], meta["resize"], folder.name)


def _moments(folder: Path, train: NDArray[np.int64], meta: dict[str, Any]) -> NDArray[np.int64]:
    # Sums of each training image's pixels; of those in the sample alone where the images stay files.
    moments: NDArray[np.int64] = np.load(folder / "search_moments.npy")
    if not meta["streamed"]:
        return moments[train]
    training = np.isin(np.load(folder / "search_sample.npy"), train)
    return moments[training] if training.any() else moments


def _split(folder: Path, meta: dict[str, Any], data: Data, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    labels, own_validation = np.load(folder / "search_labels.npy"), int(meta["own_validation"])
    places = [f"class {name}" for name in meta["classes"]]
    training = labels[: len(labels) - own_validation]
    if problems := find_problems(training, places, data, own_validation > 0, own_test=True):
        raise BadInput(problems)
    return split(labels, own_validation, data, seed)
