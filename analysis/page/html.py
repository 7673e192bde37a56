"""The page: what a report says and shows, as one HTML file that opens anywhere without a network."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import pandas as pd

from analysis import fidelity, pareto, style
from analysis.findings import Finding, Report
from analysis.page import pages, tables
from analysis.plots import FIGURES, PARTS, parallel
from analysis.plots.dimensions import dimensions, texts
from analysis.repeats import repeats
from analysis.results import Results
from analysis.worth import Worth


class Shown(NamedTuple):
    """One figure on the page: its id, title, how to read it, what its numbers say."""

    id: str
    title: str
    reading: str
    said: str


def render(
    results: Results,
    computed: Mapping[str, Any],
    told: Report,
    *,
    more: Worth,
    then: Mapping[str, Any],
    top: int,
    image: bytes | None,
    live: float | None,
) -> str:
    """The page.

    computed: name in FIGURES -> what is drawn. more: what another hour would gain. then: the next space. top: rows of
    the table. image: the parallel coordinates as PNG, for readers without scripts; live: seconds after which the page
    loads itself again, None for the report of a run that has ended.
    """
    from plotly.offline import get_plotlyjs

    drawn = {
        name: pages.figure_json(FIGURES[name].draw(it))
        for name, it in computed.items()
        if not it.note and name != "parallel"
    }
    order = fidelity.order(results)
    ranked = tables.ranked(results, top)
    return pages.render(
        "report.html.jinja",
        name=results.name,
        head=head(results),
        warning=_warning(results),
        best=_best(results),
        noise=_noise(results),
        parts=[(part, _shown(names, computed)) for part, names in PARTS.items()],
        missing=[(FIGURES[name].title, it.note) for name, it in computed.items() if it.note],
        found=[_finding(f) for f in told.findings],
        told=told,
        reasons=_reasons(results),
        worth=more.text or more.note,
        ours=results.kind == "hypertune",
        next=then if results.best() else None,
        headers=ranked.headers,
        top=ranked.rows,
        count=len(results.trials),
        front=tables.front(results) if "pareto" in computed else None,
        asked=tables.asked(results.parameters),
        small_print=_small_print(results),
        problems=results.problems,
        metric=style.metric(results),
        parallel_image=base64.b64encode(image).decode() if image else "",
        live=live,
        figures=pages.script_json(drawn),
        parallel=pages.script_json(None if computed["parallel"].note else parallel.page_json(computed["parallel"])),
        trials=pages.script_json({**tables.page_json(results, order), "size": top}),
        templates=pages.script_json({theme: style.template(theme) for theme in style.THEMES}),
        plotly=get_plotlyjs(),
    )


def _shown(names: Sequence[str], computed: Mapping[str, Any]) -> list[Shown]:
    return [
        Shown(name, FIGURES[name].title, FIGURES[name].reading, getattr(computed[name], "said", ""))
        for name in names
        if name in computed and not computed[name].note
    ]


def _finding(finding: Finding) -> dict[str, Any]:
    """A finding with its evidence in words."""
    told = finding.evidence
    said = [style.count(told.n, "trial"), f"{told.effect:.0%} {told.unit.replace('share of', 'of')}"]
    said.append(f"p {_p(told.adjusted)} with all looks counted")
    return {
        "text": finding.text,
        "strength": finding.strength,
        "evidence": " · ".join(said),
        "test": told.test,
        "lines": [{"label": line.label, "bar": round(100 * line.bar, 1), "text": line.text} for line in finding.lines],
    }


def _p(p: float) -> str:
    return "below 0.001" if p < 0.001 else f"= {style.number(p)}"


def _get(run: Mapping[str, Any], *keys: str) -> Any:
    """A value deep in run.json; None where it, or a part of the way to it, is missing."""
    value: Any = run
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def head(results: Results) -> list[str]:
    """Lines under the name: what was searched on what; how it went; when and where."""
    repeated = results.trials["repeat_of"].notna()
    run, states = results.run, results.trials.loc[~repeated, "state"].value_counts()
    what = style.count(len(results.parameters), "setting") + " searched"
    if dataset := _get(run, "data", "dataset"):
        what += f" on {dataset}"
        train, validation, classes = (_get(run, "data", k) for k in ("train", "validation", "classes"))
        if isinstance(train, int) and isinstance(validation, int):
            what += f": {train:,} training and {validation:,} validation images"
        if isinstance(size := _get(run, "data", "image_size"), int):
            what += f" of {size}×{size}" + {1: " grey", 3: " colour"}.get(_get(run, "data", "channels"), "")
        if isinstance(classes, list):
            what += ", " + style.count(len(classes), "class", "classes")
    shown = {"finished": "finished", "stopped": "stopped early"}
    shown |= {str(s): style.words(str(s)) for s in sorted(states.index) if s not in shown}
    ended = ", ".join(f"{states[s]:,} {text}" for s, text in shown.items() if s in states) or "none began"
    epochs = int(results.trials["epochs"].fillna(0).sum())
    how = f"{style.count(int((~repeated).sum()), 'trial')}: {ended}; "
    how += f"{style.count(int(repeated.sum()), 'repeat')}; " if repeated.any() else ""
    how += f"{style.count(epochs, 'epoch')} in all"
    where = [text for text in (style.date(_get(run, "created")), _took(run), _machine(run)) if text]
    return [what, how, *([" · ".join(where)] if where else [])]


def _took(run: Mapping[str, Any]) -> str:
    seconds = _get(run, "seconds")
    return f"took {style.duration(seconds)}" if isinstance(seconds, (int, float)) and seconds else ""


def _machine(run: Mapping[str, Any]) -> str:
    host, cpu, cores, gpus = (_get(run, "hardware", k) for k in ("host", "cpu", "cores", "gpus"))
    parts = [str(cpu)] if cpu else []
    if isinstance(cores, int):
        parts.append(style.count(cores, "core"))
    if isinstance(gpus, list) and gpus:
        parts.append(", ".join(str(g) for g in gpus))
    return f"{host}" + (f" ({', '.join(parts)})" if parts else "") if host else ", ".join(parts)


def _warning(results: Results) -> str:
    """What to know before reading on: that the run is not over, or that no trial came through; else empty."""
    lost = len(results.trials) > 0 and bool(results.trials["state"].isin(fidelity.LOST).all())
    said = "Every trial diverged or failed: all this is about what they had reached by then." if lost else ""
    running = int((results.trials["state"] == "running").sum())
    status = _get(results.run, "status")
    if status in (None, "finished") and not running:
        return said
    left = f", {style.count(running, 'trial')} without an end" if running else ""
    over = {
        "running": f"This run had not ended when the report was made{left}: the answer may still change.",
        "interrupted": f"This run was interrupted{left}: the answer is about what had been trained by then.",
        "failed": f"This run failed{left}: the answer is about what had been trained by then.",
    }.get(str(status), f"Not every trial came to an end{left}: the answer may be incomplete.")
    return f"{over} {said}".strip()


def _best(results: Results) -> dict[str, Any] | None:
    """The card of the best trial; None where no trial has a value."""
    trial = results.best()
    if trial is None:
        return None
    metric = style.metric(results)
    values = style.metric_values(results, results.trials)
    row = cast("pd.Series[Any]", results.trials.loc[trial])
    searched = values[results.eligible()].dropna()
    sound = searched[~results.trials.loc[searched.index, "state"].isin(fidelity.LOST)]
    others = sound.drop(trial, errors="ignore").sort_values(ascending=results.mode == "min")
    settings = []
    for dim in dimensions(results, constant=True):
        text = texts(results.trials.loc[[trial], dim.column])[0]
        if text is not None:
            settings.append((dim.label, style.number(float(row[dim.column])) if dim.ordered else text))
    full, epoch = float(row["full_epochs"]), style.number(float(row["best_epoch"]))
    about = [("outcome", style.outcome(row)), ("training time", style.duration(row["seconds"]))]
    goals = [style.metric(results, goal) for goal in pareto.objectives(results)]
    about[:0] = [(goal.label, goal.text(row[goal.name])) for goal in goals if goal.name != metric.name]
    if "params" in row and pd.notna(row["params"]) and "params" not in [goal.name for goal in goals]:
        about.insert(0, ("parameters", style.number(float(row["params"]))))
    return {
        "trial": style.called(row),
        "value": metric.text(values[trial]),
        "label": metric.label,
        "epoch": epoch if math.isnan(full) else f"{epoch} of {style.number(full)}",
        "next": ("the next two: " if len(others) > 1 else "the next: ") * (len(others) > 0)
        + ", ".join(metric.text(v) for v in others.iloc[:2]),
        "settings": settings,
        "about": about,
        "count": len(searched),
    }


def _noise(results: Results) -> str:
    """How far one configuration's results lie apart by the seed alone; empty where none was repeated."""
    found = repeats(results)
    if found is None:
        return ""
    metric = style.metric(results)
    spread = f"{100 * found.deviation:.1f} points" if metric.factor == 100 else style.number(found.deviation)
    which = style.called(results.trials.loc[found.trial])
    return (
        f"{which[0].upper()}{which[1:]} with {len(found.values)} seeds: {metric.text(found.mean)} on average, standard "
        f"deviation {spread}. Differences of that size between trials may be luck."
    )


