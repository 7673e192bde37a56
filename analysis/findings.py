"""Findings: what a run showed, in sentences, each with the test that it passed; what it did not show is said as well.

Two families of tests look for findings: settings one by one (Holm's correction over effects and failures) and pairs
(the strongest of all pairs against shuffles). Each raises a false alarm in at most one of a hundred runs in which
nothing matters, so that at most two in a hundred such reports hold a finding. Where the best values of a setting lie is
asked only where the setting matters.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np

from analysis import fidelity, style
from analysis.effects import ALARM, Effect, Group, effects
from analysis.facts import facts
from analysis.importance import FEWEST
from analysis.interactions import Interaction, interactions
from analysis.results import Results

CLEAR = 0.001
ALIKE = 0.05  # of standing: groups closer than that are named together
FAINT = 0.02  # of the differences in standing: a pair with less is not worth a sentence
SMALL = 0.06  # of the differences in standing: below that Cohen (1988) calls an effect small
MOST = 7  # sentences

Strength = Literal["clear", "likely", "no effect"]


class Evidence(NamedTuple):
    """What a finding rests on. effect is in the words of `unit`; adjusted: p for all tests of its family."""

    test: str
    n: int
    effect: float
    unit: str
    p: float
    adjusted: float


class Line(NamedTuple):
    """One line of a finding's small figure: what, how far its bar goes (0..1), what is written beside it."""

    label: str
    bar: float
    text: str


class Finding(NamedTuple):
    """One sentence. kind: setting, bound, failure, interaction, or no effect. settings: names of parameters."""

    kind: str
    text: str
    strength: Strength
    settings: tuple[str, ...]
    evidence: Evidence
    lines: tuple[Line, ...] = ()


class Report(NamedTuple):
    """findings: the strongest first. made_no_difference: settings whose effect is small for certain. not_told: what the
    trials cannot tell. facts: what happened, without inference. effects, interactions: all that was tested.
    """

    findings: tuple[Finding, ...]
    made_no_difference: tuple[Finding, ...]
    not_told: tuple[str, ...]
    facts: tuple[str, ...]
    effects: tuple[Effect, ...]
    interactions: tuple[Interaction, ...]


def findings(results: Results) -> Report:
    """All of it, for a run with at least ten trials that can be compared; below that only facts."""
    metric = style.metric(results)
    tested, pairs = effects(results), interactions(results)
    found = [f for effect in tested for f in _of_effect(effect, results, metric)]
    found += [_of_pair(pair, results) for pair in pairs[:3] if pair.p < ALARM and pair.share >= FAINT]
    order = {"setting": 0, "interaction": 0, "failure": 1, "bound": 2}
    found.sort(key=lambda f: (order[f.kind], -f.evidence.effect))
    together = {name for f in found if f.kind == "interaction" for name in f.settings}
    small = tuple(_no_effect(e) for e in tested if e.high < SMALL and e.name not in together)
    return Report(tuple(found), small, _not_told(results, tested), tuple(facts(results)), tested, pairs)


# ---------------------------------------------------------------- settings


def _of_effect(effect: Effect, results: Results, metric: style.Metric) -> list[Finding]:
    found = []
    if effect.adjusted <= ALARM and effect.high >= SMALL:
        evidence = Evidence(
            effect.test, effect.trials, effect.share, "share of the differences in standing", effect.p, effect.adjusted
        )
        text = _sentence(effect, results, metric)
        found.append(
            Finding("setting", text, _strength(effect.adjusted), (effect.name,), evidence, _lines(effect, metric))
        )
    if effect.bound and effect.bound_p <= ALARM:
        found.append(_bound(effect))
    if effect.lost_p <= ALARM:
        found.append(_lost(effect, results))
    return found


def _strength(p: float) -> Strength:
    return "clear" if p <= CLEAR else "likely"


def _named(effect: Effect, group: Group) -> str:
    return f"{effect.label} {group.label}"


