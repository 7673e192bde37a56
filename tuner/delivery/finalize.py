"""Finalize: which finalist is the winner, whether that is more than luck, and what it is worth on the test images.

Finalists are compared by the mean over their seeds, none of which the search has used, on the validation images. Only
then are the test images opened, once, for the winner alone: for all of its seeds, of which the best on validation
images is delivered.
"""

from __future__ import annotations

import json
import math
import statistics
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tuner.delivery.judging.paired import wilson
from tuner.delivery.model import WEIGHTS, Model, open_torch, read_about, save_model
from tuner.delivery.pictures import open_split
from tuner.delivery.place import BEST, MODEL, Place
from tuner.delivery.predictions import judge
from tuner.errors import BadInput, SearchFailed
from tuner.records.reader import read_record
from tuner.records.status import rank
from tuner.records.writer import write_whole
from tuner.spec.objective import MODES

NAME = "finalize.json"
LEVEL = 0.95


@dataclass(frozen=True)
class Finalist:
    """A trial of the search, trained again. values: the metric's best epoch with each seed; runs: their trials' names.

    mean, low, high: with its 95% interval (Student's t) over seeds; low and high are None of a single seed. search:
    what the search said, which is too good: it was chosen by it.
    """

    trial: str
    values: tuple[float, ...]
    runs: tuple[str, ...]
    mean: float
    low: float | None
    high: float | None
    search: float | None
    params: int


@dataclass(frozen=True)
class Verdict:
    """The finalists, best mean first. better: in a sentence, whether the first is really better than the second."""

    metric: str
    finalists: tuple[Finalist, ...]
    seeds: tuple[int, ...]
    better: str
    difference: tuple[float, float, float] | None
    p: float | None

    @property
    def winner(self) -> Finalist:
        """The one with the best mean."""
        return self.finalists[0]


def interval(values: Sequence[float], most: float = 1.0) -> tuple[float | None, float | None]:
    """The 95% interval of the mean of a few values (Student, 1908), within 0 and `most`; None of fewer than two."""
    if len(values) < 2:
        return None, None
    from scipy import stats

    half = stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    mean = statistics.mean(values)
    return max(0.0, mean - float(half)), min(most, mean + float(half))


def decide(run: Path, folder: Path) -> Verdict:
    """Compare the finalists that were trained in `folder`, trials of the search in `run`.

    Raises:
        SearchFailed: none of them gave a result.
    """
    record = read_record(folder)
    told = {line.trial: line.fields["parameters"] for line in record.lines if line.event == "asked"}
    searched = {best.trial: best.value for best in rank(run)}
    found: dict[str, list[tuple[int, float, str]]] = {}
    for best in rank(folder):
        of = told[best.trial]
        found.setdefault(str(of["finalist"]), []).append((int(of["seed"]), best.value, best.trial))
    if not found:
        raise SearchFailed(f"{folder}: no finalist gave a result; each trial's error.txt says why")
    metric = next(str(goal["metric"]) for goal in record.run["objectives"])
    sign = 1 if MODES[metric] == "max" else -1
    sizes = {line.trial: line.fields.get("size") or {} for line in record.lines if line.event == "asked"}
    finalists = []
    for trial, given in found.items():
        given.sort()
        values = tuple(value for _, value, _ in given)
        params = int(sizes[given[0][2]].get("params", 0))
        runs = tuple(name for _, _, name in given)
        low, high = interval(values, math.inf if metric == "val_loss" else 1.0)
        finalists.append(Finalist(trial, values, runs, statistics.mean(values), low, high, searched.get(trial), params))
    finalists.sort(key=lambda finalist: -sign * finalist.mean)
    difference, p = welch(finalists[0].values, finalists[1].values) if len(finalists) > 1 else (None, None)
    if difference and metric != "val_loss":  # of shares
        difference = (difference[0], max(-1.0, difference[1]), min(1.0, difference[2]))
    seeds = tuple(sorted({int(of["seed"]) for of in told.values()}))
    return Verdict(metric, tuple(finalists), seeds, say(metric, finalists, difference, p), difference, p)


def welch(first: Sequence[float], second: Sequence[float]) -> tuple[tuple[float, float, float] | None, float | None]:
    """Difference of two means with its 95% interval, and p (Welch, 1947); None where seeds are too few for a test."""
    if min(len(first), len(second)) < 2 or statistics.stdev(first) + statistics.stdev(second) == 0:
        return None, None
    from scipy import stats

    with warnings.catch_warnings():  # scipy doubts its digits where the seeds of one give the same value
        warnings.simplefilter("ignore", RuntimeWarning)
        test = stats.ttest_ind(first, second, equal_var=False)
    low, high = test.confidence_interval(LEVEL)
    return (statistics.mean(first) - statistics.mean(second), float(low), float(high)), float(test.pvalue)


def say(
    metric: str, finalists: Sequence[Finalist], difference: tuple[float, float, float] | None, p: float | None
) -> str:
    """Whether the first is really better than the second."""
    if len(finalists) < 2:
        return "there was one finalist: nothing to compare it with"
    first, second = finalists[:2]
    if difference is None or p is None:
        return f"{first.trial} leads {second.trial}; what that is worth cannot be told from so few seeds"
    mean, low, high = (show_gap(metric, value) for value in difference)
    numbers = f"{mean} on average, 95% interval {low} to {high}, p {p:.2g}"
    if p < 1 - LEVEL:
        return f"{first.trial} is better than {second.trial}: {numbers}"
    smaller = min(first, second, key=lambda finalist: finalist.params)
    hint = f", and {smaller.trial} is the smaller one" if first.params != second.params else ""
    return f"{first.trial} and {second.trial} cannot be told apart: {numbers}; {first.trial} has the better mean{hint}"


