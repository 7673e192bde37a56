"""Check: hypertune and an ejected file train the same few steps before the file is given away."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.dlpack import from_dlpack

from tuner.delivery.ejecting.settings import Chosen, Folder, precision_of
from tuner.delivery.pictures import Progress
from tuner.errors import BadInput
from tuner.spec.model import Backbone
from tuner.spec.trial_config import TrialConfig
from tuner.training import weights
from tuner.training.dataset import Dataset
from tuner.training.trainer import Trainer

CHECKED_STEPS = 3
"""Of an epoch that hypertune and the file both train before the file is given away; two epochs of them."""

CHECKED_IMAGES = 64
"""That both validate."""

MOST_DIFFERENT = 1e-3
"""Of the training loss, as a share: more is another training, less is how sums are rounded."""


def check(
    text: str,
    config: TrialConfig,
    dataset: Dataset,
    chosen: Chosen,
    folder: Folder | None,
    progress: Progress | None = None,
) -> float:
    """Let hypertune and the file train the same few steps; the greatest difference of their losses, as a share.

    Raises:
        BadInput: they differ, or the file would read other images: then there is nothing honest to give away.
    """
    tell = progress or (lambda what, done, of: None)
    precision = precision_of(chosen, config.train)
    if precision == "fp16":  # which no CPU computes
        text, precision = text.replace("torch.float16", "torch.float32"), "fp32"
    train = config.train.model_copy(update={"precision": precision, "compile": "off"})
    few = dataclasses.replace(
        dataset,
        train=_some(dataset.train, min(train.batch_size, len(dataset.train)) * CHECKED_STEPS),
        validation=_some(dataset.validation, CHECKED_IMAGES),
    )
    epochs = min(2, train.epochs)
    data = tuple(map(from_dlpack, (few.images, few.labels, few.train, few.validation)))
    with tempfile.TemporaryDirectory() as scratch, torch.random.fork_rng(devices=[]):
        tell("training a few steps", 0, 2)
        trainer = Trainer(config.model_copy(update={"train": train}), few, threads=torch.get_num_threads())
        expected = [trainer.run_epoch() for _ in range(epochs)]
        tell("training them with the file", 1, 2)
        try:
            module = load(text, Path(scratch) / "ejected.py")
            module.DEVICE = torch.device("cpu")
            if folder:
                _check_split(module, dataset, folder)
            with _weights_at_hand(config.model, Path(scratch)):
                found = [row for row, _ in module.train(data, epochs)]
        except BadInput:
            raise
        except Exception as error:  # whatever a library says of what hypertune does otherwise
            raise BadInput(f"the file does not run, so it was not written: {type(error).__name__}: {error}") from error
    worst = 0.0
    for mine, theirs in zip(expected, found, strict=True):
        for name in ("train_loss", "val_loss"):
            ours = float(getattr(mine, name))
            if math.isfinite(ours) or math.isfinite(theirs[name]):
                worst = max(worst, float(np.nan_to_num(abs(theirs[name] - ours), nan=math.inf)) / max(1.0, abs(ours)))
    if not worst <= MOST_DIFFERENT:
        what = f"a loss differs by {worst:.1%}" if math.isfinite(worst) else "one of them diverges"
        rule = "so it was not written; please report it with the trial's params.json"
        raise BadInput(f"the file would train otherwise than hypertune does ({what}), {rule}")
    return worst


@contextmanager
def _weights_at_hand(model: Any, scratch: Path) -> Iterator[None]:
    """ImageNet weights that hypertune has already need not be fetched a second time."""
    if not isinstance(model, Backbone) or model.weights != "imagenet":
        yield
        return
    place, before = weights.find_place(model.arch), torch.hub.get_dir()
    (scratch / "checkpoints").mkdir()
    (scratch / "checkpoints" / place.name).symlink_to(place)
    torch.hub.set_dir(str(scratch))
    try:
        yield
    finally:
        torch.hub.set_dir(before)


def _some(index: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """So many of them, from all classes, which lie one behind the other."""
    return index[:: max(1, len(index) // count)][:count]


def _check_split(module: Any, dataset: Dataset, folder: Folder) -> None:
    files, labels, train, validation = module.split(folder.root)
    same = (
        np.array_equal(train, dataset.train)
        and np.array_equal(validation, dataset.validation)
        and np.array_equal(labels, dataset.labels)
        and all(
            np.array_equal(module.decode(files[n]), dataset.images[n])
            for n in (*train[:2].tolist(), *validation[:2].tolist())
        )
    )
    if not same:
        rule = "the file would read other images than hypertune does (links or hidden files among them?)"
        raise BadInput(f"{folder.root}: {rule}, so it was not written")


def load(text: str, path: Path) -> Any:
    """A text as a module, not among those that others import."""
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("ejected", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = bytecode
    return module
