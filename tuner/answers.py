"""The commands on what runs left behind: answers, comparisons, lists. They need neither torch nor Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from tuner.errors import BadInput
from tuner.terminal import OUT, Json, print_json, print_table, show

Mode = Literal["max", "min"]


def analyze(
    path: Annotated[Path | None, typer.Argument(help="run folder; default: the newest in results/")] = None,
    out: Annotated[Path | None, typer.Option(help="folder for the report; default: report/ in the run")] = None,
    metric: Annotated[str | None, typer.Option(help="metric to rank by; default: the run's own")] = None,
    mode: Annotated[Mode | None, typer.Option(help="its direction, where the folder does not say")] = None,
    x: Annotated[str | None, typer.Option(help="parameter along the interaction scatter")] = None,
    color: Annotated[str | None, typer.Option(help="parameter that colours it")] = None,
    as_json: Json = False,
) -> None:
    """Turn what the trials left into one page with figures, and tables; for results/ itself, a list of its runs."""
    import analysis as library

    try:
        chosen = path or library.newest(OUT)
        if not library.is_run(chosen) and (found := library.index(chosen)):
            from analysis import overview

            page = overview.write(found, (out or chosen) / "index.html")
            if as_json:
                print_json({"report": str(page), "runs": len(found)})
            else:
                typer.echo(f"{len(found)} runs side by side: {show(page)}")
            return
        from rich.console import Console

        with Console(stderr=True, markup=False).status(f"reading {show(chosen)} and drawing"):
            from analysis import report as pages

            results = library.load(chosen, metric=metric, mode=mode)
            page = pages.write(results, out, x=x, color=color)
    except (library.Unreadable, ValueError) as error:
        raise BadInput(str(error)) from None
    except OSError as error:
        raise BadInput(f"{error.filename or path}: {error.strerror}; choose another folder with --out") from None
    best = results.best()
    if as_json:
        value = None if best is None else results.trials[str(results.metric)].to_dict()[best]
        print_json(
            {
                "report": str(page),
                "run": str(chosen),
                "trials": len(results.trials),
                "best": best and {"trial": best, "metric": results.metric, "value": value},
                "problems": list(results.problems),
            }
        )
        return
    typer.echo(f"{results.name}: {len(results.trials)} trials" + (f", best {best}" if best else ""))
    for problem in results.problems:
        typer.echo(f"note   {problem}")
    typer.echo(f"report {show(page)}")
    typer.echo(f"       {show(page.parent)}: trials.csv, epochs.csv, figures/")


def runs(path: Annotated[Path, typer.Argument(help="folder that holds the runs")] = OUT, as_json: Json = False) -> None:
    """List the runs in results/."""
    import analysis as library

    try:
        found = library.index(path)
    except library.Unreadable as error:
        raise BadInput(f"{error}; `hypertune run` makes it, or name another folder") from None
    if as_json:
        print_json([{**vars(run), "path": str(run.path)} for run in found])
        return
    if not found:
        typer.echo(f"no run in {show(path.absolute())}")
        return
    rows = []
    for run in found:
        best = "" if run.best is None else f"{run.best:.1%}" if "acc" in str(run.metric) else f"{run.best:.4g}"
        created = (run.created or "")[:16].replace("T", " ")
        trials = f"{run.done} of {run.asked}" if run.done != run.asked else str(run.done)
        rows.append((run.name, run.status, trials, str(run.epochs), best, run.metric or "", created))
    print_table(("run", "status", "trials", "epochs", "best", "metric", "created"), rows, numbers=(2, 3, 4))
