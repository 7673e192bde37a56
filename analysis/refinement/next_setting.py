"""What becomes of one setting in the next space: narrower, wider, moved, fixed, fewer options, or as it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from analysis import style
from analysis.effects import ALARM, Effect, groups, independence
from analysis.findings import CLEAR, SMALL, Report
from analysis.folders.parameters import Parameter
from analysis.refinement.narrowing import FEWEST_VALUE, Beaten, Cut, cut_range, leans, lost_values
from analysis.refinement.widening import Legal, next_in_row, tidy, widen_range
from analysis.results import Results
from analysis.settings import Mask, Setting

CHEAPER = 0.95  # of the seconds an epoch: less of a difference is not worth a choice


class Rules(NamedTuple):
    """What the space of a run allows: the steps of ranges by setting, and whether a setting may be searched so."""

    steps: Mapping[str, float] = {}
    legal: Legal | None = None


class Change(NamedTuple):
    """One setting of the next space. kind: narrow, widen, move (both), drop (options of a choice), fix. old: as it was,
    in words; new: {"loguniform": [low, high]} and so on as a space file has it, or a value; reason: one sentence.
    """

    name: str
    path: str
    kind: str
    old: str
    new: Any
    reason: str


class Evidence(NamedTuple):
    """What all decisions look at."""

    results: Results
    report: Report
    rules: Rules
    score: Any
    cost: Any
    settings: Mapping[str, Setting]
    tops: tuple[Mapping[str, Any], ...]
    paired: Mapping[str, tuple[str, ...]]

    def inside(self, setting: Setting) -> Mask:
        """The trials that tell of it."""
        mask: Mask = setting.used() & np.isfinite(self.score)
        return mask


def value_of(parameter: Parameter, value: Any) -> Any:
    """A cell of the table as it was searched: whole numbers as such."""
    value = value.item() if hasattr(value, "item") else value
    if parameter.kind == "choice":
        return next((v for v in parameter.choices if type(v) is not bool and v == value), value)
    return int(value) if parameter.kind == "int" else float(value)


# ---------------------------------------------------------------- one setting


def change_of(seen: Evidence, effect: Effect, setting: Setting, parameter: Parameter) -> tuple[Change | None, str]:
    """What becomes of a setting, and what is to be said of it at the head."""
    if any(f.settings == (effect.name,) for f in seen.report.made_no_difference):
        return _fix(seen, effect, setting, parameter), ""
    decided = effect.adjusted <= ALARM and effect.high >= SMALL
    end, note = (effect.bound, "") if effect.bound and effect.bound_p <= ALARM else (None, "")
    if end and (why := _hopeless(seen, setting, end)):
        end, note = None, f"{_first_up(effect.label)} is not widened although the best values lie at its end: {why}."
    if parameter.kind == "choice":
        return _choice(seen, effect, setting, parameter, decided, end), note
    return _range(seen, effect, setting, parameter, decided, end), note


def _hopeless(seen: Evidence, setting: Setting, end: str) -> str:
    """Why to go no further: a fifth and more of the trials near that end diverged or ran out of memory."""
    inside = seen.inside(setting)
    reach = 0.1 * (setting.high - setting.low)
    near = inside & (setting.x >= setting.high - reach if end == "high" else setting.x <= setting.low + reach)
    lost = near & seen.results.trials["state"].isin(("diverged", "out_of_memory")).to_numpy()
    if lost.sum() < max(1.0, near.sum() / 5):
        return ""
    return f"{int(lost.sum())} of {int(near.sum())} trials there diverged or ran out of memory"


def _range(
    seen: Evidence, effect: Effect, setting: Setting, parameter: Parameter, decided: bool, end: str | None
) -> Change | None:
    old = (_number(parameter, parameter.low), _number(parameter, parameter.high))
    if setting.log != parameter.log or not math.isfinite(old[0]) or not math.isfinite(old[1]) or old[0] >= old[1]:
        return None
    measure: Callable[[float], float] = math.log10 if setting.log else float
    inside = seen.inside(setting)
    low, high, reasons, kinds = *old, [], set()
    if decided:
        mine = [measure(top[effect.name]) for top in seen.tops if effect.name in top]
        parts = _parts(seen, effect.name)
        cut = cut_range(seen.results, setting, seen.score, inside, (measure(old[0]), measure(old[1])), mine, parts)
        if cut:
            low, high = _ends(parameter, cut.low, cut.high, old, seen.rules.steps.get(effect.name), setting.log)
            if (low, high) != old:
                kinds.add("narrow")
                reasons.append(_narrowed(effect, setting, cut, bool(parts)))
    if end and not (end == "low" and low > old[0]) and not (end == "high" and high < old[1]):
        further = _further(seen.rules, parameter, (low, high), old, end)
        if further != (old[0] if end == "low" else old[1]):
            low, high = (further, high) if end == "low" else (low, further)
            kinds.add("widen")
            reasons.append(_widened(effect, end))
    if not kinds:
        return None
    kind = "move" if len(kinds) > 1 else kinds.pop()
    new = _distribution(parameter, low, high, seen.rules.steps.get(effect.name))
    return Change(effect.name, parameter.column, kind, _old(seen, parameter), new, "; ".join(reasons))


def _parts(seen: Evidence, name: str) -> list[Mask]:
    """The trials in groups by each setting that this one interacts with: what is bad must be bad in all of them."""
    made: list[Mask] = []
    for other in seen.paired.get(name, ()):
        if other in seen.settings:
            made += groups(seen.settings[other], seen.inside(seen.settings[other]))
    return made


def _further(
    rules: Rules, parameter: Parameter, ends: tuple[float, float], old: tuple[float, float], end: str
) -> float:
    step = rules.steps.get(parameter.name)
    if step:  # so many steps as half the range holds, or one
        count = max(1, round((old[1] - old[0]) / step / 2))
        for by in range(count, 0, -1):
            new = old[1] + by * step if end == "high" else old[0] - by * step
            new = int(new) if parameter.kind == "int" else float(f"{new:.12g}")
            pair = (ends[0], new) if end == "high" else (new, ends[1])
            if (new >= 0 or old[0] < 0) and _legal(rules, parameter, pair, old):
                return new
        return old[1] if end == "high" else old[0]

    def legal(new: float) -> bool:
        return _legal(rules, parameter, (ends[0], new) if end == "high" else (new, ends[1]), old)

    return widen_range(old[0], old[1], end, parameter.log, parameter.kind == "int", legal)


def _legal(rules: Rules, parameter: Parameter, ends: tuple[float, float], old: tuple[float, float]) -> bool:
    """Whether the field takes such a range; where nobody can say, shares of one stay below one."""
    if rules.legal is None:
        return parameter.kind == "int" or parameter.log or not (old[0] >= 0 and old[1] <= 1) or ends[1] < 1
    return rules.legal(parameter.name, _distribution(parameter, *ends, rules.steps.get(parameter.name)))


def _ends(
    parameter: Parameter, low: float, high: float, old: tuple[float, float], step: float | None, log: bool
) -> tuple[float, float]:
    """Ends in the setting's own measure as numbers to read: rounded outwards by a twentieth of the range at most."""
    wide = high - low
    first, last = (10**low, 10**high) if log else (low, high)
    if parameter.kind == "int" and not step:
        first, last = round(first), round(last)
    elif step:
        first = old[0] + math.floor((first - old[0]) / step + 1e-9) * step
        last = old[0] + math.ceil((last - old[0]) / step - 1e-9) * step
        first, last = float(f"{first:.12g}"), float(f"{last:.12g}")
    else:
        room = [v * (10 ** (wide / 20) - 1) if log else wide / 20 for v in (first, last)]
        first, last = tidy(first - room[0] / 2, room[0] / 2), tidy(last + room[1] / 2, room[1] / 2)
    first, last = max(first, old[0]), min(last, old[1])
    return (_number(parameter, first), _number(parameter, last)) if first < last else old