def _sentence(effect: Effect, results: Results, metric: style.Metric) -> str:
    best, worst = effect.best, effect.worst
    one, other = _named(effect, best), _named(effect, worst)
    ahead = f"of two trials the one with {best.label} was ahead in {effect.gap:.0%} of all pairs"
    if effect.early:
        ahead += f", most of them compared at epoch {effect.early} already"
    beyond = _beyond(best, worst, results.mode == "max")
    if beyond and worst.best is not None and best.best is not None:
        verb = "passed" if results.mode == "max" else "came below"
        text = f"No trial with {other} {verb} {metric.text(worst.best)}, the best with {one} reached "
        return f"{text}{metric.text(best.best)}; {ahead}."
    if effect.ordered and not _few(effect):
        text = f"{_first_up(effect.label)} was best from {best.label}"
        if effect.good:
            text += f" (the best quarter of the trials: {_range(*effect.good)})"
        return f"{text} and worst from {worst.label}: {ahead}{_medians(best, worst, results, metric)}."
    alike = [g.label for g in effect.groups if g not in (best, worst) and best.standing - g.standing <= ALIKE]
    winners = " and ".join([best.label, *alike])
    beat = (
        f"{effect.label} {winners} beat {worst.label}"
        if effect.ordered
        else f"{effect.label}: {winners} beat {worst.label}"
    )
    return f"{_first_up(beat)}: {ahead}{_medians(best, worst, results, metric)}."


def _few(effect: Effect) -> bool:
    return all(group.low == group.high for group in effect.groups)


def _beyond(best: Group, worst: Group, maximise: bool) -> bool:
    """Whether the worst group's best trial did not get to what half of the best group's had early on.

    Only where some of them were trained to the end: what was stopped early had no chance to get there.
    """
    if worst.best is None or best.matched is None or worst.finished < 2:
        return False
    return worst.best < best.matched if maximise else worst.best > best.matched


def _medians(best: Group, worst: Group, results: Results, metric: style.Metric) -> str:
    matched = fidelity.matched(results)
    if matched is None or best.matched is None or worst.matched is None:
        return ""
    return f"; median {metric.text(best.matched)} against {metric.text(worst.matched)} by epoch {matched.epoch}"


def _lines(effect: Effect, metric: style.Metric) -> tuple[Line, ...]:
    rows = []
    for group in effect.groups[:8]:
        count = f"{style.count(group.trials, 'trial')}, {group.finished:,} to the end"
        reached = "" if group.best is None else f", best {metric.text(group.best)}"
        rows.append(Line(group.label, group.standing, f"ahead of {group.standing:.0%}{reached} ({count})"))
    return tuple(rows)


def _bound(effect: Effect) -> Finding:
    upper = effect.bound == "high"
    end = effect.groups[-1].high if upper else effect.groups[0].low
    text = (
        f"The best values of {effect.label} lie at the {'upper' if upper else 'lower'} end of what was searched "
        f"({style.number(end)}): widen it, if {'more' if upper else 'less'} is possible."
    )
    evidence = Evidence(
        "hypergeometric, best quarter against the rest", effect.trials, effect.share,
        "share of the differences in standing", math.nan, effect.bound_p,
    )  # fmt: skip
    return Finding("bound", text, _strength(effect.bound_p), (effect.name,), evidence)


def _lost(effect: Effect, results: Results) -> Finding:
    """Where trials diverged or ran out of memory: the group where most did, against all others."""
    from analysis.settings import settings

    setting = next(s for s in settings(results) if s.name == effect.name)
    lost = results.trials["state"].isin(("diverged", "out_of_memory")).to_numpy()
    rows = []
    for group in effect.groups:
        if effect.ordered:
            low, high = (math.log10(v) if setting.log else v for v in (group.low, group.high))
            mask = (setting.x >= low - 1e-9) & (setting.x <= high + 1e-9)
        else:
            mask = setting.x == setting.texts.index(group.label)
        mask = mask & results.trials["repeat_of"].isna().to_numpy()
        rows.append((group.label, int((mask & lost).sum()), int(mask.sum())))
    label, bad, count = max(rows, key=lambda row: row[1] / max(row[2], 1))
    others = [sum(row[1] for row in rows if row[0] != label), sum(row[2] for row in rows if row[0] != label)]
    text = (
        f"{bad} of {count} trials with {effect.label} {label} diverged or ran out of memory, "
        f"{others[0]} of {others[1]} others did."
    )
    evidence = Evidence(
        effect.test, effect.trials, bad / count - others[0] / max(others[1], 1),
        "difference of the shares that were lost", math.nan, effect.lost_p,
    )  # fmt: skip
    lines = tuple(Line(name, n / max(of, 1), f"{n} of {of}") for name, n, of in rows[:8])
    return Finding("failure", text, _strength(effect.lost_p), (effect.name,), evidence, lines)


