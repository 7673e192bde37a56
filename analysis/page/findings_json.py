"""findings.json: the answer and all findings for other programs, in a form that is numbered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from analysis.exports.plain import settings
from analysis.page.formats import strict
from analysis.results import Results

if TYPE_CHECKING:
    from analysis.findings import Finding, Report
    from analysis.worth import Worth

FORMAT = 1  # raised when a reader must know


def findings_json(results: Results, report: Report, more: Worth | None = None) -> dict[str, Any]:
    """Strict JSON: run, metric, mode, trials (a count by state), best, findings and what could not be told.

    Metric values and effects are in their own units, accuracies as shares; null stands for what is not known.
    """
    states = results.trials["state"].value_counts()
    made: dict[str, Any] = strict({
        "format": FORMAT,
        "run": results.name,
        "metric": results.metric,
        "mode": results.mode,
        "trials": {"all": len(results.trials), **{str(state): int(n) for state, n in states.items()}},
        "best": _best(results),
        "findings": [_finding(f) for f in report.findings],
        "made_no_difference": [_finding(f) for f in report.made_no_difference],
        "not_told": report.not_told,
        "facts": report.facts,
        "worth": None if more is None else more._asdict(),
        "problems": results.problems,
    })  # fmt: skip
    return made


def _best(results: Results) -> dict[str, Any] | None:
    trial = results.best()
    if trial is None:
        return None
    row = results.trials.iloc[[str(known) for known in results.trials.index].index(trial)]
    return {
        "trial": trial,
        "label": row["label"],
        "value": float(row[str(results.metric)]),
        "epoch": int(row["best_epoch"]),
        "settings": settings(results, trial),
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "kind": finding.kind,
        "text": finding.text,
        "strength": finding.strength,
        "settings": finding.settings,
        "evidence": finding.evidence._asdict(),
    }
