"""What bf16 costs: final validation accuracy of bf16 against fp32, seed by seed, beside the spread of seeds.

    python benchmarks/precision.py --data CIFAR10 --seeds 10    (a folder with train/<class>/*.jpg)

Both trainings of a pair have the same weights, order and augmentation; they differ in arithmetic only. A difference
counts when its mean is large against what another seed does. Writes results/benchmarks/precision.json.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from report import machine, write

from tuner.spec.trial_config import TrialConfig
from tuner.training.dataset import Dataset
from tuner.training.datasets import open_dataset, prepare
from tuner.training.trainer import Trainer

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "adam, batch norm": {"model": {"width": 16}, "train": {"optimizer": {"name": "adam", "lr": 0.005}}},
    "sgd, no norm": {"model": {"width": 16, "norm": "none"}, "train": {"optimizer": {"name": "sgd", "lr": 0.05}}},
}


def train(config: TrialConfig, dataset: Dataset) -> float:
    """Validation accuracy after the last epoch."""
    trainer = Trainer(config, dataset)
    return [trainer.run_epoch() for _ in range(config.train.epochs)][-1].val_accuracy


def compare(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Accuracies of all seeds in both precisions, in percent, and what the pairs say."""
    fields = CONFIGURATIONS[name]
    data = {"dataset": "image_folder", "root": str(arguments.data), "subset": arguments.images, "augment": "flip_crop"}
    accuracies: dict[str, list[float]] = {"fp32": [], "bf16": []}
    dataset = None
    for seed in range(arguments.seeds):
        for precision, values in accuracies.items():
            schedule = {"epochs": arguments.epochs, "schedule": {"name": "onecycle"}, "precision": precision}
            config = TrialConfig.model_validate(
                {"seed": seed, "data": data, "model": fields["model"], "train": fields["train"] | schedule}
            )
            # One split for all: only weights, order and augmentation change with the seed.
            dataset = dataset or open_dataset(prepare(config.data, seed=0).folder, config.data, seed=0)
            values.append(100 * train(config, dataset))
    differences = [b - f for b, f in zip(accuracies["bf16"], accuracies["fp32"], strict=True)]
    return {
        "configuration": name,
        "accuracy": accuracies,
        "mean": {precision: mean(values) for precision, values in accuracies.items()},
        "seed_sd": {precision: stdev(values) for precision, values in accuracies.items()},
        "difference": {
            "mean": mean(differences),
            "sd": stdev(differences),
            "standard_error": stdev(differences) / math.sqrt(len(differences)),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--images", type=int, default=4000, help="a fifth of them for validation")
    parser.add_argument("--epochs", type=int, default=8)
    arguments = parser.parse_args()
    rows = [compare(name, arguments) for name in CONFIGURATIONS]
    for row in rows:
        difference = row["difference"]
        print(
            f"{row['configuration']:18} fp32 {row['mean']['fp32']:.2f}%  bf16 {row['mean']['bf16']:.2f}%  "
            f"bf16 - fp32 {difference['mean']:+.2f} ± {difference['standard_error']:.2f} (SD {difference['sd']:.2f}); "
            f"SD of fp32 seeds {row['seed_sd']['fp32']:.2f}"
        )
    settings = {name: getattr(arguments, name) for name in ("seeds", "images", "epochs")}
    write("precision", {"machine": machine(), **settings, "rows": rows})


if __name__ == "__main__":
    main()
