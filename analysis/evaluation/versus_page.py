"""The page of two models against each other: which is better, in what, and what they disagree about."""

from __future__ import annotations

import base64
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from analysis import style
from analysis.evaluation import versus_figures as figures
from analysis.evaluation.versus_read import Parted, Side, Versus, picture, read
from analysis.page import pages
from analysis.page.figures import DPI, STYLE
from analysis.plots import canvas

NAME = "index.html"
SHOWN = 18  # images of each sheet in sight; the rest is folded
MOST_ROWS = 30  # of the table of classes; a longer one is folded
CUT = 40  # characters of a class's name on the page

STATIC = {
    "classes": ("Which classes each knows better", figures.draw_classes_static),
    "corruptions": ("Both on worse and worse images", figures.draw_corruptions_static),
    "only_first": ("Only the first is right", lambda it: figures.draw_sheet_static(it, it.only_first)),
    "only_second": ("Only the second is right", lambda it: figures.draw_sheet_static(it, it.only_second)),
}


class Line(NamedTuple):
    """A row of the table of both; better: which of them has the better value, None where that says nothing."""

    label: str
    values: tuple[str, str]
    difference: str = ""
    better: int | None = None


class Photo(NamedTuple):
    """An image on which they part. source: a data URI, empty where it is missing; said: of each class and surety."""

    source: str
    name: str
    truth: str
    said: tuple[tuple[str, str, bool], ...]


def write(folder: Path) -> Path:
    """Writes index.html and the figures as PNG beside versus.json; returns the page.

    Raises:
        Unreadable: versus.json is missing or damaged.
        OSError: the folder cannot be written.
    """
    versus = read(folder)
    _write_images(folder, versus)
    text = render(versus)
    pages.put(folder / NAME, lambda path: path.write_text(text, encoding="utf-8"))
    return folder / NAME


def _write_images(folder: Path, versus: Versus) -> None:
    """Each figure as NAME.png; those with nothing to draw are removed."""
    import matplotlib

    has = {**dict.fromkeys(STATIC, True), "corruptions": bool(figures.steps(versus))}
    has |= {"only_first": bool(versus.only_first), "only_second": bool(versus.only_second)}
    with warnings.catch_warnings(), matplotlib.rc_context(STYLE):
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a name in a script that the font lacks
        for name, (title, draw) in STATIC.items():
            if not has[name]:
                (folder / f"{name}.png").unlink(missing_ok=True)
                continue
            figure = draw(versus)
            figure.suptitle(_title(versus, name, title), x=0.01, ha="left", weight="bold")
            pages.put(folder / f"{name}.png", partial(figure.savefig, dpi=DPI, format="png"))


def _title(versus: Versus, name: str, title: str) -> str:
    if name in ("only_first", "only_second"):
        first, second = figures.names(versus)
        title = (
            f"{first if name == 'only_first' else second} is right, {second if name == 'only_first' else first} wrong"
        )
    return title


def render(versus: Versus) -> str:
    """The page as text."""
    from plotly.offline import get_plotlyjs

    drawn = {"classes": figures.draw_classes(versus)}
    drawn |= {f"corruption-{kind}": figures.draw_kind(versus, kind) for kind in figures.steps(versus)}
    first, second = figures.names(versus)
    return pages.render(
        "versus.html.jinja",
        names=(first, second),
        colours=figures.COLOURS,
        head=_head(versus),
        warnings=_warnings(versus),
        answer=_answer(versus),
        lines=_lines(versus),
        counts=_counts(versus),
        agreement=_agreement(versus),
        classes_said=figures.classes_said(versus),
        rows=_rows(versus),
        folded=len(versus.per_class) > MOST_ROWS,
        sheets=_sheets(versus),
        kinds=[(f"corruption-{kind}", figures.KINDS.get(kind, style.words(kind))) for kind in figures.steps(versus)],
        corruptions_said=figures.corruptions_said(versus),
        harm=_harm(versus),
        notes=versus.notes,
        small_print=_small_print(versus),
        figures=pages.script_json({name: pages.figure_json(figure) for name, figure in drawn.items()}),
        templates=pages.script_json({theme: style.template(theme) for theme in style.THEMES}),
        plotly=get_plotlyjs(),
    )


