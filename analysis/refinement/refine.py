"""Refine: what a run says about the next space: where to narrow, where to widen, what to fix, where to begin.

Nothing changes without evidence: a test of `effects`, corrected for all that were looked at, must have found it. What
is cut off was tried and stood worse; what nobody tried, and what the trials do not tell, stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from analysis import fidelity, pareto, style
from analysis.effects import ALARM
from analysis.fidelity import LOST
from analysis.findings import Report
from analysis.folders.parameters import Parameter
from analysis.refinement.next_setting import Change, Evidence, Rules, change_of, value_of, words
from analysis.results import Results
from analysis.settings import in_use, settings

__all__ = ["Change", "Refinement", "Rules", "fitting", "proposal", "refine", "words"]


class Refinement(NamedTuple):
    """What to change; the best configurations, setting -> value by name, the first the best, with their trials; the
    settings that stay as they are; what else is to be said, in sentences.
    """

    changes: tuple[Change, ...]
    starts: tuple[Mapping[str, Any], ...]
    trials: tuple[str, ...]
    kept: tuple[str, ...]
    notes: tuple[str, ...]


def refine(results: Results, report: Report, rules: Rules | None = None, top: int = 3) -> Refinement:
    """The next space after a run, from its findings. rules: none for a folder whose space file is not at hand.

    Of several objectives the first alone is tested, so that nothing is narrowed for what is good for it may not be good
    for the others; the starting points are then of the front.
    """
    ids, tops = _best(results, top)
    several = len(pareto.objectives(results)) > 1
    seen = Evidence(
        results, report, rules or Rules(), fidelity.standing(results).to_numpy(dtype=float),
        (results.trials["seconds"] / results.trials["epochs"].replace(0, np.nan)).to_numpy(dtype=float),
        {s.name: s for s in settings(results)}, tops, _pairs(report),
    )  # fmt: skip
    changes: dict[str, Change] = {}
    notes: list[str] = []
    by_name = {p.name: p for p in results.parameters}
    for effect in () if several else report.effects:
        parameter = by_name[effect.name]
        change, note = change_of(seen, effect, seen.settings[effect.name], parameter)
        if change:
            changes[effect.name] = change
        if note:
            notes.append(note)
    for pair in (f.settings for f in report.findings if f.kind == "interaction" and not several):
        one, two = (seen.settings[name].label if name in seen.settings else name for name in pair)
        notes.append(f"{one} and {two} interact: of either only what is bad with all of the other goes.")
    made = [changes[p.name] for p in results.parameters if p.name in changes and not _left_out(p, changes)]
    changed = {change.name for change in made}
    kept = tuple(p.name for p in results.parameters if p.name not in changed)
    return Refinement(tuple(made), tops, ids, kept, (_head(results, seen, made, several), *notes))


def _head(results: Results, seen: Evidence, made: list[Change], several: bool) -> str:
    known = int(np.isfinite(seen.score).sum())
    best = "the best as a starting point" if len(seen.tops) == 1 else f"the best {len(seen.tops)} as starting points"
    ending = f", with {best}" if seen.tops else ""
    if several:
        names = " and ".join(style.words(o.metric) for o in pareto.objectives(results))
        return f"{names} are weighed against each other: the space stays as it is{ending}."
    trials = f"{known} trial{'s' * (known != 1)}"
    if made:
        return f"What {trials} do{'es' * (known == 1)} not tell stays as it is{'; ' + best if seen.tops else ''}."
    if any(e.adjusted <= ALARM for e in seen.report.effects):
        return f"What mattered lies well within what was searched: the space stays as it is{ending}."
    return f"{trials} do{'es' * (known == 1)} not tell: the space stays as it is{ending}."


def _pairs(report: Report) -> dict[str, tuple[str, ...]]:
    """Setting -> the settings that it was found to interact with."""
    found: dict[str, tuple[str, ...]] = {}
    for one, two in (f.settings for f in report.findings if f.kind == "interaction"):
        found[one] = (*found.get(one, ()), two)
        found[two] = (*found.get(two, ()), one)
    return found


def _best(results: Results, top: int) -> tuple[tuple[str, ...], tuple[Mapping[str, Any], ...]]:
    """The best trials whose configurations differ, and those."""
    several = len(pareto.objectives(results)) > 1
    ranked = pareto.front(results) if several else fidelity.order(results)
    may, state = results.eligible().to_dict(), results.trials["state"].to_dict()
    ranked = [t for t in ranked if may[t] and state[t] not in LOST]
    used = {name: mask.to_dict() for name, mask in in_use(results).items()}
    columns = {p.column: results.trials[p.column].to_dict() for p in results.parameters}
    found: dict[str, Mapping[str, Any]] = {}
    for trial in ranked:
        if len(found) >= top:
            break
        values = {p.name: value_of(p, columns[p.column][trial]) for p in results.parameters if used[p.name][trial]}
        if values and values not in found.values():
            found[trial] = values
    return tuple(found), tuple(found.values())


def _left_out(parameter: Parameter, changes: Mapping[str, Change]) -> bool:
    """Whether the option that the setting belongs to goes."""
    for condition in parameter.active_when:
        change = changes.get(str(condition.get("name")))
        if change and change.kind in ("drop", "fix"):
            left = change.new["choice"] if isinstance(change.new, dict) else [change.new]
            if not any(value in left for value in condition.get("values") or left):
                return True
    return False


# ---------------------------------------------------------------- for a page


def proposal(refinement: Refinement, path: str) -> dict[str, Any]:
    """The refinement as plain texts, for a page or a program. path: of the run, as one would type it."""
    return {
        "notes": list(refinement.notes),
        "changes": [
            {"name": c.name, "kind": c.kind, "old": c.old, "new": words(c.new), "reason": c.reason}
            for c in refinement.changes
        ],
        "starts": [
            {"trial": trial, "settings": dict(start)}
            for trial, start in zip(refinement.trials, refinement.starts, strict=True)
        ],
        "kept": list(refinement.kept),
        "command": f"hypertune refine {path}",
    }


def fitting(results: Results, changes: Iterable[Change]) -> int:
    """How many trials of the search lie in the changed space: those that the next one can learn from."""
    used, fit = in_use(results), (results.trials["repeat_of"].isna() & (results.trials["epochs"] > 0)).to_numpy()
    for change in changes:
        cells = results.trials[change.path].to_list() if change.path in results.trials else []
        there = used[change.name].to_numpy()
        fit = fit & np.array([not at or _holds(change.new, v) for v, at in zip(cells, there, strict=True)], dtype=bool)
    return int(fit.sum())


def _holds(new: Any, value: Any) -> bool:
    if not isinstance(new, dict):
        return bool(new == value)
    ((word, body),) = new.items()
    return value in body if word == "choice" else bool(body[0] <= value <= body[1])
