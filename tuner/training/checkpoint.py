"""Checkpoints: safetensors and JSON in a folder, with checksums; a crash leaves the old one or the new one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from tuner.errors import BadInput
from tuner.training.cache import flush

WEIGHTS, STATE = "weights.safetensors", "state.json"

_NUMBERED = re.compile(r"checkpoint_\d{6,}")


def name(epoch: int) -> str:
    """Of the checkpoint that a trial goes on from after this epoch."""
    return f"checkpoint_{epoch:06d}"


def newest(folder: Path) -> list[str]:
    """Names of the numbered checkpoints in `folder`, newest first; what is being written is none."""
    return order(path.name for path in folder.glob("checkpoint_*"))


def order(names: Iterable[str]) -> list[str]:
    """Those of these names that are of numbered checkpoints, newest first."""
    return sorted(filter(_NUMBERED.fullmatch, names), key=lambda each: (len(each), each), reverse=True)


def prune(folder: Path, keep: int, *, last: str) -> None:
    """Deletes the numbered checkpoints in `folder` but `last`, which is complete, and the `keep` - 1 before it.

    Those after it go too: the training went on from an earlier one because they did not load.
    """
    names = newest(folder)
    start = names.index(last)
    for each in (*names[:start], *names[start + keep :]):
        shutil.rmtree(folder / each, ignore_errors=True)


def save(
    folder: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any], about: Mapping[str, str] | None = None
) -> None:
    """Writes `tensors` and `state` (JSON values) as the checkpoint `folder`, replacing one that is there.

    about: what whoever reads the weights alone should know, as metadata of their file.

    Written beside it and renamed, everything synced to disk. Between the two renames of a replacement the old one lies
    in `.<folder>.old`, where `load` finds it. What a crash left beside it is cleaned up. One writer at a time.

    Raises:
        OSError: it could not be written; the old one is as it was.
    """
    with _aside(folder) as new:
        # safetensors holds rows in order only; a channels-last weight is not.
        weights = safetensors.torch.save(
            {name: tensor.contiguous() for name, tensor in tensors.items()}, dict(about or {})
        )
        content = {"state": dict(state), "weights": {"bytes": len(weights), "sha256": _hash(weights)}}
        _write(new / WEIGHTS, weights)
        _write(new / STATE, json.dumps({**content, "sha256": _hash_json(content)}, indent=2, allow_nan=False).encode())


def copy(source: Path, target: Path) -> None:
    """Makes the checkpoint `target` of the checkpoint `source`, whole or not at all, replacing one that is there.

    Files of a checkpoint are never written again, so both share them where the disk has hard links.

    Raises:
        OSError: there is no such checkpoint, or it cannot be copied; what was at `target` is as it was.
    """
    with _aside(target) as new:
        for each in (WEIGHTS, STATE):
            try:
                os.link(source / each, new / each)
            except OSError:  # another disk, or one without links
                _write(new / each, (source / each).read_bytes())


def load(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and state of the checkpoint `folder`.

    Raises:
        BadInput: there is none, or it is not what was written: the message says which file and how.
    """
    _, old = _beside(folder)
    found = folder if folder.is_dir() else old
    try:
        text, weights = (found / STATE).read_bytes(), (found / WEIGHTS).read_bytes()
    except FileNotFoundError as error:
        raise BadInput(f"no checkpoint: {error.filename} is missing") from error
    except OSError as error:
        raise BadInput(f"damaged checkpoint: {error.filename or found} cannot be read ({error.strerror})") from error
    try:
        content = json.loads(text)
        expected = content.pop("sha256")
        known = content["weights"]["bytes"], content["weights"]["sha256"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"damaged checkpoint: {found / STATE} is no state of a checkpoint ({error})") from error
    if _hash_json(content) != expected:
        raise BadInput(f"damaged checkpoint: {found / STATE} was changed after it was written")
    if len(weights) != known[0]:
        raise BadInput(f"damaged checkpoint: {found / WEIGHTS} has {len(weights):,} bytes, {known[0]:,} were written")
    if _hash(weights) != known[1]:
        raise BadInput(f"damaged checkpoint: {found / WEIGHTS} was changed after it was written (sha256 differs)")
    return safetensors.torch.load(weights), content["state"]


@contextlib.contextmanager
def _aside(folder: Path) -> Iterator[Path]:
    """An empty folder that becomes `folder` when the block is left without an error."""
    kind = folder.name.split("_")[0]
    for remains in folder.parent.glob(f".{kind}*"):
        if remains.suffix == ".new" or (remains.suffix == ".old" and remains.with_name(remains.stem[1:]).exists()):
            shutil.rmtree(remains, ignore_errors=True)
    new, old = _beside(folder)
    new.mkdir(parents=True)
    try:
        yield new
        flush(new)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    except Exception:
        shutil.rmtree(new, ignore_errors=True)  # on a full disk the next writer needs the room
        raise
    flush(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _beside(folder: Path) -> tuple[Path, Path]:
    return folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _hash_json(content: Any) -> str:
    return _hash(json.dumps(content, sort_keys=True).encode())


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
