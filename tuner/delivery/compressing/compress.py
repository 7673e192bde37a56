"""Compress: smaller forms of a model, each measured on the same images and in turns with the original.

final/compressed/compressed.json:

    {"format": 1, "model": {"name", "params", "run", "trial"}, "data": {"validation", "training", "calibration"},
     "epochs" (of fine-tuning), "machine": {"cpu", ...}, "threads": 1, "variants": [Variant, of variants.py],
     "not_made": [sentence], "summary": [sentence]}

Beside it NAME.onnx of each variant in ONNX, and NAME/ (model.json, model.safetensors) of those with zeros among their
weights.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tuner.delivery.compressing import variants
from tuner.delivery.compressing.forms import ORIGINAL, Made, Maker, Tell
from tuner.delivery.compressing.variants import Variant
from tuner.delivery.exporting import latency
from tuner.delivery.judging.paired import pair, wilson
from tuner.delivery.model import Classifier, Model
from tuner.delivery.pictures import Pictures, open_run, open_split
from tuner.delivery.predictions import judge
from tuner.delivery.target import make_ready
from tuner.errors import BadInput, Problem
from tuner.records.writer import write_whole

NAME = "compressed.json"
SHARES = (0.3, 0.5)
BATCHES = (1, 64)


@dataclass(frozen=True)
class Compressed:
    """The originals first; not_made: what was not possible and why. training, validation, calibration: images used."""

    variants: tuple[Variant, ...]
    not_made: tuple[str, ...]
    training: int
    validation: int
    calibration: int
    epochs: int

    @property
    def summary(self) -> list[str]:
        """In sentences."""
        return variants.summarise(self.variants, self.validation)


def check(model: Model, shares: Sequence[float]) -> None:
    """Refuse what cannot be compressed before anything is done.

    Raises:
        BadInput: with all that is wrong.
    """
    problems = [
        Problem(f"--prune {share:g}", 0, 0, "a share of channels: 0 (none) or more, below 1")
        for share in shares
        if not 0 <= share < 1
    ]
    place, about = model.place, model.about
    if place.run is None:
        rule = "lies in no run, and so has no training images for fine-tuning and int8: name the run or trial it is of"
        problems.append(Problem(str(place.path), 0, 0, rule))
    elif (about.settings.get("data") or {}).get("train_on") == "all":
        rule = f"learned from its validation images, so none could say what is lost; name a trial in {place.run}/trials"
        problems.append(Problem(about.name, 0, 0, rule))
    if problems:
        raise BadInput(problems)


def compress(
    model: Model, folder: Path, *, shares: Sequence[float] = SHARES, epochs: int = 2, tell: Tell, seconds: float = 1.0
) -> Compressed:
    """Make all variants of a model in `folder`, and measure them: accuracy, size, latency on one thread of the CPU.

    shares: of channels, and of weights, that are pruned; 0 is left out. epochs: of fine-tuning. seconds: of timing, for
    each variant and batch size.

    Raises:
        BadInput: a share that is none, no images, a folder that cannot be written or holds something else.
    """
    check(model, shares)
    make_ready(folder, NAME)
    _clear(folder)
    dataset = open_run(model.place, model.about, tell)
    pictures = open_split(model.place, model.about, "validation", "compress", tell)
    maker = Maker(model, folder, dataset, epochs, tell)
    maker.convert()
    for share in sorted({share for share in shares if share}):
        maker.prune(share)
    maker.quantise_matrices()
    return Compressed(
        _measure(maker.made, pictures, tell, seconds),
        tuple(maker.not_made),
        len(dataset.train),
        len(pictures),
        len(maker.calibration),
        epochs,
    )


def _clear(folder: Path) -> None:
    """Take away what an earlier time made, perhaps of another model: each file that its compressed.json names."""
    try:
        earlier = [str(one["file"]) for one in json.loads((folder / NAME).read_bytes())["variants"] if one["file"]]
    except (OSError, ValueError, KeyError, TypeError):
        return
    for path in {folder / Path(name).parts[0] for name in earlier if Path(name).parts[0] not in ("/", "..")}:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    (folder / NAME).unlink()


# ---------------------------------------------------------------- measuring


def _measure(made: Sequence[Made], pictures: Pictures, tell: Tell, seconds: float) -> tuple[Variant, ...]:
    predicted = [judge(one.model, pictures, progress=partial(tell, f"accuracy of {one.name}")).right for one in made]
    reference = next(right for one, right in zip(made, predicted, strict=True) if one.name == ORIGINAL)
    twice = [one for one in made if one.name in ("original", ORIGINAL)]
    models = [_on_cpu(one.model) for one in (*made, *twice)]
    times: list[dict[int, float]] = [{} for _ in models]
    for done, batch in enumerate(BATCHES):
        tell("latency", done, len(BATCHES))
        for ms, row in zip(times, latency.measure(models, batch, 1, seconds=seconds), strict=True):
            ms[batch] = row.p50_ms
    found = []
    for one, right, ms in zip(made, predicted, times, strict=False):
        low, high = wilson(int(right.sum()), len(right))
        paired = pair(right, reference)
        found.append(
            Variant(
                name=one.name,
                form=_form(one),
                what=one.what,
                file=one.file,
                bytes=one.bytes,
                gzip_bytes=one.gzip_bytes,
                params=sum(parameter.numel() for parameter in one.network.parameters()),
                multiply_adds=_count(one.network, one.model),
                accuracy=float(right.mean()),
                low=low,
                high=high,
                difference=paired.difference,
                difference_low=paired.low,
                difference_high=paired.high,
                p=paired.p,
                ms=ms,
            )
        )
    again = zip(twice, times[len(made) :], strict=True)
    return variants.compare(found, {_form(one): ms for one, ms in again})


def _form(one: Made) -> Literal["onnx", "torch"]:
    return "onnx" if one.model.kind == "onnx" else "torch"


def _on_cpu(model: Classifier) -> Classifier:
    if isinstance(model, Model) and model.device.type != "cpu":
        return Model(model.about, model.place, copy.deepcopy(model.network).cpu(), torch.device("cpu"))
    return model


def _count(network: nn.Module, model: Classifier) -> int:
    """Multiply-adds of convolutions and linear layers, one image forward."""
    size, device = model.about.image_size, next(network.parameters()).device
    pixels = torch.zeros(1, size, size, model.about.channels, dtype=torch.uint8, device=device)
    with FlopCounterMode(display=False) as counter:  # with gradients: else torch's attention is not counted
        network(pixels)
    return int(counter.get_total_flops() // 2)


# ---------------------------------------------------------------- writing


def as_json(found: Compressed, model: Model, machine: dict[str, Any]) -> dict[str, Any]:
    """What compressed.json holds; machine: as run.json has it."""
    about, place = model.about, model.place
    return {
        "format": 1,
        "model": {
            "name": about.name, "params": about.params, "run": place.run and str(place.run), "trial": place.trial,
        },
        "data": {
            "validation": found.validation, "training": found.training, "calibration": found.calibration,
        },
        "epochs": found.epochs,
        "machine": {name: machine[name] for name in ("cpu", "cores") if name in machine},
        "threads": 1,
        "variants": [variants.as_json(variant) for variant in found.variants],
        "not_made": list(found.not_made),
        "summary": found.summary,
    }  # fmt: skip


def write(folder: Path, said: dict[str, Any]) -> None:
    """Write compressed.json.

    Raises:
        BadInput: it cannot be written there.
    """
    try:
        write_whole(folder / NAME, json.dumps(said, ensure_ascii=False, indent=1) + "\n")
    except OSError as error:
        raise BadInput(f"{folder} cannot be written: {error.strerror}") from error
