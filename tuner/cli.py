"""The commands: each parses, calls and prints. Nothing heavy is imported until a command needs it."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tuner import __version__
from tuner.commands import answers, clustering, drafting, proving, shipping
from tuner.errors import BadInput, HypertuneError
from tuner.terminal import OUT, Json, Sets, newest, open_console, print_json, progress, show

if TYPE_CHECKING:
    from rich.console import Console

    from tuner.records.store import Store
    from tuner.runner.joined import Joined
    from tuner.runner.run import How, Outcome
    from tuner.search.transfer import Knowledge
    from tuner.spec.wish import Wish

app = typer.Typer(
    name="hypertune",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

UntilOption = Annotated[
    Literal["worth"] | None,
    typer.Option(metavar="worth", help="worth: end when the next trials should gain less than the noise"),
]

AddressOption = Annotated[
    str | None, typer.Option(metavar="auto", help="auto: search on the Ray cluster that this machine is a node of")
]

FIRST_TIME = "30m"
"""Time budget of a space that is written for images, where none is given."""


@app.callback(invoke_without_command=True)
def hypertune(version: Annotated[bool, typer.Option("--version", help="print the version and stop")] = False) -> None:
    """Hyperparameter search for image classifiers: one YAML file, one command, honest answers."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def run(
    space_file: Annotated[Path | None, typer.Argument(help="space file, such as my.yaml", show_default=False)] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="IMAGES", help="instead of a file: images to write a fitting space for, and to run it"),
    ] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="number of trials")] = None,
    time: Annotated[str | None, typer.Option(help="time budget: 90s, 30m, 2h")] = None,
    until: UntilOption = None,
    name: Annotated[str | None, typer.Option(help="name of the run, instead of the file's")] = None,
    out: Annotated[
        str, typer.Option(help="folder that holds the runs; s3:// and gs:// addresses keep a copy there")
    ] = str(OUT),
    address: AddressOption = None,
    sets: Sets = None,
    warm: Annotated[
        list[Path] | None, typer.Option("--warm-start", metavar="RUN", help="learn from the trials of an earlier run")
    ] = None,
    resume_if_exists: Annotated[
        bool, typer.Option("--resume-if-exists", help="go on with the run of this name where there is one")
    ] = False,
    finalize: Annotated[
        bool, typer.Option("--finalize", help="then train the best again and open the test images, as `finalize` does")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show the plan and stop")] = False,
    as_json: Json = False,
) -> None:
    """Search a space and leave the results in results/NAME."""
    from tuner.spec.space import load_space

    if (space_file is None) == (data is None):
        raise BadInput("run needs a space file, or --data IMAGES to have one written")
    if space_file is None:
        space_file, time = write_space(str(data), time), None
    given = {
        "--trials": ("search.trials", trials), "--time": ("search.time", time),
        "--until": ("search.until", until), "--name": ("name", name),
    }  # fmt: skip
    flags = {flag: f"{field}={json.dumps(value)}" for flag, (field, value) in given.items() if value is not None}
    all_sets = [*(sets or []), *flags.values()]
    try:
        space = load_space(space_file, all_sets)
    except BadInput as error:
        sources = {f"--set {n}": flag for n, flag in enumerate(flags, start=len(sets or []) + 1)}
        raise BadInput([replace(p, source=sources.get(p.source, p.source)) for p in error.problems]) from error
    from tuner.records.store import check_store, is_url, open_store

    parent = open_store(out) if is_url(out) else None
    taken = (OUT if parent else Path(out)).absolute() / space.fixed.name
    if parent and not dry_run:
        check_store(parent)
        if resume_if_exists:
            bring_home(parent.child(taken.name), taken)
    if resume_if_exists and (taken / "run.json").exists() and not dry_run:
        from tuner.spec.wish import Wish

        wish = Wish(space=space_file.absolute(), sets=tuple(all_sets))
        copy = parent.child(taken.name).url if parent else ""
        go_on(taken, wish, address=address, store=copy, finalize=finalize, as_json=as_json)
        return

    from tuner.records import writer
    from tuner.records.copying import free_name
    from tuner.runner.session import make_console, perform, show_plan

    console = make_console(as_json)
    with on_cluster(address, console) as cluster:
        plan, known = show_plan(space, console, warm or (), cluster)
        if dry_run:
            if as_json:
                from tuner.runner.planned import plan_json

                print_json(plan_json(plan))
            return
        old = writer.status(taken)
        folder = writer.create(taken.parent, free_name(taken.parent, parent, taken.name) if parent else taken.name)
        store = parent.child(folder.path.name).url if parent else ""
        if old in ("interrupted", "dead", "running"):
            word = "under way in another process" if old == "running" else "unfinished"
            console.print(f"{show(taken)} is {word} and stays as it is; this is a new run", soft_wrap=True)
            if old != "running":
                console.print(f"to go on with it: hypertune resume {show(taken)}", style="dim", soft_wrap=True)
        outcome = perform(plan, folder, console, how(cluster, known, store), as_json=as_json)
    finish(outcome, as_json, finalize=finalize, weights=store if cluster else "", joined=cluster is not None)


