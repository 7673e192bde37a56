"""A folder of class folders -> its image files with labels, and everything that is wrong with it at once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unicodedata import category

import numpy as np
from numpy.typing import NDArray

from tuner.errors import Problem
from tuner.training.decode import SUFFIXES

SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
"""Folders of splits, and what else they are called; upper and lower case alike."""


@dataclass(frozen=True)
class Listing:
    """The image files of one split: paths, labels (int64, shape (N,)), and what tells whether a file changed."""

    files: list[str]
    labels: NDArray[np.int64]
    stamps: list[tuple[str, int, int]]  # path below the root, bytes, mtime_ns


@dataclass(frozen=True)
class ImageFolder:
    """What lies under a root. `train` is the whole set where there are no splits; None where a split is absent.

    `places` are the class folders of `train`, in the order of `classes`.
    """

    classes: tuple[str, ...]
    places: tuple[str, ...]
    train: Listing
    validation: Listing | None
    test: Listing | None
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]


@dataclass
class _Seen:
    # What the walk left out, to be said once at the end.
    links: set[str] = field(default_factory=set)
    others: Counter[str] = field(default_factory=Counter)


def scan(root: Path) -> ImageFolder:
    """List the images under `root`: class folders, or train/ and perhaps val/ and test/ with class folders in them.

    Class folders may have folders of their own. Hidden entries are ignored; files without the suffix of an image, links
    to folders and links that lead out of `root` are left out and counted. Nothing is decoded.

    Raises:
        OSError: a folder cannot be listed.
    """
    if not root.is_dir():
        rule = "no such folder; data.root must name the folder that holds the class folders"
        return _refused(Problem(str(root), 0, 0, rule))
    seen, problems, warnings = _Seen(), [], []
    top = _folders(root, seen)
    # A class may be called train: only class folders inside make it a split.
    divided = "train" in top and bool(_folders(root / "train", seen))
    base = root / "train" if divided else root
    classes = tuple(_folders(base, seen))
    if misnamed := _misnamed(root, top, divided, seen):
        return _refused(*misnamed)
    if not classes:
        problems.append(Problem(str(base), 0, 0, "no class folders in it; put the images of each class into a folder"))
    for name in classes:
        if any(category(each) == "Cc" for each in name):  # a terminal would obey them, and a model.json must hold none
            problems.append(
                Problem(repr(str(base / name)), 0, 0, "control characters in the name of a class; rename it")
            )
    if len(classes) == 1:
        problems.append(Problem(str(base), 0, 0, f"only one class, {classes[0]!r}; there must be two or more"))
    if divided:
        unused = [f"{name}/" for name in top if name not in SPLITS]
        if unused:
            warnings.append(f"{root}: {', '.join(unused)} not used; beside train/ only val/ and test/ are read")
    elif beside := [f"{name}/" for name in top if name in ("val", "test")]:
        rule = f"{' and '.join(beside)} but no class folders in train/; put those of the training images there"
        problems.append(Problem(str(root), 0, 0, rule))

    train = _list(root, base, classes, seen)
    splits: dict[str, Listing] = {}
    for name in ("val", "test") if divided else ():
        if name not in top:
            continue
        for stranger in sorted(set(_folders(root / name, seen)) - set(classes)):
            rule = "train/ has no class of this name; add it there, or remove or rename this folder"
            problems.append(Problem(str(root / name / stranger), 0, 0, rule))
        splits[name] = listing = _list(root, root / name, classes, seen)
        missing = [label for i, label in enumerate(classes) if i not in listing.labels]
        if not listing.files:
            problems.append(Problem(str(root / name), 0, 0, "no images of any class; add some or remove the folder"))
        elif missing:
            warnings.append(f"{root / name}: no images of {', '.join(missing)}")
    if seen.links:
        warnings.append(f"{root}: {len(seen.links)} links to folders or out of the folder were not followed")
    if seen.others:
        kinds = ", ".join(kind for kind, _ in seen.others.most_common(3))
        warnings.append(f"{root}: {seen.others.total()} files that are no images were left out ({kinds})")
    places = tuple(str(base / name) for name in classes)
    return ImageFolder(classes, places, train, splits.get("val"), splits.get("test"), tuple(problems), tuple(warnings))


def _refused(*problems: Problem) -> ImageFolder:
    return ImageFolder((), (), Listing([], np.empty(0, np.int64), []), None, None, problems, ())


def _misnamed(root: Path, top: list[str], divided: bool, seen: _Seen) -> list[Problem]:
    # Splits under other names: taken for classes, or left out beside train/, they would spoil every score. Without
    # train/ they are classes all the same if other classes are beside them.
    meant = {name: split for name in top for split, known in SPLITS.items() if name.casefold() in known}
    holding = [name for name in meant if _folders(root / name, seen)]
    if not divided and holding != top:
        return []
    rule = "is called like a split, not like a class; rename it to {}/, or move it out of here"
    return [Problem(str(root / name), 0, 0, rule.format(meant[name])) for name in holding if name not in SPLITS]


def _folders(path: Path, seen: _Seen) -> list[str]:
    with os.scandir(path) as entries:
        visible = [entry for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
    seen.links.update(entry.path for entry in visible if entry.is_symlink())
    return sorted(entry.name for entry in visible if not entry.is_symlink())


def _list(root: Path, base: Path, classes: tuple[str, ...], seen: _Seen) -> Listing:
    files, labels, stamps = [], [], []
    present = set(_folders(base, seen))  # val/ and test/ need not have every class
    for label, name in enumerate(classes):
        if name not in present:
            continue
        for path, size, mtime in sorted(_walk(root, base / name, seen)):
            files.append(path)
            labels.append(label)
            stamps.append((path[len(str(root)) :], size, mtime))
    return Listing(files, np.array(labels, dtype=np.int64), stamps)


def _walk(root: Path, folder: Path | str, seen: _Seen) -> Iterator[tuple[str, int, int]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_symlink() and (entry.is_dir() or not Path(entry.path).resolve().is_relative_to(root)):
                seen.links.add(entry.path)
            elif entry.is_dir():
                yield from _walk(root, entry.path, seen)
            elif not entry.name.lower().endswith(SUFFIXES):
                seen.others[Path(entry.name).suffix.lower() or "no suffix"] += 1
            elif entry.is_file():
                found = entry.stat()
                yield entry.path, found.st_size, found.st_mtime_ns
