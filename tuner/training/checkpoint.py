"""Checkpoints: safetensors and JSON in a folder, with checksums; a crash leaves the old one or the new one."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from tuner.errors import BadInput
from tuner.training.cache import flush

WEIGHTS, STATE = "weights.safetensors", "state.json"


def save(folder: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Writes `tensors` and `state` (JSON values) as the checkpoint `folder`, replacing one that is there.

    Written beside it and renamed, everything synced to disk. Between the two renames of a replacement the old one lies
    in `.<folder>.old`, where `load` finds it. One writer at a time.
    """
    new, old = _beside(folder)
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    # safetensors holds rows in order only; a channels-last weight is not.
    weights = safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()})
    content = {"state": dict(state), "weights": {"bytes": len(weights), "sha256": _hash(weights)}}
    _write(new / WEIGHTS, weights)
    _write(new / STATE, json.dumps({**content, "sha256": _hash_json(content)}, indent=2, allow_nan=False).encode())
    flush(new)
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    new.rename(folder)
    flush(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def load(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and state of the checkpoint `folder`.

    Raises:
        BadInput: there is none, or it is not what was written: the message says which file and how.
    """
    if not folder.is_dir():
        _, folder = _beside(folder)
    try:
        text, weights = (folder / STATE).read_bytes(), (folder / WEIGHTS).read_bytes()
    except FileNotFoundError as error:
        raise BadInput(f"no checkpoint: {error.filename} is missing") from error
    try:
        content = json.loads(text)
        expected = content.pop("sha256")
        known = content["weights"]["bytes"], content["weights"]["sha256"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"damaged checkpoint: {folder / STATE} is no state of a checkpoint ({error})") from error
    if _hash_json(content) != expected:
        raise BadInput(f"damaged checkpoint: {folder / STATE} was changed after it was written")
    if len(weights) != known[0]:
        raise BadInput(f"damaged checkpoint: {folder / WEIGHTS} has {len(weights):,} bytes, {known[0]:,} were written")
    if _hash(weights) != known[1]:
        raise BadInput(f"damaged checkpoint: {folder / WEIGHTS} was changed after it was written (sha256 differs)")
    return safetensors.torch.load(weights), content["state"]


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
