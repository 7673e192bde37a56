"""Curve: what is measured of trials that share a machine: asked for and answered as JSON, and kept in the cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tuner.packing.packing import Machine

OUT_OF_MEMORY = "ran out of memory"
TOO_SLOW = "took too long"


@dataclass(frozen=True)
class Request:
    """What to measure on one machine.

    trial: the typical configuration, a TrialConfig as JSON; largest: the one that needs most memory. folder,
    largest_folder: of their decoded images on the driver. split_seed: of the split into training and validation.
    device: cuda or cpu. cards: GPUs to spread the trials over. cores, memory: of the machine, to divide among them, in
    bytes. counts: trials at once on the whole machine, ascending. mps: with NVIDIA's MPS. paths: where modules of the
    user's own may lie.
    """

    trial: str
    largest: str
    folder: str
    largest_folder: str
    split_seed: int
    device: str
    cards: int
    cores: int
    memory: int
    counts: tuple[int, ...]
    mps: bool = False
    paths: tuple[str, ...] = ()


@dataclass(frozen=True)
class Point:
    """So many trials at once on one machine.

    images_per_second: of all together, trained. reserved: bytes that torch held of a card in the process with the most;
    used: bytes of the first card that were taken meanwhile by anything, contexts too; host: bytes of main memory of the
    process with the most, files that all of them share left out. failed: why it could not be, empty where it was.
    """

    at_once: int
    threads: int
    images_per_second: float = 0.0
    reserved: int = 0
    used: int = 0
    host: int = 0
    failed: str = ""


@dataclass(frozen=True)
class Curve:
    """What was measured. largest: bytes that torch held of a card to train the largest configuration alone; 0 where
    that was not measured, or did not fit."""

    points: tuple[Point, ...]
    largest: int = 0


def curve_of(said: Mapping[str, Any]) -> Curve:
    """A curve as `asdict` and JSON leave it."""
    return Curve(tuple(Point(**point) for point in said["points"]), said["largest"])


# ---------------------------------------------------------------- kept


def place(root: Path, machine: Machine, request: Request) -> Path:
    """The file in which the answer is kept: by machine, versions and what decides speed and memory of the models."""
    asked = {
        "machine": {**asdict(machine), "nodes": 1},
        "versions": {name: version(name) for name in ("hypertune", "torch")},
        "typical": _shape(request.trial),
        "largest": _shape(request.largest),
        "images": Path(request.folder).name,
        **{name: getattr(request, name) for name in ("device", "cards", "cores", "counts", "mps")},
    }
    key = hashlib.blake2b(json.dumps(asked, sort_keys=True).encode(), digest_size=8).hexdigest()
    return root / "packing" / f"{key}.json"


def read(file: Path) -> Curve | None:
    """A curve that was kept; None where there is none that can be read."""
    try:
        return curve_of(json.loads(file.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep(file: Path, curve: Curve) -> None:
    """Keep a curve, whole or not at all; where the disk does not let us, it is measured again another time."""
    aside = file.with_suffix(".partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(json.dumps(asdict(curve), indent=1), encoding="utf-8")
        aside.replace(file)
    except OSError:
        aside.unlink(missing_ok=True)


def _shape(trial: str) -> dict[str, Any]:
    """What of a configuration decides its speed and memory; rates and seeds do not."""
    said = json.loads(trial)
    train = said["train"]
    kept = ("batch_size", "accumulate", "precision", "compile", "ema", "trainable", "unfreeze", "sampling")
    model = {name: value for name, value in said["model"].items() if name != "dropout"}
    return {
        "model": model,
        "augment": said["data"].get("augment"),
        "optimizer": train["optimizer"]["name"],
        **{name: train.get(name) for name in kept},
    }