def bring_home(store: Store, path: Path) -> None:
    """Bring a run from its copy in a store, where that has more of it than this machine."""
    from tuner.records.bring import bring, standing

    if standing(store, path) == "there":
        with progress() as tell:
            problems = bring(store, path, tell=tell)
        for problem in problems:
            typer.echo(f"note   {problem}", err=True)


def on_cluster(address: str | None, console: Console) -> AbstractContextManager[Joined | None]:
    """The cluster at this address, joined for as long as it is needed; None where the search runs on this machine."""
    if address is None:
        return nullcontext()

    from tuner.runner.joined import join

    return join(address, lambda text: console.print(text, soft_wrap=True))


def how(cluster: Joined | None, known: Knowledge | None = None, store: str = "") -> How:
    """How the run is gone about; store: address of its copy."""
    from tuner.runner.run import How

    if cluster is None:
        return How(enough=enough, known=known, store=store)
    flags = f" --address {cluster.address}"
    return How(enough=enough, known=known, ground=cluster.search, flags=flags, store=store)


def enough(values: Sequence[float], **told: Any) -> str:
    """What `search.until: worth` goes by; looked up when it is asked."""
    from analysis import gain

    return gain.enough(values, **told)


def write_space(images: str, time: str | None) -> Path:
    """Write a space file that fits the images and the time, show it, and return where it is."""

    from tuner.spec.search import parse_duration
    from tuner.spec.space import parse_space

    console = open_console(stderr=True)
    with console.status("looking at the images and timing this machine"):
        from tuner.runner.fit import this_machine
        from tuner.runner.fit_space import data_at, fit_space

        try:
            seconds = parse_duration(time or FIRST_TIME)
        except ValueError as error:
            raise BadInput(f"--time: {error}") from error
        text = fit_space(data_at(images), seconds, this_machine())
    path = free(Path(f"{parse_space(text, images).fixed.name}.yaml"))
    path.write_text(text, encoding="utf-8")
    console.print(text, soft_wrap=True, highlight=False)
    console.print(
        f"written to {show(path)}; change it and run it again with: hypertune run {show(path)}", soft_wrap=True
    )
    return path


def free(path: Path) -> Path:
    """This path, or one with a number where it is taken."""
    number = 2
    while path.exists():
        path, number = path.with_stem(f"{path.stem.removesuffix(f'-{number - 1}')}-{number}"), number + 1
    return path


@app.command()
def resume(
    path: Annotated[Path | None, typer.Argument(help="run folder; default: the newest in results/")] = None,
    trials: Annotated[str | None, typer.Option(help="+20: so many more trials; 40: so many in all")] = None,
    time: Annotated[str | None, typer.Option(help="+1h: so much longer; 3h: so much in all")] = None,
    until: UntilOption = None,
    space: Annotated[Path | None, typer.Option(help="go on with this changed space; old trials stay knowledge")] = None,
    data: Annotated[Path | None, typer.Option(help="where the images lie now, if they were moved")] = None,
    changed_data: Annotated[bool, typer.Option("--changed-data", help="go on although the images changed")] = False,
    address: AddressOption = None,
    sets: Sets = None,
    as_json: Json = False,
) -> None:
    """Go on with a run: after a crash, a signal or a spent budget, or with more trials or another space."""
    from tuner.spec.wish import Wish

    path = path or newest()
    all_sets = [*(sets or []), *([f"search.until={until}"] if until else [])]
    space, data = space and space.absolute(), data and data.absolute()
    wish = Wish(trials=trials, time=time, space=space, data=data, sets=tuple(all_sets))
    go_on(path.absolute(), wish, address=address, changed_data=changed_data, as_json=as_json)


def go_on(
    path: Path,
    wish: Wish,
    *,
    address: str | None = None,
    store: str = "",
    changed_data: bool = False,
    finalize: bool = False,
    as_json: bool = False,
) -> None:
    """Open a run folder again and search on; store: where its copy is, if not where the run says."""
    from tuner.records.reader import read_record
    from tuner.records.writer import RunFolder
    from tuner.runner.session import make_console, resume_run

    if not path.is_dir():
        raise BadInput(f"no run folder: {show(path)}; `hypertune runs` lists those in results/")
    if path.parent.name == "final" and (path.parent.parent / "run.json").exists():
        raise BadInput(f"{show(path)} holds finalists; go on with: hypertune finalize {show(path.parent.parent)}")
    console = make_console(as_json)
    record = read_record(path)  # says what is wrong before anything is touched
    if store := store or str(record.run.get("store") or ""):
        from tuner.records.store import open_store

        bring_home(open_store(store), path)
    with RunFolder(path) as folder, on_cluster(address, console) as cluster:
        way = how(cluster, store=store)
        outcome = resume_run(folder, wish, console, way, changed_data=changed_data, cluster=cluster, as_json=as_json)
    finish(outcome, as_json, finalize=finalize, weights=store, joined=cluster is not None)


