"""Session: a search as a person meets it: the plan shown, the run performed, its end told, the way to go on named."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

from rich.console import Console

from tuner.errors import HypertuneError, NoSpace
from tuner.records.reader import read_record
from tuner.records.store import open_store
from tuner.records.writer import RunFolder
from tuner.runner.drive import RESERVE
from tuner.runner.plan import Plan, make_plan
from tuner.runner.planned import plan_table
from tuner.runner.progress import Progress
from tuner.runner.relay import WIDTH, Relay
from tuner.runner.resume import check_data, compare_versions, reopen
from tuner.runner.run import Before, How, Outcome, run
from tuner.runner.signals import output_to
from tuner.runner.told import outcome_text
from tuner.runner.warm import know
from tuner.search.transfer import Knowledge
from tuner.spec.space import Space
from tuner.spec.wish import Wish

if TYPE_CHECKING:
    from tuner.runner.joined import Joined


def open_console(file: IO[str]) -> Console:
    """A console that draws on a terminal alone: notebooks set FORCE_COLOR, and would get every state of the table."""
    return Console(file=file, highlight=False, markup=False, force_terminal=None if file.isatty() else False)


def make_console(as_json: bool) -> Console:
    """Where a person reads: stderr while stdout belongs to a program."""
    console = open_console(sys.stderr if as_json else sys.stdout)
    if not console.is_terminal:
        width = os.environ.get(WIDTH, "")  # of the terminal that follows; else a log is not folded at 80
        console.width = int(width) if width.isdecimal() else max(console.width, 120)
    return console


def show_plan(
    space: Space, console: Console, warm: Sequence[Path] = (), cluster: Joined | None = None
) -> tuple[Plan, Knowledge | None]:
    """Make the plan, for this machine or a cluster, gather what earlier runs know, and show both.

    Raises:
        BadInput: what `make_plan` or `know` refuses.
    """
    with console.status("looking at the images and the models") as status:
        plan = make_plan(
            space,
            progress=lambda what, done, total: status.update(f"{what} {done:,} of {total:,}"),
            machines=cluster.machines if cluster else None,
            measure=cluster.measure if cluster else None,
        )
        known = know(space, [read_record(path) for path in warm]) if warm else None
        table = plan_table(plan)
    console.print(table)
    if known:
        say_dropped(console, f"{len(known.trials)} trials of earlier runs are known", known.dropped)
    return plan, known


def resume_run(
    folder: RunFolder,
    wish: Wish,
    console: Console,
    how: How,
    *,
    changed_data: bool,
    cluster: Joined | None = None,
    as_json: bool = False,
) -> Outcome:
    """Go on with the run in `folder`; how: without what it goes on from.

    Raises:
        HypertuneError: it cannot go on; what is there is kept.
    """
    spent = folder.elapsed
    record = read_record(folder.path)
    for problem in record.problems:
        console.print(f"note   {problem}", soft_wrap=True)
    space, changed = reopen(record, wish, spent)
    plan, _ = show_plan(space, console, cluster=cluster)
    if not changed_data:
        check_data(record, plan)
    if different := compare_versions(record):
        console.print(f"note   written with {'; '.join(different)}", soft_wrap=True)
    how = replace(how, before=Before(record, spent, changed))
    return perform(plan, folder, console, how, as_json=as_json)


def perform(plan: Plan, folder: RunFolder, console: Console, how: How, *, as_json: bool = False) -> Outcome:
    """Run the search on a console, and say how it ended or how to go on.

    Raises:
        HypertuneError: with the command that goes on in its text.
    """
    place = show(folder.path)
    outcome = train(plan, folder, console, f"hypertune resume {place}{how.flags}", how, as_json=as_json)
    console.print(outcome_text(outcome, plan, place, how.flags), soft_wrap=True)
    return outcome


def train(plan: Plan, folder: RunFolder, console: Console, again: str, how: How, *, as_json: bool = False) -> Outcome:
    """The same without the words at its end; again: the command that goes on with it.

    Raises:
        HypertuneError: with that command in its text.
    """
    check_room(folder.path, plan)
    console.print(f"writing to {show(folder.path)}\n", style="dim", soft_wrap=True)
    try:
        with folder, output_to(folder.path / "ray.log") as (stdout, stderr):
            live = open_console(stderr if as_json else stdout)
            live.width = console.width
            folder.note = partial(live.print, soft_wrap=True)
            if how.store and folder.copy is None:
                folder.copy_to(open_store(how.store))
            with make_screen(plan, live, again) as screen:
                folder.note = screen.note
                try:
                    return run(plan, folder, screen, how)
                finally:
                    folder.note = partial(live.print, soft_wrap=True)
    except HypertuneError as error:
        error.add_note(f"go on with it: {again}")
        raise


def make_screen(plan: Plan, console: Console, again: str) -> Progress:
    """Who shows the search: on this console, or for a terminal elsewhere that follows it."""
    return (Relay if os.environ.get(WIDTH) else Progress)(plan, console, again)


def check_room(path: Path, plan: Plan) -> None:
    """See that the disk has room for the run.

    Raises:
        NoSpace: it has not.
    """
    free, needed = shutil.disk_usage(path).free, plan.disk + RESERVE
    if free < needed:
        raise NoSpace(
            f"{path}: the run may need {needed / 2**20:,.0f} MB, and {free / 2**20:,.0f} MB are free; "
            "make room, or keep fewer weights: --set search.keep_checkpoints=1"
        )


def say_dropped(console: Console, head: str, dropped: Mapping[str, str]) -> None:
    """Which trials do not lie in the space, and why: a few of them."""
    items = list(dropped.items())
    console.print(f"{head}; {len(items)} do not fit it" if items else head, soft_wrap=True)
    for name, why in items[:5]:
        console.print(f"       {name}: {why}", style="dim", soft_wrap=True)
    if len(items) > 5:
        console.print(f"       and {len(items) - 5} more", style="dim")


def show(path: Path) -> str:
    """A path as short as it can be typed, quoted where a shell needs it."""
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here)) if path.is_relative_to(here) else str(path))
