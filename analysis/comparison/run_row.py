"""One run as a row of the table that people write by hand: what it was, what it reached, at what price."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from analysis import style
from analysis.comparison import recipe
from analysis.comparison.differences import Difference
from analysis.folders.folder import Folder
from analysis.repeats import repeats
from analysis.results import Results


class Row(NamedTuple):
    """One run, by its best trial; numbers in their own units, None where unknown.

    train, validation, gap: accuracies at the best epoch, training images as validation sees its own where the run
    knows that. test: `test_accuracy` of a file in final/. value: the metric that the run was judged by. seeds: its
    values over seeds, the best trial's own first, empty where it was not repeated. trials: without repeats, epochs:
    with them. tested: the trial that was delivered and tested in its place. best: of its group. improvement: over the
    row before it in its group, None for the first.
    """

    name: str
    path: Path
    kind: str
    status: str
    created: str | None
    group: int
    trial: str | None
    network: str
    parameters: float | None
    train: float | None
    validation: float | None
    test: float | None
    gap: float | None
    best_epoch: float | None
    full_epochs: float | None
    schedule: str
    augmentation: str
    value: float | None
    seeds: tuple[float, ...]
    trials: int
    epochs: int
    seconds: float | None
    tested: str | None = None
    best: bool = False
    improvement: Difference | None = None


def read_row(results: Results, name: str, group: int, config: Mapping[str, Any]) -> Row:
    """The row of a run, whose best trial has this configuration (empty where unknown)."""
    trial = results.best()
    cells: dict[Any, Any] = {} if trial is None else results.trials.loc[trial].to_dict()
    by_name = {str(key).replace("/", "_").replace(".", "_"): found for key, found in cells.items()}

    def get(*names: str) -> float | None:
        return next((found for name in names if (found := _number(by_name.get(name))) is not None), None)

    train, validation = get("clean_train_accuracy", "train_accuracy"), get("val_accuracy")
    searched = results.trials["repeat_of"].isna()
    repeated = repeats(results)
    created = results.run.get("created")
    share, winner = _tested(results)
    return Row(
        name=name,
        path=results.path,
        kind=results.kind,
        status=str(results.run.get("status", "unknown")),
        created=None if created is None else str(created),
        group=group,
        trial=trial,
        network=recipe.network(config) if config else recipe.UNKNOWN,
        parameters=get("params", "num_params", "n_params", "parameters"),
        train=train,
        validation=validation,
        test=share if winner in (None, trial) else None,
        tested=None if winner == trial else winner,
        gap=None if train is None or validation is None else train - validation,
        best_epoch=_number(cells.get("best_epoch")),
        full_epochs=_number(cells.get("full_epochs")),
        schedule=recipe.schedule(config) if config else recipe.UNKNOWN,
        augmentation=recipe.augmentation(config) if config else recipe.UNKNOWN,
        value=_number(cells.get(str(results.metric))),
        seeds=() if repeated is None or repeated.trial != trial else tuple(map(float, repeated[1])),
        trials=int(searched.sum()),
        epochs=int(results.trials["epochs"].fillna(0).sum()),
        seconds=_number(results.run.get("seconds")),
    )


def _tested(results: Results) -> tuple[float | None, str | None]:
    """`test_accuracy`, a share, of the first file in final/ that has it: the only place for a look at the test set.

    And the trial that it names as the winner, which need not be the one with the best value.
    """
    final = Folder(results.path / "final")
    if results.kind != "hypertune" or "final" not in Folder(results.path).folders():
        return None, None
    for name in final.files("", ".json"):
        told = final.json(name)
        share = _number(told.get("test_accuracy")) if isinstance(told, dict) else None
        if share is not None and 0 <= share <= 1:
            return share, str(told["winner"]) if "winner" in told else None
    return None, None


def validation_images(results: Results) -> int | None:
    """How many images the run's metric was measured on."""
    data = results.run.get("data")
    count = data.get("validation") if isinstance(data, Mapping) else None
    return count if isinstance(count, int) and count > 0 else None


def _number(found: Any) -> float | None:
    if isinstance(found, bool) or not isinstance(found, int | float) or pd.isna(found) or math.isinf(found):
        return None
    return float(found)


def notes(row: Row, results: Results) -> list[str]:
    """What is missing in the row or was not read, a sentence each."""
    found = []
    if row.value is None:
        by = style.metric(results).label if results.metric else "its metric, which is not known (name it with --metric)"
        found.append(f"{row.name}: no trial that may be best has a value of {by} yet.")
    said = {"running": "is still running", "dead": "died before its end", "interrupted": "was interrupted"}
    said["failed"] = "failed before its end"
    if row.status in said:
        found.append(f"{row.name} {said[row.status]}: its row is what it had reached by then.")
    share, winner = _tested(results)
    if row.tested:
        found.append(
            f"{row.name}: the delivered model is trial {winner}, {share:.1%} on test images; its row is of {row.trial}."
        )
    repeated = repeats(results)
    if repeated is not None and not row.seeds:
        found.append(f"{row.name}: trial {repeated.trial} was repeated, not its best one; those seeds are not counted.")
    return [*found, *(f"{row.name}: {problem}" for problem in results.problems)]
