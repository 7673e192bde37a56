"""A table of image files and labels: a csv with the columns path and label, and perhaps split."""

from __future__ import annotations

import csv
import hashlib
import re
from pathlib import Path

import numpy as np

from tuner.errors import BadInput, Problem
from tuner.spec.data import Data, expand_home
from tuner.spec.nearest import did_you_mean
from tuner.training.arrays import SPLITS, stamp
from tuner.training.piles import NOT_DRAWN, Pile, Piles, Source, carved, has_own


def table(data: Data, seed: int) -> Source:
    """Image files that the csv `data.root` lists, one a line: `path`, `label` and perhaps `split` (train, val, test).

    Paths are relative to the folder of the csv. Classes are called as their labels, in the order of the alphabet, or
    of the numbers where all are whole numbers.

    Raises:
        BadInput: with all that is wrong with the file, each with its line.
    """
    path = expand_home(data.root or ".").resolve()
    problems: list[Problem] = []
    rows = _read(path, problems)
    train_labels = {label for _, _, label, split in rows if split == "train"}
    for line, _, label, split in rows:
        if label not in train_labels and train_labels:
            problems.append(Problem(str(path), line, 0, f"label {label!r}: no training image has it, only {split}"))
    if not problems and len(train_labels) < 2:
        found = f"only one class, {rows[0][2]!r}" if train_labels else "no training images"
        problems.append(Problem(str(path), 0, 0, f"{found}; there must be two classes or more"))
    stamps = [stamp(file) for _, file, _, _ in rows]
    for (line, file, _, _), (_, size, _) in zip(rows, stamps, strict=True):
        if not size:
            problems.append(Problem(str(path), line, 0, f"no such file, or an empty one: {file}"))
    if problems:
        raise BadInput(sorted(problems))
    whole = all(re.fullmatch(r"-?\d{1,18}", label) for label in train_labels)
    classes = tuple(sorted(train_labels, key=(lambda label: (int(label), label)) if whole else None))
    numbers = {label: number for number, label in enumerate(classes)}
    piles = {}
    for split in SPLITS:
        chosen = [(file, numbers[label]) for _, file, label, given in rows if given == split]
        if chosen:
            files, labels = zip(*chosen, strict=True)
            piles[split] = Pile(list(files), np.array(labels, dtype=np.int64))
    listed = [(*found, label, split) for found, (_, _, label, split) in zip(stamps, rows, strict=True)]
    content = hashlib.blake2b(repr(listed).encode(), digest_size=16)
    return Source(
        lambda: Piles(classes, piles["train"], piles.get("val"), piles.get("test")),
        {"table": content.hexdigest(), **({} if "test" in piles else carved(data, seed))},
        image_size=None,
        channels=None,
        ignored={**has_own("val" in piles, "test" in piles, "the csv"), **NOT_DRAWN},
    )


Row = tuple[int, str, str, str]
"""Line, path of the file, label, split."""


def _read(path: Path, problems: list[Problem]) -> list[Row]:
    rows: list[Row] = []
    seen: dict[str, int] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            _check_header(path, reader.fieldnames, problems)
            for row in [] if problems else reader:
                line, label, split = reader.line_num, (row["label"] or "").strip(), (row.get("split") or "").strip()
                name = (row["path"] or "").strip()
                place = str((path.parent / expand_home(name)).absolute())
                if not name or not label:
                    problems.append(Problem(str(path), line, 0, f"no {'path' if not name else 'label'}"))
                elif "\0" in name:
                    rule = f"the path {name!r} has a NUL in it; save the csv anew as UTF-8 text"
                    problems.append(Problem(str(path), line, 0, rule))
                elif "split" in row and split not in SPLITS:
                    rule = f"split must be train, val or test, not {split!r}{did_you_mean(split, SPLITS)}"
                    problems.append(Problem(str(path), line, 0, rule))
                elif place in seen:
                    problems.append(Problem(str(path), line, 0, f"{name} is on line {seen[place]} already"))
                else:
                    seen[place] = line
                    rows.append((line, place, label, split or "train"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = getattr(error, "strerror", None) or error
        rule = f"cannot be read ({why}); data.root must name a csv file with the columns path and label"
        raise BadInput([Problem(str(path), 0, 0, rule)]) from error
    if not rows and not problems:
        problems.append(Problem(str(path), 0, 0, "no images are listed"))
    return rows


def _check_header(path: Path, header: object, problems: list[Problem]) -> None:
    columns = list(header) if isinstance(header, list) else []
    for name in ("path", "label"):
        if name not in columns:
            found = f"it has {', '.join(map(str, columns))}" if columns else "it is empty"
            problems.append(Problem(str(path), 1, 0, f"no column {name!r}; {found}"))
