"""The page of an evaluation: what a model is worth, where it errs, how sure it is; one HTML file and its figures."""

from __future__ import annotations

import base64
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from analysis import style
from analysis.evaluation import finalists, sheet
from analysis.evaluation.confusion import WITH_NUMBERS
from analysis.evaluation.figures import FIGURES, Kind
from analysis.evaluation.read import Evaluation, Finals, Interval, Wrong, read, read_finals
from analysis.page import pages
from analysis.page.figures import DPI, STYLE
from analysis.plots import canvas

NAME = "index.html"
MOST_ROWS = 30  # of the table of classes; a longer one is folded
SHOWN = 18  # errors in sight; the rest is folded
PAIRS = 5  # kinds of error that are shown by their images
OF_A_PAIR = 4
CUT = 40  # characters of a class's name on the page

# In the order of the page. A percentage is what people call accuracy; the others stay between 0 and 1.
METRICS = {
    "accuracy": "accuracy",
    "top3_accuracy": "top-3 accuracy",
    "top5_accuracy": "top-5 accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "macro_precision": "macro precision",
    "macro_recall": "macro recall",
    "weighted_f1": "weighted F1",
    "weighted_precision": "weighted precision",
    "weighted_recall": "weighted recall",
    "roc_auc": "ROC AUC",
    "average_precision": "average precision",
    "ece": "calibration error ↓",
    "brier": "Brier score ↓",
    "loss": "loss ↓",
}


class Shown(NamedTuple):
    """One figure on the page. width: what it needs in points to be legible; narrower screens scroll it."""

    id: str
    title: str
    reading: str
    said: str
    width: int = 0


class Error(NamedTuple):
    """A wrongly judged image. source: its thumbnail as a data URI, empty where that is missing."""

    source: str
    name: str
    truth: str
    predicted: str
    sure: str
    doubt: str


def write(folder: Path) -> Path:
    """Writes index.html and the figures as PNG beside evaluation.json; returns the page.

    Raises:
        Unreadable: evaluation.json is missing or damaged.
        OSError: the folder cannot be written.
    """
    evaluation, finals = read(folder), read_finals(folder)
    if finals is not None and finals.winner not in (None, evaluation.model.trial):
        finals = None  # of another model
    statics = {name: partial(kind.draw_static, evaluation) for name, kind in _drawn(evaluation).items()}
    titles = {name: FIGURES[name].title for name in statics}
    if finals is not None and _has(finals):
        statics["finalists"], titles["finalists"] = partial(finalists.draw_static, finals), "The finalists over seeds"
    _write_images(folder, statics, titles)
    text = render(evaluation, finals)
    pages.put(folder / NAME, lambda path: path.write_text(text, encoding="utf-8"))
    return folder / NAME


def _drawn(evaluation: Evaluation) -> dict[str, Kind]:
    return {name: kind for name, kind in FIGURES.items() if kind.has(evaluation)}


def _has(finals: Finals | None) -> bool:
    return finals is not None and any(one.values for one in finals.finalists)


def _write_images(folder: Path, statics: Mapping[str, Callable[[], Any]], titles: Mapping[str, str]) -> None:
    """Each figure as NAME.png; those that an earlier evaluation left and that are not drawn now are removed."""
    import matplotlib

    for name in {*FIGURES, "finalists"} - set(statics):
        (folder / f"{name}.png").unlink(missing_ok=True)
    with warnings.catch_warnings(), matplotlib.rc_context(STYLE):
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a name in a script that the font lacks
        for name, draw in statics.items():
            figure = draw()
            figure.suptitle(titles[name], x=0.01, ha="left", weight="bold")
            pages.put(folder / f"{name}.png", partial(figure.savefig, dpi=DPI, format="png"))


def render(evaluation: Evaluation, finals: Finals | None = None) -> str:
    """The page as text."""
    from plotly.offline import get_plotlyjs

    kinds = _drawn(evaluation)
    drawn = {name: kind.draw(evaluation) for name, kind in kinds.items() if kind.draw}
    if finals is not None and _has(finals):
        drawn["finalists"] = finalists.draw(finals)
    errors = [_error(evaluation, wrong) for wrong in evaluation.wrong]
    return pages.render(
        "evaluation.html.jinja",
        name=canvas.cut(evaluation.model.name, 120),
        head=_head(evaluation),
        warnings=_warnings(evaluation),
        answer=_answer(evaluation),
        metrics=_metrics(evaluation),
        shown={name: _shown(name, kind, evaluation) if name in kinds else None for name, kind in FIGURES.items()},
        finals=finals if _has(finals) else None,
        pairs=_pairs(evaluation, errors),
        errors=errors[:SHOWN],
        more_errors=errors[SHOWN:],
        classes=_classes(evaluation),
        means=_means(evaluation),
        folded=len(evaluation.classes) > MOST_ROWS,
        notes=evaluation.notes,
        small_print=_small_print(evaluation),
        figures=pages.script_json({name: pages.figure_json(figure) for name, figure in drawn.items()}),
        templates=pages.script_json({theme: style.template(theme) for theme in style.THEMES}),
        plotly=get_plotlyjs(),
    )


