"""The commands around a space file before it is run: what can be written, whether it is right, what it will see."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tuner.errors import BadInput
from tuner.terminal import Json, Sets, open_console, print_json, print_table, show

SpaceFile = Annotated[Path, typer.Argument(help="space file, such as my.yaml", show_default=False)]


def validate(
    space_file: SpaceFile,
    data: Annotated[bool, typer.Option("--data", help="check the images, the models and the devices too")] = False,
    sets: Sets = None,
    as_json: Json = False,
) -> None:
    """Check a space file; with --data also what it points to."""
    from tuner.spec.space import load_space

    space = load_space(space_file, sets or [])
    count = len(space.parameters)
    said = f"{space_file}: valid, {count} setting{'s' * (count != 1)} to search"
    if data:
        with open_console(stderr=True).status("looking at the images, the models and the machine"):
            from tuner.runner.plan import make_plan
            from tuner.runner.planned import plan_json, plan_table

            plan = make_plan(space)
            table = plan_table(plan)
        if as_json:
            print_json({"valid": True, **plan_json(plan)})
        else:
            typer.echo(said)
            open_console().print(table)
    elif as_json:
        print_json({"valid": True, "name": space.fixed.name, "parameters": space.to_json()})
    else:
        typer.echo(said)


def preview(
    space_file: SpaceFile,
    picture: Annotated[Path | None, typer.Option("--out", help="the sheet, a PNG; default: NAME_preview.png")] = None,
    sets: Sets = None,
    as_json: Json = False,
) -> None:
    """Show the images as the network will see them, and what is wrong with them."""

    from tuner.spec.space import load_space

    space = load_space(space_file, sets or [])
    path = _place_picture(picture or Path(f"{space.fixed.name}_preview.png"))
    with open_console(stderr=True).status("looking at the images"):
        from tuner.runner.plan import make_plan
        from tuner.runner.preview import save_sheet
        from tuner.training.health import examine

        plan = make_plan(space)
        prepared = plan.prepared[space.fixed.data.image_size]
        health = examine(prepared, space.fixed.data, space.fixed.seed)
        panels = save_sheet(plan, path)
    if as_json:
        print_json({"sheet": str(path), "panels": panels, "health": health.as_dict()})
        return
    facts = prepared.facts
    typer.echo(f"{facts.train:,} training and {facts.validation:,} validation images, {len(facts.classes)} classes")
    typer.echo("\n".join(health.sentences) or "nothing is wrong with them")
    typer.echo(f"sheet  {show(path)}")


def _place_picture(path: Path) -> Path:
    """Where a picture goes; its folder is made now, before minutes of work."""
    if path.suffix.lower() != ".png":
        raise BadInput(f"--out {path}: the picture is a PNG; let its name end in .png")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"--out {path}: its folder cannot be made ({error.strerror})") from error
    return path


def lr_find(
    space_file: SpaceFile,
    picture: Annotated[Path | None, typer.Option("--out", help="the curve, a PNG; default: NAME_lr.png")] = None,
    sets: Sets = None,
    as_json: Json = False,
) -> None:
    """Train a little at ever higher learning rates, and suggest one (Smith, 2017)."""

    from tuner.spec.space import load_space

    space = load_space(space_file, sets or [])
    path = _place_picture(picture or Path(f"{space.fixed.name}_lr.png"))
    with open_console(stderr=True).status("looking at the images") as status:
        from tuner.runner.plan import make_plan
        from tuner.runner.rates import STEPS, find_rate, save_picture

        plan = make_plan(space)
        found = find_rate(
            plan, lambda n, rate, loss: status.update(f"step {n} of {STEPS}: {rate:.1e}, loss {loss:.3f}")
        )
        save_picture(found, path)
    if as_json:
        print_json({"picture": str(path), "tenth": found.tenth, **found._asdict()})
        return
    typer.echo(found.why)
    if space.parameters:
        typer.echo("of the first value of everything that is searched; --set chooses others")
    typer.echo(f"curve  {show(path)}")


def spaces(as_json: Json = False) -> None:
    """List the ready-made spaces."""
    from tuner.spec.edit import ready_made

    found = ready_made()
    if as_json:
        print_json([{"name": name, "path": str(path), "about": about} for name, path, about in found])
        return
    width = max(len(name) for name, _, _ in found)
    for name, _, about in found:
        typer.echo(f"{name:{width}}  {about}")
    typer.echo(f"\nhypertune new {found[0][0]} my.yaml   copies one")


def new(
    name: Annotated[str, typer.Argument(help="a ready-made space: see `hypertune spaces`")],
    target: Annotated[Path, typer.Argument(help="the file to write")],
) -> None:
    """Copy a ready-made space to a file of your own."""
    from tuner.spec.edit import copy_space

    written = show(copy_space(name, target).absolute())
    typer.echo(f"{written} written; next: hypertune run {written} --dry-run")


def fields(
    section: Annotated[str, typer.Argument(help="a section, such as model.cnn")] = "", as_json: Json = False
) -> None:
    """List the fields of a section of the space file."""
    from dataclasses import asdict

    from tuner.spec.fields import describe

    rows = describe(section)
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    heads = ("field", "type", "default", "allowed", "searched", "")
    searched = {True: "yes", False: "no"}
    print_table(
        heads,
        [(row.name, row.type, row.default, row.allowed, searched[row.searchable], row.description) for row in rows],
    )
