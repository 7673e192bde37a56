"""Model card: what a model is, what it learned from, what it is worth and what nobody has measured, in Markdown.

Structure after Mitchell et al., Model Cards for Model Reporting, 2019.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tuner.delivery.about import About, File
from tuner.delivery.looks import count_looks
from tuner.delivery.model import WEIGHTS, Model
from tuner.delivery.place import Place
from tuner.records.reader import Record, read_record
from tuner.records.status import read_status
from tuner.records.writer import write_whole
from tuner.spec.edit import to_yaml
from tuner.spec.model import UserModel
from tuner.spec.text import metric_word, show_count, show_metric, show_time, show_value

CARD = "README.md"
MARK = "<!-- hypertune model card: `hypertune export` replaces it -->"
"""First line of a card, by which a README of ours is known from somebody's own."""
CLASSES = 50
"""Classes that are listed; model.json has them all."""
WEAKEST = 5
"""Classes that the table of the least found ones has."""
SHOWN = {
    "accuracy": "accuracy",
    "top3_accuracy": "right class among the first three",
    "top5_accuracy": "right class among the first five",
    "balanced_accuracy": "balanced accuracy",
    "macro_precision": "precision, mean of classes",
    "macro_recall": "recall, mean of classes",
    "macro_f1": "F1, mean of classes",
    "roc_auc": "ROC AUC, one class against the rest, mean of classes",
    "average_precision": "average precision, mean of classes",
    "ece": "expected calibration error (0 is best)",
    "brier": "Brier score (0 is best)",
    "loss": "cross-entropy",
}
"""Metrics of evaluation.json in words, in the order of the table."""
SHARES = ("accuracy", "precision", "recall", "f1")
_SPECIAL = re.compile(r"[\\`*_{}\[\]#|~$!]")
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")  # controls, turned directions


class Ready(str):
    """Markdown as it is, not to be escaped."""


