"""The commands that make something to take along: export, eject, compress, ensemble."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tuner.commands.proving import Device, TrustCode, chosen
from tuner.terminal import Json, print_json, print_table, progress, show

TheNetwork = Annotated[
    Path | None, typer.Argument(metavar="MODEL", help="run, trial or delivered model; default: the newest run")
]
TheTrial = Annotated[Path | None, typer.Argument(metavar="RUN", help="run or trial; default: the newest run")]


def export(
    model: TheNetwork = None,
    out: Annotated[Path | None, typer.Option(help="folder; default: final/export in the run")] = None,
    formats: Annotated[
        list[str] | None, typer.Option("--format", help="safetensors, onnx or torch; repeatable; default: all")
    ] = None,
    trust_code: TrustCode = False,
    as_json: Json = False,
) -> None:
    """Write a model in forms that others read, each checked against it, with a card that says what it is."""
    from tuner.delivery.exporting import export as exporting
    from tuner.delivery.model import open_torch
    from tuner.delivery.place import find_model

    place = find_model(chosen(model))
    folder = out.absolute() if out else place.folder("export")
    with progress() as tell:
        opened = open_torch(place, trust_code=trust_code)
        exported = exporting.export_model(opened, folder, formats or tuple(exporting.FILES), tell=tell)
    if as_json:
        print_json(exporting.as_json(exported, opened))
    else:
        typer.echo(f"{opened.about.name}: {opened.about.params:,} parameters")
        print_table(exporting.HEADS, exporting.table(exported), numbers=(2, 3))
        typer.echo("\n".join(exporting.foot(exported, show(folder))))
    if exported.failed:
        raise typer.Exit(1)


def eject(
    path: TheNetwork = None,
    out: Annotated[Path | None, typer.Option(help="the Python file; default: NAME.py in this folder")] = None,
    as_json: Json = False,
) -> None:
    """Write the winner as one plain PyTorch file: network, preprocessing and training loop, nothing of hypertune."""
    from tuner.delivery.ejecting.eject import eject as write

    with progress() as tell:
        made = write(chosen(path), out, tell)
    if as_json:
        print_json({
            "file": str(made.path), "data": made.data and str(made.data), "trial": made.trial, "lines": made.lines,
            "checked": {"steps": made.steps, "difference": made.difference},
        })  # fmt: skip
        return
    beside = f" and {show(made.data)}" if made.data else ""
    same = "the same losses" if made.difference < 1e-12 else f"losses within {made.difference:.0e}"
    typer.echo(f"{made.trial}: {show(made.path)}{beside}, {made.lines} lines of PyTorch")
    typer.echo(f"checked  its first {made.steps} steps give {same} as hypertune's")
    typer.echo(f"next     python {show(made.path)}")


def compress(
    model: TheNetwork = None,
    out: Annotated[Path | None, typer.Option(help="folder; default: final/compressed in the run")] = None,
    prune: Annotated[
        list[float] | None, typer.Option(help="share of channels taken out, 0 to 1; repeatable; default: 0.3, 0.5")
    ] = None,
    epochs: Annotated[int, typer.Option(min=0, help="of fine-tuning after pruning")] = 2,
    device: Device = "cpu",
    trust_code: TrustCode = False,
    as_json: Json = False,
) -> None:
    """Make a model smaller and faster: pruning and int8, each with what it costs in accuracy."""
    from analysis.evaluation import pareto
    from tuner.delivery.compressing import compress as compressing
    from tuner.delivery.compressing import variants
    from tuner.delivery.model import open_torch
    from tuner.delivery.place import find_model
    from tuner.runner.about import hardware

    place = find_model(chosen(model))
    folder = out.absolute() if out else place.folder("compressed")
    with progress() as tell:
        opened = open_torch(place, device=device, trust_code=trust_code)
        found = compressing.compress(
            opened, folder, shares=compressing.SHARES if prune is None else prune, epochs=epochs, tell=tell
        )
    told = compressing.as_json(found, opened, hardware())
    compressing.write(folder, told)
    figure = pareto.write(folder)
    if as_json:
        print_json({**told, "folder": str(folder)})
        return
    typer.echo(f"{opened.about.name}: {opened.about.params:,} parameters")
    print_table(variants.HEADS, variants.table(found.variants), numbers=range(2, 7))
    typer.echo("".join(f"not made {text}\n" for text in found.not_made) + variants.LEGEND)
    typer.echo("\n".join(found.summary))
    typer.echo(f"figure   {show(figure)}")
    if best := variants.pick(found.variants):
        file = show(folder / str(best.file))
        typer.echo(f"next     hypertune evaluate {file}\n         hypertune predict {file} IMAGES")


def ensemble(
    path: TheTrial = None,
    most: Annotated[int, typer.Option(min=2, help="members at most")] = 5,
    out: Annotated[Path | None, typer.Option(help="folder; default: final/ensemble in the run")] = None,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Let the leading trials judge together, and average the weights of those that are alike: gain and cost."""
    from tuner.commands import ensembling

    told = ensembling.make(chosen(path), most=most, out=out, device=device)
    if as_json:
        print_json(told)
    else:
        ensembling.tell(told)