def _no_effect(effect: Effect) -> Finding:
    text = f"{_first_up(effect.label)} hardly mattered: at most {effect.high:.0%} of the differences between trials"
    if effect.good and not _few(effect):
        text += f"; {_range(*effect.good)} held the best"
    evidence = Evidence(
        f"bootstrap, upper end of a 90% interval below {SMALL:.0%}", effect.trials, effect.share,
        "share of the differences in standing", effect.p, effect.adjusted,
    )  # fmt: skip
    return Finding("no effect", text + ".", "no effect", (effect.name,), evidence)


def _not_told(results: Results, tested: tuple[Effect, ...]) -> tuple[str, ...]:
    known = int(fidelity.standing(results).notna().sum())
    if known < FEWEST:
        number = style.count(known, "trial")
        return (f"{number} can be compared: too few to tell what mattered, {FEWEST} are needed.",)
    open_ = [e for e in tested if e.adjusted > ALARM and e.high >= SMALL]
    said = []
    if open_:
        said.append(f"{known} trials do not tell whether these mattered: {', '.join(e.label for e in open_)}.")
        hint = min(open_, key=lambda e: e.p)
        if hint.p < 0.05:
            said.append(
                f"The strongest hint among them is {hint.label}, with {hint.best.label} ahead of {hint.worst.label} in "
                f"{hint.gap:.0%} of all pairs (p = {hint.p:.2g}, {hint.adjusted:.2g} when all "
                "looks are counted): it may be chance."
            )
    return tuple(said)


# ---------------------------------------------------------------- pairs


def _of_pair(pair: Interaction, results: Results) -> Finding:
    """The setting whose best place moves with the other's is the subject of the sentence."""
    from analysis.settings import settings

    by_name = {s.name: s for s in settings(results)}
    one, two = by_name[pair.first], by_name[pair.second]
    surface, moving, other = pair.surface, one, two
    places, others = pair.first_at, pair.second_at
    both = bool(one.distinct) == bool(two.distinct)
    if (one.distinct and not two.distinct) or (both and _moves(surface.T) > _moves(surface)):
        surface, moving, other, places, others = surface.T, two, one, pair.second_at, pair.first_at
    eighth = len(others) // 8
    columns = list(range(len(others))) if other.distinct else [eighth, len(others) - 1 - eighth]
    flat = max(float(np.ptp(surface[:, c])) for c in columns) / 3  # where nothing changes, nothing is best
    columns = [c for c in columns if float(np.ptp(surface[:, c])) >= flat]
    best = [(other.text(others[c]), moving.text(places[int(surface[:, c].argmax())]), surface[:, c]) for c in columns]
    evidence = Evidence(
        "functional ANOVA, strongest pair against shuffled residuals", pair.trials, pair.share,
        "share of the differences in standing", pair.p, pair.p,
    )  # fmt: skip
    lines = tuple(
        Line(f"{other.label} {where}", float(np.clip(values.max(), 0, 1)), f"{moving.label} {what}")
        for where, what, values in best[:8]
    )
    if len({what for _, what, _ in best}) > 1:
        listed = ", ".join(
            f"{'' if moving.distinct else 'about '}{what} with {other.label} {where}" for where, what, _ in best[:4]
        )
        text = f"Which {moving.label} is best depends on {other.label}: {listed}."
    else:
        reach = {where: float(values.max() - values.min()) for where, _, values in best}
        most = max(reach, key=lambda where: reach[where])
        text = f"{_first_up(moving.label)} mattered most with {other.label} {most}; {best[0][1]} was best throughout."
    return Finding("interaction", text, _strength(pair.p), (pair.first, pair.second), evidence, lines)


def _moves(surface: Any) -> float:
    """How far the best row moves over the columns."""
    best = surface.argmax(axis=0)
    return float(best.max() - best.min()) / max(len(surface) - 1, 1)


def _range(low: float, high: float) -> str:
    return style.number(low) if low == high else f"{style.number(low)} to {style.number(high)}"


def _first_up(text: str) -> str:
    return text[:1].upper() + text[1:]
