"""What `hypertune refine` needs of both sides: the findings of a run turned into the next space file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from tuner.errors import BadInput
from tuner.terminal import show

if TYPE_CHECKING:
    from analysis import Results
    from analysis.refinement.refine import Refinement, Rules
    from tuner.spec.proposal import NextSpace
    from tuner.spec.space import Space

LONGEST = 190  # bytes of a run's name, so that a number fits behind it


class Made(NamedTuple):
    """A refinement and what became of it. path: where the file is, None where the run has no space file to change;
    learned: how many trials of the run lie in the new space.
    """

    refinement: Refinement
    path: Path | None
    written: NextSpace | None
    learned: int


def make(results: Results, out: Path | None, top: int) -> Made:
    """Propose the next space of a run and write it, never over a file.

    Raises:
        BadInput: the run's space.yaml is broken, or the file exists or cannot be written.
    """
    from analysis.findings import findings
    from analysis.refinement.refine import fitting, refine
    from tuner.spec import proposal

    space = _space(results)
    found = refine(results, findings(results), rules(results), top)
    if space is None:
        return Made(found, None, None, fitting(results, found.changes))
    name, path = _place(results, space, out)
    changes = [proposal.Proposed(c.name, c.old, c.new, c.reason) for c in found.changes]
    starts = [(f"{results.name}/{trial}", start) for trial, start in zip(found.trials, found.starts, strict=True)]
    written = proposal.write_next(space, changes, starts, found.notes, name)
    kept = (*found.kept, *written.left_out)
    found = found._replace(changes=tuple(c for c in found.changes if c.name not in written.left_out), kept=kept)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(written.text)
    except FileExistsError:
        raise BadInput(f"{show(path)}: exists; give another name with -o, or remove it first") from None
    except OSError as error:
        raise BadInput(f"{show(path)}: cannot be written: {error.strerror}; choose another place with -o") from None
    return Made(found, path, written, fitting(results, found.changes))


def rules(results: Results) -> Rules | None:
    """What the fields of the run's space may be; None where it has no space file.

    Raises:
        BadInput: the run's space.yaml is broken.
    """
    from analysis.refinement.refine import Rules
    from tuner.spec import proposal

    space = _space(results)
    return Rules(proposal.steps(space), proposal.may_be(space)) if space else None


def _space(results: Results) -> Space | None:
    from tuner.spec.space import load_space

    source = results.path / "space.yaml"
    return load_space(source) if results.kind == "hypertune" and source.is_file() else None


def _place(results: Results, space: Space, out: Path | None) -> tuple[str, Path]:
    """The next run's name, digits-2 after digits, and where its file goes: the first number that is free.

    A number at the end is counted on where it is ours: of a folder beside others of its name, or of a refined space.
    The 10 of cifar10-10 is part of a name.
    """
    from tuner.spec.proposal import MARK

    own = space.fixed.name
    base, _, counted = own.rpartition("-")
    if base and counted.isdecimal() and re.search(f"^{MARK} from ", space.text, re.MULTILINE):
        number = int(counted) + 1
    else:
        base, counted = own, str(results.name).removeprefix(f"{own}-")
        number = int(counted) + 1 if re.fullmatch(r"[0-9]{1,6}", counted) else 2
    base = base.encode()[:LONGEST].decode(errors="ignore")
    folder = out if out is not None and out.is_dir() else Path()
    while (out is None or out.is_dir()) and (folder / f"{base}-{number}.yaml").exists():
        number += 1
    name = f"{base}-{number}"
    return name, out if out is not None and not out.is_dir() else folder / f"{name}.yaml"


def as_json(made: Made, results: Results) -> dict[str, Any]:
    """The proposal for programs."""
    from analysis.refinement.refine import proposal

    left_out = made.written.left_out if made.written else {}
    return {
        "run": str(results.path),
        "file": made.path and str(made.path),
        **proposal(made.refinement, show(results.path)),
        "left_out": dict(left_out),
        "learned_from": made.learned,
        "command": command(made, results),
    }


def command(made: Made, results: Results) -> str | None:
    """What to type next; with the trials of the run as knowledge, where they lie in the new space."""
    if made.path is None:
        return None
    return f"hypertune run {show(made.path)}" + (f" --warm-start {show(results.path)}" if made.learned else "")


def lines(made: Made, results: Results) -> Iterator[str]:
    """The proposal for people: what changes and why, where it stands, what to type."""
    from analysis.refinement.refine import words
    from analysis.style import number

    found = made.refinement
    yield from found.notes
    for change in found.changes:
        yield ""
        yield f"{change.name}   {change.old}  ->  {words(change.new)}{' (fixed)' * (change.kind == 'fix')}"
        yield typer.style(f"  {change.reason}", dim=True)
    for name, why in (made.written.left_out if made.written else {}).items():
        yield f"{name} stays as it is: {why}"
    yield ""
    if made.path is None:
        for trial, start in zip(found.trials, found.starts, strict=True):
            yield f"trial {trial}   {' · '.join(f'{name} {number(value)}' for name, value in start.items())}"
        yield "There is no space file in this folder to change: take what you need into your own."
        return
    yield f"written to {show(made.path)}"
    trials = int((results.trials["repeat_of"].isna() & (results.trials["epochs"] > 0)).sum())
    if made.learned < trials:
        few = f"{made.learned} of {trials}" if made.learned else f"none of {trials}"
        yield f"{few} earlier trials lie in the new space: the sampler learns from those alone"
    yield f"next   {command(made, results)}"