def _shown(name: str, kind: Kind, evaluation: Evaluation) -> Shown:
    n = len(evaluation.classes)
    width = {"confusion": min(840, 130 + 72 * n), "confusion_counts": min(840, 130 + 72 * n), "confused": 460}
    reading = kind.reading
    if name == "confusion" and n > WITH_NUMBERS:
        reading = reading.split(" Numbers are")[0] + " Point at a cell to read it."
    return Shown(name, kind.title, reading, kind.said(evaluation), width.get(name, 0))


# ---------------------------------------------------------------- what it says


def percent(value: float | None) -> str:
    """61.4%."""
    return "–" if value is None else f"{100 * value:.1f}%"


def _from_to(interval: Interval, *, share: bool) -> str:
    if interval.low is None or interval.high is None:
        return ""
    if share:
        return f"{100 * interval.low:.1f} to {100 * interval.high:.1f}%"
    return f"{interval.low:.3f} to {interval.high:.3f}"


def _what(evaluation: Evaluation) -> str:
    known = {"test": "test images", "validation": "validation images"}
    return known.get(evaluation.data.what, "these images")


def _head(evaluation: Evaluation) -> list[str]:
    """Which model, on what images, how many looks at them."""
    model, data = evaluation.model, evaluation.data
    size = f"{style.number(model.params)} parameters" if model.params else ""
    who = [
        " with ".join(part for part in (model.architecture, size) if part),
        " of ".join(
            part for part in (f"trial {model.trial}" if model.trial else "", model.run and Path(model.run).name) if part
        ),
        f"epoch {model.epoch}" if model.epoch else "",
    ]
    found = "images" if data.what not in ("test", "validation") else f"{data.what} images"
    on = f"{style.count(data.images, found.removesuffix('s'))} of {len(evaluation.classes)} classes"
    if data.what not in ("test", "validation"):
        on += f" from {canvas.cut(data.what, 200)}"
    lines = [", ".join(part for part in who if part), f"measured on {on}"]
    if data.what == "test" and data.looks == 1:
        lines.append("This is the first look at the test images of this run: nothing was chosen by them.")
    return [line for line in lines if line]


def _warnings(evaluation: Evaluation) -> list[str]:
    """What makes the numbers worth less than they look."""
    data = evaluation.data
    said = []
    if data.what == "test" and data.looks is not None and data.looks > 1:
        said.append(
            f"The test images of this run have been looked at {data.looks} times. Whoever decides anything after a "
            "look decides by the test images, and their number becomes too good: quote this one only if nothing was "
            "changed because of an earlier look."
        )
    if data.what == "validation":
        said.append(
            "These are the validation images, by which the search chose this model: expect a little worse on new "
            "images. The test images, which nothing was chosen by, say how much."
        )
    return [*said, *data.problems]


def _answer(evaluation: Evaluation) -> dict[str, Any]:
    """The card: accuracy, how sure it is, how far from training."""
    model, accuracy = evaluation.model, evaluation.accuracy
    right = sum(row[n] for n, row in enumerate(evaluation.confusion))
    speed = evaluation.images_per_second
    about = [
        ("trial", model.trial or ""),
        ("delivered epoch", style.number(model.epoch) if model.epoch else ""),
        ("parameters", style.number(model.params) if model.params else ""),
        ("speed here", f"{style.number(round(speed))} images a second" if speed else ""),
    ]
    if model.metric and model.value is not None:
        value = percent(model.value) if "acc" in model.metric else f"{model.value:.3f}"
        about.insert(0, (style.words(model.metric), value))
    return {
        "value": percent(accuracy.value),
        "label": f"accuracy on {_what(evaluation)}",
        "interval": _from_to(accuracy, share=True),
        "right": f"{right:,} of {style.count(evaluation.data.images, 'image')} right",
        "gap": _gap(evaluation),
        "about": [(key, text) for key, text in about if text],
    }


