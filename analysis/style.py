"""How everything looks and reads: colours of both themes, words for axes, formats of numbers. Imports nothing heavy."""

from __future__ import annotations

import html
import math
import re
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

import pandas as pd

from analysis.folders.goal import Objective
from analysis.results import Results

ACCENT = "#D55E00"
PALE = "#9aa0a6"  # stopped trials: 2.6:1 on white, 6:1 on the dark page; readable as "less" on both
# Okabe and Ito (2008) without black and yellow, each lost on one of the two themes, and without vermillion, our accent.
CATEGORIES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#7f7f7f")
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Noto Sans', sans-serif"

# Viridis between 5% and 93%: the outer ends vanish on the dark and on the white page.
VIRIDIS = ("#471063", "#472f7d", "#3d4d8a", "#306a8e", "#25848e", "#1f9e89", "#38b977", "#75d054", "#bddf26")
RED_BLUE = {"light": ("#b2182b", "#ef8a62", "#f7f7f7", "#67a9cf", "#2166ac"),
            "dark": ("#e0605e", "#8c3a3a", "#24272c", "#2f6690", "#5aa9dd")}  # fmt: skip
GREYS = {"light": ("#f7f7f7", "#8d939b"), "dark": ("#24272c", "#858c96")}

THEMES = {
    "light": {"page": "#ffffff", "text": "#1f2328", "muted": "#59636e", "grid": "#e4e7eb"},
    "dark": {"page": "#15181c", "text": "#e6e9ed", "muted": "#9aa4af", "grid": "#2d333b"},
}


def scale(colours: Iterable[str]) -> list[list[Any]]:
    """Plotly's form of a colour scale: evenly spaced stops."""
    stops = list(colours)
    return [[i / (len(stops) - 1), colour] for i, colour in enumerate(stops)]


def metric_scale(theme: str) -> list[list[Any]]:
    """Worst to best. The better a trial, the stronger it stands out: dark on the white page, bright on the dark one."""
    return scale(VIRIDIS if theme == "dark" else VIRIDIS[::-1])


def template(theme: str) -> dict[str, Any]:
    """A Plotly template; the page swaps the two as the reader's setting changes."""
    colours = THEMES[theme]
    axis = {
        "gridcolor": colours["grid"], "linecolor": colours["grid"], "zerolinecolor": colours["grid"],
        "zeroline": False, "ticks": "outside", "tickcolor": colours["grid"], "automargin": True,
        "title": {"standoff": 10},
    }  # fmt: skip
    return {
        "layout": {
            "font": {"family": FONT, "size": 13, "color": colours["text"]},
            "paper_bgcolor": colours["page"], "plot_bgcolor": colours["page"],
            "xaxis": axis, "yaxis": axis, "colorway": list(CATEGORIES),
            "margin": {"l": 60, "r": 30, "t": 40, "b": 55},
            "hoverlabel": {"font": {"family": FONT, "size": 13}, "align": "left"},
            "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "bgcolor": "rgba(0,0,0,0)"},
            "coloraxis": {
                "colorscale": metric_scale(theme),
                "colorbar": {"outlinewidth": 0, "thickness": 12, "ticks": "", "title": {"side": "right"}},
            },
        },
        "data": {
            "heatmap": [
                # Two kinds of heatmap by order: signed associations, then unsigned ones.
                {"colorscale": scale(RED_BLUE[theme])},
                {"colorscale": scale(GREYS[theme])},
            ]
        },
    }  # fmt: skip


# ---------------------------------------------------------------- words

