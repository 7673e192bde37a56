"""Transfer learning without ImageNet: a backbone pretrained here on five classes, used for 1,000 images of five others.

    python benchmarks/transfer.py --data CIFAR10    (a folder with train/<class>/ and test/<class>/)

resnet18 at 32 x 32 is trained on 20,000 images of five classes and saved as safetensors with its normalisation. Then
1,000 images of the other five classes are learned from scratch, with the head alone on features computed once, and
unfrozen stage by stage with rates that fall towards the input: three seeds each, scored on the 5,000 test images of
those classes after the last epoch. Writes results/benchmarks/transfer.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from report import machine, spread, write
from test_accuracy import score_test

from tuner.spec.trial_config import TrialConfig
from tuner.training.dataset import Dataset
from tuner.training.datasets import open_dataset, prepare
from tuner.training.trainer import Trainer

ARCH, SEEDS, PRETRAINING, EPOCHS = "resnet18", 3, 8, 15
COMMON: dict[str, Any] = {"batch_size": 32, "epochs": EPOCHS, "schedule": {"name": "onecycle"}, "label_smoothing": 0.1}
WAYS: dict[str, dict[str, Any]] = {
    "from scratch": {"optimizer": {"name": "adamw", "lr": 0.003}},
    "head alone": {"optimizer": {"name": "adamw", "lr": 0.01}, "trainable": "head"},
    "unfrozen by stages": {
        "optimizer": {"name": "adamw", "lr": 0.003, "lr_decay_per_stage": 0.6, "head_lr": 3.0},
        "unfreeze": {"every": 2},
    },
}


def choose_classes(source: Path, target: Path, classes: list[str]) -> Path:
    """A folder with these classes alone; links to folders would not be followed."""
    for split in ("train", "test"):
        for name in classes:
            shutil.copytree(source / split / name, target / split / name)
    return target


def configure(root: Path, train: dict[str, Any], *, weights: str, subset: int, augment: Any, seed: int) -> TrialConfig:
    """A resnet18 on the images of this folder."""
    data = {"dataset": "image_folder", "root": str(root), "subset": subset, "val_fraction": 0.2, "augment": augment}
    model = {"name": "backbone", "arch": ARCH, "weights": weights}
    return TrialConfig.model_validate({"seed": seed, "data": data, "model": model, "train": {**COMMON, **train}})


def run(config: TrialConfig, cache: Path) -> tuple[Trainer, Dataset, Path]:
    """Train it to the end."""
    prepared = prepare(config.data, 0, cache)
    data = open_dataset(prepared.folder, config.data, 0)
    trainer = Trainer(config, data)
    for _ in range(config.train.epochs):
        trainer.run_epoch()
    return trainer, data, prepared.folder


def main() -> None:
    """Pretrain, transfer, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    source = parser.parse_args().data.resolve()
    names = sorted(path.name for path in (source / "train").iterdir())
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        os.environ["HYPERTUNE_CACHE"] = str(home / "cache")
        known = choose_classes(source, home / "known", names[::2])
        new = choose_classes(source, home / "new", names[1::2])
        start = time.perf_counter()
        flips = {"HorizontalFlip": True, "RandomCrop": {"padding": 2}}
        long = {"epochs": PRETRAINING, "batch_size": 64, "optimizer": {"name": "adamw", "lr": 0.003}}
        teacher, data, folder = run(
            configure(known, long, weights="none", subset=20_000, augment=flips, seed=0), home / "cache"
        )
        first = score_test(teacher.model, teacher.config, data, folder).accuracy
        print(f"pretrained on {', '.join(names[::2])}: {first:.1%}, {time.perf_counter() - start:.0f} s", flush=True)
        path = home / "backbone.safetensors"
        held = {"mean": json.dumps(data.mean), "std": json.dumps(data.std)}
        tensors = {name: tensor.contiguous() for name, tensor in teacher.weights_that_count().items()}
        safetensors.torch.save_file(tensors, path, metadata=held)
        rows: dict[str, Any] = {}
        for way, train in WAYS.items():
            found, seconds = [], []
            for seed in range(SEEDS):
                weights = "none" if way == "from scratch" else str(path)
                augment = "none" if way == "head alone" else flips
                start = time.perf_counter()
                trained, images, place = run(
                    configure(new, train, weights=weights, subset=1_000, augment=augment, seed=seed), home / "cache"
                )
                seconds.append(time.perf_counter() - start)
                found.append(score_test(trained.model, trained.config, images, place).accuracy)
            rows[way] = {"test_accuracy": spread(found), "seconds": spread(seconds)}
            accuracy, took = rows[way]["test_accuracy"], rows[way]["seconds"]
            print(f"{way:20} {accuracy['median']:.1%}  ({accuracy['low']:.1%} to {accuracy['high']:.1%})  "
                  f"{took['median']:.0f} s", flush=True)  # fmt: skip
    write("transfer", {"machine": machine(), "pretrained": first, "rows": rows})


if __name__ == "__main__":
    main()
