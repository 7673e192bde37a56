"""Planned: what is about to happen, in a few lines for a person, and for programs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from tuner.packing.pack import share_of
from tuner.packing.packing import Machine, Packing
from tuner.runner.plan import Plan, image_shape
from tuner.search import grid
from tuner.spec.parameter import Start
from tuner.spec.search import Search
from tuner.spec.space import Space
from tuner.spec.text import show_range, show_span, show_time
from tuner.training.datasets import DataFacts
from tuner.training.doubts import doubts


def plan_table(plan: Plan) -> Table:
    """What is about to happen, in five lines."""
    facts, fixed = plan.facts, plan.space.fixed
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row(
        fixed.name,
        f"{facts.train + facts.validation:,} images {image_shape(facts)}, {len(facts.classes)} classes "
        f"({facts.train:,} train, {facts.validation:,} validation), test set of {facts.test:,} apart",
    )
    for warning in (*data_warnings(facts), *doubts(plan.preflight.middle)):
        table.add_row("", Text(warning, style="yellow"))
    parameters = plan.space.parameters
    if parameters:
        count = f"searching {len(parameters)} setting{'s' * (len(parameters) > 1)}"
        ranges = " · ".join(f"{p.name} {show_range(p)}" for p in parameters)
        table.add_row(count, Text(f"{ranges} · {show_combinations(plan.combinations)}"))
    else:
        table.add_row("searching", "nothing: the file opens no field, so one trial runs")
    small, large = plan.preflight.smallest, plan.preflight.largest
    span = show_span(small.params, large.params, "parameters")
    work = show_span(*plan.preflight.work, "multiply-adds an image")
    table.add_row("models", f"{span} · {work}")
    if plan.preflight.feasible < 1:
        share = f"{plan.preflight.feasible:.0%} of the space can be trained; the rest is passed over"
        table.add_row("", Text(f"{share}: {plan.preflight.reason}", style="yellow"))
    search = fixed.search
    whole = (plan.trials + search.repeats - 1) * plan.full
    spend = (
        f"about {plan.expected_epochs:,} of {whole:,} epochs" if plan.expected_epochs < whole else f"{whole:,} epochs"
    )
    why = f" ({plan.sampler_reason})" if plan.sampler_reason else ""
    table.add_row(
        "plan",
        f"{show_trials(plan.trials)} x up to {plan.full} epochs, "
        f"{plan.sampler.name}{why} + {show_scheduler(search)}: {spend}",
    )
    if len(search.objectives) > 1:
        goals = " · ".join(f"{o.metric} {o.mode}" for o in search.objectives)
        decides = "is best" if search.scheduler.name == "none" else "is stopped"
        table.add_row("", Text(f"improving {goals}; {search.objectives[0].metric} decides which trial {decides}"))
    if search.constraints:
        table.add_row("", Text(f"keeping {' · '.join(map(str, search.rules))}"))
    if search.repeats > 1:
        table.add_row("", Text(f"then the best early one with {search.repeats} seeds, to know the noise"))
    for start in plan.space.starts:
        free = "" if _says_all(plan.space, start) else ", the rest sampled"
        given = len(start.fixed)
        table.add_row("", Text(f"first {start.label}: {given} setting{'s' * (given != 1)} given{free}"))
    rest = f"{plan.precision} · {show_duration(plan)}, {max(1, round(plan.disk / 1e6)):,} MB of disk"
    if len(plan.packings) == 1 and plan.packings[0].machine.nodes == 1:
        said = show_packing(plan, plan.packings[0], plan.at_once)
        table.add_row("here", f"{said}{' · ' if plan.packings[0].reason else ', '}{rest}")
        return table
    for number, packing in enumerate(plan.packings):
        kind = f"{show_machine(packing.machine)}: {show_packing(plan, packing, packing.at_once)}"
        table.add_row("machines" if not number else "", kind)
    table.add_row("", f"{show_trials(plan.at_once)} at once on all of them, {rest}")
    return table


def show_packing(plan: Plan, packing: Packing, at_once: int) -> str:
    """How such a machine is shared: `12 trials at once, 0.08 GPU each, 9.1 GB; 16 would be slower (measured)`.

    at_once: trials on one such machine, where there are fewer than it has room for.
    """
    if not packing.at_once:
        return packing.reason or "too small for a trial, so it takes none"
    share, nodes = packing.typical, packing.machine.nodes
    each = f"{share.threads} core{'s' * (share.threads > 1)} each"
    if share.gpu:
        each = f"{share.gpu:.2g} GPU each" if packing.measured else f"{share.gpu:g} GPU each"
    memory = f", {share.memory / 1e9:.1f} GB" if share.memory else ""
    largest = share_of(packing, plan.heaviest)
    more = f", up to {largest.gpu:.2g} GPU for large ones" if largest.gpu > share.gpu else ""
    why = f"; {packing.reason}" if packing.reason else ""
    on_each = " on each" if nodes > 1 else ""
    return f"{show_trials(at_once)} at once{on_each}, {each}{memory}{more}{why}"


def show_machine(machine: Machine) -> str:
    """A kind of machine: `3 x 16 cores, 2 NVIDIA H200`."""
    cards = f", {machine.gpus} {machine.gpu or 'GPU'}" if machine.gpus else ""
    return f"{machine.nodes} x {machine.cores} core{'s' * (machine.cores > 1)}{cards}"


def _says_all(space: Space, start: Start) -> bool:
    """Whether a starting point gives every setting that the branches it takes ask for."""
    try:
        space.resolve(lambda parameter: start.fixed[parameter.name])
    except KeyError:
        return False
    return True


def plan_json(plan: Plan) -> dict[str, Any]:
    """The same for programs."""
    facts, preflight = plan.facts, plan.preflight
    return {
        "name": plan.space.fixed.name,
        "data": {**asdict(facts), "classes": list(facts.classes)},
        "parameters": plan.space.to_json(),
        "combinations": plan.combinations,
        "smallest": asdict(preflight.smallest),
        "largest": asdict(preflight.largest),
        "feasible": preflight.feasible,
        "trials": plan.trials,
        "epochs": plan.full,
        "sampler": {**plan.sampler.model_dump(), "reason": plan.sampler_reason},
        "disk_mb": round(plan.disk / 1e6, 1),
        "expected_epochs": plan.expected_epochs,
        "trials_at_once": plan.at_once,
        "packing": [
            {**asdict(packing), "largest": asdict(share_of(packing, plan.heaviest))} for packing in plan.packings
        ],
        "device": plan.device,
        "precision": plan.precision,
        "seconds": None if plan.seconds is None else round(plan.seconds, 1),
    }


def show_combinations(count: int | None) -> str:
    """The size of a space."""
    if count is None:
        return "endless combinations"
    return f"more than {grid.LARGEST:,} combinations" if count > grid.LARGEST else f"{count:,} combinations"


def show_trials(count: int) -> str:
    """`18 trials`."""
    return f"{count:,} trial{'s' * (count != 1)}"


def show_scheduler(search: Search) -> str:
    """A scheduler with what it was given: `asha(grace 1, factor 3)`."""
    said = search.scheduler.model_dump(exclude={"name"}, exclude_defaults=False)
    few = {key: value for key, value in said.items() if value is not None and (key, value) != ("brackets", 1)}
    inner = ", ".join(f"{key} {value:g}" for key, value in few.items() if isinstance(value, int | float))
    return f"{search.scheduler.name}({inner})" if inner else search.scheduler.name


def show_duration(plan: Plan) -> str:
    """About how long it takes, and the budget where that ends it sooner."""
    budget, seconds = plan.space.fixed.search.seconds, plan.seconds
    if seconds is None:
        return f"{show_time(budget)}, the budget" if budget is not None else "how long is not known"
    if budget is not None and budget < seconds:
        return f"{show_time(budget)}, the budget; all of it would take about {show_time(seconds)}"
    return f"about {show_time(seconds)}"


def data_warnings(facts: DataFacts) -> list[str]:
    """What a user should know about the images before the search starts."""
    left_out = f"{facts.unreadable} unreadable images left out: {'; '.join(facts.unreadable_files)}"
    return [*facts.warnings, *([left_out] if facts.unreadable else [])]
