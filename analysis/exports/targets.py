"""Where else a run can go: what `--to` says in words, and the way there."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from analysis.results import Results

FORMS = (
    "a file that ends in .db or .sqlite, or sqlite:///FILE (Optuna), tensorboard:FOLDER, mlflow:FOLDER or mlflow:URI"
)


class Target(NamedTuple):
    """Another tool and where it keeps its runs: a path as text, for MLflow also a URI."""

    kind: Literal["optuna", "tensorboard", "mlflow"]
    place: str


def parse_target(text: str) -> Target:
    """optuna.db, sqlite:///optuna.db, tensorboard:logs, mlflow:runs, mlflow:sqlite:///mlflow.db, mlflow:http://host:5000.

    Raises:
        ValueError: it has none of these forms.
    """
    kind, colon, place = text.partition(":")
    if kind == "sqlite" and colon:
        if not place.startswith("///") or not place.strip("/"):
            raise ValueError(f"--to {text}: after sqlite: come three slashes and a file, as in sqlite:///optuna.db")
        return Target("optuna", place[3:])
    if colon and kind in ("tensorboard", "mlflow"):
        if not place:
            raise ValueError(f"--to {text}: says no place; try {kind}:{kind}_runs")
        if kind == "tensorboard" and "://" in place:
            raise ValueError(f"--to {text}: TensorBoard reads a folder, not an address; try tensorboard:logs")
        return Target("mlflow" if kind == "mlflow" else "tensorboard", place)
    if Path(text).suffix in (".db", ".sqlite", ".sqlite3") and "://" not in text:
        return Target("optuna", text)
    raise ValueError(f"--to {text}: must be {FORMS}")


def export(results: Results, target: Target) -> str:
    """Hands the run to another tool. Returns what to type to look at it there.

    Raises:
        ValueError: the run is there already, the tool is not installed, or the place cannot be used.
    """
    if target.kind == "optuna":
        from analysis.exports.to_optuna import to_optuna

        return to_optuna(results, target.place)
    if target.kind == "tensorboard":
        from analysis.exports.to_tensorboard import to_tensorboard

        return to_tensorboard(results, Path(target.place))
    from analysis.exports.to_mlflow import to_mlflow

    return to_mlflow(results, target.place)
