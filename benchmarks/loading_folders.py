"""Makes big run folders of both kinds for the loading benchmark: real formats, made-up numbers, no training."""

from __future__ import annotations

import csv
import json
import math
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

BEGAN = 1_767_322_800.0  # 2 January 2026
OURS = [
    "seq", "time", "elapsed", "trial_id", "epoch", "train_loss", "train_accuracy", "clean_train_accuracy",
    "val_loss", "val_accuracy", "val_macro_f1", "val_macro_precision", "val_macro_recall", "val_balanced_accuracy",
    "val_ece", "val_roc_auc", "val_top3_accuracy", "val_top5_accuracy", "accuracy_gap", "lr", "epoch_seconds",
    "images_per_second", "peak_memory_mb", "params", "checkpoint_epoch", "flops", "memory_mb", "model_mb",
    "training_iteration", "time_total_s", "decision", "reason",
]  # fmt: skip
DISTRIBUTIONS: dict[str, dict[str, Any]] = {
    "train.lr": {"name": "FloatDistribution", "attributes": {"step": None, "low": 1e-4, "high": 0.1, "log": True}},
    "train.momentum": {"name": "FloatDistribution", "attributes": {"low": 0.5, "high": 1.0, "log": False}},
    "model.width": {"name": "IntDistribution", "attributes": {"step": 1, "low": 8, "high": 128, "log": False}},
    "model.depth": {"name": "IntDistribution", "attributes": {"step": 1, "low": 1, "high": 4, "log": False}},
    "train.optimizer": {"name": "CategoricalDistribution", "attributes": {"choices": ["adam", "sgd", "rmsprop"]}},
}  # fmt: skip


def draw_config(chance: random.Random) -> dict[str, Any]:
    """Settings as a user of Ray nests them, some searched, some not."""
    return {
        "lr": 10 ** chance.uniform(-4, -1),
        "batch_size": chance.choice([32, 64, 128]),
        "optimizer": {"name": chance.choice(["adam", "sgd", "rmsprop"]), "weight_decay": 10 ** chance.uniform(-6, -2)},
        "model": {"width": chance.randint(8, 128), "depth": chance.randint(1, 4), "dropout": chance.uniform(0, 0.5)},
        "augment": chance.random() < 0.5,
        "epochs": 20,
        "data": "cifar10",
        "layers": chance.choice([[32], [32, 64], [64, 64]]),
    }


def ray_rows(
    trial: str, config: dict[str, Any], began: float, epochs: int, chance: random.Random
) -> Iterator[dict[str, Any]]:
    """One row an epoch, with all that Ray adds to each."""
    skill, total = 0.9 * math.exp(-abs(math.log10(config["lr"]) + 2.5)), 0.0
    for epoch in range(1, epochs + 1):
        seconds = chance.uniform(2, 4)
        total += seconds
        accuracy = skill * (1 - 0.8**epoch) + chance.gauss(0, 0.01)
        yield {
            "train_loss": 2.3 - 2 * accuracy, "train_accuracy": accuracy + 0.02, "val_loss": 2.3 - 1.8 * accuracy,
            "val_accuracy": accuracy, "val_f1": accuracy - chance.uniform(0, 0.02), "lr": config["lr"] * 0.9**epoch,
            "timestamp": int(began + total), "checkpoint_dir_name": None, "done": epoch == epochs,
            "training_iteration": epoch, "trial_id": trial,
            "date": datetime.fromtimestamp(began + total, UTC).strftime("%Y-%m-%d_%H-%M-%S"),
            "time_this_iter_s": seconds, "time_total_s": total, "pid": 1000 + int(trial[-5:]) % 8, "hostname": "host",
            "node_ip": "127.0.0.1", "config": config, "time_since_restore": total, "iterations_since_restore": epoch,
        }  # fmt: skip