WORDS = {
    "lr": "learning rate",
    "bs": "batch size",
    "wd": "weight decay",
    "val_accuracy": "validation accuracy",
    "val_loss": "validation loss",
    "val_macro_f1": "validation macro F1",
    "val_macro_precision": "validation macro precision",
    "val_macro_recall": "validation macro recall",
    "val_balanced_accuracy": "validation balanced accuracy",
    "val_top3_accuracy": "validation top-3 accuracy",
    "val_top5_accuracy": "validation top-5 accuracy",
    "val_roc_auc": "validation ROC AUC",
    "val_ece": "validation calibration error",
    "raw_val_accuracy": "validation accuracy of the raw weights",
    "raw_val_loss": "validation loss of the raw weights",
    "clean_train_accuracy": "accuracy on clean training images",
    "train_accuracy": "training accuracy",
    "train_loss": "training loss",
    "accuracy_gap": "training minus validation accuracy",
    "acc": "accuracy",
    "ema": "EMA",
    "cutmix": "CutMix",
    "mixup": "MixUp",
    "seconds": "training time (s)",
    "f1": "F1",
    "num_layers": "layers",
    "params": "parameters",
    "flops": "FLOPs",
    "memory_mb": "memory (MB)",
    "model_mb": "model size (MB)",
    "peak_memory_mb": "peak memory (MB)",
    "latency_ms": "latency (ms)",
    "epoch_seconds": "seconds an epoch",
}
# Last parts of a path that say nothing alone: a choice of kinds is called after its section, the rest with it.
_SECTION = frozenset({"name"})
_WITH_SECTION = frozenset({"p"})


def words(name: str) -> str:
    """A field's or metric's name in words: `lr` is learning rate, `weight_decay` weight decay."""
    return WORDS.get(name) or name.replace("_", " ").strip() or name


def labels(columns: Iterable[str]) -> dict[str, str]:
    """A short label for each column: the last part of its path in words, with more of the path where two collide."""
    columns = list(dict.fromkeys(columns))
    found: dict[str, str] = {}
    for length in range(1, 1 + max((len(_parts(c)) for c in columns), default=1)):
        short = {c: _label(_parts(c), length) for c in columns if c not in found}
        counts = Counter([*short.values(), *found.values()])
        found |= {c: text for c, text in short.items() if counts[text] == 1}
    return {c: found.get(c, c) for c in columns}


_PLACE = re.compile(r"[0-9]{1,6}")  # of an item in a list, counted from 0 in paths and from 1 in words
_ITEM = re.compile(r" [0-9]{1,6}$")


def _parts(column: str) -> list[str]:
    parts = [p for p in re.split(r"[./]", column) if p] or [column]
    for n in range(len(parts) - 2, 0, -1):  # model.blocks.1.width: model, block 2, width
        if _PLACE.fullmatch(parts[n]):
            parts[n - 1 : n + 1] = [f"{parts[n - 1].removesuffix('s')} {int(parts[n]) + 1}"]
    return parts


def _label(parts: list[str], length: int) -> str:
    if len(parts) > 1 and parts[-1] in _SECTION:
        parts = parts[:-1]
    elif len(parts) > 1 and parts[-1] in _WITH_SECTION:
        length += 1
    elif len(parts) > 1 and _PLACE.fullmatch(parts[-1]):
        parts = [*parts[:-2], f"{words(parts[-2])} {int(parts[-1]) + 1}"]
    item = [p for p in parts[:-length] if _ITEM.search(p)][-1:]
    return " ".join(words(p) for p in [*item, *parts[-length:]])


# ---------------------------------------------------------------- numbers


