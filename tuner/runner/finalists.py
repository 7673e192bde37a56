"""Finalists: the leading trials of a run, trained again as they are, each with several fresh seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console

from tuner.errors import BadInput, Problem
from tuner.records.reader import Record, read_record
from tuner.records.status import rank, read_status
from tuner.records.writer import RunFolder, create
from tuner.runner.drive import at_home
from tuner.runner.plan import make_plan
from tuner.runner.planned import plan_table
from tuner.runner.replay import read_config
from tuner.runner.run import Before, How, Outcome
from tuner.runner.session import show, train
from tuner.runner.weights import BEST
from tuner.spec.distributions import Choice, Plain
from tuner.spec.search import Grid, NoScheduler, Search
from tuner.spec.space import Choose, Parameter, Space
from tuner.spec.trial_config import Resources, SpaceConfig, TrialConfig
from tuner.training import checkpoint

FOLDER, WHOLE = "finalists", "whole"
"""Run folders below final/: trainings that are compared, and those on the validation images too."""


@dataclass(frozen=True)
class Finalists(Space):
    """A space of a few configurations as they are: the trial that each is of, and the seed, are its two parameters."""

    configs: Mapping[str, TrialConfig]

    def resolve(self, choose: Choose) -> TrialConfig:
        """The configuration of a finalist with a seed.

        Raises:
            BadInput: there is no such one.
        """
        chosen: list[Plain] = []
        for parameter in self.parameters:
            chosen.append(choose(parameter))
            if not parameter.distribution.contains(chosen[-1]):
                raise BadInput([Problem(self.source, 0, 0, f"{parameter.name}: {chosen[-1]!r} is none of them")])
        return self.configs[str(chosen[0])].model_copy(update={"seed": chosen[1]})


def choose(run: Path, top: int) -> list[str]:
    """The trials of a run that were best, at most `top` of them.

    Raises:
        BadInput: it is no run, it still runs, or no trial has an epoch.
    """
    if read_status(run).status == "running":
        raise BadInput(f"{show(run)} is still being searched: its best trials are not known; wait, or end it first")
    leading = [best.trial for best in rank(run)][:top]
    if not leading:
        raise BadInput(f"{show(run)}: no trial has an epoch yet; go on with: hypertune resume {show(run)}")
    return leading


def make_finalists(run: Path, trials: Sequence[str], seeds: int, *, whole: bool = False) -> Finalists:
    """The space of these trials, each with `seeds` seeds that none of them had; whole: on the validation images too.

    The seeds of the search and its repeats are left out: by the one they were chosen, so that its values are too good.

    Raises:
        BadInput: a trial's configuration is lost.
    """
    record = read_record(run)
    configs = {name: _read(record, name, whole) for name in trials}
    first = next(iter(configs.values()))
    said, split = record.run, int((record.run.get("seeds") or {}).get("split", first.seed))
    repeats = [int(line.fields["seed"]) for line in record.lines if line.event == "asked" and line.fields.get("seed")]
    base = max(int((said.get("seeds") or {}).get("training", 0)), *(c.seed for c in configs.values()), *repeats)
    fresh = tuple((base + n) % 2**32 for n in range(1, seeds + 1))
    parameters = (
        Parameter("finalist", "finalist", Choice(tuple(configs), tuple(configs))),
        Parameter("seed", "seed", Choice(fresh, fresh)),
    )
    fixed = SpaceConfig(
        name=f"{said.get('name') or run.name}-{WHOLE if whole else FOLDER}"[-200:],
        seed=split,
        data=first.data,
        model=first.model,
        train=first.train,
        search=Search(
            trials=len(configs) * seeds,
            metric=_metric(said),
            sampler=Grid(),
            scheduler=NoScheduler(),
            keep_checkpoints=None,
        ),
        resources=_resources(said),
    )
    text = f"# The best trials of {run.name} again, each with {seeds} seeds: hypertune finalize goes on with it.\n"
    text += "".join(f"# {p.name}: {', '.join(map(str, p.distribution.values()))}\n" for p in parameters)
    return Finalists(text, str(run), {p.path: p for p in parameters}, parameters, (), fixed, configs)


def _read(record: Record, name: str, whole: bool) -> TrialConfig:
    """What its best weights were trained with, else what it began with; the images where the run had them."""
    config = read_config(record, name)
    try:
        _, state = checkpoint.load(record.path / "trials" / name / BEST)
        config = TrialConfig.model_validate_json(json.dumps(state["config"]))
    except (BadInput, KeyError, ValidationError):
        pass  # the weights were not kept, and are not needed
    if config is None:
        raise BadInput(f"trial {name} of {record.path}: params.json is missing or damaged; choose fewer with --top")
    data, learned = config.data, config.train
    root = (record.run.get("data") or {}).get("root")
    data = data.model_copy(update={"root": root, "train_on": "all" if whole else "train"})
    if whole:  # it would listen to images that it is trained on
        learned = learned.model_copy(update={"early_stopping": None})
    home = Path(str(record.run.get("working_directory") or "."))
    return at_home(config.model_copy(update={"data": data, "train": learned}), home)


def _metric(said: Mapping[str, Any]) -> Any:
    modes = {str(goal["metric"]): goal["mode"] for goal in said.get("objectives") or ()}
    return modes if len(modes) > 1 else next(iter(modes), "val_accuracy")


def _resources(said: Mapping[str, Any]) -> Resources:
    given = said.get("resources") or {}
    return Resources(**{name: given[name] for name in ("cpu", "gpu") if given.get(name) is not None})


def find(final: Path, name: str, space: Finalists) -> Path | None:
    """The folder of these very finalists, if there is one."""
    wanted = space.to_json()
    for folder in sorted(final.glob(f"{name}*")):
        if (folder / "run.json").is_file() and list(read_record(folder).parameters) == wanted:
            return folder
    return None


def train_finalists(
    space: Finalists, final: Path, name: str, console: Console, again: str, *, as_json: bool
) -> Outcome:
    """Train what is not trained yet, in `final`/NAME, or NAME-2 where others have that; again: the command to repeat.

    Raises:
        HypertuneError: it could not go on; what was done is kept.
    """
    before = None
    if (there := find(final, name, space)) is not None:
        folder = RunFolder(there)
        before = Before(read_record(there), folder.elapsed)
    with console.status("looking at the images and the models"):
        plan = make_plan(space)
    console.print(plan_table(plan))
    if before is None:
        folder = create(final, name)
    return train(plan, folder, console, again, How(before=before), as_json=as_json)
