"""A run in MLflow: one parent, and under it a run a trial with its settings, its metrics by epoch and how it ended."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from analysis.exports import plain
from analysis.results import Results

BATCH = 1000  # metrics and parameters a call, the most that MLflow takes; of parameters 100
MOST_TEXT = 5000  # characters of a tag or a parameter that MLflow takes for certain
BEST = "best."  # metrics of the best epoch, beside the curves, which MLflow sorts by their last points
STATUS = {"finished": "FINISHED", "stopped": "KILLED", "interrupted": "KILLED"}  # in MLflow's words; the rest FAILED


def to_mlflow(results: Results, place: Path | str) -> str:
    """Adds an experiment called like the run to a store of MLflow: a folder, made where it is not, or a URI.

    In a folder the store is mlflow.db, as MLflow itself no longer writes plain files. Settings go by their path; names
    that MLflow refuses get _ for what it refuses in them. Returns what to type to look at it.

    Raises:
        ValueError: MLflow is not installed, has an experiment of that name, or cannot be reached.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # it would tell its makers of every export
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError:
        raise ValueError("mlflow: is not installed; pip install 'hypertune[mlflow]'") from None
    uri, artifacts = str(place), None
    if "://" not in uri:
        folder = Path(place).absolute()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"{place}: {error.strerror}; choose another folder") from None
        uri, artifacts = f"sqlite:///{folder / 'mlflow.db'}", (folder / "artifacts").as_uri()
    name = _name(results.name)
    with _quietly():
        try:
            client = MlflowClient(tracking_uri=uri)
            if client.get_experiment_by_name(name) is not None:
                raise ValueError(
                    f"{place}: there is an experiment {name} already, and it is not overwritten; choose another place, "
                    "or rename that one"
                )
            experiment = client.create_experiment(name, artifact_location=artifacts)
            _write(client, experiment, results)
        except MlflowException as error:
            raise ValueError(f"{place}: MLflow cannot write there: {str(error).splitlines()[0]}") from None
    return f"mlflow ui --backend-store-uri {uri}"


def _write(client: Any, experiment: str, results: Results) -> None:
    columns = {p.name: p.column for p in results.parameters}
    trials = list(plain.trials(results))
    began = min((trial.began for trial in trials), default=0.0)
    about = {"hypertune.run": results.path.name, "hypertune.trials": len(trials), "hypertune.best": results.best()}
    about |= {"hypertune.metric": results.metric, "hypertune.mode": results.mode}
    parent = _begin(client, experiment, results.name, began, about)
    ended = began
    for trial in trials:
        last = max([trial.began, *([trial.ended] if trial.ended else []), *(row.time for row in trial.epochs)])
        ended = max(ended, last)
        tags: dict[str, Any] = {
            "mlflow.parentRunId": parent,
            "state": trial.state,
            "label": trial.label,
            "reason": trial.reason,
        }
        tags |= {"repeat_of": trial.repeat_of, "best_epoch": trial.best_epoch}
        run = _begin(client, experiment, trial.id, trial.began, tags)
        values = [(name, value, row.time, row.epoch) for row in trial.epochs for name, value in row.metrics.items()]
        values += [(BEST + name, value, last, trial.best_epoch or 0) for name, value in trial.best.items()]
        _log(client, run, {columns[name]: value for name, value in trial.settings.items()}, values)
        if trial.state != "running":
            client.set_terminated(run, STATUS.get(trial.state, "FAILED"), _milliseconds(last))
    best = results.best()
    if best is not None:
        found = next(trial for trial in trials if trial.id == best)
        values = [(BEST + name, value, ended, 0) for name, value in found.best.items()]
        _log(client, parent, {columns[name]: value for name, value in found.settings.items()}, values)
    client.set_terminated(parent, "FINISHED", _milliseconds(ended))


def _begin(client: Any, experiment: str, name: str, began: float, tags: Mapping[str, Any]) -> str:
    texts = {key: str(value)[:MOST_TEXT] for key, value in tags.items() if value is not None}
    run = client.create_run(experiment, start_time=_milliseconds(began), tags=texts, run_name=name)
    return str(run.info.run_id)


def _log(client: Any, run: str, settings: Mapping[str, Any], values: Sequence[tuple[str, float, float, int]]) -> None:
    """Settings and metrics (name, value, seconds since 1970, step) in as few calls as MLflow allows."""
    from mlflow.entities import Metric, Param

    params = [
        Param(name, str(value)[:MOST_TEXT]) for name, value in zip(_names(settings), settings.values(), strict=True)
    ]
    known = list(dict.fromkeys(name for name, *_ in values))
    names = dict(zip(known, _names(known), strict=True))
    metrics = [Metric(names[name], value, _milliseconds(at), step) for name, value, at, step in values]
    while params or metrics:
        some, params = params[:100], params[100:]
        room = BATCH - len(some)
        client.log_batch(run, params=some, metrics=metrics[:room])
        metrics = metrics[room:]


def _names(names: Iterable[str]) -> list[str]:
    """Names that MLflow takes, no two the same."""
    found: dict[str, None] = {}
    for name in names:
        made = _name(name)
        while made in found:
            made += "_"
        found[made] = None
    return list(found)


def _name(name: str) -> str:
    """Letters, digits and -_./ alone, and no path that leads out: ../x, /x and a//b are refused."""
    parts = [part for part in re.sub(r"[^-\w. /]", "_", name, flags=re.ASCII).split("/") if part.strip(". ")]
    return "/".join(parts)[:200] or "_"


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the log of the making of a database."""
    import warnings

    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
