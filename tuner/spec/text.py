"""Text: how settings, metrics, counts and times are written for a person, the same in every place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tuner.spec.distributions import Choice, Int, LogInt, LogUniform, Plain, text_of
from tuner.spec.parameter import Parameter


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


def by_path(chosen: Mapping[str, Plain], parameters: Iterable[Parameter]) -> dict[str, Any]:
    """A trial's parameters under their paths."""
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


def show_metric(metric: str, value: Any) -> str:
    """Accuracies as percentages, other metrics with three digits."""
    if value is None:
        return ""
    if "accuracy" in metric:
        return f"{value:.1%}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if "_m" in metric else f"{value:.3f}"


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
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    hours = whole // 3600
    return f"{hours}h {whole % 3600 // 60:02d}m" if hours < 100 else f"{hours // 24:,} days"
