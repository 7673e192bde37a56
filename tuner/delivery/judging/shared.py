"""Shared: the same images for two models, each in the form that it takes; what is not the same is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tuner.delivery.model import Classifier
from tuner.delivery.pictures import Pictures, Progress, Split, check_unseen, open_pictures, open_split
from tuner.errors import BadInput, Problem

Two = tuple[Classifier, Classifier]


def check_classes(models: Two) -> None:
    """Refuse two models that do not know the same classes; the order of these may differ.

    Raises:
        BadInput: naming those that one of them lacks.
    """
    problems = []
    for model, other in (models, models[::-1]):
        if missing := [name for name in model.about.classes if name not in other.about.classes]:
            listed = ", ".join(missing[:20]) + (" ..." if len(missing) > 20 else "")
            problems.append(Problem(other.about.name, 0, 0, f"does not know {listed}, as {model.about.name} does"))
    if problems:
        raise BadInput(problems, "two models can be compared that know the same classes, in any order")


def open_both(
    models: Two, split: Split, data: Path | None, why: str, progress: Progress | None
) -> tuple[Pictures, Pictures]:
    """The same images for both, each in the form and labelled by the classes of its model; one form is opened once.

    Raises:
        BadInput: neither lies in a run and no images are named, or they are not the same for both.
    """
    first, second = models
    if data is not None:
        opened = open_pictures(data, first.about, progress)
        if form_of(first) == form_of(second):
            return opened, replace(opened, labels=places_of(first, second)[opened.labels])
        other = open_pictures(data, second.about, progress)
        return _paired((opened, other), models, "they cannot be read in the same way at both sizes")
    for model in models:
        check_unseen(model.about, split)
    homes = [model for model in models if model.place.run]
    if not homes:
        raise BadInput("neither model lies in a run, so their images are not known; name some with --data FOLDER")
    home = tuple(model if model.place.run else homes[0] for model in models)
    marks = [model.about.origin.fingerprint for model in models]
    if all(marks) and marks[0] != marks[1] and form_of(first) == form_of(second):
        trained = " and ".join(
            f"{m.about.name} on {m.about.origin.dataset} {mark}" for m, mark in zip(models, marks, strict=True)
        )
        raise BadInput(f"the two were trained on different images: {trained}; name images for both with --data")
    opened = open_split(home[0].place, first.about, split, why, progress)
    opened = replace(opened, labels=places_of(home[0], first)[opened.labels])
    if home[0].place.run == home[1].place.run and form_of(first) == form_of(second):
        return opened, replace(opened, labels=places_of(first, second)[opened.labels])
    counted = home[0].place.run == home[1].place.run  # the same images at another size: one look
    other = open_split(home[1].place, second.about, split, None if counted else why, progress)
    both = opened, replace(other, labels=places_of(home[1], second)[other.labels])
    if split == "test" and all(marks) and marks[0] == marks[1]:
        return both
    return _paired(both, models, f"the {split} images of their runs differ")


def form_of(model: Classifier) -> tuple[int, int, str]:
    """What an image is made into for this model: size, channels, and how it becomes square."""
    return model.about.image_size, model.about.channels, model.about.resize


def places_of(source: Classifier, target: Classifier) -> NDArray[np.int64]:
    """Of each class of one model its place among those of another (classes,)."""
    return np.array([target.about.classes.index(name) for name in source.about.classes], dtype=np.int64)


def _paired(pictures: tuple[Pictures, Pictures], models: Two, reason: str) -> tuple[Pictures, Pictures]:
    first, second = pictures
    labels = places_of(*models)[first.labels]
    if list(first.names) != list(second.names) or not np.array_equal(labels, second.labels):
        raise BadInput(f"the two models do not see the same images: {reason}; name images for both with --data")
    return pictures
