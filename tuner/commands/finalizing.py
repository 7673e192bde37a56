"""Finalizing: from a searched run to the delivered model: finalists, the winner, its value on the test images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.errors import BadInput, SearchFailed
from tuner.terminal import show

TOP, SEEDS = 3, 3
"""Trials that are trained again, and fresh seeds for each, unless others are asked for."""

if TYPE_CHECKING:
    from rich.console import Console


def make(
    run: Path, *, top: int, seeds: int, whole: bool, out: Path | None, console: Console, as_json: bool
) -> tuple[dict[str, Any], int]:
    """Do what is not done yet of it; what finalize.json says, and the signal that ended it, 0 for none.

    Raises:
        HypertuneError: a stage could not be done; what was done is kept, and the same command goes on.
    """
    from tuner.delivery import finalize
    from tuner.runner import finalists

    given = f" --top {top} --seeds {seeds}" if (top, seeds) != (TOP, SEEDS) else ""
    given += " --with-validation" if whole else ""
    again = f"hypertune finalize {show(run)}{given}" + (f" --out {show(out.absolute())}" if out else "")
    where = out.absolute() if out else run / "final" / "model"
    if where.is_file() or (where.is_dir() and any(where.iterdir()) and not (where / "model.json").is_file()):
        raise BadInput(f"--out {show(where)} is a file, or holds something else than a model; choose another folder")
    leading = finalists.choose(run, top)
    space = finalists.make_finalists(run, leading, seeds)
    console.print(
        f"finalists of {run.name}: {', '.join(leading)}, each again with {seeds} seed{'s' * (seeds > 1)}",
        soft_wrap=True,
    )
    final = run / "final"
    folder, number = _train(space, final, finalists.FOLDER, console, again, as_json)
    if number:
        return {}, number
    verdict = finalize.decide(run, folder)
    if whole:
        alone = finalists.make_finalists(run, [verdict.winner.trial], seeds, whole=True)
        console.print(f"{verdict.winner.trial} again, on the validation images too", soft_wrap=True)
        folder, number = _train(alone, final, finalists.WHOLE, console, again, as_json)
        if number:
            return {}, number
    if (told := finalize.read(run)) and finalize.is_told(run, folder, verdict, where):
        console.print("all of it was done before; the test images stay closed", soft_wrap=True)
        return told, 0
    if (where / "model.json").is_file():
        console.print(f"{show(where)} is replaced; what was made of the model in it speaks of that one", soft_wrap=True)
    model = finalize.deliver(run, folder, verdict, whole=whole, out=where)
    with console.status("judging the test images") as status:
        tested = finalize.test(
            model, folder, verdict, lambda n, of: status.update(f"judging the test images: {n:,} of {of:,}")
        )
    told = finalize.as_json(run, folder, verdict, tested, whole=whole, model=model.place.path)
    finalize.write(run, told)
    return told, 0


def _train(space: Any, final: Path, name: str, console: Console, again: str, as_json: bool) -> tuple[Path, int]:
    from tuner.records.reader import read_record
    from tuner.runner import finalists

    there = finalists.find(final, name, space)
    if there and read_record(there).run.get("status") == "finished":
        return there, 0
    outcome = finalists.train_finalists(space, final, name, console, again, as_json=as_json)
    if outcome.signal:
        console.print(f"interrupted; go on with it: {again}", soft_wrap=True)
    elif not outcome.trusted:
        failed = [trial for trial in outcome.conductor.trials.values() if trial.state in ("failed", "out_of_memory")]
        why = f": {failed[0].reason}" if failed else ""
        raise SearchFailed(
            f"{len(failed)} of {len(outcome.conductor.trials)} trainings failed{why}; {show(outcome.path)}"
        )
    return outcome.path, outcome.signal


def lines(told: dict[str, Any], run: Path) -> list[str]:
    """What it came to, for a person."""
    from tuner.spec.text import show_metric

    metric, test = told["metric"], told["test"]
    said = []
    for n, finalist in enumerate(told["finalists"]):
        spread = "" if finalist["low"] is None else f"  ({_span(metric, finalist['low'], finalist['high'])})"
        search = "" if finalist["search"] is None else f"   the search said {show_metric(metric, finalist['search'])}"
        head = "final  " if not n else "       "
        said.append(f"{head}trial {finalist['trial']}   {show_metric(metric, finalist['mean'])}{spread}{search}")
    said.append(f"       {told['better']}")
    said.append(
        f"test   {show_metric('accuracy', test['accuracy'])} ({_span('accuracy', test['low'], test['high'])}) "
        f"on {test['images']:,} images"
    )
    if len(test["seeds"]) > 1:
        spread = f" ({_span('accuracy', test['mean_low'], test['mean_high'])})" if test["mean_low"] is not None else ""
        said.append(f"       {len(test['seeds'])} seeds: {show_metric('accuracy', test['mean'])} on average{spread}")
    if test["looks"] > 1:
        said.append(f"       the test images were opened {test['looks']} times: what was chosen by them is too good")
    said.append(f"model  {show(run / told['model'])}")
    said.append(f"next   hypertune evaluate {show(run)}   where it errs, class by class")
    said.append(f"       hypertune export {show(run)}   to take it along")
    return said


def _span(metric: str, low: float, high: float) -> str:
    from tuner.spec.text import show_metric

    return f"{show_metric(metric, low)} to {show_metric(metric, high)}"
