"""Which parts of a network learn at which epoch, and features computed once where its body never learns."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.dlpack import from_dlpack

from tuner.spec.model import Backbone
from tuner.spec.train import Train
from tuner.spec.trial_config import TrialConfig
from tuner.training import weights
from tuner.training.cache import build_once, cache_root
from tuner.training.dataset import Dataset
from tuner.training.memory import images_at_once
from tuner.training.precision import DTYPES, Precision
from tuner.training.stream import Streamed

BatchNorm = nn.modules.batchnorm._BatchNorm
VALUES = "features.npy"


def trainable_stages(train: Train, stages: int, epoch: int | None) -> int:
    """How many of the last `stages` learn beside the head at an epoch, counted from 0; None: at most, ever.

    Progressive unfreezing: Howard and Ruder, 2018 (arXiv 1801.06146).
    """
    unfreeze = train.unfreeze
    if unfreeze is None:
        few = {"all": stages, "head": 0}
        return few[train.trainable] if isinstance(train.trainable, str) else min(train.trainable, stages)
    most = stages if unfreeze.stages is None else min(unfreeze.stages - 1, stages)
    if unfreeze.at is not None:
        return min(most, sum(epoch is None or epoch >= after for after in unfreeze.at))
    assert unfreeze.every is not None
    return most if epoch is None else min(most, epoch // unfreeze.every)


def list_learnable(network: nn.Module, train: Train) -> list[list[nn.Parameter]]:
    """Parameters that ever learn: of each stage from the input on, then of the head. What came frozen never does."""
    stages = stages_of(network)
    first = len(stages) - trainable_stages(train, len(stages), None)
    found = []
    for number, stage in enumerate(stages):
        still = {id(p) for norm in _still_norms(stage, train) for p in norm.parameters()}
        found.append([p for p in stage.parameters() if number >= first and p.requires_grad and id(p) not in still])
    return [*found, [p for p in network.get_submodule("head").parameters() if p.requires_grad]]


def apply(network: nn.Module, train: Train, epoch: int, learning: Iterable[nn.Parameter]) -> None:
    """Freezes what does not learn at this epoch, counted from 0; to be called after `network.train()`.

    A frozen stage computes as in use: its norms keep their statistics, nothing is dropped. With `freeze_norm` so do
    the batch norms of stages that learn. learning: parameters that ever learn; what else came frozen stays so.
    """
    known = set(learning)
    stages = stages_of(network)
    frozen = len(stages) - trainable_stages(train, len(stages), epoch)
    for number, stage in enumerate(stages):
        if train.unfreeze or train.trainable != "all":
            for parameter in known.intersection(stage.parameters()):
                parameter.requires_grad_(number >= frozen)
        if number < frozen:
            stage.eval()
        for norm in _still_norms(stage, train):
            norm.eval().requires_grad_(False)


def stages_of(network: nn.Module) -> tuple[nn.Module, ...]:
    """Parts of the body, from the input on, which every network here has (networks.py)."""
    return network.stages  # type: ignore[return-value]


def _still_norms(stage: nn.Module, train: Train) -> list[BatchNorm]:
    return [layer for layer in stage.modules() if isinstance(layer, BatchNorm)] if train.freeze_norm else []


# ---------------------------------------------------------------- features computed once


def can_cache(config: TrialConfig) -> bool:
    """Whether each image gives the same features throughout: nothing in the body learns and no image is changed."""
    train, model = config.train, config.model
    mixed = train.mix_p > 0 and (train.mixup > 0 or train.cutmix > 0)
    changed = mixed or bool(config.data.augment.named)
    pretrained = isinstance(model, Backbone) and model.weights != "none"  # else the body goes by the trial's seed
    return pretrained and train.trainable == "head" and train.unfreeze is None and not changed


class FeatureCache:
    """What the head gets of a dataset's images, in the place of the images; computed once a machine for all trials.

    values: float32 (N, F) on the device. Rows of images that are in neither split are zero.
    """

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def batch(self, index: Tensor) -> Tensor:
        """Features (n, F) of the images (n,)."""
        return self.values[index]


def features_once(
    network: nn.Module,
    config: TrialConfig,
    dataset: Dataset,
    batch: Callable[[Tensor], Tensor],
    *,
    precision: Precision,
    device: torch.device,
    root: Path | None = None,
) -> FeatureCache:
    """Features of all images that train or validate, from the cache `root`, or computed now into it.

    network: on the device, with its weights. batch: index (n,) to normalised images (n, C, S, S).
    """
    rows = np.union1d(dataset.train, dataset.validation)
    normalised = weights.preprocessing(config, dataset.channels) or (dataset.mean, dataset.std)
    body = config.model.model_dump(exclude={"hidden", "dropout", "weights"})
    files = dataset.images.key if isinstance(dataset.images, Streamed) else None  # a fingerprint read not all of them
    facts = [body, dataset.fingerprint, files, dataset.image_size, normalised, precision, device.type]
    key = hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16)
    key.update(rows.astype("<i8").tobytes())
    for value in network.get_submodule("body").state_dict().values():
        key.update(value.cpu().contiguous().numpy().tobytes())

    def compute(folder: Path) -> dict[str, Any]:
        network.eval()
        made = None
        with torch.inference_mode(), torch.autocast(device.type, DTYPES[precision], enabled=precision != "fp32"):
            few = images_at_once(dataset.image_size)
            for start in range(0, len(rows), few):
                part = rows[start : start + few]
                given = batch(torch.from_numpy(part).to(device))
                features: NDArray[np.float32] = network.features(given).float().cpu().numpy()  # type: ignore[operator]
                if made is None:
                    shape = (len(dataset.images), features.shape[1])
                    made = open_memmap(folder / VALUES, mode="w+", dtype=np.float32, shape=shape)
                made[part] = features
        return {"arch": body["arch"], "images": len(rows)}

    folder = cache_root(root) / "features" / key.hexdigest()
    build_once(folder, compute)
    return FeatureCache(from_dlpack(np.load(folder / VALUES, mmap_mode="r")).to(device))
