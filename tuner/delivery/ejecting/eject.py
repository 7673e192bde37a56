"""Eject: a trial as one plain PyTorch file that needs nothing of hypertune and gives the same learning curve."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tuner.delivery.about import About
from tuner.delivery.ejecting import augment as eject_augment
from tuner.delivery.ejecting.check import CHECKED_STEPS, check
from tuner.delivery.ejecting.settings import Chosen, Folder
from tuner.delivery.ejecting.text import write
from tuner.delivery.model import read_about
from tuner.delivery.pictures import Progress, read_data
from tuner.delivery.place import MODEL, Place, find_model
from tuner.errors import BadInput, Problem
from tuner.records.reader import read_record
from tuner.records.writer import write_whole
from tuner.spec.data import ROOTS, Data
from tuner.spec.model import Backbone, UserModel
from tuner.spec.section import Section
from tuner.spec.train import Train
from tuner.spec.trial_config import TrialConfig
from tuner.training.dataset import Dataset
from tuner.training.datasets import Prepared, name_images, open_dataset, prepare
from tuner.training.folder import scan
from tuner.training.stream import Streamed


@dataclass(frozen=True)
class Ejected:
    """What was written. data: the .npz beside the file, None where the file reads the images as they are.

    steps: that hypertune and the file both trained; difference: the greatest of their losses, as a share.
    """

    path: Path
    data: Path | None
    trial: str
    lines: int
    steps: int
    difference: float


def eject(path: Path, out: Path | None = None, progress: Progress | None = None) -> Ejected:
    """Write the winner of a run, or a named trial, as one plain PyTorch file; it is tried before it is written.

    out: the file; default: NAME.py in the current directory. Beside it lies NAME.npz where the images come from
    anything but class folders.

    Raises:
        BadInput: there is no such trial, its images are gone, or it uses something that has no plain form; the text
            names the setting.
    """
    chosen = choose(path)
    out = (out or Path(f"{re.sub(r'[^0-9A-Za-z]+', '_', chosen.name).strip('_')}.py")).absolute()
    beside = out.with_suffix(".npz")
    for place in (out, *([beside] if chosen.config.data.dataset != "image_folder" else [])):
        if place.exists():
            raise BadInput(f"{place} exists and may be somebody's work; name another one with --out, or remove it")
    _refuse(chosen.config)
    root = (chosen.record.run.get("data") or {}).get("root")
    data = read_data(chosen.config.data.model_dump(mode="json", exclude={"root"}), root, chosen.place)
    prepared = prepare(data, chosen.split_seed, progress=progress)
    dataset = open_dataset(prepared.folder, data, chosen.split_seed)
    if isinstance(dataset.images, Streamed):
        raise BadInput("data: these images stay files, as all of them decoded do not fit; the file would load them all")
    config = chosen.config.model_copy(update={"data": data})
    folder = _read_folder(config, prepared)
    text = write(chosen, config, dataset, folder, out.stem)
    difference = check(text, config, dataset, chosen, folder, progress)
    arrays = beside if folder is None else None
    try:
        with _aside(arrays) as aside:
            if aside:
                with aside.open("xb") as file:
                    np.savez_compressed(file, **_arrays(config, dataset))
            write_whole(out, text)
    except OSError as error:
        raise BadInput(f"{out} cannot be written: {error.strerror}") from error
    return Ejected(out, arrays, chosen.name, text.count("\n"), min(2, config.train.epochs) * CHECKED_STEPS, difference)


@contextmanager
def _aside(path: Path | None) -> Iterator[Path | None]:
    """A name beside that of the file, which it gets only once all is written: half a file would be taken for work."""
    if path is None:
        yield None
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:  # an error, Ctrl-C
        temporary.unlink(missing_ok=True)


def choose(path: Path) -> Chosen:
    """The trial that a path names, of a run its delivered model or its best trial; its weights are not needed.

    Raises:
        BadInput: there is none.
    """
    path = path.absolute()
    runs = [folder for folder in path.parents if (folder / "run.json").is_file()]
    own = (path / "params.json").is_file() and runs
    place = Place(path, "trial", runs[0], path.name) if own else find_model(path)
    if place.kind in ("onnx", "ensemble") or place.run is None:
        raise BadInput(f"{place.path}: only a trial of a run can be ejected; name the run or the trial")
    record = read_record(place.run)
    changes: dict[str, Any] = {}
    trial = place.trial
    if place.kind == "model":
        about = read_about(place.path / MODEL)
        trial = about.origin.trial
        changes = {"seed": about.origin.seed, **_trained_with(about)}
    elif any(line.event == "mutated" and line.trial == trial for line in record.lines):
        rule = "its population changed it in mid-run, which a plain file does not repeat; finalize it, and eject that"
        raise BadInput(f"trial {trial} of {place.run.name}: {rule}")
    said = record.config(trial) if trial else None
    if not trial or said is None:
        raise BadInput(f"{place.path}: the settings of trial {trial or '?'} are not in {place.run.name}")
    config = TrialConfig.model_validate_json(json.dumps(said))
    if "data" in changes:
        changes["data"] = changes["data"].model_copy(update={"root": config.data.root})
    same = all(getattr(config, name) == value for name, value in changes.items())
    rows = [line.fields for line in record.lines if line.event == "row" and line.trial == trial]
    name = f"{record.run.get('name') or place.run.name} {trial}"
    return Chosen(place, name, config.model_copy(update=changes), record, tuple(rows) if same else ())


def _trained_with(about: About) -> dict[str, Any]:
    """The sections that model.json holds of the delivered training, which may be other than its trial began with."""
    kinds: dict[str, type[Section]] = {"train": Train, "data": Data}
    said = {name: about.settings[name] for name in kinds if name in about.settings}
    if said.get("data", {}).get("dataset") in ROOTS:
        said["data"] = {**said["data"], "root": "elsewhere"}  # it says not where; the run does
    return {name: kinds[name].model_validate_json(json.dumps(section)) for name, section in said.items()}


def _refuse(config: TrialConfig) -> None:
    """What has no plain form, all of it at once.

    Raises:
        BadInput: naming each setting.
    """
    model, train = config.model, config.train
    own = isinstance(model, UserModel)
    by_stage = train.optimizer.lr_decay_per_stage != 1 or train.optimizer.head_lr != 1
    partly = train.trainable != "all" or train.unfreeze is not None or train.freeze_norm or by_stage
    found = {
        "train.optimizer": ("muon has no plain form here", train.optimizer.name == "muon"),
        "model.arch": ("timm's networks need timm", isinstance(model, Backbone) and model.arch.startswith("timm:")),
        "model.weights": (
            "weights of your own are not taken along",
            isinstance(model, Backbone) and model.weights not in ("none", "imagenet"),
        ),
        "model.name": (f"stages of {model.name} are not known outside of hypertune", own and partly),
    }
    problems = [
        Problem(name, 0, 0, f"{why}, so this trial cannot be ejected") for name, (why, so) in found.items() if so
    ]
    problems += [
        Problem(f"data.augment.{name}", 0, 0, "works image by image through another library; it cannot be ejected")
        for name in eject_augment.find_foreign(config.data.augment)
    ]
    if problems:
        raise BadInput(problems)


# ---------------------------------------------------------------- images


def _read_folder(config: TrialConfig, prepared: Prepared) -> Folder | None:
    """What the file must know of class folders; None where the images come from anything else."""
    if config.data.dataset != "image_folder" or config.data.root is None:
        return None
    root = Path(config.data.root).expanduser().resolve()
    found = scan(root)
    divided = bool(found.places) and Path(found.places[0]).parent != root
    listed = [*found.train.files, *(found.validation.files if found.validation else ())]
    kept = set(name_images(prepared.folder, "search") or ()) | set(name_images(prepared.folder, "test") or ())
    left = tuple(str(Path(file).relative_to(root)) for file in listed if file not in kept)
    if left and found.validation:
        raise BadInput(f"{root}: {len(left)} images cannot be read; remove them, then the file need not know of them")
    return Folder(root, divided, found.validation is not None, found.test is not None, left)


def _arrays(config: TrialConfig, dataset: Dataset) -> dict[str, Any]:
    """The images that the trial saw, as the .npz beside the file holds them."""
    used = np.union1d(dataset.train, dataset.validation)
    if eject_augment.alternates(config.data.augment):  # which goes by the places of the images among all
        used = np.arange(len(dataset.images))
    return {
        "images": dataset.images[used],
        "labels": dataset.labels[used],
        "train": np.searchsorted(used, dataset.train),
        "validation": np.searchsorted(used, dataset.validation),
    }