def make_ray(folder: Path, trials: int, epochs: int) -> None:
    """What Ray Tune leaves, written with its own classes where it has state of its own; nothing is started."""
    from ray.train._internal.storage import StorageContext
    from ray.tune.experiment import Trial
    from ray.tune.utils import flatten_dict

    chance, states = random.Random(0), []
    folder.mkdir(parents=True)
    for number in range(trials):
        trial_id, config = f"ab12c_{number:05}", draw_config(chance)
        name = (
            f"train_{trial_id}_{number + 1}_batch_size={config['batch_size']},lr={config['lr']:.4f}_2026-01-02_03-04-05"
        )
        storage = StorageContext(str(folder.parent), experiment_dir_name=folder.name, trial_dir_name=name)
        trial: Any = Trial("train", stub=True, trial_id=trial_id, config=config, storage=storage)
        trial.create_placement_group_factory()
        trial.relative_logdir = name
        rows = list(ray_rows(trial_id, config, BEGAN + number // 8 * 3 * epochs, epochs, chance))
        place = folder / name
        place.mkdir()
        (place / "params.json").write_text(json.dumps(config, indent=2, sort_keys=True))
        (place / "result.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
        with (place / "progress.csv").open("w", newline="") as file:
            flat = [flatten_dict(row, delimiter="/") for row in rows]
            writer = csv.DictWriter(file, list(flat[0]))
            writer.writeheader()
            writer.writerows(flat)
        trial.run_metadata.start_time = rows[0]["timestamp"] - rows[0]["time_total_s"] + number / 1e6
        for row in rows[-1:]:
            trial.update_last_result(row)
        trial.set_status(Trial.TERMINATED)
        states.append(trial.get_json_state())
    runner = {"_metric": "val_accuracy", "_start_time": BEGAN, "_session_str": "2026-01-02_03-04-05"}
    state = {"trial_data": states, "runner_data": runner, "stats": {"start_time": BEGAN}}
    (folder / "experiment_state-2026-01-02_03-04-05.json").write_text(json.dumps(state))


def make_ours(folder: Path, trials: int, epochs: int) -> None:
    """A run folder by the contract of results/README.md."""
    chance, seq, events = random.Random(0), 0, []
    (folder / "trials").mkdir(parents=True)
    for number in range(trials):
        trial, elapsed = f"{number + 1:03}", 30.0 * number
        values = {
            "train.lr": 10 ** chance.uniform(-4, -1), "train.momentum": chance.uniform(0.5, 1),
            "model.width": chance.randint(8, 128), "model.depth": chance.randint(1, 4),
            "train.optimizer": chance.choice(["adam", "sgd", "rmsprop"]),
        }  # fmt: skip
        stamp = {"time": "2026-01-02T03:04:06.123+01:00", "elapsed": elapsed}
        events.append(
            {"seq": seq + 1, **stamp, "event": "asked", "trial": trial, "number": number, "parameters": values}
        )
        events.append(
            {"seq": seq + 2, **stamp, "event": "started", "trial": trial, "host": "host", "pid": 1 + number % 8}
        )
        seq += 2
        place = folder / "trials" / trial
        place.mkdir()
        (place / "params.json").write_text(json.dumps({"train": {"epochs": epochs, **values}}, indent=1))
        lines = []
        for epoch in range(1, epochs + 1):
            seq += 1
            row: dict[str, Any] = {name: chance.random() for name in OURS}
            row |= {"seq": seq, **stamp, "elapsed": elapsed + epoch, "trial_id": trial, "epoch": epoch,
                    "params": 681322, "checkpoint_epoch": epoch, "flops": 171191616, "training_iteration": epoch,
                    "time_total_s": epoch * 1.5,
                    "decision": "stop" if epoch == epochs else "continue", "reason": "all epochs done"}  # fmt: skip
            lines.append(json.dumps(row) + "\n")
        (place / "result.json").write_text("".join(lines))
        seq += 1
        end = {"event": "ended", "trial": trial, "state": "finished", "epoch": epochs, "reason": "all epochs done"}
        events.append({"seq": seq, **stamp, "elapsed": elapsed + epochs, **end})
    space = [
        {
            "name": name,
            "path": name,
            "distribution": distribution,
            "active_when": [],
            "ordered": name != "train.optimizer",
        }
        for name, distribution in DISTRIBUTIONS.items()
    ]
    run = {"format": 1, "name": folder.name, "status": "finished", "seconds": 9.0,
           "created": "2026-01-02T03:04:05+01:00",
           "objectives": [{"metric": "val_accuracy", "mode": "max"}], "epochs": epochs, "trials": trials}  # fmt: skip
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "space.json").write_text(json.dumps(space))
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