def _gap(evaluation: Evaluation) -> str:
    gap = evaluation.gap
    if gap is None:
        return ""
    points = f"{abs(100 * gap.difference):.1f} points"
    sure = "" if gap.low is None or gap.high is None else f", 95% interval {_points(gap.low)} to {_points(gap.high)}"
    which = "more" if gap.difference >= 0 else "less"
    return (
        f"Of {style.count(gap.images, 'image')} that it learned from, seen without augmentation, it knows "
        f"{percent(gap.train)}: {points} {which}{sure}."
    )


def _points(value: float) -> str:
    return f"{100 * value:.1f}".replace("-", "−")


def _metrics(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """Name, value, interval; those that the file has, unknown ones after ours."""
    names = [name for name in METRICS if name in evaluation.metrics]
    names += [name for name in evaluation.metrics if name not in METRICS]
    rows = []
    for name in names:
        it = evaluation.metrics[name]
        share = "accuracy" in name
        value = percent(it.value) if share else "–" if it.value is None else f"{it.value:.3f}"
        rows.append((METRICS.get(name, style.words(name)), value, _from_to(it, share=share)))
    return rows


def _pairs(evaluation: Evaluation, errors: list[Error]) -> list[tuple[str, list[Error]]]:
    """The most frequent kinds of error, each with its surest images."""
    found = []
    for pair in evaluation.confused[:PAIRS]:
        of_it = [
            error
            for error, wrong in zip(errors, evaluation.wrong, strict=True)
            if (wrong.truth, wrong.predicted) == (pair.truth, pair.predicted)
        ]
        title = f"{canvas.cut(pair.truth, CUT)} → {canvas.cut(pair.predicted, CUT)}, {style.count(pair.count, 'image')}"
        if of_it:
            found.append((title, of_it[:OF_A_PAIR]))
    return found


def _error(evaluation: Evaluation, wrong: Wrong) -> Error:
    made = sheet.thumbnail(evaluation, wrong)
    return Error(
        f"data:{made[0]};base64,{base64.b64encode(made[1]).decode()}" if made else "",
        canvas.cut(wrong.name, 80),
        canvas.cut(wrong.truth, CUT),
        canvas.cut(wrong.predicted, CUT),
        sheet.sureness(wrong),
        percent(wrong.probability_of_truth),
    )


CLASS_COLUMNS = ("precision", "recall", "f1")


def _classes(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Rows of the classification report, in the order of the classes."""
    return [
        {
            "name": canvas.cut(score.name, CUT),
            "cells": [
                *(_number(getattr(score, name)) for name in CLASS_COLUMNS),
                _from_to(Interval(score.f1, score.f1_low, score.f1_high), share=False),
                _number(score.roc_auc),
                _number(score.average_precision),
                f"{score.predicted:,}",
                f"{score.images:,}",
            ],
        }
        for score in evaluation.per_class
    ]


def _means(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The last rows: every class alike, and every image alike."""
    rows = []
    for kind, label in (("macro", "macro mean"), ("weighted", "weighted mean")):
        found = [evaluation.metrics.get(f"{kind}_{name}") for name in CLASS_COLUMNS]
        if not any(found):
            continue
        last = found[-1]
        areas = [evaluation.metrics.get(name) for name in ("roc_auc", "average_precision")] if kind == "macro" else []
        cells = [_number(it.value if it else None) for it in found]
        cells.append(_from_to(last, share=False) if last else "")
        cells += [_number(it.value if it else None) for it in areas] or ["", ""]
        rows.append({"name": label, "cells": [*cells, "", f"{evaluation.data.images:,}"]})
    return rows


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _small_print(evaluation: Evaluation) -> list[tuple[str, str]]:
    model = evaluation.model
    seconds = evaluation.seconds
    found = {
        "model": model.name,
        "kind": model.kind,
        "architecture": model.architecture,
        "run": Path(model.run).name if model.run else "",
        "trial": model.trial,
        "epoch": model.epoch,
        "seed": model.seed,
        "parameters": style.number(model.params) if model.params is not None else "",
        "images": evaluation.data.what,
        "looks at the test images": evaluation.data.looks,
        "took": style.duration(seconds) if seconds is not None else "",
        "versions": ", ".join(f"{name} {version}" for name, version in evaluation.versions.items()),
    }
    return [(key, canvas.cut(str(value), 300)) for key, value in found.items() if value not in (None, "")]
