"""Ensemble: several networks that judge together by the average of their probabilities, in a folder of their own."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from tuner.delivery.about import About, Origin
from tuner.delivery.ensembles.members import Candidates, best_single, choose, estimate, log_loss
from tuner.delivery.model import WEIGHTS, Classifier, Model, open_torch, read_section, save_model
from tuner.delivery.place import ENSEMBLE, MODEL, Place
from tuner.errors import BadInput
from tuner.records.writer import now, write_whole
from tuner.spec.section import Items, Section

MEMBERS = "members"
BATCH = 64
"""Images of the batch whose time is measured."""


class Part(Section):
    """A member as ensemble.json names it. folder: below the ensemble's own; weight: its votes."""

    folder: str
    weight: Annotated[int, Field(ge=1, le=10_000)]
    name: str


class Said(Section):
    """What ensemble.json says. measured: numbers of its making, for people."""

    format: Literal[1] = 1
    members: Annotated[tuple[Part, ...], Items, Field(min_length=1, max_length=1_000)]
    about: About
    measured: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class Ensemble:
    """Networks that judge together; weights: the votes of each."""

    about: About
    place: Place
    members: tuple[Classifier, ...]
    weights: tuple[int, ...]

    kind = "ensemble"

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Log of the averaged probabilities (N, classes) of images, uint8 (N, S, S, C); softmax gives them back."""
        total = sum(self.weights)
        parts = [
            torch.from_numpy(member.logits(pixels)).log_softmax(1) + math.log(weight / total)
            for member, weight in zip(self.members, self.weights, strict=True)
        ]
        made: NDArray[np.float32] = torch.stack(parts).logsumexp(0).numpy()
        return made


# ---------------------------------------------------------------- opening


def open_ensemble(place: Place, *, device: str = "cpu", trust_code: bool = False) -> Ensemble:
    """The ensemble in a folder with ensemble.json; nothing outside that folder is read.

    Raises:
        BadInput: it is damaged, a member lies elsewhere or judges other images, or wants code that is not trusted.
    """
    path = place.path / ENSEMBLE
    said = read_section(path, Said)
    folders = [_inside(place.path, part.folder) for part in said.members]
    members = [open_torch(Place(at, "model", place.run), device=device, trust_code=trust_code) for at in folders]
    for part, member in zip(said.members, members, strict=True):
        for name in ("classes", "image_size", "channels", "resize"):
            if getattr(member.about, name) != getattr(said.about, name):
                raise BadInput(f"{path}: member {part.folder} has other {name} than the ensemble; copy it again")
    return Ensemble(said.about, place, tuple(members), tuple(part.weight for part in said.members))


def _inside(root: Path, folder: str) -> Path:
    """A member's folder, once neither it nor its files lead out of the ensemble's."""
    at = root / folder
    try:
        for path in (at, at / MODEL, at / WEIGHTS):
            if not path.resolve().is_relative_to(root.resolve() / MEMBERS):
                raise BadInput(f"{root / ENSEMBLE}: member {folder} lies outside of {MEMBERS}/; copy the whole folder")
    except (OSError, ValueError) as error:  # a loop of links, a NUL
        raise BadInput(f"{root / ENSEMBLE}: member {folder} cannot be found: {error}") from error
    return at


# ---------------------------------------------------------------- making


@dataclass(frozen=True)
class Made:
    """What became of it. weights: of each candidate; best: the best single one; measured: as ensemble.json has it.

    folder: where it was saved; None where one network alone is as good.
    """

    weights: tuple[int, ...]
    best: int
    measured: dict[str, Any]
    folder: Path | None


def make(
    candidates: Candidates,
    folder: Path,
    most: int,
    *,
    device: str = "cpu",
    progress: Callable[[str, int, int], None] | None = None,
) -> Made:
    """Choose members on the validation images, say what that gains and costs, and save them in `folder`.

    Raises:
        BadInput: it cannot be written there.
    """
    right, truth = candidates.right, candidates.truth
    best = best_single(right, truth)
    weights = choose([each.probabilities for each in candidates.found], candidates.labels, most)
    average = candidates.average(weights)
    rows, labels = np.arange(len(candidates.labels)), candidates.labels
    gain, loss = estimate(candidates, most, progress=progress)
    measured: dict[str, Any] = {
        "split": "validation",
        "images": len(labels),
        "candidates": [
            {"name": each.name, "weight": weight, "accuracy": float(right[n].mean()), "loss": log_loss(truth[n])}
            for n, (each, weight) in enumerate(zip(candidates.found, weights, strict=True))
        ],
        "best": candidates.found[best].name,
        "ensemble": {
            "accuracy": float((average.argmax(axis=1) == labels).mean()),
            "loss": log_loss(average[rows, labels]),
            "members": sum(weight > 0 for weight in weights),
        },
        "gain": {"accuracy": asdict(gain), "loss": asdict(loss)},
        "left_out": list(candidates.left_out),
    }
    if measured["ensemble"]["members"] == 1:
        _take_away(folder)
        return Made(weights, best, measured, None)
    chosen = [(each, weight) for each, weight in zip(candidates.found, weights, strict=True) if weight]
    models = [open_torch(each.place, device=device) for each, _ in chosen]
    parts = [Part(folder=f"{MEMBERS}/{each.name}", weight=weight, name=each.about.name) for each, weight in chosen]
    about = _describe(candidates, models, parts, measured["ensemble"]["accuracy"])
    place = Place(folder, "ensemble", candidates.run)
    single = open_torch(candidates.found[best].place, device=device)
    measured["cost"] = _cost(Ensemble(about, place, tuple(models), tuple(p.weight for p in parts)), single, progress)
    _save(folder, parts, models, Said(members=tuple(parts), about=about, measured=measured))
    return Made(weights, best, measured, folder)


def _describe(candidates: Candidates, models: Sequence[Model], parts: Sequence[Part], accuracy: float) -> About:
    """The About of an ensemble: what its members share; architecture and colours are those of the first one."""
    first, origin = models[0].about, candidates.found[0].about.origin
    names = ", ".join(f"{part.name} ({part.weight})" for part in parts)
    return first.model_copy(
        update={
            "name": f"{origin.run} ensemble of {len(parts)}",
            "params": sum(model.about.params for model in models),
            "origin": Origin(
                run=origin.run, metric="val_accuracy", value=accuracy, dataset=origin.dataset, created=now(),
                fingerprint=origin.fingerprint, train=origin.train, versions=origin.versions,
            ),
            "settings": {"data": first.settings.get("data") or {}},
            "notes": (
                f"The probabilities of {len(parts)} networks are averaged, with votes: {names}",
                "Members were chosen on the validation images, so that their accuracy there is flattered",
                "The architecture, mean and std above are those of the first member; each brings its own",
            ),
            "files": {},
        }
    )  # fmt: skip


def _cost(
    ensemble: Ensemble, single: Model, progress: Callable[[str, int, int], None] | None
) -> dict[str, dict[str, float]]:
    """Bytes of weights, forward passes, and milliseconds (median) of a batch of 64, one and the other in turn."""
    from tuner.delivery.exporting.latency import race  # it knows onnxruntime, which whoever opens an ensemble need not

    about = ensemble.about
    shape = (BATCH, about.image_size, about.image_size, about.channels)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    if progress:
        progress("measuring the time", 0, 1)
    times = race([partial(model.logits, pixels) for model in (ensemble, single)])
    return {
        name: {
            "bytes": sum(_bytes(model) for model in models),
            "params": sum(model.about.params for model in models),
            "forward_passes": len(models),
            "p50_ms": 1000 * statistics.median(its),
        }
        for name, models, its in zip(("ensemble", "best"), (ensemble.members, (single,)), times, strict=True)
    }


def _bytes(model: Classifier) -> int:
    assert isinstance(model, Model)
    return sum(value.nbytes for value in model.network.network.state_dict().values())


def _save(folder: Path, parts: Sequence[Part], models: Sequence[Model], said: Said) -> None:
    """Members first, ensemble.json last: what is there can be opened at any time, or is not there."""
    _take_away(folder)
    for part, model in zip(parts, models, strict=True):
        save_model(folder / part.folder, model)
    write_whole(folder / ENSEMBLE, said.model_dump_json(indent=1) + "\n")


def _take_away(folder: Path) -> None:
    """An earlier ensemble in this folder: its members are not those of the new one."""
    try:
        said = Said.model_validate_json((folder / ENSEMBLE).read_bytes())
        (folder / ENSEMBLE).unlink()
        for part in said.members:
            at = _inside(folder, part.folder)
            for name in (MODEL, WEIGHTS):
                (at / name).unlink(missing_ok=True)
            at.rmdir()
    except (OSError, ValidationError, BadInput):  # nothing there, or nothing of ours
        return