def _choice(
    seen: Evidence, effect: Effect, setting: Setting, parameter: Parameter, decided: bool, end: str | None
) -> Change | None:
    values, reasons, kind = list(parameter.choices), [], "drop"
    places = list(parameter.choices) if setting.ordered else [float(n) for n in range(len(values))]
    if decided and setting.distinct and effect.name not in seen.paired:
        mine = [places[values.index(t[effect.name])] for t in seen.tops if t.get(effect.name, parameter) in values]
        widened = [places[values.index(v)] for v in values if _is_open(seen, parameter, v)]
        gone = lost_values(seen.results, setting, seen.score, [*mine, *widened])
        left = [v for v, at in zip(values, places, strict=True) if at not in gone]
        if gone and (len(left) > 1 or effect.adjusted <= CLEAR):
            values = left
            reasons.append(_dropped(setting, effect, gone))
    if end and setting.ordered:
        more = next_in_row(parameter.choices, end)
        new = [*values, more] if _rises(values) == (end == "high") else [more, *values]
        if more is not None and _takes(seen.rules, parameter.name, {"choice": new}):
            values, kind = new, "move" if reasons else "widen"
            reasons.append(_widened(effect, end))
    if not reasons:
        return None
    if len(values) == 1:
        return Change(effect.name, parameter.column, "fix", _old(seen, parameter), values[0], "; ".join(reasons))
    return Change(effect.name, parameter.column, kind, _old(seen, parameter), {"choice": values}, "; ".join(reasons))


def _rises(values: list[Any]) -> bool:
    return bool(values[0] <= values[-1])


def _takes(rules: Rules, name: str, new: Any) -> bool:
    return rules.legal is None or rules.legal(name, new)


def _is_open(seen: Evidence, parameter: Parameter, value: Any) -> bool:
    """Whether a setting of this option has its best values at its end: then the option was not given its best."""
    own = {
        p.name
        for p in seen.results.parameters
        for c in p.active_when
        if c.get("name") == parameter.name and value in (c.get("values") or ())
    }
    return any(leans(s, seen.score, seen.inside(s)) for s in seen.settings.values() if s.name in own)


