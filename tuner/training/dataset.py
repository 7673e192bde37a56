"""Dataset: the images a trial trains and validates on, as plain arrays shared by all trials of a machine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuner.training.stream import Pixels


@dataclass(frozen=True)
class Dataset:
    """Images with a split. `images` is a read-only memory map: every process sees the same pages; or, where they are
    too many for that, files with the same shape (`Streamed`). `stream.batches` gives batches of both.

    images: uint8, shape (N, size, size, channels). labels: int64, shape (N,). train, validation: int64 indices into
    both. mean, std: of the training split per channel, on a scale of 0 to 1. The test images are not here.
    """

    name: str
    images: Pixels
    labels: NDArray[np.int64]
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str

    @property
    def image_size(self) -> int:
        """Side in pixels."""
        return int(self.images.shape[1])

    @property
    def channels(self) -> int:
        """1 grey, 3 colour."""
        return int(self.images.shape[3])
