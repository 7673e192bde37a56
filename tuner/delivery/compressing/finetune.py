"""Fine-tune: some more epochs on the training images, for a network that lost something."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional as F

from tuner.delivery.model import Model
from tuner.errors import Infeasible
from tuner.spec.augment import Augment
from tuner.spec.train import Train
from tuner.training.augment import Augmenter
from tuner.training.dataset import Dataset
from tuner.training.images import Images
from tuner.training.losses import balanced_weights
from tuner.training.optimizers import make_optimizer

SLOWER = 0.1
"""Of the trial's own learning rate, at the start; it falls to nothing in a straight line."""


def finetune(model: Model, dataset: Dataset, epochs: int, told: Callable[[int, int], None] | None = None) -> None:
    """Train a model's network further, in place, in fp32: as its trial did, but more slowly and more plainly.

    As in the trial: optimiser, weight decay, batch size, augmentation, label smoothing, class weights. Not: its
    schedule, moving average, mixing of images, balanced sampling, clipping, and whatever it kept frozen. Draws by the
    trial's seed. told: steps done, and of how many.

    Raises:
        Infeasible: the loss became no number.
    """
    about, device = model.about, model.device
    said = {part: about.settings.get(part) or {} for part in ("train", "data")}
    train = Train.model_validate_json(json.dumps(said["train"]))
    train = train.model_copy(update={"trainable": "all", "unfreeze": None, "freeze_norm": False})
    images = Images(dataset, device, torch.float32, mean=about.mean, std=about.std)
    augment = Augmenter(Augment.model_validate_json(json.dumps(said["data"].get("augment") or {})), images)
    labels = torch.from_numpy(np.array(dataset.labels)).to(device)
    learned = torch.from_numpy(np.array(dataset.train))
    balanced = train.class_weights == "balanced"
    weights = balanced_weights(labels[learned.to(device)], len(about.classes)) if balanced else None
    optimizer = make_optimizer(train, model.network.network)
    batch = min(train.batch_size, len(learned))
    each = len(learned) // batch
    draws = torch.Generator(device).manual_seed(about.origin.seed)
    shuffle = torch.Generator().manual_seed(about.origin.seed)
    with torch.random.fork_rng():  # dropout draws from the global generator
        torch.manual_seed(about.origin.seed)
        model.network.train()
        for epoch in range(epochs):
            order = (
                learned[torch.randperm(len(learned), generator=shuffle)[: each * batch]].view(each, batch).to(device)
            )
            for step, (index, pixels) in enumerate(zip(order, images.batches(order), strict=True), epoch * each):
                for group in optimizer.param_groups:
                    group["lr"] = SLOWER * train.optimizer.lr * group["factor"] * (1 - step / (epochs * each))
                logits = model.network.network(augment(pixels, draws, index=index, epoch=epoch))
                loss = F.cross_entropy(logits, labels[index], weights, label_smoothing=train.label_smoothing)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                if told:
                    told(step + 1, epochs * each)
            if not loss.isfinite():
                raise Infeasible(f"the loss of its fine-tuning became no number in epoch {epoch + 1}")
        model.network.eval()
