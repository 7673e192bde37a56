"""Any folder -> RawRun: decides who wrote it, or says plainly why it is no run."""

from __future__ import annotations

from analysis import ray_folder, run_folder
from analysis.folder import Folder, Unreadable, readable
from analysis.goal import Mode
from analysis.raw import RawRun

EXPECTED = "expected a run folder (run.json, events.jsonl, trials/) or a Ray Tune one (experiment_state-*.json, trials)"


def read(folder: Folder, metric: str | None = None, mode: Mode | None = None) -> RawRun:
    """Reads a run folder of hypertune or of Ray Tune.

    Raises:
        Unreadable: it is neither.
    """
    if run_folder.is_run(folder):
        return run_folder.read(folder, metric, mode)
    if ray_folder.is_run(folder):
        return ray_folder.read(folder, metric, mode)
    raise Unreadable(f"{folder.path}: {_found(folder)}; {EXPECTED}")


def is_run(folder: Folder) -> bool:
    """Whether there is a run in the folder that `read` would try."""
    return run_folder.is_run(folder) or ray_folder.is_run(folder)


def _found(folder: Folder) -> str:
    if not folder.path.exists():
        return "there is no such folder"
    if not folder.path.is_dir():
        return "this is a file, not a folder"
    if folder.has("result.json") or folder.has("params.json"):
        return "this is the folder of one trial, name the run's folder above it"
    names = folder.folders()
    runs = [readable(name) for name in names if is_run(Folder(folder.path / name))]
    if runs:
        return f"this folder holds runs, name one of them ({', '.join(runs[:5])}{', ...' if runs[5:] else ''})"
    return "this folder is empty" if not any(folder.path.iterdir()) else "nothing in this folder was left by a search"
