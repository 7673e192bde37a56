"""Describe: a run's status in a few lines for a person."""

from __future__ import annotations

from tuner.records.status import Status
from tuner.spec.text import metric_word, show_metric, show_time

WORDS = {"out_of_memory": "out of memory", "stopped": "stopped early", "interrupted": "to go on with"}


def describe_status(status: Status, place: str) -> str:
    """What `hypertune status` says; `place` is the run folder as a user would type it."""
    ended = {name: count for name, count in status.states.items() if name not in ("running", "queued", "interrupted")}
    wanted = f" of {status.trials}" if status.trials else ""
    head = f"{status.name}   {status.status} · {sum(ended.values())}{wanted} trials ended"
    lines = [head + (f" · {status.note}" if status.note else "")]
    states = ", ".join(f"{count} {WORDS.get(name, name)}" for name, count in status.states.items() if count)
    lines.append(f"trials {states or 'none yet'}" + (f", {status.repeats} repeats" if status.repeats else ""))
    epochs = f"epochs {status.epochs:,}"
    if status.expected_epochs and status.status == "running":
        epochs += f" of about {status.expected_epochs:,.0f}"
    if status.rate is not None and status.status == "running":
        epochs += f" · {status.rate:.3g} a minute"
    left = f", about {show_time(status.seconds_left)} left" if status.seconds_left else ""
    lines.append(f"{epochs} · {show_time(status.seconds)}{left}")
    if status.best:
        best = status.best
        value = show_metric(best.metric, best.value)
        front = f" · {status.front} on the front" if status.front else ""
        word = metric_word(best.metric, long=True)
        lines.append(f"best   trial {best.trial}   {word} {value} at epoch {best.epoch}{front}")
    if status.noise and status.noise.mean is not None and status.noise.deviation is not None and status.best:
        metric, noise, deviation = status.best.metric, status.noise, status.noise.deviation
        spread = f"{deviation * 100:.1f} points" if "accuracy" in metric else f"{deviation:.3g}"
        seeds = f"trial {noise.trial} with {len(noise.values)} seeds"
        lines.append(f"noise  {seeds}: {show_metric(metric, noise.mean)} on average, standard deviation {spread}")
    if status.retries:
        lines.append(f"retries {status.retries}")
    if status.out_of_memory:
        lines.append(f"out of memory: {', '.join(status.out_of_memory)}")
    if status.last_error:
        lines.append(f"error  {status.last_error}")
    lines += [f"note   {problem}" for problem in status.problems]
    if status.status in ("dead", "interrupted"):
        lines.append(f"next   hypertune resume {place}")
    elif status.status != "running":
        lines.append(f"next   hypertune analyze {place}")
    return "\n".join(lines)
