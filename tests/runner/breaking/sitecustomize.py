"""Breaks the checkpoint of trial 002 in every process that finds this file on its path."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

if "ray" in Path(sys.argv[0]).parts or "default_worker" in " ".join(sys.argv):
    from tuner.training import checkpoint

    keep = checkpoint.save

    def save(
        folder: Path, tensors: Mapping[str, Any], state: Mapping[str, Any], about: Mapping[str, str] | None = None
    ) -> None:
        if folder.parent.name == "002":
            raise OSError("the disk of trial 002 is broken")
        keep(folder, tensors, state, about)

    checkpoint.save = save
