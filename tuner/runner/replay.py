"""Replay: fold a run folder's lines into a conductor again, as if it had never been away; no pickle is read.

In the order of the lines, so that the sampler is asked and told in the order in which it was; then it asks on as it
would have. Trials from before a change of the space stay on record, and stay knowledge where they lie in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from tuner.errors import BadInput
from tuner.records.reader import Line, Record
from tuner.runner.conductor import Conductor
from tuner.runner.trial import Trial, resolve
from tuner.search.preflight import Size
from tuner.search.sampler import Told
from tuner.search.transfer import DoesNotFit, transfer
from tuner.spec.distributions import Plain
from tuner.spec.space import Parameter, Space
from tuner.spec.trial_config import TrialConfig


@dataclass
class Replayed:
    """What a replay found: `unfinished` go on; `dropped` do not lie in the space any more, with the reason.

    `left_out`: those of the dropped that had not ended, and are to be ended when the change is on disk. `notes`: what
    was mended or given up, in sentences.
    """

    unfinished: list[str] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def texts(self) -> list[str]:
        """All of it for a person; of many trials the first ones."""
        said = list(self.notes)
        if self.unfinished:
            said.append(f"going on with {len(self.unfinished)} unfinished: {_few(self.unfinished)}")
        if self.dropped:
            said.append(f"{len(self.dropped)} trials do not lie in the changed space: {_few(list(self.dropped))}")
            said += [f"  {name}: {why}" for name, why in list(self.dropped.items())[:FEW]]
        return said


FEW = 5
"""Trials that are named."""


def _few(names: list[str]) -> str:
    return ", ".join(names[:FEW]) + (f" and {len(names) - FEW} more" if len(names) > FEW else "")


def replay(conductor: Conductor, record: Record, space: Space, *, changed: bool) -> Replayed:
    """Bring a new conductor to where the record ends; `changed`: the space is not the one that the record began with.

    Raises:
        BadInput: the sampler cannot take up what was recorded.
    """
    found = Replayed()
    changes = [line.seq for line in record.lines if line.event == "space_changed"]
    last_change = changes[-1] if changes and not changed else float("inf") if changed else -1
    for line in record.lines:
        _fold(conductor, record, space, line, found, foreign=line.seq < last_change)
    for trial in [*conductor.roster.open.values()]:
        if trial.number is None and (why := _other_split(conductor, trial, space)):
            found.dropped[trial.id] = why
        if trial.id in found.dropped:
            reason = f"left out when the space was changed: {found.dropped[trial.id]}"
            conductor.roster.settle(trial, "stopped", reason)
            conductor.race.leave(trial)
            found.left_out.append(trial.id)
    front = conductor.roster.settled_front()
    for trial in conductor.trials.values():
        conductor.weights.retain(trial, front)
    conductor.take_up()
    found.unfinished = list(conductor.roster.open)
    return found


def _other_split(conductor: Conductor, trial: Trial, space: Space) -> str:
    """Why an unfinished trial from before a change cannot go on: it would be validated with images it has learned."""
    first = conductor.trials[trial.repeat_of] if trial.repeat_of else trial
    seed = space.fixed.seed
    return f"seed was {first.config.seed}, now {seed}: other images validate" if first.config.seed != seed else ""


def _fold(conductor: Conductor, record: Record, space: Space, line: Line, found: Replayed, *, foreign: bool) -> None:
    trial = conductor.trials.get(line.trial or "")
    fields = line.fields
    if line.event == "asked":
        _asked(conductor, record, space, line, found, foreign=foreign)
    elif line.event == "learned":
        told = Told(fields["state"], tuple(fields["values"]), _curve(fields["curve"]), dict(fields["excess"]))
        named = fields.get("metrics") or _metrics(space)
        if named == _metrics(space) and (not foreign or _lies_in(space, fields["parameters"])):
            conductor.sampler.learn(fields["parameters"], told)
    elif trial is None:
        return
    elif line.event == "row":
        conductor.relive(trial, fields)
    elif line.event == "retried":
        trial.deaths, trial.moves = int(fields["deaths"]), int(fields.get("moves") or 0)
        trial.alone = bool(fields["alone"])
    elif line.event == "mutated":
        if foreign and not _lies_in(space, fields["parameters"]):
            trial.fits, found.dropped[trial.id] = False, "its population changed it to what does not lie in the space"
            return
        config = resolve(space, fields["parameters"], trial.config.seed)
        size = _size(fields["size"]) if fields.get("size") else trial.size
        trial.mutate(fields["parameters"], config, size, int(fields["epoch"]))
        if conductor.race.population:
            conductor.race.population.change(trial.id, fields["parameters"])
    elif line.event == "ended" and fields["state"] != "interrupted":  # one that was interrupted goes on
        conductor.close(trial, fields["state"], str(fields["reason"]))


def _asked(conductor: Conductor, record: Record, space: Space, line: Line, found: Replayed, *, foreign: bool) -> None:
    fields, name = line.fields, str(line.trial)
    written = read_config(record, name)
    if (again := fields.get("repeat_of")) and again not in conductor.trials:
        found.notes.append(f"trial {name} is left out: it repeats trial {again}, of which nothing is known")
        return
    if written is None:
        if foreign or not _lies_in(space, fields["parameters"]):
            found.notes.append(f"trial {name} is left out: its params.json is missing or damaged")
            return
        found.notes.append(f"trial {name}: its params.json is missing or damaged; made anew from its parameters")
        written = resolve(space, fields["parameters"], fields.get("seed"))
        conductor.folder.restore_params(name, written.model_dump(mode="json"))
    label, to_the_end = fields.get("label"), bool(fields.get("to_the_end"))
    trial = Trial(
        name,
        fields["parameters"],
        written,
        _size(fields.get("size") or {}),
        number=fields.get("number"),
        label=label,
        to_the_end=to_the_end,
        repeat_of=fields.get("repeat_of"),
    )
    if foreign:
        trial.number = None
        try:
            trial.parameters = transfer(space, trial.parameters, written.model_dump(mode="json"))
            conductor.sampler.avoid(trial.parameters)
        except DoesNotFit as error:
            trial.fits = False
            found.dropped[name] = str(error)
    elif trial.number is not None:
        if not _lies_in(space, trial.parameters):
            raise BadInput(
                f"trial {name} is not of the space in {record.path / 'space.yaml'}, which was changed by hand; "
                "put it back, or go on with the new one by --space FILE"
            )
        refused = tuple(fields.get("refused") or ())
        conductor.sampler.readmit(trial.number, trial.parameters, label=label, refused=refused)
    conductor.enter(trial)


def read_config(record: Record, name: str) -> TrialConfig | None:
    """A trial's configuration; None where its params.json is lost, damaged or of another version's fields."""
    written = record.config(name)
    try:
        return None if written is None else TrialConfig.model_validate_json(json.dumps(written))
    except ValidationError:
        return None


def _metrics(space: Space) -> list[str]:
    return [objective.metric for objective in space.fixed.search.objectives]


def _lies_in(space: Space, parameters: Mapping[str, Any]) -> bool:
    """Whether these are the parameters of a configuration of the space."""
    used = set()

    def choose(parameter: Parameter) -> Plain:
        used.add(parameter.name)
        return parameters[parameter.name]  # type: ignore[no-any-return]  # as JSON gave it; checked by resolve

    try:
        space.resolve(choose)
    except (BadInput, KeyError):
        return False
    return used == parameters.keys()


def _size(said: Mapping[str, Any]) -> Size:
    return Size(
        int(said.get("params", 0)),
        int(said.get("flops", 0)) // 2,
        float(said.get("memory_mb", 0.0)),
        float(said.get("model_mb", 0.0)),
    )


def _curve(said: Mapping[str, float]) -> dict[int, float]:
    return {int(epoch): value for epoch, value in said.items()}
