"""The page over all runs of a folder such as results/: compared only where data, split and metric are the same."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from analysis import style
from analysis.folders.runs import RunSummary
from analysis.page import pages


def write(summaries: Iterable[RunSummary], out: Path) -> Path:
    """Writes the page to the file `out`, by way of a temporary file beside it; makes its folder. Returns it.

    Raises:
        OSError: the file cannot be written.
    """
    page = pages.render("index.html.jinja", groups=groups(summaries, out.parent))
    out.parent.mkdir(parents=True, exist_ok=True)
    pages.put(out, lambda path: path.write_text(page, encoding="utf-8"))
    return out


def groups(summaries: Iterable[RunSummary], above: Path) -> list[dict[str, Any]]:
    """One table for all comparable runs, best first, then one for the runs that compare with none, in the given order.

    Links go to reports that are there, relative to the folder `above`.
    """
    keys: dict[tuple[str, ...], list[RunSummary]] = {}
    alone = []
    for run in summaries:
        if run.comparable is None or run.metric is None:
            alone.append(run)
        else:
            keys.setdefault((*run.comparable, run.mode), []).append(run)
    alone += [runs[0] for runs in keys.values() if len(runs) == 1]
    found = []
    for runs in (r for r in keys.values() if len(r) > 1):
        sign = -1 if runs[0].mode == "max" else 1
        runs = sorted(runs, key=lambda run: (run.best is None, sign * (run.best or 0.0)))
        top = max((abs(run.best) for run in runs if run.best is not None), default=0.0)
        label = style.words(str(runs[0].metric))
        found.append(
            {
                "title": f"{len(runs)} runs on the same data, by {label}",
                "about": f"{'Highest' if sign < 0 else 'Lowest'} first. The bars begin at 0.",
                "compared": True,
                "rows": [_row(run, above, top) for run in runs],
            }
        )
    if alone:
        found.append(
            {
                "title": "Runs that compare with no other" if found else "All runs",
                "about": "Their data, split or metric differ or are not known.",
                "compared": False,
                "rows": [_row(run, above, 0.0) for run in alone],
            }
        )
    return found


def _row(run: RunSummary, above: Path, top: float) -> dict[str, Any]:
    page = run.path / "report" / "report.html"
    best = "–"
    if run.best is not None:
        label = style.words(run.metric or "")
        best = f"{100 * run.best:.1f}%" if "acc" in label and 0 <= run.best <= 1 else style.number(run.best)
        best += f" {label}" if not top else ""
    return {
        "name": run.name,
        "report": quote(Path(os.path.relpath(page, above)).as_posix()) if page.is_file() else "",
        "status": run.status,
        "trials": f"{run.done:,} of {run.asked:,}",
        "epochs": f"{run.epochs:,}",
        "time": style.duration(run.seconds),
        "begun": style.date(run.created),
        "best": best,
        "bar": round(100 * abs(run.best) / top, 1) if top and run.best is not None else 0,
    }