def number(value: Any) -> str:
    """Three significant digits for people: 0.0027, 3.2e-5, 374,000; anything but a number as its text."""
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        return str(value)
    value = float(value)
    if math.isnan(value):
        return "–"
    if math.isinf(value) or value == 0:
        return f"{value:g}"
    if abs(value) < 1e-3 or abs(value) >= 1e9:
        mantissa, exponent = f"{value:.2e}".split("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        return f"{mantissa}e{int(exponent)}"
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def texts(values: pd.Series[Any]) -> list[str | None]:
    """Values as the text of a category: True for true, 3 for 3.0, none for null; None where missing."""
    return [None if _missing(v) else number(v) if isinstance(v, float) else _text(v) for v in values]


def _text(value: Any) -> str:
    return "none" if value == "null" else str(value)


def _missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def count(n: Any, one: str, many: str | None = None) -> str:
    """A number of things: 1 trial, 2,000 trials."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def duration(seconds: Any) -> str:
    """Seconds for people: 45 s, 3m 58s, 2h 05m."""
    try:
        seconds = float(seconds)
    except (TypeError, ValueError):
        return "–"
    if not math.isfinite(seconds):
        return "–"
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m {rest:02d}s" if minutes < 60 else f"{minutes // 60}h {minutes % 60:02d}m"


def date(text: Any) -> str:
    """An ISO 8601 time for people: 21 November 2025, 10:03; empty for anything else."""
    try:
        when = datetime.fromisoformat(str(text))
    except ValueError:
        return ""
    return f"{when.day} {when:%B %Y, %H:%M}"


def log_ticks(low: float, high: float) -> list[float]:
    """Round values on a logarithmic axis: powers of ten, with 2 and 5 (or 3) between them where the range is short."""
    decades = math.log10(high) - math.log10(low)
    steps = (1.0, 2.0, 5.0) if decades < 1.5 else (1.0, 3.0) if decades < 2.5 else (1.0,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [s * 10.0**p for p in powers for s in steps]
    return [t for t in ticks if low * 0.999 <= t <= high * 1.001]


def safe(text: Any) -> str:
    """Text that Plotly draws as it is: its labels understand a little HTML, and its legends templates such as %{x}."""
    return html.escape(str(text), quote=False).replace("%{", "%&#123;")


class Metric(NamedTuple):
    """How the metric is shown. `factor` is 100 for an accuracy in 0..1, which people read as a percentage."""

    name: str
    label: str
    axis: str
    factor: float
    best: str  # "highest" or "lowest"

    def text(self, value: Any) -> str:
        """One value: 61.4% or 0.594."""
        if value is None or pd.isna(value):
            return "–"
        return f"{100 * float(value):.1f}%" if self.factor == 100 else number(value)


def metric(results: Results, objective: Objective | None = None) -> Metric:
    """The run's metric in words, or another objective; without one, an empty name."""
    name, mode = objective or (results.metric or "", results.mode)
    last = re.split(r"[./]", name)[-1]
    label = words(last) if name else "metric"
    values = _finite(results.epochs, name)
    share = "acc" in last.lower() and (values.dropna().empty or bool(values.dropna().between(0, 1).all()))
    best = "highest" if mode == "max" else "lowest"
    return Metric(name, label, f"{label} (%)" if share else label, 100.0 if share else 1.0, best)


def metric_values(results: Results, frame: pd.DataFrame) -> pd.Series[float]:
    """The metric's column of `frame` as floats; NaN where there is none, infinite values as NaN."""
    return _finite(frame, results.metric)


def _finite(frame: pd.DataFrame, column: str | None) -> pd.Series[float]:
    if column is None or column not in frame:
        return pd.Series(math.nan, index=frame.index, dtype=float)
    values = pd.to_numeric(frame[column], errors="coerce").astype(float)
    return values.where(values.abs() < math.inf)


def called(row: Any) -> str:
    """A trial's id, with the label of a starting point: trial 003 (FT-4)."""
    return name(row.name, row["label"])


def name(trial: Any, label: Any) -> str:
    """The same by its parts."""
    return f"trial {trial}" if label is None or pd.isna(label) or label == "" else f"trial {trial} ({label})"


def outcome(row: Any) -> str:
    """How a trial ended, in words: finished, stopped at epoch 3, out of memory; and why it cannot be best."""
    state, epochs = words(str(row["state"])), row["epochs"]
    if state != "finished" and pd.notna(epochs) and int(epochs):
        state += f" at epoch {int(epochs)}"
    if pd.notna(row["repeat_of"]):
        state = f"repeat of {row['repeat_of']}, {state}"
    return f"{state}, breaks {row['breaks']}" if pd.notna(row["breaks"]) else state
