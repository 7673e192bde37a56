"""A run looked at again: its folder as plain values for tuner.search.whatif, and what comes of that in words."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from tuner.errors import BadInput
from tuner.search.play import Config, Course, Record
from tuner.search.whatif import ENOUGH, ORDERS, Answer, Outcome, most, name, slow, supported
from tuner.spec.search import Pbt, Search
from tuner.spec.text import show_metric, show_time

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from analysis.results import Results

MOST = 10**7
"""Epochs of a run that are played; what Ray Tune counts may be anything."""


LEARN = frozenset({"tpe", "gp", "cmaes", "nsga2"})
"""Samplers that propose by what they heard."""

WORDS = ("no", "one", "two", "three", "four", "five")

# ---------------------------------------------------------------- what the folder says


def read_scheduler(said: Any) -> Config | None:
    """A scheduler as run.json or options say it; None where they do not, or where it is population-based training."""
    try:
        found = Search.model_validate({"scheduler": said}).scheduler if said else None
    except ValidationError:
        return None
    return None if isinstance(found, Pbt) else found


def read_record(results: Results) -> Record:
    """The trials of the search, without repeats, and the first objective.

    Raises:
        BadInput: the epochs are too many to be played.
    """
    from analysis import fidelity

    rows = _rows(results)
    trials = results.trials[results.trials["repeat_of"].isna()]
    eligible, forced = results.eligible(), _to_the_end(results)
    full = _count(results.run.get("epochs")) or max((len(scores) for scores, _, _ in rows.values()), default=0)
    courses = []
    for trial, state, length in zip(trials.index, trials["state"], trials["full_epochs"], strict=True):
        scores, seconds, counts = rows.get(trial, ((), (), ()))
        if state == "diverged":
            scores = (*scores[:-1], -math.inf)[: len(scores)]
        courses.append(
            Course(
                trial=trial,
                scores=scores,
                seconds=seconds,
                state=state,
                full=full if math.isnan(length) else int(length),
                counts=counts if eligible[trial] else (False,) * len(scores),
                to_the_end=trial in forced,
            )
        )
    may = {course.trial for course in courses if course.best[-1] > -math.inf}
    seeds = results.run.get("seeds")
    return Record(
        courses=tuple(courses),
        full=full,
        workers=_workers(results),
        seed=_count(seeds.get("search")) if isinstance(seeds, dict) else 0,
        ranked=tuple(trial for trial in fidelity.order(results) if trial in may),
    )


def _rows(results: Results) -> dict[str, tuple[tuple[float, ...], tuple[float, ...], tuple[bool, ...]]]:
    """Of each trial the scores of epochs 1, 2, ..., their seconds, and which keep to the constraints.

    An epoch that left no row has the score of the one before; one whose value is no number has the worst.
    """
    from analysis.style import metric_values

    frame = results.epochs
    sign = 1.0 if results.mode == "max" else -1.0
    score = np.nan_to_num(sign * metric_values(results, frame).to_numpy(dtype=float), nan=-math.inf)
    seconds = _seconds(results)
    counts = np.ones(len(frame), dtype=bool)
    for rule in results.goal.constraints:
        if rule.metric in frame:
            value = frame[rule.metric].to_numpy(dtype=float)
            counts &= ~(value > rule.bound if rule.sense == "<=" else value < rule.bound)
    epoch = frame["epoch"].to_numpy(dtype=np.int64)
    groups = frame.groupby("trial", sort=False).indices
    if (all_ := sum(int(epoch[at].max()) for at in groups.values())) > MOST:
        raise BadInput(f"{results.path}: its trials count {all_:,} epochs; up to {MOST:,} are played again")
    found = {}
    for trial, at in groups.items():
        here = np.asarray(at)[np.argsort(epoch[at], kind="stable")]
        every = np.arange(1, int(epoch[here[-1]]) + 1)
        row = here[np.maximum(np.searchsorted(epoch[here], every, side="right") - 1, 0)]
        scores = np.where(every < epoch[here[0]], -math.inf, score[row])
        found[str(trial)] = tuple(scores.tolist()), tuple(seconds[row].tolist()), tuple(counts[row].tolist())
    return found


def _seconds(results: Results) -> NDArray[np.float64]:
    """Of each row its epoch's duration; the run's median where it is not known, 1 where none is."""
    frame = results.epochs
    for column in ("epoch_seconds", "time_this_iter_s"):
        if column in frame and (known := frame[column].to_numpy(dtype=float))[np.isfinite(known)].size:
            break
    else:
        column = "time_total_s" if "time_total_s" in frame else "elapsed"
        known = frame.groupby("trial")[column].diff().to_numpy(dtype=float) if column in frame else np.ones(len(frame))
    sound = np.isfinite(known) & (known >= 0)
    return np.where(sound, known, np.median(known[sound]) if sound.any() else 1.0)


def _workers(results: Results) -> int:
    """Trials that ran at once: as planned, else as many as ran at the same moment."""
    resources = results.run.get("resources")
    if isinstance(resources, dict) and (planned := _count(resources.get("trials_at_once"))):
        return planned
    spans = results.stretches
    begun, over = np.sort(spans["began"].to_numpy()), np.sort(spans["ended"].fillna(math.inf).to_numpy())
    ended = np.searchsorted(over, begun, side="right")
    return max(1, int((np.arange(1, len(begun) + 1) - ended).max(initial=1)))


def _to_the_end(results: Results) -> frozenset[str]:
    """Trials that no scheduler may stop, as their user wished."""
    from analysis.folders.folder import Folder

    events = Folder(results.path).lines("events.jsonl") if results.kind == "hypertune" else []
    return frozenset(str(e.get("trial")) for e in events if e.get("event") == "asked" and e.get("to_the_end") is True)


def _count(value: Any) -> int:
    return value if type(value) is int and 0 < value <= MOST else 0


# ---------------------------------------------------------------- in words


def refusal(record: Record, results: Results) -> str:
    """Why there is nothing to replay; empty where there is."""
    left = [course for course in record.courses if course.scores]
    scheduler = results.run.get("scheduler")
    if isinstance(scheduler, dict) and scheduler.get("name") == "pbt":
        return "population-based training: trials went on from each other's weights, none has a course of its own"
    if not left:
        return "no trial has left an epoch: there is nothing to replay"
    if not record.ranked:
        return f"no trial has a value of {results.metric} that may win: there is nothing to keep"
    if record.full < 2:
        return "trials of one epoch: no scheduler could have stopped any of them earlier"
    if len(left) < 2:
        return "one trial alone has left epochs: schedulers stop a trial for what others did"
    if sum(course.full == record.full for course in left) < 2:
        return f"no two trials train for {record.full} epochs, the full length: schedulers compare no others"
    return ""


def sentences(answer: Answer, record: Record, results: Results) -> list[str]:
    """What was done, what is recommended or why nothing is, and what cannot be told."""
    own = read_scheduler(results.run.get("scheduler"))
    under = f", under {name(own)}" if own else ""
    count, spent = len(record.courses), answer.recorded.epochs[1]
    said = [
        f"{results.name}: {count} trials of up to {record.full} epochs, {record.workers} at a time{under}: "
        f"{spent:,} of {record.epochs:,} epochs ({spent / record.epochs:.0%}) were spent",
        _advise(answer, record),
    ]
    if answer.advice:
        cheaper = [o for o in answer.outcomes if o.epochs[1] < answer.advice.epochs[1]]
        said += [_tell(max(cheaper, key=lambda o: o.epochs[1]), record)] if cheaper else []
    elif len(answer.outcomes) == 1:
        said.append(_tell(answer.outcomes[0], record))
    if unknown := max((o.unknown for o in answer.outcomes), default=0):
        up_to = "up to " if len(answer.outcomes) > 1 else ""
        said.append(
            f"{up_to}{unknown} of {count} trials would have gone on past what was recorded: their course is not known, "
            "so epochs, top and orders are bounds, and all is about the winner that was recorded"
        )
    if answer.own is not None and answer.own < count:
        said.append(
            f"played again under its own scheduler, {answer.own} of {count} trials end as they did: others were heard "
            "in another order than these durations give"
        )
    sampler = results.run.get("sampler")
    sampler = sampler.get("name") if isinstance(sampler, dict) else None
    if sampler in LEARN:
        said.append(f"{sampler} learns: told of other results, it would have proposed other configurations than these")
    if forced := sum(course.to_the_end for course in record.courses):
        said.append(f"{forced} of {count} trials were to train to the end whatever a scheduler says: here they do too")
    if apart := count - sum(record.races):
        said.append(f"{apart} of {count} trials train for another number of epochs: schedulers do not compare those")
    if slow(record) and len(answer.outcomes) > 1:
        said.append("the median rule hears every epoch and was left out: --scheduler median plays it in some minutes")
    return [sentence for sentence in said if sentence]


def _advise(answer: Answer, record: Record) -> str:
    if answer.compared < ENOUGH:
        return f"{answer.compared} trials could have been stopped: below {ENOUGH} no scheduler can be recommended"
    if answer.advice:
        cheapest = "the cheapest that this record supports: " if len(answer.outcomes) > 1 else ""
        return f"{cheapest}{_tell(answer.advice, record)}"
    if len(answer.outcomes) == 1:
        return ""
    top = len(record.top)
    cheaper = [o for o in answer.outcomes if o.epochs[0] < answer.recorded.epochs[1]]
    if any(supported(o, top, perhaps=True) for o in cheaper):
        return "the record cannot tell whether a cheaper scheduler would do: too much was stopped before it was known"
    return f"no cheaper scheduler keeps the winner and {WORDS[most(top)]} of the top {WORDS[top]} whatever their order"


def _tell(outcome: Outcome, record: Record) -> str:
    """`asha(grace 3, factor 3) would have spent 39% of the epochs and kept the winner`."""
    top = len(record.top)
    low, high = (epochs / record.epochs for epochs in outcome.epochs)
    share = f"{low:.0%}" if f"{low:.0%}" == f"{high:.0%}" else f"{low:.0%} to {high:.0%}"
    lost = top - outcome.top[1]
    orders = f" (in {_span(*map(str, outcome.orders))} of {ORDERS} random orders too)" if outcome.orders else ""
    text = f"{name(outcome.config)} would have spent {share} of the epochs and "
    if outcome.winner is None:
        return text + "may have kept the winner: that depends on what was not recorded"
    if not outcome.winner:
        text += "lost the winner"
        return f"{text}, and {WORDS[lost]} of the top {WORDS[top]} in all" if lost > 1 else text
    if lost:
        return f"{text}kept the winner{orders}, but stopped {WORDS[lost]} of the final top {WORDS[top]}"
    return f"{text}kept the winner{orders}" + (
        f" and all of the final top {WORDS[top]}" if outcome.top[0] == top > 1 else ""
    )


HEADS = ("", "epochs", "of all", "time", "best", "winner", "top", "orders", "ranking", "to 99%", "unknown")

LEGEND = (
    "top: of the best, how many came to their best epoch · orders: random orders of the trials that keep the winner · "
    "ranking: 1 is the final one · to 99%: until within 1% of the best"
)


def table(answer: Answer, record: Record, results: Results) -> list[tuple[str, ...]]:
    """A row a scheduler, under `HEADS`; first what was done."""
    sign = 1.0 if results.mode == "max" else -1.0

    def row(head: str, o: Outcome) -> tuple[str, ...]:
        low, high = (f"{epochs / record.epochs:.0%}" for epochs in o.epochs)
        return (
            head,
            _span(f"{o.epochs[0]:,}", f"{o.epochs[1]:,}"),
            _span(low, high),
            f"{'from ' if o.unknown else ''}{show_time(o.seconds)}",
            show_metric(str(results.metric), sign * o.best) if math.isfinite(o.best) else "",
            {True: "kept", False: "lost", None: "?"}[o.winner],
            f"{_span(str(o.top[0]), str(o.top[1]))}/{len(record.top)}",
            "" if o.orders is None else f"{_span(*map(str, o.orders))}/{ORDERS}",
            "" if o.agreement is None else f"{o.agreement:.2f}",
            "never" if o.to_99 is None else show_time(o.to_99),
            str(o.unknown or ""),
        )

    return [row("as it ran", answer.recorded), *(row(name(o.config), o) for o in answer.outcomes)]


def as_json(answer: Answer, record: Record, results: Results, said: list[str]) -> dict[str, Any]:
    """All numbers, for programs; `best` in the metric's own direction."""
    sign = 1.0 if results.mode == "max" else -1.0

    def plain(o: Outcome) -> dict[str, Any]:
        found = asdict(o)
        best = sign * o.best if math.isfinite(o.best) else None
        return {**found, "config": o.config.model_dump(), "best": best, "supported": supported(o, len(record.top))}

    return {
        "run": str(results.path),
        "metric": results.metric,
        "mode": results.mode,
        "trials": len(record.courses),
        "full_epochs": record.full,
        "all_epochs": record.epochs,
        "workers": record.workers,
        "winner": record.ranked[0],
        "top": [record.courses[i].trial for i, _ in record.top],
        "orders": ORDERS,
        "as_it_ran": {**plain(answer.recorded), "config": results.run.get("scheduler")},
        "own_scheduler_ends_alike": answer.own,
        "schedulers": [plain(o) for o in answer.outcomes],
        "advice": answer.advice and name(answer.advice.config),
        "sentences": said,
    }


def _span(low: str, high: str) -> str:
    return low if low == high else f"{low}-{high}"
