"""What a search improves and what it must keep to: objectives and constraints over named metrics."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tuner.spec.nearest import did_you_mean

Mode = Literal["max", "min"]
Metric = Literal[
    "val_accuracy",
    "val_macro_f1",
    "val_loss",
    "val_balanced_accuracy",
    "val_macro_precision",
    "val_macro_recall",
    "val_roc_auc",
    "val_top3_accuracy",
    "val_top5_accuracy",
    "val_ece",
]
Counted = Literal["params", "flops", "memory_mb", "model_mb"]
Measured = Literal["latency_ms", "epoch_seconds", "peak_memory_mb", "accuracy_gap"]
AnyMetric = Literal[Metric, Counted, Measured]

# Metrics of an epoch that can drive a search: the scheduler judges by them.
METRICS: dict[Metric, Mode] = {
    "val_accuracy": "max",
    "val_macro_f1": "max",
    "val_loss": "min",
    "val_balanced_accuracy": "max",
    "val_macro_precision": "max",
    "val_macro_recall": "max",
    "val_roc_auc": "max",
    "val_top3_accuracy": "max",
    "val_top5_accuracy": "max",
    "val_ece": "min",
}
# Known before a trial is trained.
COUNTED: dict[Counted, Mode] = {"params": "min", "flops": "min", "memory_mb": "min", "model_mb": "min"}
# Known after an epoch; beside the first objective, or in a constraint.
MEASURED: dict[Measured, Mode] = {
    "latency_ms": "min",
    "epoch_seconds": "min",
    "peak_memory_mb": "min",
    "accuracy_gap": "min",
}
MODES: dict[str, Mode] = dict((*METRICS.items(), *COUNTED.items(), *MEASURED.items()))


def check_metrics(names: Sequence[object]) -> None:
    """The metrics that a search improves, in order.

    Raises:
        ValueError: none at all, one that is not there, or a first one that cannot drive the scheduler.
    """
    for name in names:
        if not isinstance(name, str):
            raise ValueError(f"must be a metric or several, like {{val_accuracy: max, params: min}}, got {name}")
        if name not in MODES:
            raise ValueError(f"no such metric: {name}{did_you_mean(name, MODES)}")
    if not names:
        raise ValueError(f"must name a metric at least: one of {', '.join(METRICS)}")
    if names[0] not in METRICS:
        raise ValueError(f"the first decides which trial is stopped: one of {', '.join(METRICS)}, not {names[0]}")


@dataclass(frozen=True)
class Objective:
    """A metric and its direction."""

    metric: str
    mode: Mode

    @property
    def sign(self) -> int:
        """+1 where larger is better, -1 where smaller is."""
        return 1 if self.mode == "max" else -1

    def score(self, row: Mapping[str, Any]) -> float:
        """The row's value turned so that larger is better; minus infinity where there is none or it is not finite."""
        value = number(row.get(self.metric))
        return self.sign * value if math.isfinite(value) else -math.inf


@dataclass(frozen=True)
class Constraint:
    """A metric that must not pass a bound."""

    metric: str
    sense: Literal["<=", ">="]
    bound: float

    @property
    def counted(self) -> bool:
        """Whether it can be checked before anything is trained."""
        return self.metric in COUNTED

    def excess(self, value: float) -> float:
        """By how much the value passes the bound; 0 or less where it keeps to it."""
        return value - self.bound if self.sense == "<=" else self.bound - value

    def __str__(self) -> str:
        return f"{self.metric} {self.sense} {self.bound:,.10g}"


_RULE = re.compile(r"\s*(\w+)\s*(<=|>=)\s*(\S+)\s*")


def parse_constraint(text: str) -> Constraint:
    """A constraint like `params <= 200000` or `latency_ms <= 5`.

    Raises:
        ValueError: the text is none, or it names no metric.
    """
    match = _RULE.fullmatch(text)
    if not match:
        raise ValueError(f"no constraint: {text!r}; write METRIC <= NUMBER or METRIC >= NUMBER")
    metric, sense, bound = match.groups()
    if metric not in MODES:
        raise ValueError(f"no such metric: {metric}{did_you_mean(metric, MODES)}")
    try:
        value = float(bound.replace("_", ""))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{text!r}: {bound} is no number")
    return Constraint(metric, "<=" if sense == "<=" else ">=", value)


def number(value: Any) -> float:
    """A metric as read from a row; null is not a number."""
    return math.nan if value is None else float(value)
