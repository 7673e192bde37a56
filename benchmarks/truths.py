"""Searches whose truth is known: which of six settings decide the accuracy, and which do not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.folders.parameters import Parameter
from analysis.results import Results

EPOCHS, RUNGS, FACTOR = 9, (1, 3), 3
SETTINGS = (
    Parameter("lr", "lr", "float", True, log=True, low=1e-4, high=0.1),
    Parameter("depth", "depth", "int", True, low=1, high=3),
    Parameter("optimizer", "optimizer", "choice", False, choices=("adam", "sgd")),
    Parameter("dropout", "dropout", "float", True, low=0, high=0.5),
    Parameter("width", "width", "choice", True, choices=(16, 32, 64)),
    Parameter("batch_size", "batch_size", "choice", True, choices=(32, 64, 128)),
)
Truth = Callable[[dict[str, Any]], float]


def rate(c: dict[str, Any]) -> float:
    """The learning rate on -1..1."""
    return float((np.log10(c["lr"]) + 2.5) / 1.5)


# What decides the accuracy at the end, beside noise of 2 points; and the settings that a report should name.
TRUTHS: dict[str, tuple[Truth, set[str]]] = {
    "nothing": (lambda c: 0.5, set()),
    "lr": (lambda c: 0.5 - 0.15 * rate(c) ** 2, {"lr"}),
    "optimizer": (lambda c: 0.5 + 0.06 * (c["optimizer"] == "adam"), {"optimizer"}),
    "three": (
        lambda c: 0.5 - 0.1 * rate(c) ** 2 + 0.05 * (c["optimizer"] == "adam") + 0.03 * c["depth"],
        {"lr", "optimizer", "depth"},
    ),
    "lr by depth": (lambda c: 0.5 + 0.1 * rate(c) * (c["depth"] - 2), {"lr", "depth"}),
}


def search(truth: Truth, count: int, seed: int, noise: float = 0.02) -> Results:
    """A search of `count` random configurations, two of three stopped at each rung."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    epochs: list[dict[str, Any]] = []
    heard: dict[int, list[float]] = {}
    for number in range(1, count + 1):
        config = {
            "lr": 10 ** rng.uniform(-4, -1), "depth": int(rng.integers(1, 4)),
            "optimizer": ("adam", "sgd")[rng.integers(2)], "dropout": rng.uniform(0, 0.5),
            "width": (16, 32, 64)[rng.integers(3)], "batch_size": (32, 64, 128)[rng.integers(3)],
        }  # fmt: skip
        epoch = np.arange(1, EPOCHS + 1)
        end = truth(config) + rng.normal(0, noise)
        curve = end * (1 - np.exp(-epoch / 3)) + rng.normal(0, 0.005, EPOCHS)
        length = EPOCHS
        for rung in RUNGS:
            seen = heard.setdefault(rung, [])
            seen.append(curve[rung - 1])
            if curve[rung - 1] < sorted(seen, reverse=True)[max(1, len(seen) // FACTOR) - 1]:
                length = rung
                break
        trial = f"{number:04d}"
        rows.append({
            "trial": trial, "number": number, "label": None, "state": "finished" if length == EPOCHS else "stopped",
            "reason": None, "epochs": length, "best_epoch": float(curve[:length].argmax() + 1),
            "full_epochs": float(EPOCHS), "seconds": float(length), "started": number + 0.0, "ended": number + 1.0,
            "repeat_of": None, "breaks": None, "val_accuracy": curve[:length].max(), **config,
        })  # fmt: skip
        epochs += [{"trial": trial, "epoch": int(e), "val_accuracy": v} for e, v in enumerate(curve[:length], 1)]
    return Results(
        Path("run"), "run", "hypertune", pd.DataFrame(rows).set_index("trial"), pd.DataFrame(epochs), SETTINGS,
        "val_accuracy", "max", {"data": {"validation": 1000}}, (),
    )  # fmt: skip
