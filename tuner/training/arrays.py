"""Images as arrays: an .npz file, or what a function of the user's own returns, checked before anything is decoded."""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.errors import BadInput, HypertuneError, Problem
from tuner.spec.data import Data, expand_home
from tuner.training.piles import NOT_DRAWN, Pile, Piles, Source, carved, has_own

SPLITS = ("train", "val", "test")
CHANNELS = (1, 3)


def npz(data: Data, seed: int) -> Source:
    """Arrays of the file `data.root`: `images` and `labels`, or `train_images`, `train_labels` and so on.

    Images are uint8 (N, height, width), (N, height, width, 1) or (N, height, width, 3); labels are whole numbers or
    text, (N,) or (N, 1). With `val_` and `test_` beside `train_` those splits are used as they are. An array `classes`
    of text names the classes that labels from 0 on stand for. Files of Python objects are refused.

    Raises:
        BadInput: with all that is wrong with the file.
    """
    path = expand_home(data.root or ".").resolve()
    wanted = [f"{split}_{what}" for split in SPLITS for what in ("images", "labels")] + ["images", "labels", "classes"]
    try:
        opened = np.load(path, allow_pickle=False)
        if isinstance(opened, np.ndarray):
            raise ValueError("a single array without a name; save it and its labels with np.savez")
        with opened as file:
            arrays = {name: file[name] for name in wanted if name in file.files}
            others = sorted(set(file.files) - set(wanted))
        stamp = path.stat()
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        said = "it is no archive of plain arrays" if "pickle" in str(error) else error  # never load it unsafely
        rule = f"cannot be read ({said}); data.root must name an .npz file with arrays of images and labels"
        raise BadInput([Problem(str(path), 0, 0, rule)]) from error
    splits = {split: {w: arrays.get(f"{split}_{w}") for w in ("images", "labels")} for split in SPLITS}
    if not any(value is not None for given in splits.values() for value in given.values()):
        splits = {"train": {w: arrays.get(w) for w in ("images", "labels")}}
    elif "images" in arrays or "labels" in arrays:
        rule = "has both images and train_images; write either one split or all of them by name"
        raise BadInput([Problem(str(path), 0, 0, rule)])
    parts: dict[str, Any] = {}
    missing = []
    for split, given in splits.items():
        if all(value is None for value in given.values()) and split != "train":
            continue
        prefix = f"{split}_" if len(splits) > 1 else ""
        missing += [f"{prefix}{what}" for what, value in given.items() if value is None]
        parts[split] = (given["images"], given["labels"])
    if missing:
        found = f"; it has {', '.join(others)}" if others else ""
        rule = f"no array {' and none '.join(missing)}{found}; name them images and labels"
        raise BadInput([Problem(str(path), 0, 0, rule)])
    piles = _check(parts, arrays.get("classes"), str(path))
    return _source(piles, {"file": [str(path), stamp.st_size, stamp.st_mtime_ns]}, data, seed, "the file")


def own_function(data: Data, seed: int) -> Source:
    """Images of a function of the user's own: `dataset: package.module:function`, called with `data.arguments`.

    It gets `data.root` as `root` too, if that is given, and returns either (images, labels) or a mapping with `train`
    and perhaps `val`, `test` and `classes`, where each split is (images, labels). Images are a uint8 array as in an
    .npz file (`npz`) or a list of paths of image files; labels are whole numbers or text; `classes` names the classes
    that labels from 0 on stand for. It is called whenever a search is prepared, on the driver alone, and must give the
    same for the same arguments: what it returned decides whether images are decoded anew.

    Raises:
        BadInput: the function is not there, it fails, or it returns something else.
    """
    from tuner.training.usercode import import_function

    name = data.dataset
    function = import_function(name, "data.dataset")
    arguments = {**({} if data.root is None else {"root": data.root}), **data.arguments}
    try:
        returned = function(**arguments)
    except HypertuneError:
        raise
    except Exception as error:  # anything may happen in a user's function
        called = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        why = f"{name}({called}) fails: {type(error).__name__}: {error}"
        raise BadInput([Problem("data.dataset", 0, 0, why)]) from error
    splits: Mapping[str, Any] = returned if isinstance(returned, Mapping) else {"train": returned}
    if unknown := sorted(str(key) for key in splits if key not in (*SPLITS, "classes")):
        rule = f"{name} returns {', '.join(unknown)}; it may return train, val, test and classes"
        raise BadInput([Problem("data.dataset", 0, 0, rule)])
    problems = [] if "train" in splits else [f"{name} returns no train"]
    for split, part in splits.items():
        if split != "classes" and not (isinstance(part, tuple | list) and len(part) == 2):
            problems.append(f"{name} must return (images, labels) for {split}, not {type(part).__name__}")
    if problems:
        raise BadInput([Problem("data.dataset", 0, 0, problem) for problem in problems])
    parts = {split: tuple(splits[split]) for split in SPLITS if splits.get(split) is not None}
    piles = _check(parts, splits.get("classes"), name)
    return _source(piles, {"content": _digest(piles)}, data, seed, "the function")


def _source(piles: Piles, depends_on: dict[str, object], data: Data, seed: int, what: str) -> Source:
    own_validation, own_test = piles.validation is not None, piles.test is not None
    ignored = {**has_own(own_validation, own_test, what), **NOT_DRAWN}
    channels = None if isinstance(piles.train.items, list) else 1 if np.ndim(piles.train.items) == 3 else 3
    return Source(
        lambda: piles, {**depends_on, **({} if own_test else carved(data, seed))}, None, channels, ignored=ignored
    )


# ---------------------------------------------------------------- what arrays must be


