"""The report as a section of a README: the answer, what was found, the best five, two images."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis import fidelity, style
from analysis.plots import FIGURES
from analysis.plots.dimensions import dimensions, texts
from analysis.results import Results

if TYPE_CHECKING:
    from analysis.findings import Finding, Report

TOP = 5
IMAGES = ("best_so_far", "importance")
TREATED = (
    "A trial's value is that of its best epoch; one that was stopped early shows what it had reached. What is said of "
    "settings compares each two trials at the last epoch that both reached; diverged and failed ones rank last."
)


def to_markdown(
    results: Results, report: Report, *, head: Sequence[str] = (), images: Iterable[str] = (), kind: str = "png"
) -> str:
    """The section as GitHub's Markdown, with `results.name` as its title.

    head: lines under the title, such as what was searched on what. images: names of the figures that lie in figures/,
    of which it shows `IMAGES`; kind: png or svg. Names from the data are escaped: none makes a heading, a link or HTML.
    """
    metric = style.metric(results)
    blocks = [f"# {escape(results.name)}", *(escape(line) for line in head), *_answer(results, metric)]
    found = [*(_sentence(f) for f in report.findings), *(_sentence(f) for f in report.made_no_difference)]
    if found:
        blocks += ["## What was found", _list(found)]
    if report.facts:
        blocks += ["## What happened", _list(map(escape, report.facts))]
    if report.not_told:
        blocks += ["## What this cannot tell", _list(map(escape, report.not_told))]
    order = fidelity.order(results)[:TOP]
    if order:
        blocks += ["## The best" if len(order) == 1 else f"## The best {len(order)}", _top(results, metric, order)]
    shown = set(images)
    blocks += [
        f"![{escape(FIGURES[name].title)}](figures/{name}.{kind})"
        for name in IMAGES
        if name in shown and name in FIGURES
    ]
    return "\n\n".join([*blocks, f"{TREATED}"]) + "\n"


def _answer(results: Results, metric: style.Metric) -> list[str]:
    trial = results.best()
    if trial is None:
        return ["No answer yet: no trial has a value that could be compared."]
    at = _places(results)[trial]
    row = results.trials.iloc[at]
    value = metric.text(style.metric_values(results, results.trials).iloc[at])
    line = f"**{value}** {escape(metric.label)} at epoch {style.number(row['best_epoch'])}, {escape(style.called(row))}"
    rows = [(label, text) for label, text in zip(_labels(results), _settings(results, [at])[0], strict=True) if text]
    return [line, *([_table(("setting", "value"), rows)] if rows else [])]


def _top(results: Results, metric: style.Metric, trials: Sequence[str]) -> str:
    places = _places(results)
    at = [places[trial] for trial in trials]
    values = style.metric_values(results, results.trials).iloc[at]
    rows = []
    for place, (n, value, settings) in enumerate(zip(at, values, _settings(results, at), strict=True), 1):
        row = results.trials.iloc[n]
        name = style.called(row).removeprefix("trial ")
        rows.append((str(place), name, metric.text(value), style.outcome(row), *settings))
    return _table(("", "trial", metric.label, "outcome", *_labels(results)), rows)


def _places(results: Results) -> dict[str, int]:
    return {str(trial): n for n, trial in enumerate(results.trials.index)}


def _labels(results: Results) -> list[str]:
    return [dim.label for dim in dimensions(results, constant=True)]


def _settings(results: Results, at: Sequence[int]) -> list[list[str]]:
    """The settings of the trials at these places as text, in the order of the space; empty where not used."""
    columns = []
    for dim in dimensions(results, constant=True):
        values = results.trials[dim.column].iloc[list(at)]
        numbers = pd.to_numeric(values, errors="coerce") if dim.ordered else values
        columns.append([
            (style.number(number) if dim.ordered else text) if text is not None else ""
            for number, text in zip(numbers, texts(values), strict=True)
        ])  # fmt: skip
    return [list(row) for row in zip(*columns, strict=True)] or [[] for _ in at]


def _sentence(finding: Finding) -> str:
    evidence = finding.evidence
    rests = [f"n = {evidence.n:,}", escape(evidence.test)]
    if abs(evidence.effect) < float("inf"):
        rests.append(f"{style.number(evidence.effect)} {escape(evidence.unit)}".strip())
    if 0 <= evidence.adjusted <= 1:
        rests.append("p < 0.001" if evidence.adjusted < 0.001 else f"p = {evidence.adjusted:.3f}")
    return f"{escape(finding.text)} ({finding.strength}; {'; '.join(rests)})"


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def line(cells: Iterable[str]) -> str:
        return f"| {' | '.join(cells)} |"

    return "\n".join([line(map(escape, headers)), line("---" for _ in headers), *(line(map(escape, r)) for r in rows)])


def escape(text: Any) -> str:
    """Text that Markdown shows as it is, on one line.

    An underscore within a word stays: there it means nothing, and names are full of them.
    """
    plain = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    plain = re.sub(r"([\\`*\[\]|~$])", r"\\\1", plain)
    plain = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", plain)
    plain = plain.replace("://", ":\\//").replace("www.", "www\\.")  # bare addresses become links
    return re.sub(r"^([-+#=]|\d+(?=[.)]\s))", lambda m: m[1] + "\\" if m[1].isdigit() else "\\" + m[1], plain)
