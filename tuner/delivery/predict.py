"""Predict: labels for image files, decoded ahead of the network in threads, written as they come."""

from __future__ import annotations

import csv
import json
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from tuner.delivery.about import About
from tuner.delivery.model import Classifier
from tuner.delivery.plain import harmless, readable
from tuner.errors import BadInput, Problem
from tuner.training.decode import SUFFIXES, decode_or_say_why, image_warnings

STEP = 8
"""Images that a thread decodes before it is asked again."""
AHEAD = 2
"""Batches that are decoded ahead of the network: what the memory holds, however many files there are."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Labelled:
    """What a model says of one image. labels, probabilities: the most probable first; error: why it has none."""

    image: str
    labels: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = ()
    error: str = ""


# ---------------------------------------------------------------- which images


def list_images(paths: Sequence[Path]) -> list[str]:
    """The files named, and all images below the folders named, sorted, each once.

    Of folders: files with the suffix of an image, hidden ones left out; links to folders are not followed.

    Raises:
        BadInput: all that is not there, is no file, or holds no image.
    """
    found: set[str] = set()
    problems = []
    for path in paths:
        try:
            inside = sorted(_walk(str(path))) if path.is_dir() else [str(path)]
        except OSError as error:
            problems.append(Problem(str(error.filename), 0, 0, f"cannot be listed: {error.strerror}"))
            continue
        if not path.exists():
            problems.append(Problem(str(path), 0, 0, "no such file or folder"))
        elif not inside:
            problems.append(Problem(str(path), 0, 0, f"no images in it; their names end in {', '.join(SUFFIXES)}"))
        elif not path.is_dir() and not path.is_file():
            problems.append(Problem(str(path), 0, 0, "neither a file nor a folder"))
        found.update(inside)
    if problems:
        raise BadInput(problems)
    return sorted(found)


def _walk(folder: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path)
            elif entry.name.lower().endswith(SUFFIXES) and entry.is_file():  # a pipe would be waited for
                yield entry.path


# ---------------------------------------------------------------- judging


def predict(model: Classifier, files: Sequence[str], *, top: int = 1, batch: int = 64) -> Iterator[Labelled]:
    """What a model says of image files, in their order; threads decode while it judges.

    top: so many classes of each. A file that cannot be read gives its reason.

    Raises:
        BadInput: the model knows fewer classes than `top`.
    """
    about = model.about
    if top > len(about.classes):
        raise BadInput(f"--top {top}: {about.name} knows {len(about.classes)} classes; at most that many")
    decoded = _decode_ahead(files, about, batch)
    for start in range(0, len(files), batch):
        found = list(islice(decoded, batch))
        pixels = [item for item in found if not isinstance(item, str)]
        rows = iter(_rank(model.logits(np.stack(pixels)), about, top) if pixels else ())
        for file, item in zip(files[start : start + batch], found, strict=True):
            name = readable(file)
            yield Labelled(name, error=readable(item)) if isinstance(item, str) else Labelled(name, *next(rows))


def _rank(
    logits: NDArray[np.float32], about: About, top: int
) -> Iterator[tuple[tuple[str, ...], tuple[float, ...], str]]:
    """Labels, probabilities and error of each row of logits (N, classes)."""
    order = np.argsort(-logits, axis=1, kind="stable")[:, :top]
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    shares = np.take_along_axis(shifted / shifted.sum(axis=1, keepdims=True), order, axis=1)
    for places, row in zip(order.tolist(), shares.tolist(), strict=True):
        if not all(map(np.isfinite, row)):
            yield (), (), "the model gives no number for it"
        else:
            yield tuple(about.classes[place] for place in places), tuple(row), ""


def _decode_ahead(files: Sequence[str], about: About, batch: int) -> Iterator[Pixels | str]:
    """Pixels (S, S, C) of each file in order, or why it has none; two batches and a bit are in memory at most."""

    def decode(start: int) -> list[Pixels | str]:
        part = files[start : start + STEP]
        return [decode_or_say_why(file, about.image_size, about.resize, about.channels) for file in part]

    workers = os.cpu_count() or 1  # Pillow lets go of the GIL while it decodes
    ahead = workers + AHEAD * -(-batch // STEP)
    waiting: deque[Future[list[Pixels | str]]] = deque()
    with image_warnings(), ThreadPoolExecutor(workers) as pool:
        try:
            for start in range(0, len(files), STEP):
                waiting.append(pool.submit(decode, start))
                if len(waiting) > ahead:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for future in waiting:  # whoever reads has gone: nobody waits for the rest
                future.cancel()


def refuse_none(rows: Iterable[Labelled]) -> Iterator[Labelled]:
    """The same rows.

    Raises:
        BadInput: at the end, if none of the images could be read; with all reasons.
    """
    problems: list[Problem] | None = []
    for row in rows:
        if not row.error:
            problems = None
        elif problems is not None:
            problems.append(Problem(row.image, 0, 0, row.error))
        yield row
    if problems:
        raise BadInput(problems, "none of the images can be read, so there is nothing to label")


# ---------------------------------------------------------------- writing


def check_target(path: Path) -> None:
    """Refuse a file that could not be written, before an hour of work.

    Raises:
        BadInput: another suffix than .csv and .json, or no such folder.
    """
    if path.suffix.lower() not in (".csv", ".json"):
        raise BadInput(f"--out {path}: its suffix says what is written; name it .csv or .json")
    if path.is_dir() or not path.parent.is_dir():
        why = "it is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise BadInput(f"--out {path}: {why}; name a file in a folder that is there")


def write(rows: Iterable[Labelled], path: Path, model: str, top: int) -> None:
    """Write rows as they come into a .csv or .json file, which has its name only once it is whole.

    Raises:
        BadInput: it cannot be written, or what `rows` raise.
    """
    with _aside(path) as file:
        if path.suffix.lower() == ".json":
            _write_json(rows, file, model)
        else:
            _write_csv(rows, file, top)


@contextmanager
def _aside(path: Path) -> Iterator[TextIO]:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            with temporary.open("x", encoding="utf-8", newline="") as file:
                yield file
            temporary.replace(path)
        finally:  # an error, Ctrl-C
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror}") from error


def _write_csv(rows: Iterable[Labelled], file: TextIO, top: int) -> None:
    table = csv.writer(file, lineterminator="\n")
    more = [f"{name}_{place}" for place in range(2, top + 1) for name in ("label", "probability")]
    table.writerow(["image", "label", "probability", *more, "error"])
    for row in rows:
        pairs = zip(row.labels, row.probabilities, strict=True)
        cells = [cell for label, share in pairs for cell in (harmless(label), f"{share:.6g}")] or [""] * (2 * top)
        table.writerow([harmless(row.image), *cells, harmless(row.error)])


def _write_json(rows: Iterable[Labelled], file: TextIO, model: str) -> None:
    file.write(f'{{"format": 1, "model": {json.dumps(model)}, "images": [')
    for number, row in enumerate(rows):
        file.write(("," if number else "") + "\n" + json.dumps(as_json(row), allow_nan=False))
    file.write("\n]}\n")


def as_json(row: Labelled) -> dict[str, Any]:
    """A row for programs; label and probability are null where there is an error."""
    pairs = zip(row.labels, row.probabilities, strict=True)
    return {
        "image": row.image,
        "label": row.labels[0] if row.labels else None,
        "probability": row.probabilities[0] if row.probabilities else None,
        "top": [{"label": label, "probability": share} for label, share in pairs],
        "error": row.error or None,
    }
