"""Which runs a folder such as results/ holds, one line of facts each. Fast to import: no pandas, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from analysis.folders import read
from analysis.folders.folder import Folder, Unreadable
from analysis.folders.goal import Mode

if TYPE_CHECKING:
    from analysis.folders.raw import RawRun


@dataclass(frozen=True)
class RunSummary:
    """One run in a list of runs.

    status: running, finished, interrupted, failed, dead (says running, but no process holds its lock) or unknown.
    done: trials that ended, of `asked`. epochs: trained in all. best: the best value of the metric at any epoch.
    comparable: data, split and metric; the numbers of two runs may be compared only where it is the same and not None.
    """

    path: Path
    name: str
    kind: Literal["hypertune", "ray"]
    status: str
    created: str | None
    done: int
    asked: int
    metric: str | None
    mode: Mode
    best: float | None
    best_trial: str | None
    epochs: int
    seconds: float | None
    comparable: tuple[str, ...] | None
    problems: int


def index(path: str | Path) -> list[RunSummary]:
    """Every run directly in the folder, oldest first; files, links and folders that are no runs are passed over.

    Raises:
        Unreadable: the path is no folder.
    """
    return [_summarize(folder) for folder in _runs(path)]


def is_run(path: str | Path) -> bool:
    """Whether the folder is a run itself, of hypertune or of Ray Tune, that `load` would try."""
    return read.is_run(Folder(Path(path)))


def newest(path: str | Path) -> Path:
    """The folder of the run that was started last.

    Raises:
        Unreadable: the path is no folder, or holds no run.
    """
    runs = _runs(path)
    if not runs:
        raise Unreadable(f"{path}: no run in this folder")
    return runs[-1].path


def _runs(path: str | Path) -> list[Folder]:
    above = Folder(Path(path))
    if not above.path.is_dir():
        what = "this is a file, not a folder" if above.path.exists() else "there is no such folder"
        raise Unreadable(f"{path}: {what}")
    folders = [Folder(above.path / name) for name in above.folders()]
    return sorted(filter(read.is_run, folders), key=_created)


def _created(folder: Folder) -> float:
    """Seconds since 1970 by run.json, for other folders by the newest file system time of the folder."""
    run = Folder(folder.path).json("run.json")
    try:
        return datetime.fromisoformat(run["created"]).timestamp()
    except (TypeError, KeyError, ValueError):
        return folder.path.stat().st_mtime


def _summarize(folder: Folder) -> RunSummary:
    raw = read.read(folder)
    best, best_trial = _best(raw)
    ended = [trial for trial in raw.trials if trial.state not in ("running", "interrupted") and trial.repeat_of is None]
    asked = raw.run.get("trials")
    return RunSummary(
        path=folder.path,
        name=raw.name,
        kind=raw.kind,
        status=raw.status,
        created=raw.created,
        done=len(ended),
        asked=asked if isinstance(asked, int) else len(raw.trials),
        metric=raw.metric,
        mode=raw.mode,
        best=best,
        best_trial=best_trial,
        epochs=sum(trial.epochs for trial in raw.trials),
        seconds=_seconds(raw),
        comparable=comparable(raw.run, raw.metric),
        problems=len(folder.problems.sentences()),
    )


def _best(raw: RawRun) -> tuple[float | None, str | None]:
    from analysis.folders.raw import best_rows, broken_by

    rows = best_rows(raw.columns, raw.metric, raw.mode, raw.goal)
    values = [
        (float(raw.columns.numbers[raw.metric][row]), trial.id)
        for row, trial in zip(rows, raw.trials, strict=True)
        if raw.metric is not None and row >= 0 and trial.repeat_of is None and not broken_by(raw.columns, row, raw.goal)
    ]
    if not values:
        return None, None
    return max(values, key=lambda item: item[0] if raw.mode == "max" else -item[0])


def _seconds(raw: RawRun) -> float | None:
    recorded = raw.run.get("seconds")
    if isinstance(recorded, int | float):
        return float(recorded)
    moments = raw.columns.numbers.get("elapsed", ())
    return max((float(moment) for moment in moments if moment == moment), default=None)


def comparable(run: Mapping[str, Any], metric: str | None) -> tuple[str, ...] | None:
    """Fingerprint of the data, seed and size of the split, metric; None where the run did not record them."""
    try:
        data, seeds = run["data"], run["seeds"]
        facts = (data["fingerprint"], seeds["split"], data["train"], data["validation"], metric)
    except (LookupError, TypeError):
        return None
    return None if None in facts else tuple(map(str, facts))