# ---------------------------------------------------------------- what it says


def _on(versus: Versus) -> str:
    if versus.split:
        return style.count(versus.images, f"{versus.split} image")
    return f"{style.count(versus.images, 'image')} of {canvas.cut(versus.what, 200)}"


def _head(versus: Versus) -> list[str]:
    lines = [f"Both judged the same {_on(versus)}, {len(versus.classes):,} classes."]
    if versus.looks and max(versus.looks.values()) == 1:
        lines.append("This is the first look at the test images: nothing was chosen by them.")
    return lines


def _warnings(versus: Versus) -> list[str]:
    found = [
        f"The test images of {canvas.cut(run, 60)} have been looked at {looks} times. Whoever decides anything after a "
        "look decides by the test images, and their number becomes too good."
        for run, looks in (versus.looks or {}).items()
        if looks > 1
    ]
    if versus.split == "validation":
        found.append(
            "These are validation images, by which the search chose its models: expect a little worse of both on new "
            "images, and of the one that was chosen for being best a little more so."
        )
    return [*found, *versus.problems]


def _answer(versus: Versus) -> dict[str, str]:
    """The card, as seen from the model that is ahead."""
    it = versus.overall
    names, low, high = figures.names(versus), it.low, it.high
    if it.difference < 0:
        names, low, high = names[::-1], -it.high, -it.low
    return {
        "value": figures.points(abs(it.difference)),
        "label": f"points of accuracy, {names[0]} over {names[1]}",
        "interval": f"95% interval {figures.points(low)} to {figures.points(high)}",
        "p": f"{_p(it.p)}: so large a difference, or a larger one, {_chance(it.p)}",
        "sentence": versus.answer,
    }


def _p(p: float) -> str:
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.2g}"


def _chance(p: float) -> str:
    if p < 0.0001:
        return "would come of chance in less than one of 10,000 such comparisons of equal models"
    return (
        f"would come of chance in {p:.0%} of comparisons of equal models"
        if p >= 0.01
        else (f"would come of chance in {p:.2%} of comparisons of equal models")
    )


def _lines(versus: Versus) -> list[Line]:
    """The table of both, what they reached first."""
    a, b = versus.models
    it = versus.overall
    accuracy = Line(
        "accuracy",
        tuple(f"{100 * side.accuracy:.1f}% ({100 * side.low:.1f} to {100 * side.high:.1f})" for side in (a, b)),  # type: ignore[arg-type]
        f"{figures.points(it.difference)} points",
        None if a.accuracy == b.accuracy else int(b.accuracy > a.accuracy),
    )
    numbers = [
        _number("macro F1", a.macro_f1, b.macro_f1, highest=True),
        _number("loss ↓", a.loss, b.loss, highest=False),
        _number("calibration error (ECE) ↓", a.ece, b.ece, highest=False),
    ]
    sizes = [
        _size("parameters", a.params, b.params, style.number),
        _size("weights", a.bytes, b.bytes, lambda n: f"{n / 1e6:.3g} MB"),
    ]
    said = [
        Line(label, (of(a), of(b)))
        for label, of in (
            ("image", lambda side: f"{side.image_size}×{side.image_size} {'grey' if side.channels == 1 else 'colour'}"),
            ("architecture", lambda side: side.architecture),
            ("run", lambda side: canvas.cut(side.run, 30)),
            ("trial, epoch, seed", _origin),
            ("computed by", lambda side: side.kind),
        )
    ]
    return [accuracy, *numbers, *sizes, *(line for line in said if any(line.values))]


def _origin(side: Side) -> str:
    return ", ".join(str(part) for part in (side.trial, side.epoch, side.seed)) if side.trial else ""


def _number(label: str, first: float | None, second: float | None, *, highest: bool) -> Line:
    values = tuple("–" if value is None else f"{value:.3f}" for value in (first, second))
    if first is None or second is None:
        return Line(label, values)  # type: ignore[arg-type]
    difference = f"{first - second:+.3f}".replace("-", "−")
    better = None if first == second else int((second > first) is highest)
    return Line(label, values, difference, better)  # type: ignore[arg-type]