def finish(outcome: Outcome, as_json: bool, *, finalize: bool = False, weights: str = "", joined: bool = False) -> None:
    """Leave with the exit code of an outcome; finalize: deliver its winner before, if the search reached its end.

    weights: address of the store that has the weights, where the machines that trained did not share this folder.
    joined: a cluster was; then this process cannot start a Ray of its own, with its own token and on loopback alone.
    """
    number, final = outcome.signal, dict[str, Any]()
    if weights and outcome.status == "finished":
        from tuner.records.bring import bring_weights
        from tuner.records.store import open_store

        with progress() as tell:
            problems = bring_weights(open_store(weights), outcome.path, tell=tell)
        for problem in problems:
            typer.echo(f"note   {problem}", err=True)
    if finalize and outcome.status == "finished":
        deliver = proving.deliver_apart if joined else proving.deliver
        final, number = deliver(outcome.path, as_json=as_json)
    if as_json:
        from tuner.runner.told import outcome_json

        print_json({**outcome_json(outcome), **({"final": final} if finalize else {})})
    if number:
        raise typer.Exit(128 + number)
    if outcome.status == "failed":
        raise typer.Exit(1)


@app.command()
def status(
    path: Annotated[Path | None, typer.Argument(help="run folder; default: the newest in results/")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="look again every two seconds until it ends")] = False,
    as_json: Json = False,
) -> None:
    """Say how a run goes: under way, dead or ended; reads its folder alone and disturbs nobody."""
    from time import sleep

    from rich.live import Live
    from rich.text import Text

    from tuner.records.describe import describe_status
    from tuner.records.status import read_status

    chosen = (path or newest()).absolute()
    found = read_status(chosen)
    if as_json and not watch:
        print_json(found.as_dict())
        return
    console = open_console()
    if as_json or not console.is_terminal:
        while True:  # a line a look, for programs
            typer.echo(json.dumps(found.as_dict()) if as_json else describe_status(found, show(chosen)))
            if not watch or found.status != "running":
                return
            sleep(LOOK)
            found = read_status(chosen)
    with Live(Text(describe_status(found, show(chosen))), console=console, auto_refresh=False) as live:
        while watch and found.status == "running":
            sleep(LOOK)
            found = read_status(chosen)
            live.update(Text(describe_status(found, show(chosen))), refresh=True)


LOOK = 2.0
"""Seconds between two looks of `status --watch`."""


for command in (
    *(answers.analyze, answers.compare, answers.whatif, answers.refine, answers.runs),
    *(proving.finalize, proving.evaluate, proving.explain, proving.predict, proving.latency),
    *(shipping.export, shipping.eject, shipping.compress, shipping.ensemble),
    *(clustering.submit, clustering.jobs, clustering.logs, clustering.stop, clustering.fetch),
    *(drafting.validate, drafting.preview, drafting.lr_find, drafting.spaces, drafting.new, drafting.fields),
):
    app.command()(command)


def main() -> None:
    """The console script: errors become their message and exit code, never a stack trace."""
    sys.path.append(str(Path.cwd()))  # the user's own code; last: a tuner/ there must not hide ours
    try:
        _run()
    except HypertuneError as error:
        report(error)
        sys.exit(error.exit_code)


def _run() -> None:
    try:
        app()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        rule = "a name that is longer than this file system takes; is it a path?"
        longest = max(Path(str(error.filename)).parts, key=len)
        raise BadInput(f"{longest[:60]}...: {rule}") from None


def report(error: HypertuneError) -> None:
    """An error's text on stderr; with --json as one object on stdout."""
    problems = list(error.problems) if isinstance(error, BadInput) else []
    notes = getattr(error, "__notes__", [])
    if "--json" in sys.argv:
        found = [{"source": p.source, "line": p.line, "column": p.column, "message": p.message} for p in problems]
        print_json({"error": str(error), "exit_code": error.exit_code, "problems": found, "notes": notes})
        return
    typer.echo("\n".join([str(error), *notes]), err=True)
    hint = "; `hypertune fields` lists what can be set" if "no such field" in str(error) else ""
    if len(problems) > 1 or hint:
        typer.echo(f"{len(problems)} problem{'s' * (len(problems) > 1)}{hint}", err=True)


if __name__ == "__main__":
    main()
