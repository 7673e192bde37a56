"""Turns what trials left on disk into answers; needs neither torch nor Ray nor `tuner`.

`analysis.load(folder)` reads one run, ours or plain Ray Tune's, into two DataFrames; `analysis.index(folder)` lists the
runs in it, `analysis.newest(folder)` finds the last one, `analysis.is_run(folder)` tells the two apart.
Names are looked up on first use: `import analysis` costs nothing, listing runs needs no pandas.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.folders.folder import Unreadable
    from analysis.folders.parameters import Parameter
    from analysis.folders.runs import RunSummary, index, is_run, newest
    from analysis.results import Results, load

__all__ = ["Parameter", "Results", "RunSummary", "Unreadable", "index", "is_run", "load", "newest"]

_HOMES = {
    "Parameter": "analysis.folders.parameters",
    "Results": "analysis.results",
    "RunSummary": "analysis.folders.runs",
    "Unreadable": "analysis.folders.folder",
    "index": "analysis.folders.runs",
    "is_run": "analysis.folders.runs",
    "load": "analysis.results",
    "newest": "analysis.folders.runs",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'analysis' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
