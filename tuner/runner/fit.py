"""What fits images that come without a space file: chosen by their number, size and balance, machine and time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np

from tuner.packing import machine as here
from tuner.packing import packing
from tuner.runner.plan import RAY_START
from tuner.search.plan import expected_epochs
from tuner.spec.data import Data
from tuner.spec.search import Search
from tuner.spec.trial_config import TrialConfig
from tuner.training.cache import cache_root
from tuner.training.decode import LARGEST_DEFAULT, decode_or_say_why, image_warnings, measure
from tuner.training.health import TINY
from tuner.training.sources import find_source
from tuner.training.stream import MEMORY_SHARE


@dataclass(frozen=True)
class Machine(packing.Machine):
    """What trials run on, and the architectures whose ImageNet weights lie here."""

    pretrained: tuple[str, ...] = ()


@dataclass(frozen=True)
class Seen:
    """What a look at the images showed: training images of each class, the smallest and the largest of their names,
    the median size, whether all are square and alike, the channels, which splits they come with, and how many of them
    shall be used (None: all)."""

    counts: tuple[int, ...]
    rarest: str
    commonest: str
    width: int
    height: int
    alike: bool
    channels: int
    own_validation: bool
    own_test: bool
    subset: int | None = None

    @property
    def images(self) -> int:
        """Training images, those that will be set apart among them."""
        return sum(self.counts)

    @property
    def learned(self) -> int:
        """Of them those that a trial learns from."""
        used = self.subset or self.images * (1.0 if self.own_test else 1 - TEST)
        return max(1, int(used * (1.0 if self.own_validation else 1 - self.val_fraction)))

    @property
    def val_fraction(self) -> float:
        """With many images a tenth of them tells as much."""
        return 0.1 if (self.subset or self.images) >= MANY else 0.2

    @property
    def balance(self) -> float:
        """Images of the largest class for one of the smallest."""
        return max(self.counts) / max(1, min(self.counts))


Measure = Callable[[TrialConfig, int, int, int], float]
"""Seconds that an image takes to be learned from, validation included: of (configuration, size, channels, classes)."""

TEST = 0.2
MANY = 20_000
LOOKED_AT = 200
"""Images decoded to see whether they have colour: a set with colour in one of fifty is then taken for colour at 98%."""
SIZES = (224, 160, 128, 96, 64, 48, 32)
LARGEST_CPU = 96
WANTED = 12
"""Trials that should fit into the time: fewer hardly are a search; size and images give way to it."""
LEAST, MOST = 4, 200
SPENT = 0.85
"""Of the time that goes into training; the rest is for starting, checkpoints and the last trials."""
LARGER = 1.5
"""The average network of the space takes so many times as long as the middle one that is timed."""
EPOCHS = ((1_000, 40), (5_000, 30), (20_000, 20), (100_000, 15))
"""Images below which a trial may train so many epochs: the fewer images, the more often each is needed."""
EPOCHS_OF_MANY = 8
BATCHES = ((2_000, (16, 32)), (20_000, (32, 64)))
BATCHES_OF_MANY = (64, 128)
BATCHES_GPU = (64, 128, 256)
BACKBONES = ("resnet18", "efficientnet_b0", "mobilenet_v3_small")


def this_machine() -> Machine:
    """The machine that this runs on."""
    weights = cache_root(None) / "weights"
    pretrained = tuple(arch for arch in BACKBONES if any(weights.glob(f"{arch}-*.pth")))
    return Machine(**vars(here.this_machine()), pretrained=pretrained)


def look(data: Data, seed: int = 0) -> Seen:
    """Look at images, without decoding more than 200 of them.

    Raises:
        BadInput: with everything that is wrong with them.
    """
    source = find_source(data, seed)
    piles = source.load()
    items, labels = piles.train.items, piles.train.labels
    counts = np.bincount(labels, minlength=len(piles.classes))
    sizes = measure(items) or [(LARGEST_DEFAULT, LARGEST_DEFAULT)]
    middle = np.median(np.array(sizes), axis=0).astype(int).tolist()
    return Seen(
        counts=tuple(counts.tolist()),
        rarest=piles.classes[int(counts.argmin())],
        commonest=piles.classes[int(counts.argmax())],
        width=middle[0],
        height=middle[1],
        alike=len(set(sizes)) == 1 and sizes[0][0] == sizes[0][1],
        channels=source.channels or _channels(items),
        own_validation=piles.validation is not None,
        own_test=piles.test is not None,
    )


def _channels(items: object) -> int:
    if isinstance(items, np.ndarray):
        return 1 if items.ndim == 3 else 3
    assert isinstance(items, list)
    with image_warnings():
        for item in items[:: max(1, len(items) // LOOKED_AT)]:
            pixels = decode_or_say_why(item, 32, "stretch", 3)
            if not isinstance(pixels, str) and (pixels != pixels[..., :1]).any():
                return 3
    return 1


def measure_image_seconds(config: TrialConfig, size: int, channels: int, classes: int) -> float:
    """Seconds an image on this machine, from about a second of training on noise; validation a quarter as long."""
    import torch

    from tuner.training.cost import measure_epoch_seconds
    from tuner.training.dataset import Dataset as Images

    count = 4 * config.train.batch_size
    rng = np.random.default_rng(0)
    noise = Images(
        name="noise",
        images=rng.integers(0, 256, (count + count // 4, size, size, channels), dtype=np.uint8),
        labels=np.arange(count + count // 4, dtype=np.int64) % classes,
        train=np.arange(count),
        validation=np.arange(count, count + count // 4),
        classes=tuple(map(str, range(classes))),
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        fingerprint="noise",
    )
    device = "cuda" if torch.cuda.device_count() else "cpu"
    return measure_epoch_seconds(config, noise, device=device) / count


# ---------------------------------------------------------------- choosing


@dataclass(frozen=True)
class Fit:
    """What was chosen, and what it will take."""

    size: int
    subset: int | None
    epochs: int
    grace: int
    trials: int
    epoch_seconds: float


def choose(seen: Seen, seconds: float, machine: Machine, measure: Measure) -> Fit:
    """The largest images, then the most of them, with which a dozen trials fit into the time."""
    pixel_seconds = cache(partial(_time, seen, machine, measure))
    fit = _fit(seen, seen, seconds, machine, pixel_seconds)
    for _ in range(3):  # fewer images are trained for more epochs, in smaller batches: then fewer of them fit
        used = replace(seen, subset=fit.subset)
        if used == seen or _length(used) == fit.epochs:
            break
        fit = _fit(seen, used, seconds, machine, pixel_seconds)
    return fit


def _time(seen: Seen, machine: Machine, measure: Measure, batch: int) -> float:
    """Seconds that a pixel of an image takes in an average network, with batches of this size."""
    timed = min(_sizes(seen, machine)[-1], 64)
    middle = TrialConfig.model_validate(
        {
            "data": {"dataset": "shapes"},
            "model": {"name": "cnn", "depth": min(3, deepest(timed)), "width": 32},
            "train": {"batch_size": batch},
        }
    )
    return measure(middle, timed, seen.channels, len(seen.counts)) * LARGER / timed**2


def _length(seen: Seen) -> int:
    """Epochs of a full training."""
    return next((epochs for below, epochs in EPOCHS if seen.learned < below), EPOCHS_OF_MANY)


def _fit(seen: Seen, used: Seen, seconds: float, machine: Machine, time: Callable[[int], float]) -> Fit:
    """What fits, with the epochs, batches and validation share of what is `used`."""
    epochs = _length(used)
    grace = max(1, epochs // 9)
    race = Search.model_validate({"scheduler": {"name": "asha", "grace": grace}})
    share = expected_epochs(race, 100, epochs) / (100 * epochs)
    sizes = _sizes(seen, machine)
    pixel_seconds = time(batches(used, machine)[0])
    at_once = machine.gpus or machine.cores
    available = max(1.0, (seconds - RAY_START) * SPENT) * at_once

    def needed(size: int, images: int) -> float:
        """Seconds of one trial on average."""
        return pixel_seconds * size**2 * images * epochs * share

    size = next((s for s in sizes if WANTED * needed(s, seen.learned) <= available), sizes[-1])
    subset, validated = None, 0.0 if seen.own_validation else used.val_fraction
    if (share_that_fits := available / (WANTED * needed(size, seen.learned))) < 1:
        most = seen.images - (0 if seen.own_test else round(seen.images * TEST))
        fitting = int(seen.learned * share_that_fits / (1 - validated))
        subset = max(fitting - fitting % 100, 2 * TINY * len(seen.counts))
        subset = subset if subset < most else None
    learned = seen.learned if subset is None else int(subset * (1 - validated))
    trials = int(available / needed(size, learned))
    return Fit(size, subset, epochs, grace, min(max(trials, LEAST), MOST), pixel_seconds * size**2 * learned)


def _sizes(seen: Seen, machine: Machine) -> list[int]:
    """Sides that may be chosen, the best first."""
    side = min(seen.width, seen.height)
    if seen.alike and side <= 64:
        return [max(side, 4)]
    largest = min(side, LARGEST_DEFAULT if machine.gpus else LARGEST_CPU)
    sizes = [size for size in SIZES if size <= largest] or [max(4, largest)]
    held = MEMORY_SHARE * machine.memory / (seen.images * seen.channels)
    return [size for size in sizes if size**2 <= held] or sizes[-1:]  # what does not fit is decoded anew each epoch


def deepest(size: int) -> int:
    """Blocks of a network after which at least 2 x 2 pixels are left."""
    return max(1, min(5, int(math.log2(size)) - 1))


def batches(seen: Seen, machine: Machine) -> tuple[int, ...]:
    """Batch sizes to try: eight steps an epoch at least."""
    few: tuple[int, ...] = next((b for below, b in BATCHES if seen.learned < below), BATCHES_OF_MANY)
    sizes = BATCHES_GPU if machine.gpus and seen.learned >= BATCHES[0][0] else few
    fitting = tuple(size for size in sizes if 8 * size <= seen.learned)
    return fitting or (2 ** max(1, int(math.log2(seen.learned / 8 + 1))),)