def _fix(seen: Evidence, effect: Effect, setting: Setting, parameter: Parameter) -> Change | None:
    """At the cheapest value where some are cheaper, else at the best trial's; not where other settings hang on it."""
    hanging = {c.get("name") for p in seen.results.parameters for c in p.active_when}
    if effect.name in hanging or not seen.tops:
        return None
    inside = seen.inside(setting)
    told = inside & np.isfinite(seen.cost)
    cut = [mask & told for mask in groups(setting, inside) if (mask & told).sum() >= FEWEST_VALUE]
    value, why = seen.tops[0].get(effect.name), "the best trial's"
    medians = [float(np.median(seen.cost[mask])) for mask in cut]
    differ = bool(medians) and min(medians) <= CHEAPER * max(medians)
    if differ and independence(seen.cost, setting, cut, np.any(cut, axis=0))[0] <= CLEAR:
        value = _middle(setting, parameter, cut[int(np.argmin(medians))])
        why = f"the cheapest, {style.number(min(medians))} s an epoch against {style.number(max(medians))} s"
    if value is None:
        return None
    value = float(f"{value:.3g}") if isinstance(value, float) and parameter.kind == "float" else value
    if parameter.kind != "choice" and parameter.low is not None and parameter.high is not None:
        value = min(max(value, _number(parameter, parameter.low)), _number(parameter, parameter.high))
    if not _takes(seen.rules, effect.name, value):
        return None
    reason = (
        f"made no difference that counts, at most {effect.high:.0%} of what lay between {effect.trials} trials; "
        f"{words(value)} is {why}"
    )
    return Change(effect.name, parameter.column, "fix", _old(seen, parameter), value, reason)


def _middle(setting: Setting, parameter: Parameter, mask: Mask) -> Any:
    """The middle one of the values that these trials had."""
    at = float(np.quantile(setting.x[mask], 0.5, method="nearest"))
    if not setting.ordered:
        return parameter.choices[int(at)] if int(at) < len(parameter.choices) else None
    return value_of(parameter, 10**at if setting.log else at)


# ---------------------------------------------------------------- words


def _narrowed(effect: Effect, setting: Setting, cut: Cut, everywhere: bool) -> str:
    good = " to ".join(dict.fromkeys(setting.text(at) for at in cut.good))
    whose = (
        "the best quarters with each value of what it interacts with lie"
        if everywhere
        else "most of the best quarter lies"
    )
    return (
        f"{whose} in {good}; the {cut.gone.trials} trials outside were behind in {cut.gone.behind:.0%} of all pairs "
        f"(that it matters: p = {effect.adjusted:.2g})"
    )


def _widened(effect: Effect, end: str) -> str:
    return (
        f"the best values lie at the {'upper' if end == 'high' else 'lower'} end of what was searched "
        f"(p = {style.number(effect.bound_p)})"
    )


def _dropped(setting: Setting, effect: Effect, gone: Mapping[float, Beaten]) -> str:
    said = [
        f"{setting.text(at)} was behind {effect.best.label} in {one.behind:.0%} of all pairs "
        f"({one.trials} trials, p = {style.number(one.p)})"
        for at, one in gone.items()
    ]
    return "; ".join(said)


def _old(seen: Evidence, parameter: Parameter) -> str:
    if parameter.kind == "choice":
        return words({"choice": list(parameter.choices)})
    low, high = (_number(parameter, end) for end in (parameter.low, parameter.high))
    if seen.results.kind == "ray":  # which stores no space: these are the ends of what was tried
        low, high = (float(f"{end:.3g}") for end in (low, high))
        return f"tried {words(_distribution(parameter, low, high, None))}"
    return words(_distribution(parameter, low, high, seen.rules.steps.get(parameter.name)))


def _distribution(parameter: Parameter, low: float, high: float, step: float | None) -> dict[str, Any]:
    """A range as a space file has it."""
    if parameter.kind == "int":
        step = int(step) if step and step != 1 else None
        return {"logint" if parameter.log else "int": [int(low), int(high), *([step] if step else [])]}
    return {"loguniform" if parameter.log else "uniform": [low, high, *([step] if step else [])]}


def _number(parameter: Parameter, value: float | None) -> float:
    value = math.nan if value is None else value
    return int(value) if parameter.kind == "int" and math.isfinite(value) else value


def words(new: Any) -> str:
    """A distribution or a value in a few words: `1e-4 .. 0.1 (log)`, `16 32 64`, `32`."""
    if not isinstance(new, dict):
        return _plain(new)
    ((word, body),) = new.items()
    if word == "choice":
        return " ".join(map(_plain, body))
    by = f" by {_plain(body[2])}" if len(body) > 2 else ""
    return f"{_plain(body[0])} .. {_plain(body[1])}{' (log)' * word.startswith('log')}{by}"


def _plain(value: Any) -> str:
    """A value as one would type it: 1e-4, true, sgd."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def _first_up(text: str) -> str:
    return text[:1].upper() + text[1:]
