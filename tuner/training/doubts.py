"""What a configuration allows but hardly means: a search goes on with it, and says so."""

from __future__ import annotations

import sys

from tuner.spec.model import UserModel
from tuner.spec.train import MultiStep
from tuner.spec.trial_config import TrialConfig
from tuner.training.transfer import trainable_stages


def doubts(config: TrialConfig) -> list[str]:
    """Settings without the effect that they name, each as a sentence for a person."""
    train, model = config.train, config.model
    after, found = f"all {train.epochs} epochs", []
    loaded = isinstance(model, UserModel) or getattr(model, "weights", "none") != "none"
    if train.trainable == "head" and not loaded:
        found.append(f"the body of {model.name} is random and never learns (train.trainable: head, no model.weights)")
    if train.unfreeze and trainable_stages(train, sys.maxsize, train.epochs - 1) == 0:
        found.append(f"nothing but the head ever learns: train.unfreeze comes after {after}")
    if isinstance(train.schedule, MultiStep) and min(train.schedule.at) >= train.epochs:
        found.append(f"the rate is never reduced: train.schedule.at comes after {after}")
    patience = train.early_stopping.patience if train.early_stopping else None
    if patience and patience >= train.epochs:
        found.append(f"train.early_stopping.patience never runs out: {patience} epochs of {train.epochs}")
    return found
