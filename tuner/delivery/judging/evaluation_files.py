"""Evaluation files: an evaluation as plain files, which the page is drawn from and other programs read."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from tuner.delivery.judging import curves
from tuner.delivery.judging.evaluate import Evaluation
from tuner.delivery.judging.wrong import write_thumbnails
from tuner.delivery.plain import harmless
from tuner.delivery.predictions import Predictions
from tuner.errors import BadInput
from tuner.records.writer import write_whole

NAME, TABLE, NUMBERS = "evaluation.json", "predictions.csv", "probabilities.npz"


def write(evaluation: Evaluation, folder: Path) -> dict[str, Any]:
    """Write evaluation.json, predictions.csv, probabilities.npz and the thumbnails; returns what the first one says.

    Raises:
        HypertuneError: they cannot be written.
    """
    found = evaluation.found
    with io.BytesIO() as file:
        names = np.array(found.classes, dtype=np.str_)  # text, not objects: no pickle
        np.savez_compressed(file, probabilities=found.probabilities.astype(np.float32), labels=found.labels,
                            classes=names)  # fmt: skip
        write_whole(folder / NUMBERS, file.getvalue())
    write_whole(folder / TABLE, to_csv(found))
    try:
        write_thumbnails(folder, evaluation.wrong, evaluation.pictures)
    except OSError as error:
        raise BadInput(f"{folder} cannot be written: {error.strerror}; choose another folder with --out") from None
    told = as_json(evaluation)
    lines = [f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in told.items()]
    write_whole(folder / NAME, "{\n" + ",\n".join(lines) + "\n}\n")
    return told


def to_csv(found: Predictions) -> str:
    """A line for each image; text that a spreadsheet would run as a formula has an apostrophe before it."""
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    table.writerow(("image", "truth", "predicted", "confidence", "right", "probability_of_truth"))
    sure = found.probabilities.max(axis=1)
    truth = np.take_along_axis(found.probabilities, found.labels[:, None], axis=1)[:, 0]
    classes = [harmless(name) for name in found.classes]
    for n, (label, predicted) in enumerate(zip(found.labels.tolist(), found.predicted.tolist(), strict=True)):
        right = str(label == predicted).lower()
        name = harmless(found.names[n])
        table.writerow((name, classes[label], classes[predicted], f"{sure[n]:.6f}", right, f"{truth[n]:.6f}"))
    return file.getvalue()


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """What evaluation.json holds: shares in 0..1, null for what is not known."""
    about, pictures, found = evaluation.model.about, evaluation.pictures, evaluation.found
    origin, classes = about.origin, found.classes
    told = {
        "format": 1,
        "model": {
            "name": about.name, "kind": evaluation.model.kind, "run": origin.run or None,
            "trial": evaluation.trial or None, "epoch": origin.epoch, "seed": origin.seed, "params": about.params,
            "architecture": about.model.name, "metric": origin.metric or None, "value": origin.value,
        },
        "data": {
            "what": pictures.what, "images": len(pictures), "looks": pictures.looks, "problems": pictures.problems,
        },
        "classes": classes,
        "metrics": {name: each._asdict() for name, each in evaluation.scores.metrics.items()},
        "per_class": [_class_json(asdict(each)) for each in evaluation.scores.per_class],
        "confusion": evaluation.confusion.tolist(),
        "confused": [{"truth": classes[pair.truth], "predicted": classes[pair.predicted], "count": pair.times,
                      "share": pair.share} for pair in evaluation.confused],
        "calibration": [each._asdict() for each in curves.calibration(found)],
        "curves": {"roc": _curves_json(curves.roc(found)), "pr": _curves_json(curves.precision_recall(found))},
        "wrong": [{key: value for key, value in each._asdict().items() if key != "place"} for each in evaluation.wrong],
        "training": evaluation.training,
        "gap": evaluation.gap and evaluation.gap._asdict(),
        "notes": evaluation.notes,
        "seconds": round(evaluation.seconds, 3),
        "images_per_second": round(evaluation.rate, 1),
        "versions": origin.versions,
    }  # fmt: skip
    if evaluation.robustness:
        told["corruptions"] = evaluation.robustness.as_json()
    plain: dict[str, Any] = _plain(told)
    return plain


def _class_json(fields: dict[str, Any]) -> dict[str, Any]:
    row = {"class": fields.pop("name")} | fields
    for name in ("precision", "recall", "f1"):
        row[name], row[f"{name}_low"], row[f"{name}_high"] = fields[name] or (None, None, None)
    return row


def _curves_json(found: Sequence[curves.Curve]) -> list[dict[str, Any]]:
    return [{"class": each.name, "x": each.x.round(5).tolist(), "y": each.y.round(5).tolist()} for each in found]


def _plain(value: Any) -> Any:
    """The same as JSON has it, which knows no NaN."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
