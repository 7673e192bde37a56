"""The report: one HTML page, the figures as images, the tables as files, the findings for people and for programs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from analysis import pareto
from analysis.findings import Report, findings
from analysis.importance import weigh
from analysis.page import html as page
from analysis.page import pages, tables
from analysis.page.figures import KINDS, write_figures
from analysis.page.findings_json import findings_json
from analysis.page.formats import DEFAULT, Format, write_json, write_parquet
from analysis.page.markdown import to_markdown
from analysis.plots import FIGURES
from analysis.refinement.refine import Rules, proposal, refine
from analysis.results import Results
from analysis.worth import Worth, worth

TOP = 10  # rows of the table of trials at first
__all__ = ["DEFAULT", "Written", "compute", "write"]


class Written(NamedTuple):
    """A report. page: the HTML file, or the folder where none was wanted; files: all of it, by name in the folder."""

    page: Path
    told: Report
    files: tuple[str, ...]


def write(
    results: Results,
    out: Path | None = None,
    *,
    formats: Collection[Format] = DEFAULT,
    x: str | None = None,
    color: str | None = None,
    top: int = TOP,
    live: float | None = None,
    rules: Rules | None = None,
) -> Written:
    """Writes the report into `out`, by default report/ in the run's folder.

    By `formats` these are report.html, report.md, figures/*.png and *.svg, trials and epochs as .csv and .parquet, and
    findings.json. x and color choose the pair of the interaction scatter (see `plots.interaction.compute`); top: rows
    of the table; live: seconds after which the page loads itself again; rules: what the settings of the next space may
    be. Each file is written beside its place and then moved there, the page last: a reader never sees half a file.

    Raises:
        ValueError: no setting called like `x` or `color` varied.
        OSError: the folder cannot be written.
    """
    out = _check(results.path, out)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of losses near the largest number there is
        told = findings(results)
        more, then = worth(results), proposal(refine(results, told, rules), str(results.path))
        computed = compute(results, told, x=x, color=color)
        return _put_all(
            results, out, formats, computed, told, partial(page.render, more=more, then=then, top=top, live=live), more
        )


def _check(run: Path, out: Path | None) -> Path:
    """Where the report goes: not through links that lie in the run's folder, and not among the trials.

    Raises:
        ValueError: it would.
    """
    chosen = run / "report" if out is None else out
    for place in (*((chosen,) if out is None else ()), chosen / "figures"):
        if place.is_symlink():
            raise ValueError(f"{place}: is a link, which a report does not follow; remove it, or choose --out")
    if chosen.resolve().is_relative_to(run.resolve() / "trials"):
        raise ValueError(f"{chosen}: belongs to the trials of the run; choose another folder with --out")
    return chosen


def _put_all(
    results: Results, out: Path, formats: Collection[Format], computed: Mapping[str, Any], told: Report,
    render: Callable[..., str], more: Worth,
) -> Written:  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    files = []

    def put(name: str, write_to: Callable[[Path], Any]) -> None:
        pages.put(out / name, write_to)
        files.append(name)

    for name, table in (("trials", results.trials), ("epochs", results.epochs)):
        if "csv" in formats:
            put(f"{name}.csv", partial(tables.write_csv, table))
        if "parquet" in formats:
            put(f"{name}.parquet", partial(write_parquet, results, table))
    if "json" in formats:
        put("findings.json", partial(write_json, findings_json(results, told, more)))
    kinds = [kind for kind in KINDS if kind in formats]
    images = write_figures(computed, out / "figures", kinds) if kinds else ()
    files += ["figures/"] if images else []
    if "md" in formats:
        drawn = [image.stem for image in images]
        text = to_markdown(results, told, head=page.head(results), images=drawn, kind=kinds[0] if kinds else "png")
        put("report.md", lambda path: path.write_text(text, encoding="utf-8"))
    if "html" not in formats:
        return Written(out, told, tuple(files))
    picture = out / "figures" / "parallel.png"
    image = picture.read_bytes() if picture in images else None
    text = render(results, computed, told, image=image)
    put("report.html", lambda path: path.write_text(text, encoding="utf-8"))
    return Written(out / "report.html", told, tuple(files))


def compute(results: Results, told: Report, *, x: str | None = None, color: str | None = None) -> Mapping[str, Any]:
    """What every figure draws, by its name; what several of them need is worked out once."""
    weighed = weigh(results)
    given: dict[str, dict[str, Any]] = {
        "interaction": {"x": x, "color": color},
        "importance": {"weighed": weighed},
        "effects": {"weighed": weighed},
        "rank": {"weighed": weighed},
        "pairs": {"found": told.interactions},
        "edf": {"tested": told.effects},
    }
    several = len(pareto.objectives(results)) > 1
    kinds = {name: kind for name, kind in FIGURES.items() if several or name != "hypervolume"}
    return {name: kind.compute(results, **given.get(name, {})) for name, kind in kinds.items()}
