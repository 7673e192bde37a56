"""Told: how a run ended, for a person and for programs: what was best, how sure, what to type next."""

from __future__ import annotations

import statistics
from textwrap import shorten
from typing import Any

from rich.text import Text

from tuner.runner.conductor import LOST, Conductor
from tuner.runner.plan import Plan
from tuner.runner.run import Outcome
from tuner.runner.trial import Trial
from tuner.spec.text import by_path, columns, metric_word, show_metric, show_time, show_value
from tuner.spec.trial_config import KINDS

FRONT = 5
"""Trials of a Pareto front that are listed; the report has all."""


def outcome_text(outcome: Outcome, plan: Plan, place: str, flags: str = "") -> Text:
    """What happened, what was best, what to type next; `place` is the run folder as a user would type it; flags:
    what going on with it needs besides."""
    conductor, text = outcome.conductor, Text()
    counts, trials = conductor.counts(), conductor.trials.values()
    epochs, whole = sum(trial.epochs for trial in trials), sum(trial.full for trial in trials)
    parts = [f"{len(trials)} trial{'s' * (len(trials) != 1)}", f"{counts['finished']} finished"]
    parts += [f"{counts['stopped']} stopped early", f"{counts['failed']} failed"]
    parts += [f"{counts[s]} {s.replace('_', ' ')}" for s in ("out_of_memory", "diverged", "interrupted") if counts[s]]
    verb = "interrupted after" if outcome.signal else "done in"
    text.append(f"{verb} {show_time(outcome.seconds)}: ", "bold")
    text.append(f"{', '.join(parts)}, {epochs:,} of {whole:,} epochs\n")
    budget = conductor.search.seconds
    if conductor.late and not outcome.signal and budget is not None:
        text.append(f"       the time budget of {show_time(budget)} is spent\n")
    elif conductor.ending == conductor.enough and conductor.enough and not outcome.signal:
        text.append(f"ended  {conductor.enough}\n")
    elif conductor.ending and not outcome.signal:
        text.append(f"       it ended early: {shorten(conductor.ending, 300)}\n", "red")
    if best := conductor.best():
        _say_best(text, best, conductor, plan, place)
    elif any(trial.top for trial in trials):
        text.append(f"best   none: no trial keeps {' and '.join(conductor.search.constraints)}\n", "red")
    _say_failures(text, conductor, place)
    unfinished = any(trial.state in (None, "interrupted") for trial in trials)
    text.append("next   ", "bold")
    if unfinished or not epochs:
        text.append(f"hypertune resume {place}{_more(outcome)}{flags}   goes on where it stopped")
    if epochs:
        text.append("\n       " if unfinished else "")
        text.append(f"hypertune analyze {place}   what mattered: figures, tables, one page")
    if conductor.best() and not unfinished:
        text.append(f"\n       hypertune finalize {place}   the best again with fresh seeds, then the test images")
    return text


def _more(outcome: Outcome) -> str:
    return " --time +1h" if outcome.conductor.late and not outcome.signal else ""


def _say_best(text: Text, best: Trial, conductor: Conductor, plan: Plan, place: str) -> None:
    first = conductor.goal.first
    others = [t for t in conductor.searched if t.best and t is not best]
    ranked = sorted(others, key=lambda t: first.score(t.best), reverse=True)
    near = [show_metric(first.metric, t.best[first.metric]) for t in ranked[:2]]
    named = f" ({best.label})" if best.label else ""
    text.append("best   ", "bold")
    text.append(f"trial {best.id}{named}", "bold green")
    text.append(f"   {metric_word(first.metric, long=True)} ")
    text.append(show_metric(first.metric, best.best[first.metric]), "bold green")
    text.append(f" at epoch {best.best['epoch']}")
    if near:
        text.append(f"   (the next{' two' if len(near) > 1 else ''}: {', '.join(near)})")
    text.append(f"\n       {settings(best, plan)}\n       {place}/trials/{best.id}/checkpoint_best\n")
    again = _finished_repeats(conductor)
    if len(again) > 1:
        values = [float(t.best[first.metric]) for t in again]
        spread = statistics.stdev(values)
        shown = f"{spread * 100:.1f} points" if "accuracy" in first.metric else f"{spread:.3g}"
        mean = show_metric(first.metric, statistics.mean(values))
        text.append("noise  ", "bold")
        text.append(f"trial {again[0].id} with {len(again)} seeds: {mean} on average, standard deviation {shown}\n")
    if len(conductor.goal.objectives) > 1:
        front = conductor.front()
        text.append("front  ", "bold")
        text.append(f"{len(front)} trial{'s' * (len(front) != 1)} that no other one beats in everything\n")
        for trial in sorted(front, key=lambda t: first.score(t.best), reverse=True)[:FRONT]:
            cells = (
                f"{metric_word(o.metric)} {show_metric(o.metric, trial.best[o.metric])}"
                for o in conductor.goal.objectives
            )
            text.append(f"       {trial.id}  {' · '.join(cells)}\n")


