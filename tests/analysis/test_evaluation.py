"""Evaluations made by the contract of evaluation.json, without tuner: read, drawn, and shown as a page."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from analysis import Unreadable, style
from analysis.evaluation import page
from analysis.evaluation.figures import FIGURES
from analysis.evaluation.read import read, read_finals

if TYPE_CHECKING:
    from playwright.sync_api import Page

EVIL = (
    "<script>window.hacked=1</script>",
    "x" * 300,
    "🦆 $\\frac{",
    "%{x} 100%",
    "<img src=x onerror=window.hacked=1>",
)
FINALS = {
    "finalists": [
        {"trial": "005", "values": [0.61, 0.63], "mean": 0.62, "low": 0.6, "high": 0.64},
        {"trial": "007", "values": [0.6, 0.62], "mean": 0.61, "low": 0.59, "high": 0.63},
    ],
    "winner": "005",
    "better": "Whether 005 is better than 007 cannot be told.",
    "metric": "val_accuracy",
    "test": {"accuracy": 0.6, "low": 0.58, "high": 0.62, "seeds": [0, 1]},
}


def an_evaluation(classes: Sequence[str], images: int = 400) -> dict[str, Any]:
    """What the contract says, of made-up predictions: neighbouring classes are mistaken for each other."""
    n, rng = len(classes), np.random.default_rng(0)
    truth = np.arange(images) % n
    logits = rng.normal(size=(images, n)) + 2.5 * np.eye(n)[truth] + 1.2 * np.eye(n)[truth ^ 1 if n % 2 == 0 else truth]
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    said, sure = chances.argmax(axis=1), chances.max(axis=1)
    confusion = np.zeros((n, n), dtype=int)
    np.add.at(confusion, (truth, said), 1)
    right = confusion.diagonal()
    recall, precision = right / confusion.sum(1), right / np.maximum(confusion.sum(0), 1)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-9)
    pairs = sorted(((int(confusion[i, j]), i, j) for i in range(n) for j in range(n) if i != j), reverse=True)[:20]
    bins = [(low / 15, (low + 1) / 15, (sure > low / 15) & (sure <= (low + 1) / 15)) for low in range(15)]
    wrong = sorted(np.flatnonzero(said != truth), key=lambda k: -sure[k])[:40]
    x = np.linspace(0, 1, 30)
    ends = {f"{name}_{end}" for name in ("precision", "recall", "f1") for end in ("low", "high")}
    macro = {"macro_precision": precision.mean(), "macro_recall": recall.mean(), "macro_f1": f1.mean()}
    metrics = {"accuracy": float(right.sum() / images), **macro, "ece": 0.081, "roc_auc": 0.9, "loss": 1.1}
    return {
        "format": 1,
        "model": {"name": "small run", "kind": "trial", "run": "small", "trial": "005", "epoch": 4, "seed": 0,
                  "params": 374000, "architecture": "cnn", "metric": "val_accuracy", "value": 0.63},
        "data": {"what": "test", "images": images, "looks": 1, "problems": []},
        "classes": list(classes),
        "metrics": {k: {"value": v, "low": 0.98 * v, "high": min(1.02 * v, 1.0 + (k == "loss"))}
                    for k, v in metrics.items()},
        "per_class": [
            {"class": name, "images": int(confusion[i].sum()), "predicted": int(confusion[:, i].sum()),
             "precision": precision[i], "recall": recall[i], "f1": f1[i], "roc_auc": 0.95 - i / 500,
             "average_precision": 0.9 - i / 500,
             **{end: max(0.0, min(1.0, 0.7 + 0.1 * (1 if "high" in end else -1))) for end in ends}}
            for i, name in enumerate(classes)
        ],
        "confusion": confusion.tolist(),
        "confused": [{"truth": classes[i], "predicted": classes[j], "count": k, "share": k / int(confusion[i].sum())}
                     for k, i, j in pairs if k],
        "calibration": [{"low": low, "high": high, "images": int(of.sum()), "confidence": float(sure[of].mean()),
                         "accuracy": float((said == truth)[of].mean())} for low, high, of in bins if of.any()],
        "curves": {kind: [{"class": name, "x": x.tolist(), "y": ((x if kind == "roc" else 1 - x) ** (0.2 + i / 50)).tolist()}
                          for i, name in enumerate([*classes[:20], "macro"])] for kind in ("roc", "pr")},
        "wrong": [{"image": f"images/{k:05}.png", "name": f"{classes[truth[k]]}/{k}.png", "truth": classes[truth[k]],
                   "predicted": classes[said[k]], "confidence": float(sure[k]),
                   "probability_of_truth": float(chances[k, truth[k]])} for k in map(int, wrong)],
        "training": [{"epoch": e, "train_loss": 2 / e, "val_loss": 2.1 / e, "train_accuracy": 1 - 0.8 / e,
                      "val_accuracy": 1 - 0.85 / e, "lr": 0.01} for e in range(1, 6)],
        "gap": {"train": 0.781, "images": 2000, "here": 0.6, "difference": 0.181, "low": 0.16, "high": 0.2},
        "notes": [],
        "seconds": 2.5,
        "images_per_second": 160.0,
    }  # fmt: skip


MakeEvaluation = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> MakeEvaluation:
    """make(classes, **changes of evaluation.json) writes a run's final/evaluation with thumbnails; returns it."""

    def write(classes: Sequence[str] | int = 4, **changes: Any) -> Path:
        from PIL import Image

        names = [f"class {n}" for n in range(classes)] if isinstance(classes, int) else classes
        told = an_evaluation(names) | changes
        folder = tmp_path / "final" / "evaluation"
        (folder / "images").mkdir(parents=True)
        rng = np.random.default_rng(0)
        for wrong in told["wrong"]:
            Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(folder / wrong["image"])
        (folder / "evaluation.json").write_text(json.dumps(told))
        return folder

    return write
