"""Reads what comparing two models found: versus.json, checked as a file that others may have changed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from analysis.evaluation.read import MOST_CLASSES, Count, Share, Strength, read_file
from analysis.folders.folder import Folder, Unreadable

NAME = "versus.json"
MOST_SHOWN = 100  # images of one kind; the page carries them all

Signed = Annotated[float, Meta(ge=-1.000001, le=1.000001)]
_IMAGE = re.compile(r"images/([0-9]{5,9}\.png)")


class Side(Struct, frozen=True):
    """One of the two models; low, high: of its accuracy; None: not a number, or not known."""

    name: str
    accuracy: Share
    low: Share
    high: Share
    kind: str = ""
    run: str = ""
    trial: str = ""
    epoch: int = 0
    seed: int = 0
    architecture: str = ""
    params: Count = 0
    bytes: Count = 0
    image_size: Count = 0
    channels: Count = 0
    macro_f1: float | None = None
    loss: float | None = None
    ece: float | None = None


class Overall(Struct, frozen=True):
    """Images that both, one alone, neither is right on; first minus second accuracy, its interval, and the test."""

    both: Count
    first: Count
    second: Count
    neither: Count
    difference: Signed
    low: Signed
    high: Signed
    p: Share


class ClassDifference(Struct, frozen=True):
    """The same of the recall of one class; p_holm is corrected for the number of classes."""

    name: str
    images: Count
    recalls: tuple[Share, Share]
    difference: Signed
    low: Signed
    high: Signed
    p: Share
    p_holm: Share


class Parted(Struct, frozen=True):
    """An image on which the two part; image: its thumbnail in the folder."""

    image: str
    name: str
    truth: str
    predicted: tuple[str, str]
    confidence: tuple[Share, Share]


class Curves(Struct, frozen=True):
    """Of one model: accuracy by kind of corruption, and its mean over all corruptions."""

    mean: Share
    kinds: dict[str, tuple[Strength, ...]]


class Apart(Struct, frozen=True):
    """A difference with its 95% interval."""

    value: Signed
    low: Signed
    high: Signed


class Robustness(Struct, frozen=True):
    """Both models under corruptions; amounts: what the strengths 1 to 5 of each kind are, as strengths_of has them."""

    images: Count
    models: tuple[Curves, Curves]
    difference: Apart
    strengths_of: str = ""
    amounts: dict[str, tuple[float, ...]] = {}


class Versus(Struct, frozen=True):
    """What versus.json says; shares are 0..1. folder: where it was read from, which its pictures lie in."""

    format: Annotated[int, Meta(ge=1, le=1)]
    answer: str
    what: str
    images: Annotated[int, Meta(ge=1)]
    classes: Annotated[tuple[str, ...], Meta(min_length=2, max_length=MOST_CLASSES)]
    models: tuple[Side, Side]
    overall: Overall
    agreement: Share
    wrong_apart: Count
    per_class: tuple[ClassDifference, ...]
    only_first: Annotated[tuple[Parted, ...], Meta(max_length=MOST_SHOWN)] = ()
    only_second: Annotated[tuple[Parted, ...], Meta(max_length=MOST_SHOWN)] = ()
    both_wrong: Annotated[tuple[Parted, ...], Meta(max_length=MOST_SHOWN)] = ()
    robustness: Robustness | None = None
    split: str | None = None
    looks: dict[str, int] | None = None
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    folder: str = ""


def read(folder: Path) -> Versus:
    """The comparison in a folder.

    Raises:
        Unreadable: there is no versus.json, or it is damaged; the text says what and where.
    """
    found = read_file(folder, NAME, Versus)
    if found is None:
        raise Unreadable(f"{folder}: no {NAME} in this folder; `hypertune evaluate A B` writes one")
    if problems := list(_problems(found)):
        raise Unreadable(f"{folder / NAME}: {'; '.join(problems)}")
    return msgspec.structs.replace(found, folder=str(folder))


def picture(versus: Versus, parted: Parted) -> bytes | None:
    """The thumbnail's file; None where it is missing, a link, or has another name than this page's pictures."""
    name = _IMAGE.fullmatch(parted.image)
    return Folder(Path(versus.folder)).data("images", name[1]) if name else None


def _problems(found: Versus) -> Iterable[str]:
    """What the types alone do not say."""
    counts = found.overall
    if counts.both + counts.first + counts.second + counts.neither != found.images:
        yield "the counts of overall are not those of all images"
    if found.robustness and len({tuple(model.kinds) for model in found.robustness.models}) > 1:
        yield "the two models have different kinds of corruption"
