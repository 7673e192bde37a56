"""Wrong: the images that a model is most sure of and wrong about, as a file of thumbnails."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tuner.delivery.judging.curves import Pair
from tuner.delivery.pictures import Pictures
from tuner.delivery.predictions import Predictions

MOST = 40
PAIRS, OF_EACH = 5, 4
"""The most confused pairs, and how many of each are shown whatever their confidence."""
LARGEST = 160
"""Pixels of a thumbnail's side."""
FOLDER = "images"


class Wrong(NamedTuple):
    """An image that was taken for another class. place: among the images; image: its thumbnail, below the folder."""

    place: int
    image: str
    name: str
    truth: str
    predicted: str
    confidence: float
    probability_of_truth: float


def find_wrong(found: Predictions, pairs: Sequence[Pair]) -> list[Wrong]:
    """At most 40, most confidently wrong first; of each of the first five pairs at least its four most confident."""
    confidence = found.probabilities.max(axis=1)
    mistakes = np.flatnonzero(~found.right)
    ranked = mistakes[np.argsort(-confidence[mistakes], kind="stable")]
    kept: dict[int, None] = {}
    for pair in pairs[:PAIRS]:
        its = (found.labels[ranked] == pair.truth) & (found.predicted[ranked] == pair.predicted)
        kept |= dict.fromkeys(ranked[its][:OF_EACH].tolist())
    kept |= dict.fromkeys(ranked[:MOST].tolist())
    chosen = set(list(kept)[:MOST])
    return [
        Wrong(
            place=n,
            image=f"{FOLDER}/{rank:05}.png",
            name=found.names[n],
            truth=found.classes[found.labels[n]],
            predicted=found.classes[found.predicted[n]],
            confidence=float(confidence[n]),
            probability_of_truth=float(found.probabilities[n, found.labels[n]]),
        )
        for rank, n in enumerate((n for n in ranked.tolist() if n in chosen), 1)
    ]


def write_thumbnails(folder: Path, wrong: Sequence[Wrong], pictures: Pictures) -> None:
    """Write them as the model sees them, at most 160 pixels wide, in place of what was there before."""
    from PIL import Image

    shutil.rmtree(folder / FOLDER, ignore_errors=True)
    (folder / FOLDER).mkdir()
    index = np.array([each.place for each in wrong], dtype=np.int64)
    pixels: NDArray[np.uint8] = np.asarray(pictures.pixels[index]) if len(index) else np.empty(0, dtype=np.uint8)
    for each, one in zip(wrong, pixels, strict=True):
        image = Image.fromarray(one[..., 0] if one.shape[-1] == 1 else one)
        image.thumbnail((LARGEST, LARGEST))
        image.save(folder / each.image)