def _check(parts: Mapping[str, Any], classes: Any, where: str) -> Piles:
    """Piles of what was given, split by split.

    Raises:
        BadInput: with all that is wrong.
    """
    problems: list[str] = []
    given_names = None if classes is None else _labels(classes, "classes", problems)
    items = {split: _items(images, f"{split} images", problems) for split, (images, _) in parts.items()}
    labels = {split: _labels(given, f"{split} labels", problems) for split, (_, given) in parts.items()}
    for split in parts:
        images, given = items[split], labels[split]
        if images is not None and given is not None and len(images) != len(given):
            problems.append(f"{split}: {len(images)} images, but {len(given)} labels")
    shapes = {np.shape(images)[1:] for images in items.values() if isinstance(images, np.ndarray)}
    if len(shapes) > 1 or len({isinstance(images, list) for images in items.values() if images is not None}) > 1:
        problems.append("the splits differ; all must be arrays of one size and one number of channels, or all paths")
    if problems:
        raise BadInput([Problem(where, 0, 0, problem) for problem in problems])
    names, numbers = _name_classes(labels, given_names, where)
    piles = {split: Pile(items[split], numbers[split]) for split in parts}
    return Piles(names, piles["train"], piles.get("val"), piles.get("test"))


def _items(images: Any, what: str, problems: list[str]) -> Any:
    if isinstance(images, Sequence) and not isinstance(images, str) and images:
        if all(isinstance(path, str | Path) for path in images):
            return [str(expand_home(str(path)).absolute()) for path in images]
        problems.append(f"{what} must be a uint8 array or paths of files, not a list of {type(images[0]).__name__}")
        return None
    if not isinstance(images, np.ndarray):
        problems.append(f"{what} must be a uint8 array or a list of paths of files, not {type(images).__name__}")
        return None
    found = f"{images.dtype} {images.shape}"
    if images.dtype != np.uint8:
        how = "; multiply by 255 and round" if images.dtype.kind == "f" else ""
        problems.append(f"{what} must be uint8, 0 to 255, not {found}{how}")
    elif images.ndim not in (3, 4) or 0 in images.shape:
        problems.append(f"{what} must have the shape (N, height, width) or (N, height, width, channels), not {found}")
    elif images.ndim == 4 and images.shape[3] not in CHANNELS:
        hint = "; move the channels to the end" if images.shape[1] in CHANNELS else ""
        problems.append(f"{what} must have 1 or 3 channels, the last axis, not {found}{hint}")
    else:
        return images[..., 0] if images.ndim == 4 and images.shape[3] == 1 else images
    return None


def _labels(labels: Any, what: str, problems: list[str]) -> NDArray[Any] | None:
    try:
        array = np.asarray(labels)
    except (TypeError, ValueError, RuntimeError) as error:  # lists of different lengths, a tensor elsewhere
        problems.append(f"{what} must be whole numbers or text of shape (N,), not {type(labels).__name__}: {error}")
        return None
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or array.dtype.kind not in "iuU":
        problems.append(f"{what} must be whole numbers or text of shape (N,), not {array.dtype} {array.shape}")
        return None
    return array


def _name_classes(
    labels: Mapping[str, Any], given: NDArray[Any] | None, where: str
) -> tuple[tuple[str, ...], dict[str, NDArray[np.int64]]]:
    """Class names, and labels as places in them; without names a class is called as its label."""
    present = np.unique(labels["train"])
    names = tuple(map(str, (present if given is None else given).tolist()))
    if given is not None and present.dtype.kind != "U":
        values = np.arange(len(names))
        rule = f"there are {len(names)} classes, so that labels are 0 to {len(names) - 1}"
    else:
        values = present if given is None else np.array(names)
        rule = "no training image has it" if given is None else "classes does not name it"
    problems = []
    if len(values) < 2:
        problems.append(f"only {len(values)} class; there must be two or more")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        problems.append(f"classes: {', '.join(twice[:5])} more than once; each class has a name of its own")
    numbers = {}
    for split, found in labels.items():
        if (found.dtype.kind == "U") != (present.dtype.kind == "U"):
            problems.append(f"{split} labels are {found.dtype}, train labels {present.dtype}; all text, or all numbers")
            continue
        # Nothing is cast to the dtype of `values`: shorter text would cut catfish down to cat.
        if strange := np.setdiff1d(found, values).tolist():
            problems.append(f"{split} labels: {', '.join(map(str, strange[:5]))}: {rule}")
            continue
        order = np.argsort(values, kind="stable")
        numbers[split] = order[np.searchsorted(values, found, sorter=order)].astype(np.int64)
    if problems:
        raise BadInput([Problem(where, 0, 0, problem) for problem in problems])
    return names, numbers


def _digest(piles: Piles) -> str:
    content = hashlib.blake2b(json.dumps(piles.classes).encode(), digest_size=16)
    for pile in (piles.train, piles.validation, piles.test):
        if pile is None:
            continue
        content.update(pile.labels.astype("<i8").tobytes())
        if isinstance(pile.items, np.ndarray):
            content.update(repr(pile.items.shape).encode())
            content.update(np.ascontiguousarray(pile.items).data)
        else:
            content.update(json.dumps([stamp(path) for path in pile.items]).encode())
    return content.hexdigest()


def stamp(path: str) -> tuple[str, int, int]:
    """What tells whether a file changed: path, bytes, mtime_ns; zeros where it is absent, which decoding will say."""
    try:
        found = Path(path).stat()
    except (OSError, ValueError):  # a name that cannot be one, too
        return path, 0, 0
    return path, found.st_size, found.st_mtime_ns
