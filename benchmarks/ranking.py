"""Whether bf16 ranks configurations as fp32 does: as well as one seed of fp32 ranks them as another one does?

    python benchmarks/ranking.py --data CIFAR10    (a folder with train/<class>/*.jpg)

30 configurations drawn from one space are trained in fp32 with two seeds and in bf16 with the first one, on one split.
Agreement is Spearman's rank correlation of the validation accuracy after the last epoch; the guard holds where bf16
agrees with each seed of fp32 at least as well as these two agree. The three best by bf16 are also scored in fp32, as
they lie: what rounding alone does to a score. Intervals by resampling the configurations. Writes
results/benchmarks/ranking.json.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import machine, write
from scipy.stats import spearmanr

from tuner.spec.trial_config import TrialConfig
from tuner.training.datasets import open_dataset, prepare
from tuner.training.metrics import evaluate
from tuner.training.trainer import Trainer

FINALISTS = 3
RUNS = {"fp32 seed 0": ("fp32", 0), "fp32 seed 1": ("fp32", 1), "bf16 seed 0": ("bf16", 0)}


def draw(number: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Configurations of models and rates, as a search on small images would try them."""
    return [
        {
            "model": {
                "depth": int(rng.integers(1, 4)),
                "width": int(rng.choice([8, 16, 32])),
                "dropout": round(float(rng.uniform(0, 0.5)), 3),
                "norm": str(rng.choice(["batch", "none"])),
            },
            "train": {
                "batch_size": int(rng.choice([32, 64])),
                "optimizer": {"name": str(rng.choice(["adam", "sgd"])), "lr": float(10 ** rng.uniform(-4, -1))},
            },
        }
        for _ in range(number)
    ]


def train(fields: dict[str, Any], precision: str, seed: int, arguments: argparse.Namespace) -> tuple[float, float]:
    """Validation accuracy after the last epoch, percent: in the precision that trained, and in fp32."""
    torch.set_num_threads(1)
    data = {"dataset": "image_folder", "root": str(arguments.data), "subset": arguments.images, "augment": "flip_crop"}
    schedule = {"epochs": arguments.epochs, "schedule": {"name": "onecycle"}, "precision": precision}
    config = TrialConfig.model_validate(
        {"seed": seed, "data": data, "model": fields["model"], "train": fields["train"] | schedule}
    )
    dataset = open_dataset(prepare(config.data, seed=0).folder, config.data, seed=0)
    trainer = Trainer(config, dataset)
    last = [trainer.run_epoch() for _ in range(config.train.epochs)][-1].val_accuracy
    trainer.model.eval()
    with torch.inference_mode():
        logits = [trainer.model(trainer.images.batch(part).float()) for part in trainer.validation_index.chunk(8)]
    exact = evaluate(torch.cat(logits), trainer.labels[trainer.validation_index]).accuracy
    return 100 * (0.0 if np.isnan(last) else last), 100 * exact


def agree(a: list[float], b: list[float], rng: np.random.Generator) -> dict[str, float]:
    """Spearman's correlation, with the middle 95% of what other draws of the configurations would give."""
    first, second = np.array(a), np.array(b)
    drawn = [
        float(spearmanr(first[rows], second[rows]).statistic)
        for rows in (rng.integers(len(a), size=len(a)) for _ in range(2000))
    ]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return {"rho": float(spearmanr(first, second).statistic), "low": float(low), "high": float(high)}


def main() -> None:
    """Train all, compare the orders, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--configurations", type=int, default=30)
    parser.add_argument("--images", type=int, default=5000, help="a fifth of them for validation")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    configurations = draw(arguments.configurations, np.random.default_rng(0))
    with ProcessPoolExecutor(arguments.processes, mp_context=get_context("spawn")) as pool:
        waiting = {
            name: [pool.submit(train, fields, precision, seed, arguments) for fields in configurations]
            for name, (precision, seed) in RUNS.items()
        }
        scores = {name: [job.result() for job in jobs] for name, jobs in waiting.items()}
    last = {name: [value for value, _ in values] for name, values in scores.items()}
    rng = np.random.default_rng(1)
    pairs = [("fp32 seed 0", "fp32 seed 1"), ("bf16 seed 0", "fp32 seed 0"), ("bf16 seed 0", "fp32 seed 1")]
    agreement = {f"{a} / {b}": agree(last[a], last[b], rng) for a, b in pairs}
    for name, value in agreement.items():
        print(f"{name:28} {value['rho']:.3f}  (95%: {value['low']:.3f} to {value['high']:.3f})")
    ranked = sorted(range(len(configurations)), key=lambda row: -last["bf16 seed 0"][row])[:FINALISTS]
    finalists = [
        {"configuration": configurations[row], "bf16": last["bf16 seed 0"][row], "fp32": scores["bf16 seed 0"][row][1]}
        for row in ranked
    ]
    for each in finalists:
        print(f"finalist: {each['bf16']:.1f}% as trained, {each['fp32']:.1f}% scored in fp32")
    settings = {name: getattr(arguments, name) for name in ("configurations", "images", "epochs")}
    write(
        "ranking",
        {"machine": machine(), **settings, "agreement": agreement, "finalists": finalists, "accuracy": last},
    )


if __name__ == "__main__":
    main()
