"""Pictures: the images that a model is judged on: a split of its run, or new ones of anybody's."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tuner.delivery.about import About
from tuner.delivery.looks import count_looks, note_look
from tuner.delivery.place import Place
from tuner.errors import BadInput, Problem
from tuner.records.reader import read_record
from tuner.spec.data import Data
from tuner.training.arrays import npz
from tuner.training.dataset import Dataset
from tuner.training.datasets import Prepared, name_images, open_dataset, open_test, prepare
from tuner.training.decode import Items, decode_all
from tuner.training.folder import scan
from tuner.training.stream import Pixels
from tuner.training.table import table

Split = Literal["test", "validation", "train"]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Pictures:
    """Images as a model of `about` sees them, with their truth.

    what: test, validation, train, or where they come from. pixels: uint8 (N, S, S, C), a memory map or files. labels:
    int64 (N,), places in the model's classes. names: of each image: its path, or its place in the split. looks: how
    often the test images of the run have been opened, this time too; None for other images. problems: what was left
    out, in sentences.
    """

    what: str
    pixels: Pixels | Chosen
    labels: NDArray[np.int64]
    names: Sequence[str]
    looks: int | None = None
    problems: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)


def open_split(place: Place, about: About, split: Split, why: str | None, progress: Progress | None = None) -> Pictures:
    """The test, validation or training images of the run that a model comes from; each look at test images is counted.

    why: the command, for the record of looks; None: this look is in it already.

    Raises:
        BadInput: the model lies outside a run, or the images are not those that it was trained with.
    """
    check_unseen(about, split)
    data, prepared, seed = _prepare(place, about, progress)
    if split == "test":
        assert place.run is not None  # else it would have been refused
        looks = count_looks(place.run) if why is None else note_look(place.run, about.name, why)
        pixels, labels = open_test(prepared.folder)
        files = name_images(prepared.folder, "test")
        return Pictures(split, pixels, labels, files or [f"test {n}" for n in range(len(labels))], looks)
    dataset = open_dataset(prepared.folder, data, seed)
    index = dataset.train if split == "train" else dataset.validation
    files = name_images(prepared.folder, "search")
    names = [files[n] if files else f"{split} {n}" for n in index.tolist()]
    return Pictures(split, Chosen(dataset.images, index), dataset.labels[index], names)


def open_run(place: Place, about: About, progress: Progress | None = None) -> Dataset:
    """The images of the run that a model comes from as its trial had them: to train on, and to validate with.

    Raises:
        BadInput: as `open_split` with the validation images.
    """
    check_unseen(about, "validation")
    data, prepared, seed = _prepare(place, about, progress)
    return open_dataset(prepared.folder, data, seed)


def check_unseen(about: About, split: Split) -> None:
    """Refuse to judge a model on validation images that it learned from.

    Raises:
        BadInput: it did.
    """
    if split == "validation" and (about.settings.get("data") or {}).get("train_on") == "all":
        raise BadInput(
            f"{about.name} learned from its validation images; judge it on --split test, or on others: --data"
        )


def _prepare(place: Place, about: About, progress: Progress | None) -> tuple[Data, Prepared, int]:
    """The `data` section of a model, the prepared images of its run, and the seed of their split."""
    if place.run is None:
        raise BadInput(f"{place.path} lies in no run, so its images are not known; name some with --data FOLDER")
    run = read_record(place.run).run
    said, seed = run.get("data") or {}, (run.get("seeds") or {}).get("split", 0)
    data = read_data(about.settings.get("data") or {}, said.get("root"), place)
    prepared = prepare(data, seed, progress=progress)
    same_size = about.image_size == said.get("image_size")  # of a searched size run.json has the first one's alone
    if same_size and about.origin.fingerprint and prepared.facts.fingerprint != about.origin.fingerprint:
        raise BadInput(
            f"the images of {place.run.name} are not those that {about.name} was trained with "
            f"(fingerprint {about.origin.fingerprint}, now {prepared.facts.fingerprint}); "
            "put them back, or name new ones with --data"
        )
    return data, prepared, seed


def read_data(said: Mapping[str, Any], root: str | None, place: Place) -> Data:
    """The `data` section of a model, with where the images of its run lie.

    Raises:
        BadInput: they are not there any more.
    """
    if root is not None and not Path(root).exists():
        raise BadInput(f"the images of {place.run} lay in {root}, which is gone; name them with --data")
    return Data.model_validate_json(json.dumps({**said, "root": root}))


class Chosen:
    """Some of the images of a dataset, in an order of their own, with the shape that they have: (N, S, S, C)."""

    dtype = np.dtype(np.uint8)

    def __init__(self, images: Pixels | Chosen, index: NDArray[np.int64]) -> None:
        self._images, self._index = images, index
        self.shape: tuple[int, ...] = (len(index), *images.shape[1:])
        self.nbytes = int(np.prod(self.shape))

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: Any) -> NDArray[np.uint8]:
        found: NDArray[np.uint8] = self._images[self._index[index]]
        return found


def open_pictures(path: Path, about: About, progress: Progress | None = None) -> Pictures:
    """New images with their truth: class folders (of a folder with splits the test images, else all), a csv or an npz.

    Raises:
        BadInput: with all that is wrong: classes that the model does not know, no image that can be read.
    """
    items, labels, classes, problems = _list(path, about)
    unknown = [name for name in classes if name not in about.classes]
    if unknown:
        known = ", ".join(about.classes[:20]) + (" ..." if len(about.classes) > 20 else "")
        rule = f"the model knows no such class; it knows {known}"
        raise BadInput([Problem(f"{path}: {name}", 0, 0, rule) for name in unknown])
    truth = np.array([about.classes.index(name) for name in classes], dtype=np.int64)[labels]
    told = (lambda done: progress("images", done, len(items))) if progress else (lambda done: None)
    with tempfile.TemporaryDirectory(prefix="ht-pictures-") as scratch:  # a mapped file lives on when its name is gone
        file = Path(scratch) / "images.npy"
        decoded = decode_all(items, file, about.image_size, about.resize, about.channels, told)
        pixels: NDArray[np.uint8] = np.load(file, mmap_mode="r")
    if not decoded.kept.any():
        reasons = [Problem(str(items[n]), 0, 0, why) for n, why in decoded.unreadable.items()]
        raise BadInput(reasons or f"{path}: no images in it")
    problems += [f"{items[n]} was left out: {why}" for n, why in decoded.unreadable.items()]
    kept = np.flatnonzero(decoded.kept)
    named = [str(items[n]) if not isinstance(items, np.ndarray) else f"image {n}" for n in kept.tolist()]
    return Pictures(str(path), pixels, truth[kept], named, problems=tuple(problems))


def _list(path: Path, about: About) -> tuple[Items, NDArray[np.int64], tuple[str, ...], list[str]]:
    """Images not yet decoded, their labels, the names of these labels, and what was left out."""
    if path.suffix.lower() in (".csv", ".npz"):
        kind = path.suffix.lower().removeprefix(".")
        source = (table if kind == "csv" else npz)(Data.model_validate({"dataset": kind, "root": str(path)}), 0)
        piles = source.load()
        pile = piles.test or piles.train
        return pile.items, pile.labels, piles.classes, list(source.warnings)
    found = scan(path)
    listing = found.test or found.train
    if not listing.files:
        raise BadInput(list(found.problems) or f"{path}: no images in it")
    return listing.files, listing.labels, found.classes, list(found.warnings)
