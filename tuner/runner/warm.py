"""Warm start: the trials of earlier runs as knowledge for a new one, parameter by parameter."""

from __future__ import annotations

from collections.abc import Sequence

from tuner.errors import BadInput
from tuner.records.reader import Record
from tuner.runner.replay import read_config
from tuner.runner.trial import Goal, Trial
from tuner.search.preflight import Size
from tuner.search.transfer import DoesNotFit, Knowledge, Learned, transfer
from tuner.spec.space import Space


def know(space: Space, records: Sequence[Record]) -> Knowledge:
    """What the trials of these runs say about `space`; repeats and trials without an epoch say nothing.

    Raises:
        BadInput: there are trials, but not one of them fits.
    """
    goal = Goal(space.fixed.search.objectives, space.fixed.search.rules)
    learned: list[Learned] = []
    dropped: dict[str, str] = {}
    for record in records:
        for trial in read_trials(record, goal):
            if not trial.epochs or trial.repeat_of is not None:
                continue
            name = f"{record.path.name}/{trial.id}"
            try:
                if not trial.curve and trial.state != "diverged":
                    raise DoesNotFit(f"it has no {goal.first.metric}")
                parameters = transfer(space, trial.parameters, trial.config.model_dump(mode="json"))
            except DoesNotFit as error:
                dropped[name] = str(error)
                continue
            state = trial.state or "interrupted"
            learned.append(Learned(str(record.path), trial.id, parameters, trial.told(state, goal)))
    if dropped and not learned:
        name, why = next(iter(dropped.items()))
        raise BadInput(f"--warm-start: none of {len(dropped)} trials fits this space; {name}: {why}")
    return Knowledge(tuple(learned), dropped)


def read_trials(record: Record, goal: Goal) -> list[Trial]:
    """The trials of a record with what has become of them, in the order in which they were asked for."""
    trials: dict[str, Trial] = {}
    for line in record.lines:
        name, fields = line.trial or "", line.fields
        if line.event == "asked" and (config := read_config(record, name)) is not None:
            size = Size(0, 0)
            trials[name] = Trial(name, fields["parameters"], config, size, repeat_of=fields.get("repeat_of"))
        elif name not in trials or trials[name].changed is not None:
            continue
        elif line.event == "row":
            trials[name].take(fields, goal)
        elif line.event == "mutated":
            # From here on it is not the result of one configuration: what it was until then is knowledge.
            trials[name].changed, trials[name].state = int(fields["epoch"]), "stopped"
        elif line.event == "ended":
            trials[name].state = fields["state"]
    return list(trials.values())
