"""Corruptions: images as bad cameras and careless copies make them, and how well a model still judges them."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from tuner.delivery.judging.paired import wilson
from tuner.delivery.model import Classifier
from tuner.delivery.pictures import Chosen, Pictures
from tuner.delivery.predictions import batches
from tuner.training.split import stratify

Kind = Literal["noise", "blur", "brightness", "jpeg"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SEED = 2019
MOST_IMAGES = 2_000
"""That curves are drawn from: 21 passes over them; the interval of an accuracy is then at most 2.2 points each way."""


@dataclass(frozen=True)
class Strengths:
    """Five strengths of each kind, as a published set for images of `size` pixels a side has them.

    noise: deviation, of a range of 0 to 1, of a normal number added to each value. blur: deviation in pixels of a
    normal kernel. brightness: added to the value of hue, saturation and value, in 0 to 1. jpeg: Pillow's quality.
    """

    name: str
    size: int
    noise: tuple[float, ...]
    blur: tuple[float, ...]
    brightness: tuple[float, ...]
    jpeg: tuple[int, ...]

    def of(self, kind: Kind) -> tuple[float, ...]:
        """The strengths 1 to 5 of a kind."""
        return {"noise": self.noise, "blur": self.blur, "brightness": self.brightness, "jpeg": self.jpeg}[kind]


# Hendrycks and Dietterich (2019, arXiv 1903.12261) and the code that made their sets. The strengths depend on the size:
# a blur of 6 pixels is a soft photograph at 224 pixels and one grey patch at 32, where an object is 20 pixels wide; and
# what JPEG keeps of a block of 8 x 8 is a 784th of the one and a 16th of the other.
TABLES = (
    Strengths("CIFAR-10-C", 32, (0.04, 0.06, 0.08, 0.09, 0.10), (0.4, 0.6, 0.7, 0.8, 1.0),
              (0.05, 0.1, 0.15, 0.2, 0.3), (80, 65, 58, 50, 40)),
    Strengths("Tiny ImageNet-C", 64, (0.04, 0.08, 0.12, 0.15, 0.18), (0.5, 0.75, 1.0, 1.25, 1.5),
              (0.1, 0.2, 0.3, 0.4, 0.5), (65, 58, 50, 40, 25)),
    Strengths("ImageNet-C", 224, (0.08, 0.12, 0.18, 0.26, 0.38), (1.0, 2.0, 3.0, 4.0, 6.0),
              (0.1, 0.2, 0.3, 0.4, 0.5), (25, 18, 15, 10, 7)),
)  # fmt: skip


def strengths(size: int) -> Strengths:
    """The set whose images are nearest in size, as a ratio: up to 45 pixels that of 32, from 120 that of 224."""
    return min(TABLES, key=lambda table: abs(np.log(table.size / size)))


def corrupt(
    kind: Kind, strength: int, pixels: NDArray[np.uint8], start: int = 0, table: Strengths | None = None
) -> NDArray[np.uint8]:
    """Images, uint8 (N, S, S, C) with 1 or 3 channels, the same in size and kind but worse.

    strength: 1 to 5; 0 gives the images themselves. start: place of the first one among all: noise is drawn for each
    image by its place, so that every model sees the same pixels, in batches of any size; a stronger noise is the same
    one, larger. table: default: that of the images' size.
    """
    if strength == 0:
        return pixels
    amount = (table or strengths(pixels.shape[1])).of(kind)[strength - 1]
    if kind == "noise":
        return _bytes(pixels / np.float32(255) + amount * _normal(pixels.shape, start))
    if kind == "blur":
        from scipy.ndimage import gaussian_filter

        return _bytes(gaussian_filter(pixels / np.float32(255), (0, amount, amount, 0), mode="nearest"))
    if kind == "brightness":
        return _bytes(_brighten(pixels / np.float32(255), amount))
    return np.stack([_through_jpeg(image, int(amount)) for image in pixels])


def _bytes(values: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    made: NDArray[np.uint8] = np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8)
    return made


def _normal(shape: tuple[int, ...], start: int) -> NDArray[np.float32]:
    drawn = np.empty(shape, dtype=np.float32)
    for place, image in enumerate(drawn, start):
        np.random.Generator(np.random.PCG64([SEED, place])).standard_normal(out=image, dtype=np.float32)
    return drawn


def _brighten(values: NDArray[np.floating[Any]], amount: float) -> NDArray[np.floating[Any]]:
    """Add to the value (the largest channel) and keep hue and saturation: all channels grow by one factor."""
    value = values.max(axis=-1, keepdims=True)
    raised = np.minimum(value + np.float32(amount), 1)
    factor = np.divide(raised, value, out=np.zeros_like(value), where=value > 0)
    brighter: NDArray[np.floating[Any]] = np.where(
        value > 0, values * factor, raised
    )  # black has no hue: it becomes grey
    return brighter


def _through_jpeg(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)).reshape(image.shape)


# ---------------------------------------------------------------- how well a model still judges them


@dataclass(frozen=True)
class Robustness:
    """Whether a model is right, by kind (6, N): strengths 0 to 5 of the same N images; the strengths are of `table`."""

    table: Strengths
    right: Mapping[Kind, NDArray[np.bool_]]

    @property
    def over_all(self) -> NDArray[np.float64]:
        """Of each image the share of the 20 corruptions under which it is judged right (N,)."""
        found: NDArray[np.float64] = np.concatenate([right[1:] for right in self.right.values()]).mean(axis=0)
        return found

    def as_json(self) -> dict[str, Any]:
        """Accuracies with their 95% intervals (Wilson, 1927).

        {"images": N, "strengths_of": "CIFAR-10-C", "mean": accuracy over all 20 corruptions, "amounts": {kind: [5
        numbers]}, "kinds": {kind: [{"strength": 0 to 5, "accuracy", "low", "high"}]}}
        """
        kinds = {}
        for kind, right in self.right.items():
            bounds = [(int(one.sum()), *wilson(int(one.sum()), len(one))) for one in right]
            kinds[kind] = [
                {"strength": strength, "accuracy": count / right.shape[1], "low": low, "high": high}
                for strength, (count, low, high) in enumerate(bounds)
            ]
        return {
            "images": next(iter(self.right.values())).shape[1],
            "strengths_of": self.table.name,
            "mean": float(self.over_all.mean()),
            "amounts": {kind: list(self.table.of(kind)) for kind in self.right},
            "kinds": kinds,
        }


def curves(
    models: Sequence[Classifier], pictures: Sequence[Pictures], *, progress: Callable[[int, int], None] | None = None
) -> tuple[Robustness, ...]:
    """How well each model judges images that get worse; of more than 2,000 images as many, drawn by class.

    pictures: for each model the same images, in its form, and labelled by its classes; models that share `pixels` see
    the very same ones. Models of different sizes have the strengths of the smallest, each at its own size. progress:
    images done, and of how many, a corruption being one more image.
    """
    table = strengths(min(model.about.image_size for model in models))
    index = np.flatnonzero(stratify(pictures[0].labels, MOST_IMAGES, SEED, "subset")).astype(np.int64)
    chosen = [_choose(some, index) for some in pictures]
    forms = {id(p.pixels): some for p, some in zip(pictures, chosen, strict=True)}
    right = [{kind: np.zeros((6, len(index)), dtype=np.bool_) for kind in KINDS} for _ in models]
    start, passes = 0, 1 + 5 * len(KINDS)
    for parts in zip(*map(batches, forms.values()), strict=True):
        batch = dict(zip(forms, parts, strict=True))
        here = slice(start, start + len(parts[0]))
        for kind, strength in [(KINDS[0], 0), *((kind, s) for kind in KINDS for s in range(1, 6))]:
            seen = {form: corrupt(kind, strength, pixels, start, table) for form, pixels in batch.items()}
            for model, own, some, found in zip(models, pictures, chosen, right, strict=True):
                hit = model.logits(seen[id(own.pixels)]).argmax(axis=1) == some.labels[here]
                for filled in KINDS if strength == 0 else (kind,):
                    found[filled][strength, here] = hit
        start += len(parts[0])
        if progress:
            progress(start * passes, len(index) * passes)
    return tuple(Robustness(table, found) for found in right)


def _choose(pictures: Pictures, index: NDArray[np.int64]) -> Pictures:
    names = [pictures.names[n] for n in index.tolist()]
    return replace(pictures, pixels=Chosen(pictures.pixels, index), labels=pictures.labels[index], names=names)
