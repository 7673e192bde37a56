"""Place: which model a path names (a run, a trial, a delivered model, an ONNX file) and where words about it go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tuner.errors import BadInput
from tuner.records.status import read_status

MODEL, ENSEMBLE = "model.json", "ensemble.json"
BEST = "checkpoint_best"


@dataclass(frozen=True)
class Place:
    """Where a model lies. path: what is read: a checkpoint, a folder with model.json or ensemble.json, an .onnx file.

    run: the run folder that it belongs to, None for one that lies elsewhere; trial: its trial there, if that is known.
    """

    path: Path
    kind: Literal["trial", "model", "onnx", "ensemble"]
    run: Path | None = None
    trial: str | None = None

    def folder(self, what: str) -> Path:
        """Where what is made of it lies: `final/WHAT` of its run, else `WHAT` in or beside it."""
        if self.run:
            return self.run / "final" / what
        return (self.path.parent if self.kind == "onnx" else self.path) / what


def find_model(path: Path) -> Place:
    """The model that a path names; of a run its delivered model, and without one its best trial.

    Raises:
        BadInput: there is none; the text says what was looked for.
    """
    path = path.absolute()
    if path.is_file() and path.suffix == ".onnx":
        return Place(path, "onnx", _run_of(path))
    if path.is_file() and path.name in (MODEL, ENSEMBLE, "model.safetensors"):
        path = path.parent
    if (path / ENSEMBLE).is_file():
        return Place(path, "ensemble", _run_of(path))
    if (path / MODEL).is_file():
        return Place(path, "model", _run_of(path))
    if (path / "run.json").is_file():
        return _of_run(path)
    if (path / "params.json").is_file():
        return _of_trial(path)
    if (path / "state.json").is_file() and path.name == BEST:
        return _of_trial(path.parent)
    if not path.exists():
        raise BadInput(f"no model: {path} does not exist; `hypertune runs` lists the runs in results/")
    kinds = "a run, a trial in it, a folder with model.json, or an .onnx file that `hypertune export` wrote"
    raise BadInput(f"no model: {path} is none of these: {kinds}")


def _of_run(run: Path) -> Place:
    if (run / "final" / "model" / MODEL).is_file():
        return Place(run / "final" / "model", "model", run)
    best = read_status(run).best
    if best is None:
        raise BadInput(f"{run}: no trial has an epoch yet, so there is no model; go on with: hypertune resume {run}")
    return _of_trial(run / "trials" / best.trial)


def _of_trial(folder: Path) -> Place:
    run = _run_of(folder)
    if run is None:
        raise BadInput(f"{folder}: a trial's weights are read where its run is, and there is no run.json above it")
    if not (folder / BEST).is_dir() and not (folder / f".{BEST}.old").is_dir():
        rule = "its weights were not kept: a run keeps those of its best search.keep_checkpoints trials"
        raise BadInput(f"trial {folder.name} of {run.name}: {rule}; name one of {_kept(run)}")
    return Place(folder / BEST, "trial", run, folder.name)


def _kept(run: Path) -> str:
    return ", ".join(sorted(path.parent.name for path in run.glob(f"trials/*/{BEST}"))) or "no trial: none has any"


def _run_of(path: Path) -> Path | None:
    """The run that a trial, or something in its final/, lies in; of finalists' trials the run that was finalized."""
    runs = [folder for folder in path.parents if (folder / "run.json").is_file()]
    if len(runs) > 1 and runs[0].parent.name == "final":
        return runs[0] if path.parent.name == "trials" else runs[-1]
    return runs[0] if runs else None
