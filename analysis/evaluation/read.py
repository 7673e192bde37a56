"""Reads what `hypertune evaluate` measured: evaluation.json, checked as a file that others may have changed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct, field

from analysis.folders.folder import Folder, Unreadable, parse

NAME = "evaluation.json"
MOST_CLASSES = 1_000
"""More than any figure or table here could show; ImageNet has as many."""

Share = Annotated[float, Meta(ge=0, le=1.000001)]  # a mean of ones may be a little above 1
Count = Annotated[int, Meta(ge=0, le=1_000_000_000_000)]  # more fits no array
T = TypeVar("T")


class ModelFacts(Struct, frozen=True):
    """Which model: value is the metric on validation images at its epoch, by which it was chosen."""

    name: str
    kind: str = ""
    run: str | None = None
    trial: str | None = None
    epoch: int | None = None
    seed: int | None = None
    params: int | None = None
    architecture: str | None = None
    metric: str | None = None
    value: float | None = None


class DataFacts(Struct, frozen=True):
    """Which images. what: "test", "validation", or a path; looks: at the test images so far, with this one."""

    what: str
    images: Count
    looks: int | None = None
    problems: tuple[str, ...] = ()


class Interval(Struct, frozen=True):
    """A value with its 95% interval; None where it says nothing."""

    value: float | None
    low: float | None = None
    high: float | None = None


class ClassScore(Struct, frozen=True):
    """How one class fared. images: that are of it; predicted: that were called so."""

    name: str = field(name="class")
    images: Count
    predicted: Count
    precision: Share | None = None
    recall: Share | None = None
    f1: Share | None = None
    roc_auc: Share | None = None
    average_precision: Share | None = None
    precision_low: Share | None = None
    precision_high: Share | None = None
    recall_low: Share | None = None
    recall_high: Share | None = None
    f1_low: Share | None = None
    f1_high: Share | None = None


class Confused(Struct, frozen=True):
    """One kind of error; share: of the images of `truth`."""

    truth: str
    predicted: str
    count: Count
    share: Share


class Bin(Struct, frozen=True):
    """Images whose confidence lies from `low` to `high`: what the model claimed there, and what was right."""

    low: Share
    high: Share
    images: Count
    confidence: Share
    accuracy: Share


class Curve(Struct, frozen=True):
    """One curve of a class, or of their mean ("macro"). roc: x false positives, y true ones; pr: x recall, y precision.
    """  # fmt: skip

    name: str = field(name="class")
    x: tuple[Share, ...]
    y: tuple[Share, ...]


class Curves(Struct, frozen=True):
    """Receiver operating characteristics, and precision against recall."""

    roc: tuple[Curve, ...] = ()
    pr: tuple[Curve, ...] = ()


class Wrong(Struct, frozen=True):
    """An image that was taken for another class; image: its thumbnail in the folder."""

    image: str
    name: str
    truth: str
    predicted: str
    confidence: Share
    probability_of_truth: Share | None = None


class Epoch(Struct, frozen=True):
    """One epoch of the training."""

    epoch: Count
    train_loss: float | None = None
    val_loss: float | None = None
    train_accuracy: float | None = None
    val_accuracy: float | None = None
    lr: float | None = None


class Gap(Struct, frozen=True):
    """Accuracy on training images, seen as the test sees its own, minus accuracy here."""

    train: Share
    images: Count
    here: Share
    difference: float
    low: float | None = None
    high: float | None = None


class Strength(Struct, frozen=True):
    """Accuracy under one strength of a corruption; 0 is none of it."""

    strength: Count
    accuracy: Share
    low: Share | None = None
    high: Share | None = None


class Corruptions(Struct, frozen=True):
    """Accuracy as images get worse, by the kind of harm; on so many of the images, with strengths as in a benchmark."""

    kinds: dict[str, tuple[Strength, ...]] = {}
    images: int | None = None
    strengths_of: str = ""


class Evaluation(Struct, frozen=True):
    """What evaluation.json says; shares are 0..1. confusion: rows are truth, columns what was predicted.

    folder: where it was read from, which its pictures lie in.
    """

    format: Annotated[int, Meta(ge=1, le=1)]
    model: ModelFacts
    data: DataFacts
    classes: Annotated[tuple[str, ...], Meta(min_length=2, max_length=MOST_CLASSES)]
    metrics: dict[str, Interval]
    per_class: tuple[ClassScore, ...]
    confusion: tuple[tuple[Count, ...], ...]
    confused: tuple[Confused, ...] = ()
    calibration: tuple[Bin, ...] = ()
    curves: Curves = Curves()
    wrong: tuple[Wrong, ...] = ()
    training: tuple[Epoch, ...] = ()
    gap: Gap | None = None
    notes: tuple[str, ...] = ()
    seconds: float | None = None
    images_per_second: float | None = None
    corruptions: Corruptions | None = None
    versions: dict[str, str] = {}
    folder: str = ""

    @property
    def accuracy(self) -> Interval:
        """The accuracy with its interval."""
        return self.metrics["accuracy"]


class Finalist(Struct, frozen=True):
    """One of the best trials, trained again with other seeds; values: the metric of each."""

    trial: str
    values: tuple[float, ...]
    mean: float
    low: float | None = None
    high: float | None = None


class Finals(Struct, frozen=True):
    """What `hypertune finalize` found; better: in a sentence, whether the winner is really better."""

    finalists: tuple[Finalist, ...]
    winner: str | None = None
    better: str = ""
    metric: str = ""


def read(folder: Path) -> Evaluation:
    """The evaluation in a folder.

    Raises:
        Unreadable: there is no evaluation.json, or it is damaged; the text says what and where.
    """
    found = read_file(folder, NAME, Evaluation)
    if found is None:
        raise Unreadable(f"{folder}: no {NAME} in this folder; `hypertune evaluate` writes one")
    if problems := list(_problems(found)):
        raise Unreadable(f"{folder / NAME}: {'; '.join(problems)}")
    return msgspec.structs.replace(found, folder=str(folder))


def read_finals(folder: Path) -> Finals | None:
    """What lies beside an evaluation's folder of `hypertune finalize`; None where it was not run.

    Raises:
        Unreadable: finalize.json is damaged.
    """
    return read_file(folder.absolute().parent, "finalize.json", Finals)


def picture(evaluation: Evaluation, wrong: Wrong) -> bytes | None:
    """The thumbnail's file; None where it is missing, a link, or outside of the folder."""
    parts = wrong.image.split("/")
    if not wrong.image.endswith(".png") or "\\" in wrong.image or any(part in ("", ".", "..") for part in parts):
        return None
    return Folder(Path(evaluation.folder)).data(*parts)


def read_file(folder: Path, name: str, kind: type[T]) -> T | None:
    """A JSON file of a folder as a value of this kind; None where there is none.

    Raises:
        Unreadable: it is damaged, or cannot be read.
    """
    files = Folder(folder)
    data = files.data(name)
    if data is None:
        if problems := files.problems.sentences():
            raise Unreadable(f"{folder}: {'; '.join(problems)}")
        return None
    try:
        value: Any = parse(data)
        return msgspec.convert(value, kind)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"{folder / name}: {error}; it was written by another version, or is damaged") from None


def _problems(found: Evaluation) -> Iterable[str]:
    """What the types alone do not say."""
    n = len(found.classes)
    if "accuracy" not in found.metrics or found.metrics["accuracy"].value is None:
        yield "metrics say no accuracy"
    if len(found.confusion) != n or any(len(row) != n for row in found.confusion):
        yield f"confusion is not {n} rows of {n} numbers, one a class"
    if [score.name for score in found.per_class] != list(found.classes):
        yield "per_class is not one entry a class, in the order of classes"
    if any(len(curve.x) != len(curve.y) for curve in (*found.curves.roc, *found.curves.pr)):
        yield "a curve has not as many x as y"
