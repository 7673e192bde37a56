"""What a run looks like in a terminal: the plan, one calm table or plain lines, the ending."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict
from textwrap import shorten
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tuner.runner.conductor import Conductor, Trial
from tuner.runner.plan import Plan, image_shape
from tuner.runner.run import Outcome
from tuner.search import grid
from tuner.spec.distributions import Choice, Int, LogInt, LogUniform, text_of
from tuner.spec.space import Parameter
from tuner.spec.trial_config import KINDS, Asha
from tuner.training.datasets import DataFacts

BAR = 10
"""Characters of an epoch bar."""


class Progress:
    """Follows a search on a console: a table redrawn in place on a terminal, a line an ended trial elsewhere."""

    def __init__(self, plan: Plan, console: Console) -> None:
        self._plan = plan
        self._console = console
        self._live: Live | None = None
        self._ended: list[Trial] = []
        self._start = time.monotonic()
        self._first: float | None = None
        self._drawn = 0.0
        self._gone = False
        self._columns = columns(plan.space.parameters)

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._live = Live(
                Text("starting Ray ..."),
                console=self._console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,  # what Ray prints belongs in its log
                redirect_stderr=False,
            ).__enter__()
            self._live.refresh()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._live:
            self._live.__exit__(None, None, None)

    def watch(self, conductor: Conductor) -> None:
        """Show the state of the search; draws four times a second at most. A closed pipe ends the showing, no more."""
        if not self._gone:
            try:
                self._show(conductor)
            except OSError:
                self._gone = True

    def _show(self, conductor: Conductor) -> None:
        known = {trial.id for trial in self._ended}
        new = [trial for trial in conductor.trials.values() if trial.state and trial.id not in known]
        self._ended.extend(new)
        if self._first is None and any(trial.epochs for trial in conductor.trials.values()):
            self._first = time.monotonic()
        if self._live is None:
            for trial in new:
                self._console.print(ended_line(trial, conductor.metric), soft_wrap=True, highlight=False, markup=False)
        elif new or time.monotonic() - self._drawn > 0.25:
            self._drawn = time.monotonic()
            self._live.update(self._table(conductor), refresh=True)

    def _table(self, conductor: Conductor) -> Group:
        metric = conductor.metric
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        room = self._console.width - 60
        shown = dict(list(self._columns.items())[: max(1, room // 11)])
        for head in ("  trial", *shown, "epoch", metric_word(metric), "F1", "s/epoch"):
            table.add_column(head, no_wrap=True)
        for trial in conductor.running:
            values = by_path(trial, self._plan.space.parameters)
            cells = [show_value(values[path]) if path in values else "·" for path in shown.values()]
            last = trial.last
            done = BAR * trial.epochs // trial.full
            table.add_row(
                f"  {trial.id}",
                *cells,
                f"{'█' * done}{'░' * (BAR - done)} {trial.epochs}",
                show_metric(metric, last.get(metric)),
                f"{last['val_macro_f1']:.3f}" if last else "",
                f"{last['epoch_seconds']:.2g}" if last else "",
            )
        parts: list[Any] = [self._headline(conductor), table]
        if self._ended:
            lately = " · ".join(short_ending(trial, metric) for trial in reversed(self._ended[-3:]))
            parts.append(Text(f"  just ended: {lately}", style="dim", no_wrap=True, overflow="ellipsis"))
        return Group(*parts)

    def _headline(self, conductor: Conductor) -> Text:
        spent = time.monotonic() - self._start
        epochs = sum(trial.epochs for trial in conductor.trials.values())
        share = min(0.99, epochs / max(1, self._plan.expected_epochs))
        left = ""
        if self._first is not None and epochs >= 2:
            training = time.monotonic() - self._first
            guess = training * (1 - share) / max(share, 0.01)
            budget = self._plan.space.fixed.search.seconds
            left = f", about {show_time(min(guess, max(0.0, budget - spent)) if budget else guess)} left"
        best = conductor.best()
        text = Text.assemble(
            (self._plan.space.fixed.name, "bold"),
            f"   {len(self._ended)} of {conductor.wanted} done · {len(conductor.running)} running · {share:.0%} · ",
            f"{show_time(spent)}{left}",
        )
        if best:
            text.append(f"     best {show_metric(conductor.metric, best.best[conductor.metric])}", "bold green")
            text.append(f"  trial {best.id}")
        return text


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
    for warning in data_warnings(facts):
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
    work = show_span(small.multiply_adds, large.multiply_adds, "multiply-adds an image")
    table.add_row("models", f"{span} · {work}")
    if plan.preflight.feasible < 1:
        share = f"{plan.preflight.feasible:.0%} of the space can be built; the rest is passed over"
        table.add_row("", Text(f"{share}: {plan.preflight.reason}", style="yellow"))
    search = fixed.search
    asha = search.scheduler if isinstance(search.scheduler, Asha) else None
    scheduler = f"asha(grace {asha.grace}, factor {asha.factor})" if asha else search.scheduler.name
    whole = plan.trials * plan.full
    spend = f": about {plan.expected_epochs} of {whole} epochs" if plan.expected_epochs < whole else f": {whole} epochs"
    budget = f", {search.time} at most" if search.time else ""
    table.add_row(
        "plan",
        f"{plan.trials} trial{'s' * (plan.trials > 1)} x up to {plan.full} epochs, "
        f"{search.sampler.name} + {scheduler}{spend}{budget}",
    )
    for start in plan.space.starts:
        rest = len(parameters) - len(start.fixed)
        free = "" if not rest else ", the rest sampled"
        table.add_row("", Text(f"first {start.label}: {len(start.fixed)} settings given{free}"))
    each = (
        f"{fixed.resources.gpu:g} GPU each"
        if plan.device == "cuda"
        else f"{plan.threads} core{'s' * (plan.threads > 1)} each"
    )
    disk = plan.trials * plan.preflight.largest.params * 4 / 2 / 1e6
    table.add_row(
        "here",
        f"{plan.at_once} trial{'s' * (plan.at_once > 1)} at once, {each}, {plan.precision} · "
        f"about {show_time(plan.seconds)}, {max(1, round(disk)):,} MB of disk",
    )
    return table


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
        "expected_epochs": plan.expected_epochs,
        "trials_at_once": plan.at_once,
        "device": plan.device,
        "precision": plan.precision,
        "seconds": round(plan.seconds, 1),
    }


def data_warnings(facts: DataFacts) -> list[str]:
    """What a user should know about the images before the search starts."""
    left_out = f"{facts.unreadable} unreadable images left out: {'; '.join(facts.unreadable_files)}"
    return [*facts.warnings, *([left_out] if facts.unreadable else [])]


def outcome_text(outcome: Outcome, plan: Plan, place: str) -> Text:
    """What happened, what was best, what to type next; `place` is the run folder as a user would type it."""
    conductor, text = outcome.conductor, Text()
    counts, epochs = conductor.counts(), sum(trial.epochs for trial in conductor.trials.values())
    whole = sum(trial.full for trial in conductor.trials.values())
    parts = [f"{len(conductor.trials)} trial{'s' * (len(conductor.trials) != 1)}", f"{counts['finished']} finished"]
    parts += [f"{counts['stopped']} stopped early", f"{counts['failed']} failed"]
    parts += [f"{counts[s]} {s}" for s in ("diverged", "interrupted") if counts[s]]
    verb = "interrupted after" if outcome.signal else "done in"
    text.append(f"{verb} {show_time(outcome.seconds)}: ", "bold")
    text.append(f"{', '.join(parts)}, {epochs} of {whole} epochs\n")
    best = conductor.best()
    if best:
        values = by_path(best, plan.space.parameters)
        ranked = sorted(
            (t for t in conductor.trials.values() if t.best and t is not best),
            key=lambda t: -conductor.sign * float(t.best[conductor.metric]),
        )
        next_two = ", ".join(show_metric(conductor.metric, t.best[conductor.metric]) for t in ranked[:2])
        text.append("best   ", "bold")
        text.append(f"trial {best.id}", "bold green")
        text.append(f"   {metric_word(conductor.metric, long=True)} ")
        text.append(show_metric(conductor.metric, best.best[conductor.metric]), "bold green")
        text.append(f" at epoch {best.best['epoch']}" + (f"   (the next two: {next_two})" if next_two else "") + "\n")
        heads = {path: head for head, path in columns(plan.space.parameters).items()}
        settings = [  # `adam` says what it is, `without` does not
            show_value(value) if path.removesuffix(".name") in KINDS else f"{heads[path]} {show_value(value)}"
            for path, value in values.items()
        ]
        settings.append(f"{best.best['params']:,} parameters")
        text.append(f"       {' · '.join(settings)}\n")
        text.append(f"       {place}/trials/{best.id}/checkpoint_best\n")
    failed = [t for t in conductor.trials.values() if t.state == "failed"]
    if failed:
        more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
        text.append(f"failed trial {failed[0].id}{more}: {shorten(failed[0].reason, 100)}\n", "red")
        text.append(f"       {place}/trials/{failed[0].id}/error.txt\n")
    text.append("next   ", "bold")
    text.append(f"hypertune analyze {place}   what mattered: figures, tables, one page")
    return text


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """The same for programs."""
    conductor, best = outcome.conductor, outcome.conductor.best()
    return {
        "run": str(outcome.path),
        "status": outcome.status,
        "seconds": round(outcome.seconds, 3),
        "counts": conductor.counts(),
        "epochs": sum(trial.epochs for trial in conductor.trials.values()),
        "best": best
        and {
            "trial": best.id,
            "metric": conductor.metric,
            "value": best.best[conductor.metric],
            "epoch": best.best["epoch"],
            "parameters": dict(best.proposal.parameters),
            "config": best.proposal.config.model_dump(mode="json"),
            "checkpoint": str(outcome.path / "trials" / best.id / "checkpoint_best"),
        },
    }


def ended_line(trial: Trial, metric: str) -> str:
    """A finished trial for logs: `007 stopped epoch 3  val_accuracy 0.382  model.depth 1  ...`."""
    value = trial.best.get(metric)
    shown = "none" if value is None else f"{value:.4g}"
    settings = "  ".join(f"{name} {show_value(value)}" for name, value in trial.proposal.parameters.items())
    reason = f"  ({shorten(trial.reason, 100)})" if trial.state in ("failed", "diverged") else ""
    return f"{trial.id} {trial.state} epoch {trial.epochs}  {metric} {shown}  {settings}{reason}"


def short_ending(trial: Trial, metric: str) -> str:
    """A finished trial in a few words."""
    value = show_metric(metric, trial.best.get(metric))
    if trial.state == "stopped":
        return f"{trial.id} stopped at epoch {trial.epochs} ({value})"
    return f"{trial.id} {trial.state} {value}"


def columns(parameters: Iterable[Parameter]) -> dict[str, str]:
    """Short column heads for the searched paths: the last word, or as many as tell two apart."""
    paths = list(dict.fromkeys(p.path for p in parameters))
    words = {path: [w for w in path.split(".") if w != "name"] for path in paths}
    heads: dict[str, str] = {}
    for path in paths:
        for length in range(1, len(words[path]) + 1):
            head = ".".join(words[path][-length:])
            if sum(".".join(words[other][-length:]) == head for other in paths) == 1:
                break
        if head.isdigit() and len(words[path]) > 1:
            head = ".".join(words[path][-2:])
        heads[head] = path
    return heads


def by_path(trial: Trial, parameters: Iterable[Parameter]) -> dict[str, Any]:
    """A trial's parameters under their paths."""
    chosen = trial.proposal.parameters
    return {p.path: chosen[p.name] for p in parameters if p.name in chosen}