def show_gap(metric: str, value: float) -> str:
    """A difference of the metric: points of an accuracy, else its own unit."""
    return f"{100 * value:+.1f} points" if "accuracy" in metric else f"{value:+.3g}"


# ---------------------------------------------------------------- delivering


def deliver(run: Path, folder: Path, verdict: Verdict, *, whole: bool, out: Path) -> Model:
    """Save the winner as model.json and model.safetensors in `out`; returns what was saved.

    folder: where the winner was trained: with the finalists, its best seed on validation images is taken; whole: on
    the validation images too, its first seed, as nothing is left to choose by.

    Raises:
        BadInput: its weights are gone or damaged.
    """
    winner = verdict.winner
    trial = _runs(folder, winner.trial)[0] if whole else winner.runs[_best(verdict)]
    trained = open_torch(_place(folder, trial))
    search = read_record(run).run
    name = str(search.get("name") or run.name)
    kept: dict[str, Any] = {"run": name, "trial": winner.trial}
    if whole:
        kept |= {"metric": "", "value": None}
    origin = trained.about.origin.model_copy(update=kept)
    note = "trained on the validation images too, for all epochs" if whole else ""
    about = trained.about.model_copy(
        update={"name": f"{name} {winner.trial}", "origin": origin, "notes": (note,) if note else ()}
    )
    place = Place(out, "model", run, winner.trial)
    model = Model(about, place, trained.network, trained.device)
    (run / "final" / NAME).unlink(missing_ok=True)  # it speaks of another model from here on
    about = save_model(out, model)
    return Model(about, place, trained.network, trained.device)


def _best(verdict: Verdict) -> int:
    sign = 1 if MODES[verdict.metric] == "max" else -1
    values = verdict.winner.values
    return max(range(len(values)), key=lambda n: sign * values[n])


def _runs(folder: Path, trial: str) -> list[str]:
    """Names of the trainings of a finalist that have weights, by seed."""
    asked = [line for line in read_record(folder).lines if line.event == "asked"]
    mine = sorted((int(line.fields["parameters"]["seed"]), str(line.trial)) for line in asked
                  if str(line.fields["parameters"]["finalist"]) == trial)  # fmt: skip
    found = [name for _, name in mine if (folder / "trials" / name / BEST).is_dir()]
    if not found:
        raise BadInput(f"{folder}: no training of {trial} has left weights; delete the folder and finalize again")
    return found


def _place(folder: Path, trial: str) -> Place:
    return Place(folder / "trials" / trial / BEST, "trial", folder, trial)


def test(
    model: Model, folder: Path, verdict: Verdict, progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Open the test images, once, for the delivered model and the winner's other seeds in `folder`.

    Returns accuracy of the delivered model with its 95% interval over images (Wilson, 1927), and that of each seed,
    with their mean and its interval over seeds.
    """
    pictures = open_split(model.place, model.about, "test", "finalize")
    runs = _runs(folder, verdict.winner.trial)
    done, total = 0, (len(runs) + 1) * len(pictures)

    def tell(part: int, _: int) -> None:
        if progress:
            progress(done + part, total)

    right = int(judge(model, pictures, progress=tell).right.sum())
    seeds = []
    for name in runs:
        done += len(pictures)
        seeds.append(float(judge(open_torch(_place(folder, name)), pictures, progress=tell).right.mean()))
    low, high = wilson(right, len(pictures))
    mean_low, mean_high = interval(seeds)
    return {
        "images": len(pictures), "looks": pictures.looks, "accuracy": right / len(pictures), "low": low, "high": high,
        "seeds": seeds, "mean": statistics.mean(seeds), "mean_low": mean_low, "mean_high": mean_high,
    }  # fmt: skip


def is_told(run: Path, folder: Path, verdict: Verdict, where: Path) -> bool:
    """Whether finalize.json speaks of this verdict and of the very model that lies in `where`."""
    told = read(run)
    if told is None or told.get("trained_in") != folder.name:
        return False
    same = told.get("finalists") == json.loads(json.dumps([asdict(finalist) for finalist in verdict.finalists]))
    try:
        return same and told.get("model_sha256") == read_about(where / MODEL).files[WEIGHTS].sha256
    except (BadInput, KeyError):
        return False


def as_json(
    run: Path, folder: Path, verdict: Verdict, tested: dict[str, Any], *, whole: bool, model: Path
) -> dict[str, Any]:
    """What finalize.json holds; `test_accuracy` is that of the delivered model."""
    return {
        "format": 1,
        "run": str(read_record(run).run.get("name") or run.name),
        "trained_in": folder.name,
        "trained_on": "train and validation" if whole else "train",
        "metric": verdict.metric,
        "finalists": [asdict(finalist) for finalist in verdict.finalists],
        "winner": verdict.winner.trial,
        "seeds": list(verdict.seeds),
        "better": verdict.better,
        "difference": verdict.difference,
        "p": verdict.p,
        "test": tested,
        "test_accuracy": tested["accuracy"],
        "model": str(model.relative_to(run) if model.is_relative_to(run) else model),
        "model_sha256": read_about(model / MODEL).files[WEIGHTS].sha256,
    }


def write(run: Path, told: dict[str, Any]) -> Path:
    """Write finalize.json; returns its path."""
    path = run / "final" / NAME
    write_whole(path, json.dumps(told, indent=1) + "\n")
    return path


def read(run: Path) -> dict[str, Any] | None:
    """What finalize.json says; None where there is none or it is damaged."""
    try:
        told = json.loads((run / "final" / NAME).read_bytes())
    except (OSError, ValueError):
        return None
    return told if isinstance(told, dict) else None