def is_card(path: Path) -> bool:
    """Whether a file is a card that was written here."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.readline().rstrip("\n") == MARK
    except OSError:
        return False


def write_card(
    folder: Path, model: Model, files: Mapping[str, File], compared: Mapping[str, float], images: str
) -> Path:
    """Write README.md for the files of an export.

    compared: form -> largest difference of a probability from the network's own; images: on what, in words.
    """
    write_whole(folder / CARD, render(model, files, compared, images))
    return folder / CARD


def render(model: Model, files: Mapping[str, File], compared: Mapping[str, float], images: str) -> str:
    """The card as Markdown; whatever others named, such as classes, stands in it as plain text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    about, place = model.about, model.place
    environment = Environment(
        loader=PackageLoader("tuner.delivery.exporting", "."),
        autoescape=False,  # HTML's; what is put in is escaped for Markdown
        finalize=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["ready"] = lambda text: Ready(text.rstrip())
    size, own_code = about.image_size, isinstance(about.model, UserModel)
    text = environment.get_template("card.md.jinja").render(
        mark=Ready(MARK),
        about=about,
        origin=about.origin,
        architecture=about.model.name,
        trust_option=Ready(" --trust-code" if own_code else ""),
        trust_argument=Ready(", trust_code=True" if own_code else ""),
        params=show_count(about.params),
        colour="colour" if about.channels == 3 else "grey",
        classes=about.classes[:CLASSES],
        more_classes=max(0, len(about.classes) - CLASSES),
        configuration=_fence(to_yaml(_said({"model": about.model.model_dump(mode="json"), **about.settings})), "yaml"),
        search=_read_search(place, about),
        validation=_validation(about),
        finalized=_read_finalized(place, about),
        evaluated=_read_evaluated(place, about),
        looks=count_looks(place.run) if place.run else None,
        files=[(name, f"{file.bytes:,}", Ready(f"`{file.sha256}`")) for name, file in files.items()],
        names=set(files),
        compared=", ".join(f"{form} {value:.1e}" if value else f"{form} 0" for form, value in compared.items()),
        versions=", ".join(f"{name} {version}" for name, version in about.origin.versions.items()),
        images=images,
        size=size,
        mode=Ready("RGB" if about.channels == 3 else "L"),
        numbers=lambda values: Ready(", ".join(f"{value:.4f}" for value in values)),
    )
    return re.sub(r"\n{3,}", "\n\n", text)


# ---------------------------------------------------------------- what the run knows


def _read_search(place: Place, about: About) -> dict[str, Any] | None:
    """The budget of the search, and what it chose; None outside a run."""
    if place.run is None:
        return None
    record, status = read_record(place.run), read_status(place.run)
    run, trial = record.run, about.origin.trial
    hardware = run.get("hardware") or {}
    machine = [str(hardware.get("cpu") or ""), f"{hardware['cores']} cores" if hardware.get("cores") else ""]
    noise = status.noise if status.noise and status.noise.trial == trial and status.noise.deviation else None
    metric = about.origin.metric
    return {
        "trials": sum(status.states.values()),
        "repeats": status.repeats,
        "epochs": status.epochs,
        "time": show_time(status.seconds),
        "machine": ", ".join([part for part in machine if part] + [str(gpu) for gpu in hardware.get("gpus") or ()]),
        "how": _how(run),
        "data": {name: f"{count:,}" for name, count in (run.get("data") or {}).items() if isinstance(count, int)},
        "chosen": [(name, show_value(value)) for name, value in _asked(record, trial).items()],
        "seeds": noise
        and f"{len(noise.values)} seeds: {show_metric(metric, noise.mean)} on average, from "
        f"{show_metric(metric, min(noise.values))} to {show_metric(metric, max(noise.values))}",
    }


def _how(run: Mapping[str, Any]) -> str:
    sampler, scheduler = (str((run.get(part) or {}).get("name") or "") for part in ("sampler", "scheduler"))
    stopped = "none stopped early" if scheduler == "none" else f"stopped early by {scheduler}" if scheduler else ""
    return ", ".join(filter(None, [f"sampled by {sampler}" if sampler else "", stopped]))


def _asked(record: Record, trial: str) -> Mapping[str, Any]:
    found = (line.fields["parameters"] for line in record.lines if line.event == "asked" and line.trial == trial)
    return dict(next(found, {}))


def _validation(about: About) -> str:
    origin = about.origin
    if origin.value is None:
        return ""
    return f"{metric_word(origin.metric.removeprefix('val_'), long=True)} {show_metric(origin.metric, origin.value)}"


def _read_finalized(place: Place, about: About) -> dict[str, Any] | None:
    """What finalize.json says of this very model; None where it speaks of another one."""
    told = _read_json(place.run / "final" / "finalize.json") if place.run else None
    weights = about.files.get(WEIGHTS)
    if told is None or weights is None or told.get("model_sha256") != weights.sha256:
        return None
    try:
        metric, test = str(told["metric"]), told["test"]
        return {
            "metric": metric_word(metric.replace("val_", "validation "), long=True),
            "seeds": len(told["seeds"]),
            "finalists": [
                (one["trial"], show_metric(metric, one["mean"]), _span(metric, one["low"], one["high"]))
                for one in told["finalists"]
            ],
            "better": str(told["better"]),
            "test": show_metric("accuracy", test["accuracy"]),
            "span": _span("accuracy", test["low"], test["high"]),
            "test_seeds": ", ".join(show_metric("accuracy", value) for value in test["seeds"]),
        }
    except (KeyError, TypeError, ValueError):
        return None


def _read_evaluated(place: Place, about: About) -> dict[str, Any] | None:
    """What evaluation.json says of this very model; None where it speaks of another one."""
    for what in ("evaluation", "evaluation-validation"):
        told = _read_json(place.folder(what) / "evaluation.json")
        if told and (found := _numbers_of(told, about)):
            return found
    return None


def _numbers_of(told: Mapping[str, Any], about: About) -> dict[str, Any] | None:
    try:
        if not _is_of(told["model"], about):
            return None
        per_class = [entry for entry in told["per_class"] if entry["images"] and entry["recall"] is not None]
        return {
            "what": "test images" if told["data"]["what"] == "test" else "images",
            "chosen_by": told["data"]["what"] == "validation",
            "images": f"{told['data']['images']:,}",
            "metrics": [
                (word, _number(name, entry["value"]), _span(name, entry["low"], entry["high"]))
                for name, word in SHOWN.items()
                if (entry := told["metrics"].get(name)) and entry["value"] is not None
            ],
            "weakest": [
                (
                    entry["class"],
                    entry["images"],
                    _number("recall", entry["recall"]),
                    _span("recall", entry["recall_low"], entry["recall_high"]),
                    _number("precision", entry["precision"]),
                )
                for entry in sorted(per_class, key=lambda entry: float(entry["recall"]))[:WEAKEST]
            ],
            "notes": [str(note) for note in told.get("notes") or ()],
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _is_of(said: Mapping[str, Any], about: About) -> bool:
    origin = about.origin
    own = {"trial": origin.trial, "epoch": origin.epoch, "seed": origin.seed, "params": about.params}
    return all(said.get(name) == value for name, value in own.items())


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        told = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) else None


# ---------------------------------------------------------------- words


def escape(value: object) -> str:
    """Text that Markdown shows as it is: no line breaks, no HTML, no table cell ended early."""
    if isinstance(value, Ready):
        return value
    text = _UNSEEN.sub("�", " ".join(str(value).split()))
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\g<0>", text)


def _number(metric: str, value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.1%}" if metric.endswith(SHARES) and metric != "average_precision" else f"{value:.3f}"


def _span(metric: str, low: Any, high: Any) -> str:
    return "" if low is None or high is None else f"{_number(metric, low)} to {_number(metric, high)}"


def _said(sections: Mapping[str, Any]) -> dict[str, Any]:
    """Sections without what is null, and of the data without what only drawn images have."""
    data = sections.get("data") or {}
    unused = () if data.get("dataset") == "shapes" else ("images", "classes", "noise")
    kept = {**sections, "data": {name: value for name, value in data.items() if name not in unused}}
    return {name: _without_null(section) for name, section in kept.items()}


def _without_null(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_null(entry) for name, entry in value.items() if entry is not None}
    return value


def _fence(text: str, language: str) -> Ready:
    """A block of code; its fence is longer than any row of backticks in it."""
    fence = "`" * (1 + max(2, *map(len, _ticks(text))))
    return Ready(f"{fence}{language}\n{text.rstrip()}\n{fence}")


def _ticks(text: str) -> Iterable[str]:
    return ["", *re.findall(r"`+", text)]
