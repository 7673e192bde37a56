"""Settings: what stands at the top of an ejected file: what it is, how it is used, its constants."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tuner.delivery.ejecting.code import WIDTH
from tuner.delivery.place import Place
from tuner.records.reader import Record
from tuner.spec.train import Train
from tuner.spec.trial_config import TrialConfig
from tuner.training import weights
from tuner.training.dataset import Dataset
from tuner.training.decode import SUFFIXES
from tuner.training.precision import resolve_precision

MOST_NAMED = 20
"""Classes that are listed one by one."""


@dataclass(frozen=True)
class Chosen:
    """A trial that is to be written out. curve: its rows, as far as they are of this very training."""

    place: Place
    name: str
    config: TrialConfig
    record: Record
    curve: tuple[Mapping[str, Any], ...]

    @property
    def split_seed(self) -> int:
        """Of the images that validate."""
        return int((self.record.run.get("seeds") or {}).get("split", 0))


@dataclass(frozen=True)
class Folder:
    """How class folders lie: whether in train/, with val/ and test/ beside it; unreadable: names that are left out."""

    root: Path
    divided: bool
    validation: bool
    test: bool
    unreadable: tuple[str, ...]


def precision_of(chosen: Chosen, train: Train) -> str:
    """The arithmetic that the trial was trained in."""
    said = chosen.record.run.get("precision")
    if train.precision == "auto" and said in ("fp32", "bf16", "fp16"):
        return str(said)
    return resolve_precision(train.precision, str(chosen.record.run.get("device") or "cpu"))


def quote(value: Any) -> str:
    """A value as formatters write it: text in double quotes."""
    if isinstance(value, tuple):
        return f"({', '.join(map(quote, value))}{',' if len(value) == 1 else ''})"
    said = repr(value)
    return f'"{said[1:-1]}"' if isinstance(value, str) and said[0] == "'" and '"' not in said else said


def spread(name: str, items: Sequence[Any]) -> Iterator[str]:
    """The lines of a tuple."""
    written = [quote(item) for item in items]
    line = f"{name} = ({', '.join(written)}{',' if len(written) == 1 else ''})"
    if len(line) <= WIDTH:
        yield line
        return
    if len(written) > MOST_NAMED and all(isinstance(item, str) and re.fullmatch(r"[^\s\"\\]+", item) for item in items):
        yield f'{name} = """'
        yield from textwrap.wrap(" ".join(items), WIDTH - 4, break_on_hyphens=False, break_long_words=False)
        yield '""".split()'
        return
    yield f"{name} = ("
    yield from (f"    {item}," for item in written)
    yield ")"


def constants_of(chosen: Chosen, config: TrialConfig, dataset: Dataset, folder: Folder | None) -> Iterator[str]:
    """The lines that set all that the file is told."""
    train = config.train
    mean, std = weights.preprocessing(config, dataset.channels) or (dataset.mean, dataset.std)
    yield f"DATA = Path({quote(str(folder.root))})" if folder else 'DATA = Path(__file__).with_suffix(".npz")'
    yield 'WEIGHTS = Path(__file__).with_suffix(".pth")'
    yield from spread("CLASSES", dataset.classes)
    if folder:
        yield from spread("SUFFIXES", SUFFIXES)
        if folder.unreadable:
            yield from spread("UNREADABLE", folder.unreadable)
    yield f"SIZE = {dataset.image_size}  # pixels a side"
    yield f"SEED = {config.seed}"
    if folder:
        yield f"SPLIT_SEED = {chosen.split_seed}"
    yield f"EPOCHS = {train.epochs}"
    yield f"BATCH = {train.batch_size}"
    yield f"LR = {train.optimizer.lr}"
    if train.optimizer.weight_decay or train.optimizer.name == "adamw":
        yield f"WEIGHT_DECAY = {train.optimizer.weight_decay}"
    rate = getattr(config.model, "dropout", 0.0)
    if rate := getattr(rate, "rate", rate):
        yield f"DROPOUT = {rate}"
    if train.label_smoothing:
        yield f"SMOOTHING = {train.label_smoothing}"
    if train.mix_p > 0:
        named = {"MIXUP": train.mixup, "CUTMIX": train.cutmix}
        yield from (f"{name} = {value}" for name, value in named.items() if value)
        if train.mixup or train.cutmix:
            yield f"MIX_P = {train.mix_p}"
    if train.ema:
        yield f"EMA = {train.ema}"
    about = "of the training images, on a scale of 0 to 1" if (mean, std) == (dataset.mean, dataset.std) else ""
    for name, values in (("MEAN", mean), ("STD", std)):
        written = ", ".join(str(np.float32(value)) for value in values)
        yield f"{name} = ({written}{',' if len(values) == 1 else ''})" + (f"  # {about}" if about else "")
        about = ""
    yield 'DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")'
    dtype = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}[precision_of(chosen, train)]
    yield f"DTYPE = torch.{dtype}  # of the network's arithmetic"


def title_of(chosen: Chosen, config: TrialConfig, params: int) -> str:
    """The first line."""
    kinds = {"cnn": "a convolutional network", "resnet": "a residual network", "densenet": "a dense network",
             "inception": "an inception network", "backbone": getattr(config.model, "arch", "")}  # fmt: skip
    kind = kinds.get(config.model.name, config.model.name)
    return f"{chosen.name}: {kind} of {params:,} parameters, its training and its use."


def about_of(chosen: Chosen, dataset: Dataset, folder: Folder | None, name: str) -> str:
    """What the file was made from, what it promises and how it is used."""
    shown = [f"{row['val_accuracy']:.1%}" for row in chosen.curve if isinstance(row.get("val_accuracy"), float)]
    said = f"Trained on {len(dataset.train):,} images, judged on {len(dataset.validation):,} others."
    if shown:
        many = f"{', '.join(shown[:12])}{', ...' if len(shown) > 12 else ''}"
        said += f" Right of these after each epoch of the search: {many}."
    same = "This file gives the same curve, on the same kind of processor; it needs torch, numpy and Pillow."
    early = (
        "It trains all epochs: the search's early stopping is left out." if chosen.config.train.early_stopping else ""
    )
    paragraphs = [textwrap.fill(f"{said} {same} {early}".strip(), WIDTH - 4)]
    data = "FOLDER" if folder else "FILE.npz"
    uses = (
        (f"python {name}.py [{data}] [--epochs N]", "trains; writes the best weights"),
        (f"python {name}.py --predict IMAGE...", "labels images with them"),
    )
    wide = max(len(command) for command, _ in uses)
    paragraphs.append("\n".join(f"    {command:<{wide}}   {what}" for command, what in uses))
    return "\n\n".join(paragraphs).replace("\\", "\\\\").replace('"""', "'''")