def _reasons(results: Results) -> list[tuple[str, int]]:
    """Why trials diverged or failed, the most frequent first."""
    lost = results.trials[results.trials["state"].isin(fidelity.LOST)]
    said = lost["reason"].fillna("").astype(str).where(lambda r: r != "", lost["state"].astype(str))
    return [(str(reason), int(n)) for reason, n in said.value_counts().head(5).items()]


def _small_print(results: Results) -> list[tuple[str, str]]:
    run = results.run
    versions, seeds = _get(run, "versions"), _get(run, "seeds")
    found = {
        "folder": results.path.name,
        "written by": "hypertune" if results.kind == "hypertune" else "Ray Tune",
        "versions": ", ".join(f"{k} {v}" for k, v in versions.items()) if isinstance(versions, Mapping) else "",
        "seeds": ", ".join(f"{k} {v}" for k, v in seeds.items()) if isinstance(seeds, Mapping) else "",
        "commit": _get(run, "git_commit"),
        "data fingerprint": _get(run, "data", "fingerprint"),
        "search": ", ".join(str(_get(run, k, "name")) for k in ("sampler", "scheduler") if _get(run, k, "name")),
        "constraints": ", ".join(constraint.text for constraint in results.goal.constraints),
        "arithmetic": _get(run, "precision"),
        "command": _get(run, "command_line"),
    }
    return [(key, str(value)) for key, value in found.items() if value]
