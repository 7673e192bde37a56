"""Small images, and configurations in one line."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tuner.spec.trial_config import TrialConfig
from tuner.training.dataset import Dataset

Configure = Callable[..., TrialConfig]
MakeImages = Callable[..., Dataset]


@pytest.fixture
def configure() -> Configure:
    """A configuration: fp32, one narrow block, batches of 16; what is given replaces that."""

    def build(*, seed: int = 0, model: Any = None, train: Any = None, augment: Any = "none") -> TrialConfig:
        return TrialConfig.model_validate(
            {
                "seed": seed,
                "data": {"dataset": "digits", "augment": augment},
                "model": {"name": "cnn", "depth": 1, "width": 4} | (model or {}),
                "train": {"precision": "fp32", "batch_size": 16, "epochs": 4} | (train or {}),
            }
        )

    return build


@pytest.fixture
def make_images() -> MakeImages:
    """A dataset whose classes differ in brightness; read-only, as memory maps are."""

    def build(*, train: int = 48, validation: int = 20, size: int = 8, channels: int = 1, classes: int = 3) -> Dataset:
        rng = np.random.default_rng(0)
        labels = np.arange(train + validation) % classes
        images = rng.integers(0, 100, (len(labels), size, size, channels)) + labels[:, None, None, None] * 50
        pixels = images.astype(np.uint8)
        pixels.flags.writeable = False
        return Dataset(
            name="toy",
            images=pixels,
            labels=labels.astype(np.int64),
            train=np.arange(train),
            validation=np.arange(train, train + validation),
            classes=tuple(f"class {i}" for i in range(classes)),
            mean=(0.4,) * channels,
            std=(0.2,) * channels,
            fingerprint="toy",
        )

    return build
