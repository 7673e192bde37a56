"""Evaluating: what a model is worth, on one screen: classes, main numbers, the next command; or which of two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tuner.errors import BadInput
from tuner.terminal import plain, print_json, print_table, progress, show

if TYPE_CHECKING:
    from tuner.delivery.judging.evaluate import Evaluation
    from tuner.delivery.judging.scores import Interval
    from tuner.delivery.pictures import Split
    from tuner.delivery.place import Place

MOST_CLASSES, WORST, PAIRS = 20, 10, 3
SHARES = {
    "accuracy": "accuracy", "top3_accuracy": "top 3 accuracy", "top5_accuracy": "top 5 accuracy",
    "balanced_accuracy": "balanced accuracy", "macro_f1": "macro F1",
}  # fmt: skip
NUMBERS = {
    "roc_auc": "ROC AUC", "average_precision": "average precision", "ece": "calibration error", "brier": "Brier score",
    "loss": "loss",
}  # fmt: skip


def make(
    paths: Sequence[Path], *, split: Split, data: Path | None, out: Path | None, corrupt: bool | None, device: str,
    trust_code: bool, command: str, as_json: bool,
) -> Path | None:  # fmt: skip
    """Evaluate the first model, write it down and say what it came to; returns the page, None of too many classes.

    Raises:
        BadInput: the model, the images or the folder.
    """
    from analysis.evaluation import page
    from tuner.delivery.judging import evaluation_files
    from tuner.delivery.judging.evaluate import evaluate, open_images
    from tuner.delivery.model import open_model
    from tuner.delivery.place import find_model
    from tuner.delivery.target import make_ready

    _check_images(split, data)
    place = find_model(paths[0])
    folder = out.absolute() if out else default_folder(place, split, data)
    make_ready(folder, evaluation_files.NAME)
    model = open_model(place, device=device, trust_code=trust_code)
    with progress() as tell:
        pictures = open_images(place, model.about, split, data, command, tell)
        evaluation = evaluate(model, pictures, corrupt=bool(corrupt), progress=tell)
        tell("drawing the page", 0, 1)
        told = evaluation_files.write(evaluation, folder)
        written = _draw(page.write, folder, len(model.about.classes))
    if as_json:
        print_json({**told, "page": written and str(written)})
    else:
        say(evaluation, folder, written)
    return written


def compare(
    paths: Sequence[Path], *, split: Split, data: Path | None, out: Path | None, corrupt: bool | None, device: str,
    trust_code: bool, command: str, as_json: bool,
) -> Path | None:  # fmt: skip
    """Set two models against each other on the same images and say which is better; returns the page as `make` does.

    Raises:
        BadInput: the models, the images or the folder.
    """
    from analysis.evaluation import versus_page
    from tuner.delivery.judging import verdict, versus
    from tuner.delivery.model import open_model

    _check_images(split, data)
    first, second = (open_model(path, device=device, trust_code=trust_code) for path in paths)
    with progress() as tell:
        found = versus.compare(
            (first, second), split=split, data=data, out=out and out.absolute(), corrupt=corrupt is not False,
            why=command, progress=tell,
        )  # fmt: skip
        tell("drawing the page", 0, 1)
        written = _draw(versus_page.write, found.folder, len(found.classes))
    if as_json:
        print_json({**found.as_json(), "page": written and str(written)})
    else:
        typer.echo("\n".join([*verdict.lines(found), f"page    {_where(found.folder, written)}"]))
    return written


def _check_images(split: Split, data: Path | None) -> None:
    if data is not None and split == "validation":
        raise BadInput("--data and --split validation are two kinds of images; leave one out")


def _draw(write: Callable[[Path], Path], folder: Path, classes: int) -> Path | None:
    """The page; None of more classes than one can show, and an earlier one of other models goes."""
    from analysis import Unreadable
    from analysis.evaluation.page import NAME
    from analysis.evaluation.read import MOST_CLASSES

    try:
        if classes > MOST_CLASSES:
            (folder / NAME).unlink(missing_ok=True)
            return None
        return write(folder)
    except Unreadable as error:
        raise BadInput(f"the numbers are written, but there is no page: {error}") from None
    except OSError as error:
        raise BadInput(f"{error.filename or folder}: {error.strerror}; choose another folder with --out") from None


def default_folder(place: Place, split: Split, data: Path | None) -> Path:
    """final/evaluation for the test images; others have folders of their own: the test ones are not opened for them."""
    delivered = place.run is not None and (place.run / "final" / "model" / "model.json").is_file()
    of = f"-{place.trial}" if place.kind == "trial" and delivered else ""  # beside that of the delivered model
    if data is not None:
        return place.folder(f"evaluation{of}-{data.absolute().stem}")
    return place.folder(f"evaluation{of}" if split == "test" else f"evaluation{of}-{split}")


def _where(folder: Path, page: Path | None) -> str:
    return show(page) if page else f"none: it could not show so many classes; all numbers lie in {show(folder)}"


def say(evaluation: Evaluation, folder: Path, page: Path | None) -> None:
    """Say what it came to, for a person."""
    about, pictures, classes = evaluation.model.about, evaluation.pictures, evaluation.found.classes
    origin = about.origin
    epoch = f", epoch {origin.epoch}" if origin.epoch else ""
    typer.echo(f"model      {about.name}{epoch}, {about.params:,} parameters, by {evaluation.model.kind}")
    kind = f"{pictures.what} images" if pictures.what in ("test", "validation") else f"images of {pictures.what}"
    typer.echo(f"images     {len(pictures):,} {kind}, {len(classes):,} classes, {evaluation.rate:,.0f} images a second")
    if pictures.looks:
        typer.echo(f"looks      {_looks(pictures.looks)}")
    typer.echo()
    _say_classes(evaluation)
    typer.echo()
    metrics = evaluation.scores.metrics
    rows = [(words, *_span(metrics[name], _percent)) for name, words in SHARES.items() if name in metrics]
    rows += [(words, *_span(metrics[name], "{:.3f}".format)) for name, words in NUMBERS.items() if name in metrics]
    print_table(("", "value", "95% interval"), rows, numbers=(1,))
    typer.echo()
    for head, text in zip(["confused", *[""] * PAIRS], _confused(evaluation), strict=False):
        typer.echo(f"{head:10} {text}")
    if gap := evaluation.gap:
        points = "{} points ({} to {})".format(*map(_points, (gap.difference, gap.low, gap.high)))
        typer.echo(f"gap        {_percent(gap.train)} on {gap.images:,} training images: {points}")
    for note in (*evaluation.notes, *pictures.problems):
        typer.echo(f"note       {plain(note)}")
    typer.echo(f"page       {_where(folder, page)}")
    place = evaluation.model.place
    named = show(place.path.parent if place.kind == "trial" else place.path)
    typer.echo(f"next       hypertune explain {named} IMAGES   where in an image it sees its class")
    typer.echo(f"           hypertune export {named}   to take it along")


def _say_classes(evaluation: Evaluation) -> None:
    """The classification report; of more than 20 classes the 10 with the lowest F1."""
    scores = evaluation.scores
    shown: Sequence[Any] = scores.per_class
    if len(shown) > MOST_CLASSES:
        known = [each for each in shown if each.f1 is not None]
        shown = sorted(known, key=lambda each: each.f1.value)[:WORST]
        typer.echo(f"the {len(shown)} classes with the lowest F1 of {len(scores.per_class):,}; evaluation.json has all")
    kinds = ("precision", "recall", "f1")
    rows = []
    for each in shown:
        values = [getattr(each, kind) for kind in kinds]
        rows.append(
            (each.name, f"{each.images:,}", *("" if value is None else _percent(value.value) for value in values))
        )
    rows += [
        (mean, f"{len(evaluation.pictures):,}", *(_percent(scores.metrics[f"{mean}_{kind}"].value) for kind in kinds))
        for mean in ("macro", "weighted")
    ]
    print_table(("class", "images", "precision", "recall", "F1"), rows, numbers=range(1, 5))


def _confused(evaluation: Evaluation) -> list[str]:
    classes = evaluation.found.classes
    return [
        f"{classes[pair.truth]} taken for {classes[pair.predicted]}: {pair.times:,} images, "
        f"{_percent(pair.share)} of {classes[pair.truth]}"
        for pair in evaluation.confused[:PAIRS]
    ] or ["no two classes: every image is right"]


def _looks(looks: int) -> str:
    if looks == 1:
        return "the test images were looked at for the first time"
    ending = {1: "st", 2: "nd", 3: "rd"}.get(looks % 10 if looks % 100 // 10 != 1 else 0, "th")
    return (
        f"the test images were looked at for the {looks}{ending} time: what is chosen by them looks better than it is"
    )


def _span(found: Interval, text: Any) -> tuple[str, str]:
    return text(found.value), f"{text(found.low)} to {text(found.high)}"


def _percent(share: float) -> str:
    return f"{share:.1%}"


def _points(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-0.0", "+0.0")
