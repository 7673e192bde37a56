"""Any folder -> RawRun: decides who wrote it, or says plainly why it is no run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.folders.folder import Folder, Unreadable, readable
from analysis.folders.goal import Mode

if TYPE_CHECKING:
    from analysis.folders.raw import RawRun

TRIAL_FILES = ("result.json", "progress.csv", "params.json", "error.txt")  # of Ray
EXPECTED = "expected a run folder (run.json, events.jsonl, trials/) or a Ray Tune one (experiment_state-*.json, trials)"


def read(folder: Folder, metric: str | None = None, mode: Mode | None = None) -> RawRun:
    """Reads a run folder of hypertune or of Ray Tune.

    Raises:
        Unreadable: it is neither.
    """
    # Not sooner: to see whether there are runs takes no numpy.
    if _is_ours(folder):
        from analysis.folders import run_folder

        return run_folder.read(folder, metric, mode)
    if _is_rays(folder):
        from analysis.folders import ray_folder

        return ray_folder.read(folder, metric, mode)
    raise Unreadable(f"{folder.path}: {_found(folder)}; {EXPECTED}")


def is_run(folder: Folder) -> bool:
    """Whether there is a run in the folder that `read` would try."""
    return _is_ours(folder) or _is_rays(folder)


def _is_inside(folder: Folder) -> bool:
    """Whether it is the folder of the trials of one of our runs."""
    above = folder.path.resolve().parent
    return folder.name == "trials" and any((above / name).is_file() for name in ("run.json", "events.jsonl"))


def _is_ours(folder: Folder) -> bool:
    """Whether it is a run folder of hypertune, whole or in part: one of its files, or a trial of it."""
    if any(folder.has(name) for name in ("run.json", "space.json", "events.jsonl")):
        return True
    trials = (name for name in folder.folders("trials") if name.isdecimal())
    return any(folder.has("trials", name, file) for name in trials for file in ("params.json", "result.json"))


def _is_rays(folder: Folder) -> bool:
    """Whether it is the folder of a Ray Tune experiment: a state file or trial folders."""
    if folder.files("experiment_state-", ".json") or folder.has("tuner.pkl"):
        return True
    if _is_inside(folder):
        return False
    return any(folder.has(name, file) for name in folder.folders() for file in TRIAL_FILES)


def _found(folder: Folder) -> str:
    if not folder.path.exists():
        return "there is no such folder"
    if not folder.path.is_dir():
        return "this is a file, not a folder"
    if _is_inside(folder):
        return "these are the trials of a run, name the folder above"
    if folder.has("result.json") or folder.has("params.json"):
        return "this is the folder of one trial, name the run's folder above it"
    names = folder.folders()
    runs = [readable(name) for name in names if is_run(Folder(folder.path / name))]
    if runs:
        return f"this folder holds runs, name one of them ({', '.join(runs[:5])}{', ...' if runs[5:] else ''})"
    return "this folder is empty" if not any(folder.path.iterdir()) else "nothing in this folder was left by a search"