def _size(label: str, first: int, second: int, text: Any) -> Line:
    ratio = f"× {first / second:.2f}" if first and second and first != second else ""
    better = None if first == second else int(second < first)
    return Line(label, (text(first), text(second)), ratio, better)


def _counts(versus: Versus) -> list[tuple[str, str]]:
    """Number and share of: both right, only the first, only the second, neither."""
    it = versus.overall
    return [(f"{n:,}", f"{n / versus.images:.1%}") for n in (it.both, it.first, it.second, it.neither)]


def _agreement(versus: Versus) -> str:
    it = versus.overall
    told = f"They say the same class of {versus.agreement:.1%} of the images."
    if it.neither:
        told += (
            f" Of the {style.count(it.neither, 'image')} that both get wrong, they take {versus.wrong_apart:,} for two "
            "different wrong classes."
        )
    either = (it.both + it.first + it.second) / versus.images
    return f"{told} At least one of them is right on {either:.1%}: whoever knew which to trust would reach that."


def _rows(versus: Versus) -> list[tuple[str, list[str], bool]]:
    return [
        (
            canvas.cut(one.name, CUT),
            [
                f"{one.images:,}",
                *(f"{recall:.1%}" for recall in one.recalls),
                figures.points(one.difference),
                f"{figures.points(one.low)} to {figures.points(one.high)}",
                f"{one.p:.2g}",
                f"{one.p_holm:.2g}",
            ],
            one.p_holm < figures.SURE,
        )
        for one in figures.rows(versus) + [one for one in versus.per_class if one not in figures.rows(versus)]
    ]


def _sheets(versus: Versus) -> list[dict[str, Any]]:
    first, second = figures.names(versus)
    it = versus.overall
    kinds = (
        (f"{first} is right, {second} is wrong", versus.only_first, it.first),
        (f"{second} is right, {first} is wrong", versus.only_second, it.second),
        ("Both are wrong, each in its own way", versus.both_wrong, versus.wrong_apart),
    )
    return [
        {"title": title, "count": count, "photos": photos[:SHOWN], "more": photos[SHOWN:], "all": len(photos)}
        for title, shown, count in kinds
        for photos in [_photos(versus, shown)]
    ]


def _photos(versus: Versus, shown: Sequence[Parted]) -> list[Photo]:
    found = []
    for one in shown:
        data = picture(versus, one)
        said = tuple(
            (canvas.cut(predicted, CUT), f"{sure:.0%}", predicted == one.truth)
            for predicted, sure in zip(one.predicted, one.confidence, strict=True)
        )
        source = f"data:image/png;base64,{base64.b64encode(data).decode()}" if data else ""
        found.append(Photo(source, canvas.cut(one.name, 200), canvas.cut(one.truth, CUT), said))
    return found


def _harm(versus: Versus) -> str:
    """What the strengths are."""
    if (found := versus.robustness) is None or not found.amounts:
        return ""
    units = {"noise": "noise of a deviation, where white is 1, of", "blur": "blur of a deviation, in pixels, of",
             "brightness": "brightness raised, where white is 1, by", "jpeg": "JPEG of quality"}  # fmt: skip
    told = "; ".join(
        f"{units.get(kind, style.words(kind))} {', '.join(f'{amount:g}' for amount in amounts)}"
        for kind, amounts in found.amounts.items()
    )
    return f"Strengths 1 to 5 are those of {found.strengths_of} (Hendrycks and Dietterich, 2019): {told}."


def _small_print(versus: Versus) -> list[str]:
    told = [
        "p is McNemar's exact test: of the images that one model alone is right on, are more the first's than a fair "
        "coin would give? Intervals of differences are Newcombe's (1998, method 10, for paired shares), those of an "
        "accuracy Wilson's.",
        "Of the classes each interval holds by itself, and p is also given corrected for their number by Holm's "
        "method; a class is coloured where that is below 0.05.",
    ]
    if versus.robustness:
        told.append(
            f"Corruptions: {style.count(versus.robustness.images, 'image')}, drawn by class, the same pixels for both "
            f"models. {_harm(versus)} The interval of the mean is Student's, over the images."
        )
    return told