def show_range(parameter: Parameter) -> str:
    """A distribution in a few words: `1 2 3`, `0-0.5`, `1e-4 .. 1e-1 (log)`."""
    d = parameter.distribution
    if isinstance(d, Choice):
        return " ".join(text_of(label) for label in d.labels)
    low, high = show_value(d.low), show_value(d.high)
    if isinstance(d, LogUniform | LogInt):
        return f"{low} .. {high} (log)"
    step = f" by {show_value(d.step)}" if d.step else ""
    return f"{low}-{high}{step}" if isinstance(d, Int) or d.low >= 0 else f"{low} .. {high}{step}"


def show_value(value: Any) -> str:
    """Two or three digits are enough to tell trials apart."""
    if isinstance(value, float) and value and (abs(value) < 0.01 or abs(value) >= 1e5):
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    return f"{value:.3g}" if isinstance(value, float) else text_of(value)


def show_combinations(count: int | None) -> str:
    """The size of a space."""
    if count is None:
        return "endless combinations"
    return f"more than {grid.LARGEST:,} combinations" if count > grid.LARGEST else f"{count:,} combinations"


def show_metric(metric: str, value: Any) -> str:
    """Accuracies as percentages, other metrics with three digits."""
    if value is None:
        return ""
    return f"{value:.1%}" if "accuracy" in metric else f"{value:.3f}"


def metric_word(metric: str, long: bool = False) -> str:
    """A metric in words: val acc, val accuracy."""
    words = metric.replace("_", " ")
    return words if long else words.replace("accuracy", "acc").replace("macro f1", "F1")


def show_span(low: int, high: int, what: str) -> str:
    """`21,000 to 620,000 parameters`."""
    return f"{show_count(low)} {what}" if low == high else f"{show_count(low)} to {show_count(high)} {what}"


def show_count(count: int) -> str:
    """A count that a person can take in."""
    return f"{count / 1e6:.3g} million" if count >= 1e6 else f"{count:,}"


def show_time(seconds: float) -> str:
    """`42s`, `3m 58s`, `2h 05m`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    return f"{whole // 60}m {whole % 60:02d}s" if whole < 3600 else f"{whole // 3600}h {whole % 3600 // 60:02d}m"
