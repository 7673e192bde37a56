"""Versus: which of two models is better, on the same images, image by image; and what they disagree about."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tuner.delivery.judging import corruptions, verdict
from tuner.delivery.judging.paired import LEVEL, Paired, holm, pair, wilson
from tuner.delivery.judging.shared import Two, check_classes, open_both, places_of
from tuner.delivery.judging.wrong import LARGEST
from tuner.delivery.model import Classifier, Model
from tuner.delivery.pictures import Pictures, Progress, Split
from tuner.delivery.predictions import Predictions, judge
from tuner.delivery.target import make_ready
from tuner.errors import BadInput
from tuner.records.writer import write_whole
from tuner.training.metrics import evaluate

NAME, IMAGES = "versus.json", "images"
MOST_SHOWN = 24
"""Images of each kind of disagreement that are kept to be looked at."""


@dataclass(frozen=True)
class Side:
    """One of the two models. low, high: of its accuracy, 95%; bytes: of its weights; ece: calibration error."""

    name: str
    kind: str
    run: str
    trial: str
    epoch: int
    seed: int
    architecture: str
    params: int
    bytes: int
    image_size: int
    channels: int
    accuracy: float
    low: float
    high: float
    macro_f1: float
    loss: float
    ece: float


@dataclass(frozen=True)
class ClassDifference:
    """How the two recognise one class; the interval is of this class alone, p_holm corrected for all classes."""

    name: str
    images: int
    recalls: tuple[float, float]
    difference: float
    low: float
    high: float
    p: float
    p_holm: float


@dataclass(frozen=True)
class Parted:
    """An image on which the two part; image: its thumbnail in the folder."""

    image: str
    name: str
    truth: str
    predicted: tuple[str, str]
    confidence: tuple[float, float]


@dataclass(frozen=True)
class Versus:
    """What was found; everything but the folder is written as versus.json (with "format": 1, NaN as null).

    what: test, validation, or where the images come from; split: None for images that were named. looks: how often the
    test images of each run were opened. overall: counts, difference of accuracies (first minus second) and test.
    agreement: share of images that both take for the same class; wrong_apart: images that they take for two different
    wrong classes. only_first, only_second, both_wrong: at most 24 images each that only one is right on, or both are
    wrong on differently; first those where the less sure of the two is most sure. robustness: None where it was not
    asked for, else {"images", "strengths_of", "amounts", "models": [{"mean", "kinds"}, ...], "difference": {"value",
    "low", "high"}} (see `Robustness.as_json`; the difference is of the mean accuracies under all corruptions, with
    Student's interval over the images).
    """

    folder: Path
    answer: str
    what: str
    split: Split | None
    images: int
    looks: Mapping[str, int] | None
    problems: tuple[str, ...]
    classes: tuple[str, ...]
    models: tuple[Side, Side]
    overall: Paired
    agreement: float
    wrong_apart: int
    per_class: tuple[ClassDifference, ...]
    only_first: tuple[Parted, ...]
    only_second: tuple[Parted, ...]
    both_wrong: tuple[Parted, ...]
    robustness: dict[str, Any] | None
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        found: dict[str, Any] = {"format": 1, **asdict(self)}
        del found["folder"]
        for side in found["models"]:
            side.update({key: None for key, value in side.items() if isinstance(value, float) and math.isnan(value)})
        return found


def compare(
    models: Two,
    *,
    split: Split = "test",
    data: Path | None = None,
    out: Path | None = None,
    corrupt: bool = True,
    why: str = "hypertune evaluate",
    progress: Progress | None = None,
) -> Versus:
    """Judge the same images by both models and write versus.json, with thumbnails in images/, into a folder.

    split: of the run (or runs) that they come from; a look at test images is counted once in each run. data: other
    images instead. out: default `versus` of the first model for test images; others have folders of their own. corrupt:
    on noisy, blurred, brighter and compressed images too. why: the command, for the record of looks.

    Raises:
        BadInput: they know different classes, their images are not the same, or the folder cannot be written.
    """
    first, second = models
    check_classes(models)
    asked = None if data else split
    folder = out or first.place.folder(_folder(split, data))
    make_ready(folder, NAME)
    pictures = open_both(models, split, data, why, progress)
    names = _names(models)
    judged = (
        _judge(first, pictures[0], names[0], progress),
        _judge(second, pictures[1], names[1], progress),
    )
    overall = pair(judged[0].right, judged[1].right)
    sides = (_side(first, names[0], judged[0]), _side(second, names[1], judged[1]))
    predicted = (judged[0].predicted, places_of(second, first)[judged[1].predicted])
    wrong_apart = ~judged[0].right & ~judged[1].right & (predicted[0] != predicted[1])
    robustness = _robustness(models, pictures, progress) if corrupt else None
    kept = {
        "only_first": judged[0].right & ~judged[1].right,
        "only_second": ~judged[0].right & judged[1].right,
        "both_wrong": wrong_apart,
    }
    parted = {kind: _parted(judged, mask) for kind, mask in kept.items()}
    found = Versus(
        folder=folder,
        answer=verdict.answer(names, overall, verdict.called(pictures[0], asked)),
        what=pictures[0].what,
        split=asked,
        images=len(pictures[0]),
        looks=_looks(models, pictures),
        problems=pictures[0].problems,
        classes=first.about.classes,
        models=sides,
        overall=overall,
        agreement=float((predicted[0] == predicted[1]).mean()),
        wrong_apart=int(wrong_apart.sum()),
        per_class=_per_class(judged),
        robustness=robustness,
        notes=tuple(verdict.notes(models, pictures[0], asked, corrupt)),
        **{kind: tuple(image for _, image in some) for kind, some in parted.items()},
    )
    _write(found, max(pictures, key=lambda p: p.pixels.shape[1:]), [n for some in parted.values() for n, _ in some])
    return found


# ---------------------------------------------------------------- what is said of them


def _names(models: Two) -> tuple[str, str]:
    """Names that differ."""
    first, second = (model.about.name for model in models)
    if first == second and models[0].kind != models[1].kind:
        return f"{first} ({models[0].kind})", f"{second} ({models[1].kind})"
    return (first, second) if first != second else (f"{first} (first)", f"{second} (second)")


def _folder(split: Split, data: Path | None) -> str:
    if data is not None:
        return f"versus-{data.absolute().stem}"
    return "versus" if split == "test" else f"versus-{split}"


def _judge(model: Classifier, pictures: Pictures, name: str, progress: Progress | None) -> Predictions:
    if not len(pictures):
        raise BadInput(f"there are no {pictures.what} images; name some with --data FOLDER")
    judged = judge(model, pictures, progress=_telling(progress, f"{name} judges"))
    if not np.isfinite(judged.logits).all():
        raise BadInput(f"{name}: some of its answers are not finite, so that it cannot be compared")
    return judged


def _side(model: Classifier, name: str, judged: Predictions) -> Side:
    about, right = model.about, int(judged.right.sum())
    scores = evaluate(torch.from_numpy(judged.logits), torch.from_numpy(judged.labels))
    low, high = wilson(right, len(judged.labels))
    return Side(
        name=name,
        kind=model.kind,
        run=about.origin.run,
        trial=about.origin.trial,
        epoch=about.origin.epoch,
        seed=about.origin.seed,
        architecture=about.model.name,
        params=about.params,
        bytes=_bytes(model),
        image_size=about.image_size,
        channels=about.channels,
        accuracy=right / len(judged.labels),
        low=low,
        high=high,
        macro_f1=scores.macro_f1,
        loss=scores.loss,
        ece=scores.ece,
    )


def _bytes(model: Classifier) -> int:
    """Of the weights: a checkpoint's file holds more than those."""
    if isinstance(model, Model):
        return sum(tensor.nbytes for tensor in model.network.network.state_dict().values())
    path = model.place.path
    files = [path] if path.is_file() else [*path.rglob("*.safetensors"), *path.rglob("*.onnx")]
    return sum(file.stat().st_size for file in files)


def _per_class(judged: tuple[Predictions, Predictions]) -> tuple[ClassDifference, ...]:
    """Of each class with images, in the order of the first model's classes."""
    labels, classes = judged[0].labels, judged[0].classes
    masks = {label: labels == label for label in np.unique(labels).tolist()}
    pairs = {label: pair(judged[0].right[mask], judged[1].right[mask]) for label, mask in masks.items()}
    corrected = holm([one.p for one in pairs.values()])
    found = []
    for (label, one), p_holm in zip(pairs.items(), corrected, strict=True):
        n = int(masks[label].sum())
        recalls = ((one.both + one.first) / n, (one.both + one.second) / n)
        found.append(ClassDifference(classes[label], n, recalls, one.difference, one.low, one.high, one.p, p_holm))
    return tuple(found)


def _parted(judged: tuple[Predictions, Predictions], mask: NDArray[np.bool_]) -> list[tuple[int, Parted]]:
    """Of the images of `mask` those that both are most sure of, each with its place among all."""
    confidence = np.stack([one.probabilities.max(axis=1) for one in judged])
    index = np.flatnonzero(mask)
    index = index[np.argsort(-confidence.min(axis=0)[index], kind="stable")][:MOST_SHOWN]
    found = []
    for n in index.tolist():
        predicted = judged[0].classes[judged[0].predicted[n]], judged[1].classes[judged[1].predicted[n]]
        truth, sure = judged[0].classes[judged[0].labels[n]], (float(confidence[0, n]), float(confidence[1, n]))
        found.append((n, Parted(f"{IMAGES}/{n:05}.png", str(judged[0].names[n]), truth, predicted, sure)))
    return found


def _robustness(models: Two, pictures: tuple[Pictures, Pictures], progress: Progress | None) -> dict[str, Any]:
    from scipy.stats import t

    found = corruptions.curves(models, pictures, progress=_telling(progress, "noise, blur, brightness, JPEG"))
    said = [one.as_json() for one in found]
    apart = found[0].over_all - found[1].over_all
    n = len(apart)
    margin = float(t.ppf(1 - LEVEL / 2, n - 1) * apart.std(ddof=1) / math.sqrt(n)) if n > 1 else math.inf
    value = float(apart.mean())
    return {
        **{key: said[0][key] for key in ("images", "strengths_of", "amounts")},
        "models": [{"mean": one["mean"], "kinds": one["kinds"]} for one in said],
        "difference": {"value": value, "low": max(value - margin, -1.0), "high": min(value + margin, 1.0)},
    }


def _looks(models: Two, pictures: tuple[Pictures, Pictures]) -> dict[str, int] | None:
    homes = [model.place.run for model in models]
    names = [str(home.name if home else model.about.origin.run) for home, model in zip(homes, models, strict=True)]
    if homes[0] != homes[1] and names[0] == names[1]:  # a copy, or another folder of runs
        names = [str(home or name) for home, name in zip(homes, names, strict=True)]
    found = {name: some.looks for name, some in zip(names, pictures, strict=True) if some.looks is not None}
    return found or None


def _telling(progress: Progress | None, what: str) -> Any:
    return (lambda done, count: progress(what, done, count)) if progress else None


# ---------------------------------------------------------------- files


def _write(versus: Versus, pictures: Pictures, index: list[int]) -> None:
    from PIL import Image

    folder = versus.folder
    try:
        for old in (folder / IMAGES).glob("[0-9]*.png"):
            old.unlink()
        (folder / IMAGES).mkdir(exist_ok=True)
        for n in index:
            pixels = np.asarray(pictures.pixels[np.array([n])])[0]
            image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
            image.thumbnail((LARGEST, LARGEST))
            image.save(folder / IMAGES / f"{n:05}.png")
        write_whole(folder / NAME, json.dumps(versus.as_json(), ensure_ascii=False, indent=1, allow_nan=False) + "\n")
    except OSError as error:
        rule = f"cannot be written: {error.strerror}; choose another folder with --out"
        raise BadInput(f"{error.filename or folder} {rule}") from error
