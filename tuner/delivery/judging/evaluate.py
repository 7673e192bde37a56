"""Evaluate: what one model is worth on images that it has not seen."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tuner.delivery.about import About
from tuner.delivery.judging import curves
from tuner.delivery.judging.corruptions import Robustness
from tuner.delivery.judging.corruptions import curves as corrupted
from tuner.delivery.judging.paired import wilson
from tuner.delivery.judging.scores import Scores, score
from tuner.delivery.judging.wrong import Wrong, find_wrong
from tuner.delivery.model import Classifier
from tuner.delivery.pictures import Chosen, Pictures, Progress, Split, open_pictures, open_split
from tuner.delivery.place import Place
from tuner.delivery.predictions import Predictions, judge
from tuner.errors import BadInput
from tuner.records.reader import read_record

SEED = 0
TRAIN_IMAGES = 2_000
"""That the gap to the training images is measured on: its interval is then at most 2.2 points wider each way."""
EPOCH = ("epoch", "train_loss", "val_loss", "train_accuracy", "val_accuracy", "lr")


class Gap(NamedTuple):
    """Accuracy on `images` training images, seen as the test sees its own, minus that `here`, with its 95% interval."""

    train: float
    images: int
    here: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class Evaluation:
    """All that is known of a model on some images. training: an epoch each; seconds: of all; rate: images a second."""

    model: Classifier
    pictures: Pictures
    found: Predictions
    scores: Scores
    confusion: NDArray[np.int64]
    confused: Sequence[curves.Pair]
    wrong: Sequence[Wrong]
    training: Sequence[dict[str, Any]]
    gap: Gap | None
    robustness: Robustness | None
    notes: tuple[str, ...]
    seconds: float
    rate: float

    @property
    def trial(self) -> str:
        """The trial that the model comes from; empty where that is not known."""
        return self.model.place.trial or self.model.about.origin.trial


def evaluate(
    model: Classifier, pictures: Pictures, *, corrupt: bool = False, progress: Progress | None = None
) -> Evaluation:
    """Judge images and score what was said of them; corrupt: under noise, blur, brightness and JPEG too.

    progress: what is done, how much of it, and of how much.

    Raises:
        BadInput: there are no images, they do not fit the model, or it answers with numbers that are not finite.
    """
    if not len(pictures):
        raise BadInput(f"there are no {pictures.what} images; name some with --data FOLDER")
    began = time.perf_counter()
    tell = progress or (lambda *_: None)
    found = judge(model, pictures, progress=lambda done, of: tell("judging images", done, of))
    rate = len(pictures) / (time.perf_counter() - began)
    if not np.isfinite(found.logits).all():
        count = int((~np.isfinite(found.logits)).any(axis=1).sum())
        raise BadInput(f"{model.about.name}: its answer to {count:,} of {len(found.labels):,} images is not finite")
    scores = score(found, seed=SEED, progress=lambda done, of: tell("resampling", done, of))
    counts = curves.confusion(found)
    pairs = curves.confused(counts)
    gap, why = _measure_gap(model, found, progress)
    robustness = None
    if corrupt:
        (robustness,) = corrupted([model], [pictures], progress=lambda done, of: tell("corrupting images", done, of))
    return Evaluation(
        model, pictures, found, scores, counts, pairs, find_wrong(found, pairs), _read_training(model), gap, robustness,
        (*scores.notes, *why, *_notes(model.about, pictures)), time.perf_counter() - began, rate,
    )  # fmt: skip


def _notes(about: About, pictures: Pictures) -> list[str]:
    chosen_by = "The model was chosen by these images, which makes its numbers here a little too good."
    return [f"Of the model: {note}." for note in about.notes] + [chosen_by] * (pictures.what == "validation")


# ---------------------------------------------------------------- what it is judged on


def open_images(
    place: Place, about: About, split: Split, data: Path | None, why: str, progress: Progress | None = None
) -> Pictures:
    """The images of `data`, else of a split of the model's run; why: the command, for the record of looks.

    Raises:
        BadInput: with all that is wrong with them.
    """
    if data is not None:
        return open_pictures(data, about, progress)
    return open_split(place, about, split, why, progress)


def _measure_gap(model: Classifier, found: Predictions, progress: Progress | None) -> tuple[Gap | None, list[str]]:
    """The gap to the training images, and a note where there is none; both draws of images are independent."""
    if model.place.run is None:
        return None, []
    try:
        train = open_split(model.place, model.about, "train", "evaluate", progress)
    except BadInput as error:
        return None, [f"The gap to the training images is not known: {error}."]
    index = np.sort(np.random.default_rng(SEED).choice(len(train), min(TRAIN_IMAGES, len(train)), replace=False))
    chosen = replace(
        train,
        pixels=Chosen(train.pixels, index),
        labels=train.labels[index],
        names=[train.names[n] for n in index.tolist()],
    )
    tell = progress or (lambda *_: None)
    there = float(judge(model, chosen, progress=lambda n, of: tell("judging training images", n, of)).right.mean())
    here, images = float(found.right.mean()), len(index)
    # Newcombe (1998), method 10 for independent shares: by Wilson's intervals, which are never of no width.
    train_low, train_high = wilson(round(there * images), images)
    here_low, here_high = wilson(int(found.right.sum()), len(found.labels))
    low = there - here - math.hypot(there - train_low, here_high - here)
    high = there - here + math.hypot(train_high - there, here - here_low)
    return Gap(there, images, here, there - here, low, high), []


def _read_training(model: Classifier) -> list[dict[str, Any]]:
    """The epochs of the training that the model comes from; none where it is not to be found."""
    run, origin = model.place.run, model.about.origin
    if run is None:
        return []
    if model.place.kind == "trial":
        return _read_rows(run, model.place.trial)
    config = read_record(run).config(origin.trial) or {}
    if config.get("seed") == origin.seed:
        return _read_rows(run, origin.trial)
    for path in sorted(run.glob("final/*/run.json")):  # a finalist, trained with a seed of its own
        wanted, record = {"finalist": origin.trial, "seed": origin.seed}, read_record(path.parent)
        for line in record.lines:
            if line.event != "asked" or line.trial is None or not wanted.items() <= line.fields["parameters"].items():
                continue
            if _train_on(record.config(line.trial)) == _train_on(model.about.settings):
                return _read_rows(path.parent, line.trial)
    return []


def _train_on(settings: Mapping[str, Any] | None) -> str:
    return str(((settings or {}).get("data") or {}).get("train_on", "train"))


def _read_rows(run: Path, trial: str | None) -> list[dict[str, Any]]:
    lines = [line.fields for line in read_record(run).lines if line.event == "row" and line.trial == trial]
    return [{name: row.get(name) for name in EPOCH} for row in lines]
