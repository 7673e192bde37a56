"""Predicting: the labels of images on the screen, as JSON or in a file, and how fast that went."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import typer

from tuner.terminal import print_json, print_table, progress, show

SHOWN = 40
"""Rows on a screen; a program that reads them gets all."""
EVERY = 64
"""Images between two words to the bar."""


def make(
    model: Path, images: Sequence[Path], *, top: int, out: Path | None, batch: int, device: str, trust_code: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Label images and say so.

    Raises:
        BadInput: the model, the images, or the file to be written.
    """
    from tuner.delivery.place import find_model

    place = find_model(model)
    from tuner.delivery import predict
    from tuner.delivery.model import open_model

    if out:
        predict.check_target(out)
    files = predict.list_images(images)
    classifier = open_model(place, device=device, trust_code=trust_code)
    began, failed = time.perf_counter(), 0

    with progress() as tell:

        def watch(rows: Iterator[predict.Labelled]) -> Iterator[predict.Labelled]:
            nonlocal failed
            for done, row in enumerate(rows, 1):
                failed += bool(row.error)
                if done % EVERY == 0:
                    tell(f"labelling, {done / (time.perf_counter() - began):,.0f} images/s", done, len(files))
                yield row

        rows = predict.refuse_none(watch(predict.predict(classifier, files, top=top, batch=batch)))
        if out:
            predict.write(rows, out, classifier.about.name, top)
        kept = [] if out else list(rows)
    seconds = time.perf_counter() - began
    told: dict[str, Any] = {
        "model": classifier.about.name, "count": len(files), "unreadable": failed, "seconds": seconds,
        "images_per_second": len(files) / seconds,
    }  # fmt: skip
    if as_json:
        print_json({**told, "out": str(out)} if out else {**told, "images": [predict.as_json(row) for row in kept]})
        return
    if kept:
        show_rows(kept, top)
    speed = f"{len(files):,} images in {seconds:.1f} s, {len(files) / seconds:,.0f} a second"
    typer.echo(f"{classifier.about.name}: {speed}" + f"; {failed:,} could not be read" * bool(failed))
    if out:
        typer.echo(f"labels {show(out.absolute())}")


def show_rows(rows: Sequence[Any], top: int) -> None:
    """A table of the first rows, or of all where no person reads."""
    most = SHOWN if sys.stdout.isatty() else len(rows)
    more = [f"{name} {place}" for place in range(2, top + 1) for name in ("label", "probability")]
    heads = ["image", "label", "probability", *more]
    table = []
    for row in islice(rows, most):
        pairs = zip(row.labels, row.probabilities, strict=True)
        cells = [cell for label, share in pairs for cell in (label, f"{share:.1%}")]
        table.append([row.image, *(cells or [row.error, *[""] * (2 * top - 1)])])
    print_table(heads, table, numbers=range(2, len(heads), 2))
    if len(rows) > most:
        typer.echo(f"and {len(rows) - most:,} more; --out FILE.csv keeps them all")
