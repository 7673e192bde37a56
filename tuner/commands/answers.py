"""The commands on what runs left behind: answers, comparisons, lists. They need neither torch nor Ray."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tuner.errors import BadInput, Problem
from tuner.terminal import OUT, Json, open_console, print_json, print_table, progress, show

if TYPE_CHECKING:
    from analysis.folders.runs import RunSummary
    from analysis.page.report import Written
    from analysis.results import Results

Mode = Literal["max", "min"]
Racing = Literal["none", "asha", "hyperband", "median"]


def analyze(
    path: Annotated[Path | None, typer.Argument(help="run folder; default: the newest in results/")] = None,
    out: Annotated[Path | None, typer.Option(help="folder for the report; default: report/ in the run")] = None,
    last: Annotated[bool, typer.Option("--last", help="of a folder of runs the newest, not the list of all")] = False,
    metric: Annotated[str | None, typer.Option(help="metric to rank by; default: the run's own")] = None,
    mode: Annotated[Mode | None, typer.Option(help="its direction, where the folder does not say")] = None,
    top: Annotated[int, typer.Option(min=1, help="trials that the table shows at first")] = 10,
    x: Annotated[str | None, typer.Option(help="parameter along the interaction scatter")] = None,
    color: Annotated[str | None, typer.Option(help="parameter that colours it")] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", help="html, png, svg, csv, parquet, json or md; default: html,png,csv,json,md"),
    ] = None,
    to: Annotated[
        list[str] | None,
        typer.Option(metavar="TARGET", help="export too: FILE.db (Optuna), tensorboard:DIR, mlflow:DIR; repeatable"),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="write the report again as the run goes on")] = False,
    open_page: Annotated[bool, typer.Option("--open", help="open the page in the browser")] = False,
    as_json: Json = False,
) -> None:
    """Turn what the trials left into one page with figures, and tables; for results/ itself, a list of its runs."""
    import analysis as library

    try:
        chosen = path or library.newest(OUT)
        if not library.is_run(chosen) and (found := library.index(chosen)):
            if not last:
                _list_runs(found, (out or chosen) / "index.html", as_json, open_page)
                return
            chosen = library.newest(chosen)
        from analysis.exports import targets as exports
        from analysis.page import report
        from analysis.page.formats import read_formats
        from analysis.page.watch import is_running
        from analysis.page.watch import watch as keep_up
        from tuner.commands import refining

        targets = [exports.parse_target(text) for text in to or ()]
        wanted = read_formats(formats or ())
        cache = (out or chosen / "report") / "cache"
        read = partial(library.load, metric=metric, mode=mode, cache=cache)

        def write(results: Results) -> report.Written:
            live = LOOK if watch and is_running(results) else None
            rules = refining.rules(results)
            return report.write(results, out, formats=wanted, x=x, color=color, top=top, live=live, rules=rules)

        if watch and as_json:
            raise ValueError("--watch and --json do not go together; findings.json is rewritten with the report")
        if watch:
            if open_page:
                _open(write(read(chosen)).page)
            keep_up(chosen, lambda results: write(results).page, LOOK, out=out, read=read, say=typer.echo)
            return

        with open_console(stderr=True).status(f"reading {show(chosen)} and drawing"):
            results = read(chosen)
            written = write(results)
        exported = [exports.export(results, target) for target in targets]
    except (library.Unreadable, ValueError) as error:
        raise BadInput(str(error)) from None
    except OSError as error:
        raise BadInput(f"{error.filename or path}: {error.strerror}; choose another folder with --out") from None
    best = results.best()
    if as_json:
        value = None if best is None else results.trials[str(results.metric)].to_dict()[best]
        print_json(
            {
                "report": str(written.page),
                "run": str(chosen),
                "trials": int(results.trials["repeat_of"].isna().sum()),
                "best": best and {"trial": best, "metric": results.metric, "value": value},
                "findings": [finding.text for finding in written.told.findings],
                "next": exported,
                "problems": list(results.problems),
            }
        )
    else:
        _say(results, written)
        for line in exported:
            typer.echo(f"next   {line}")
    if open_page:
        _open(written.page)


LOOK = 10.0
"""Seconds between two looks of `analyze --watch`."""
SAID = 4
"""Findings that the terminal says; the page has them all."""


def _say(results: Results, written: Written) -> None:
    from analysis import style

    told, best, metric = written.told, results.best(), style.metric(results)
    shown = "" if best is None else f", best {best} with {metric.text(results.trials[metric.name].to_dict()[best])}"
    repeats = int(results.trials["repeat_of"].notna().sum())
    count = style.count(len(results.trials) - repeats, "trial") + f" and {style.count(repeats, 'repeat')}" * bool(
        repeats
    )
    typer.echo(f"{results.name}: {count}{shown}")
    for finding in told.findings[:SAID]:
        typer.echo(f"found  {finding.text} ({finding.strength})")
    for text in told.not_told if not told.findings else ():
        typer.echo(f"open   {text}")
    for problem in results.problems:
        typer.echo(f"note   {problem}")
    typer.echo(f"report {show(written.page)}")
    folder = written.page.parent if written.page.is_file() else written.page
    typer.echo(f"       {show(folder)}: {', '.join(sorted(written.files))}")


def _open(page: Path) -> None:
    import webbrowser

    webbrowser.open(page.absolute().as_uri())


def _list_runs(found: Sequence[RunSummary], target: Path, as_json: bool, open_page: bool) -> None:
    from analysis.page import overview

    page = overview.write(found, target)
    if as_json:
        print_json({"report": str(page), "runs": len(found)})
    else:
        typer.echo(f"{len(found)} runs side by side: {show(page)}")
    if open_page:
        _open(page)


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


def whatif(
    path: Annotated[Path | None, typer.Argument(help="run folder; default: the newest in results/")] = None,
    scheduler: Annotated[Racing | None, typer.Option(help="this one alone; default: a grid of all")] = None,
    grace: Annotated[int | None, typer.Option(min=1, help="its first epoch at which trials stop")] = None,
    factor: Annotated[int | None, typer.Option(min=2, help="one of so many goes on")] = None,
    metric: Annotated[str | None, typer.Option(help="metric to judge by; default: the run's own")] = None,
    as_json: Json = False,
) -> None:
    """Play a run again under other schedulers: what they would have spent, and whether the winner would be there."""
    import analysis as library
    from tuner.commands import hindsight
    from tuner.search import whatif as search

    given = {key: value for key, value in (("name", scheduler), ("grace", grace), ("factor", factor)) if value}
    chosen = hindsight.read_scheduler(given)
    if given and chosen is None:
        rule = f"{scheduler} has no such option" if scheduler else "they belong to a --scheduler"
        raise BadInput(f"--grace, --factor: {rule}; asha and hyperband take both, median takes --grace")
    try:
        results = library.load(path or library.newest(OUT), metric=metric)
    except library.Unreadable as error:
        raise BadInput(str(error)) from None
    record, own = hindsight.read_record(results), hindsight.read_scheduler(results.run.get("scheduler"))
    if why := hindsight.refusal(record, results):
        print_json({"run": str(results.path), "sentences": [why]}) if as_json else typer.echo(f"{results.name}: {why}")
        return
    if grace and grace >= record.full:
        raise BadInput(f"--grace {grace}: trials train for {record.full} epochs: a scheduler stops none before that")
    with progress() as tell:
        told = partial(tell, "playing the run again")
        answer = search.compare(record, [chosen] if chosen else search.settings(record, own), own, told)
    said = hindsight.sentences(answer, record, results)
    if as_json:
        print_json(hindsight.as_json(answer, record, results, said))
        return
    typer.echo("\n".join(said) + "\n")
    print_table(hindsight.HEADS, hindsight.table(answer, record, results), numbers=range(1, len(hindsight.HEADS)))
    typer.secho(f"\n{hindsight.LEGEND}", dim=True)


def compare(
    paths: Annotated[list[Path], typer.Argument(help="run folders, two or more", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="folder for the page; default: compare/ beside the runs")] = None,
    metric: Annotated[str | None, typer.Option(help="metric to judge by; default: each run's own")] = None,
    open_page: Annotated[bool, typer.Option("--open", help="open the page in the browser")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="print the table for a README")] = False,
    as_json: Json = False,
) -> None:
    """Set runs side by side: what they reached, what changed between them, and whether that is more than noise."""
    import analysis as library
    from analysis.comparison import compare as comparing
    from analysis.comparison import compare_page as pages

    found: list[library.Results] = []
    passed: list[str] = []
    wrong: list[str] = []
    for path in paths:
        try:
            found.append(library.load(path, metric=metric))
        except library.Unreadable as error:  # what results/* catches beside the runs is passed over
            if not path.exists() or library.is_run(path):
                wrong.append(str(error))
            else:
                passed.append(f"{show(path)}: passed over, it is no run")
    if wrong or len(found) < 2:
        few = [] if wrong else ["compare needs at least two runs; `hypertune runs` lists those in results/"]
        raise BadInput([Problem("", 0, 0, text) for text in (*wrong, *passed, *few)])
    target = out or found[0].path.resolve().parent / "compare"
    if library.is_run(target):
        raise BadInput(f"{show(target)} is a run itself; choose another folder with --out")
    try:
        comparison = comparing.compare(found)
    except ValueError as error:
        raise BadInput(str(error)) from None
    try:
        page = pages.write(comparison, target)
    except OSError as error:
        raise BadInput(f"{error.filename or target}: {error.strerror}; choose another folder with --out") from None
    if as_json:
        print_json({"page": str(page), "passed_over": passed, **pages.as_json(comparison)})
    elif markdown:
        typer.echo(pages.to_markdown(comparison), nl=False)
    else:
        for group in comparison.groups:
            shown = pages.short(comparison, group)
            said = [pages.answer(comparison, group), *(d.text for d in comparison.differences if d.first in group.runs)]
            typer.echo(f"{group.reason}\n" * bool(group.reason), nl=False)
            print_table(shown.heads, shown.rows, [n for n, head in enumerate(shown.heads) if head not in pages.WORDS])
            typer.echo("".join(f"{text}\n" for text in said if text))
        typer.echo("".join(f"note   {text}\n" for text in (*comparison.notes, *passed)), nl=False)
        typer.echo(f"page   {show(page)}")
    if open_page:
        typer.launch(page.resolve().as_uri())


def refine(
    path: Annotated[Path | None, typer.Argument(help="run folder; default: the newest in results/")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="the new space file; default: NAME-2.yaml in this folder")
    ] = None,
    top: Annotated[int, typer.Option(min=0, help="so many of the best configurations are tried first")] = 3,
    as_json: Json = False,
) -> None:
    """Propose the next space: narrower around what worked, wider where the best lies at the end, with reasons."""
    import analysis as library
    from tuner.commands import refining

    try:
        results = library.load(path or library.newest(OUT))
    except library.Unreadable as error:
        raise BadInput(str(error)) from None
    made = refining.make(results, out, top)
    if as_json:
        print_json(refining.as_json(made, results))
        return
    typer.echo("\n".join([f"{results.name}: {len(results.trials)} trials", *refining.lines(made, results)]))