def settings(trial: Trial, plan: Plan) -> str:
    """What a trial was, in one line."""
    if not trial.fits:
        given = " · ".join(f"{name} {show_value(value)}" for name, value in trial.best_parameters.items())
        return f"{given} · {trial.best['params']:,} parameters (outside the space as it is now)"
    heads = {path: head for head, path in columns(plan.space.parameters).items()}
    parts = [  # `adam` says what it is, `without` does not
        show_value(value) if path.removesuffix(".name") in KINDS else f"{heads[path]} {show_value(value)}"
        for path, value in by_path(trial.best_parameters, plan.space.parameters).items()
    ]
    return " · ".join([*parts, f"{trial.best['params']:,} parameters"])


def _say_failures(text: Text, conductor: Conductor, place: str) -> None:
    lost = [t for t in conductor.trials.values() if t.state in LOST]
    if not lost:
        return
    more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
    text.append(f"failed trial {lost[0].id}{more}: {shorten(lost[0].reason, 200)}\n", "red")
    text.append(f"       {place}/trials/{lost[0].id}/error.txt\n")
    if memory := [t.size.memory_mb for t in lost if t.state == "out_of_memory"]:
        trained = max((t.size.memory_mb for t in conductor.trials.values() if t.state == "finished"), default=0.0)
        largest = f"; the largest that trained needs {trained:,.0f}" if trained else ""
        text.append(f"       out of memory from about {min(memory):,.0f} MB on by our estimate{largest}\n")
    share, most = len(lost) / len(conductor.trials), conductor.search.max_failed
    if share > most:
        text.append(f"       {share:.0%} failed, more than search.max_failed ({most:.0%}): exit 1\n")


def _finished_repeats(conductor: Conductor) -> list[Trial]:
    """The repeated trial and its repeats as far as they were trained to the end: others would widen the noise."""
    return [trial for trial in conductor.repeats() if trial.best and trial.state == "finished"]


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """The same for programs."""
    conductor, best = outcome.conductor, outcome.conductor.best()
    again = _finished_repeats(conductor)
    return {
        "run": str(outcome.path),
        "status": outcome.status,
        "ending": conductor.ending,
        "seconds": round(outcome.seconds, 3),
        "counts": conductor.counts(),
        "epochs": sum(trial.epochs for trial in conductor.trials.values()),
        "best": best
        and {
            "trial": best.id,
            "label": best.label,
            "metric": conductor.metric,
            "value": best.best[conductor.metric],
            "epoch": best.best["epoch"],
            "parameters": dict(best.best_parameters),
            "config": best.best_config and best.best_config.model_dump(mode="json"),
            "checkpoint": str(outcome.path / "trials" / best.id / "checkpoint_best"),
        },
        "front": [
            {"trial": t.id, "values": {o.metric: t.best[o.metric] for o in conductor.goal.objectives}}
            for t in conductor.front()
        ],
        "repeats": [{"trial": t.id, "seed": t.config.seed, "value": t.best[conductor.metric]} for t in again],
    }
