"""Predictions: what a model says of images, and what is true."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tuner.delivery.model import Classifier
from tuner.delivery.pictures import Pictures
from tuner.errors import BadInput
from tuner.training.stream import Streamed

BATCH = 256


@dataclass(frozen=True)
class Predictions:
    """logits: float32 (N, classes); labels: int64 (N,); names: of the images."""

    logits: NDArray[np.float32]
    labels: NDArray[np.int64]
    names: Sequence[str]
    classes: tuple[str, ...]

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """(N, classes), each row adding up to 1."""
        shifted = self.logits.astype(np.float64) - self.logits.max(axis=1, keepdims=True)
        made: NDArray[np.float64] = np.exp(shifted)
        made /= made.sum(axis=1, keepdims=True)
        return made

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """The most probable class of each image (N,)."""
        found: NDArray[np.int64] = self.logits.argmax(axis=1).astype(np.int64)
        return found

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each is right (N,)."""
        found: NDArray[np.bool_] = self.predicted == self.labels
        return found


def judge(
    model: Classifier, pictures: Pictures, *, batch: int = BATCH, progress: Callable[[int, int], None] | None = None
) -> Predictions:
    """Let a model judge images, batch by batch; progress: images done, and of how many.

    Raises:
        BadInput: the images are of another size, or have other channels, than the model takes.
    """
    about = model.about
    wanted = (about.image_size, about.image_size, about.channels)
    if tuple(pictures.pixels.shape[1:]) != wanted:
        raise BadInput(f"{pictures.what}: images of {pictures.pixels.shape[1:]}, but {about.name} takes {wanted}")
    found = []
    done = 0
    for pixels in batches(pictures, batch):
        found.append(model.logits(pixels))
        done += len(pixels)
        if progress:
            progress(done, len(pictures))
    return Predictions(np.concatenate(found), pictures.labels, pictures.names, about.classes)


def batches(pictures: Pictures, batch: int = BATCH) -> Iterator[NDArray[np.uint8]]:
    """The images in their order, uint8 (n, S, S, C); files are decoded ahead."""
    pixels = pictures.pixels
    parts = [np.arange(start, min(start + batch, len(pixels))) for start in range(0, len(pixels), batch)]
    if isinstance(pixels, Streamed):
        import torch

        yield from (part.numpy() for part in pixels.batches([torch.from_numpy(part) for part in parts]))
        return
    yield from (np.asarray(pixels[part[0] : part[-1] + 1]) for part in parts)
