"""The commands on what a trained model is worth: finalize, evaluate, explain, predict, latency."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

import tuner
from tuner.commands.finalizing import SEEDS, TOP
from tuner.errors import BadInput
from tuner.terminal import Json, newest, plain, print_json, print_table, progress, show

Device = Annotated[str, typer.Option(help="cpu or cuda")]
TrustCode = Annotated[bool, typer.Option("--trust-code", help="let model.json name code of its author's, and run it")]


def finalize(
    run: Annotated[Path | None, typer.Argument(help="run folder; default: the newest in results/")] = None,
    top: Annotated[int, typer.Option(min=1, help="trials that are trained again, the best first")] = TOP,
    seeds: Annotated[int, typer.Option(min=1, help="fresh seeds for each")] = SEEDS,
    with_validation: Annotated[
        bool, typer.Option("--with-validation", help="then train the winner on the validation images too")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="folder for the model; default: final/model in the run")] = None,
    as_json: Json = False,
) -> None:
    """Train the leading trials again with fresh seeds, choose by the mean, and open the test images: once."""
    told, number = deliver(chosen(run), top, seeds, whole=with_validation, out=out, as_json=as_json)
    if as_json:
        print_json(told or {"run": str(chosen(run).absolute()), "status": "interrupted"})
    if number:
        raise typer.Exit(128 + number)


def deliver(
    run: Path, top: int = TOP, seeds: int = SEEDS, *, whole: bool = False, out: Path | None = None, as_json: bool
) -> tuple[dict[str, Any], int]:
    """Finalize a run and say what it came to; what finalize.json says, and the number of the signal that ended it."""
    from tuner.commands import finalizing
    from tuner.runner.session import make_console

    run = run.absolute()
    console = make_console(as_json)
    told, number = finalizing.make(run, top=top, seeds=seeds, whole=whole, out=out, console=console, as_json=as_json)
    if told and not as_json:
        typer.echo("\n".join(finalizing.lines(told, run)))
    return told, number


def deliver_apart(run: Path, *, as_json: bool) -> tuple[dict[str, Any], int]:
    """The same with what is usual, in a process of its own; what goes wrong there is said, and ends this one too."""
    from tuner.runner.signals import Signals

    root = str(Path(tuner.__file__).parent.parent)
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    words = [sys.executable, "-P", "-m", "tuner.cli", "finalize", str(run), *(["--json"] if as_json else [])]
    sys.stdout.flush()
    out = subprocess.PIPE if as_json else None
    with Signals():  # the first one is for the other process to end well
        done = subprocess.run(words, stdout=out, text=True, env={**os.environ, "PYTHONPATH": path}, check=False)
    number = done.returncode - 128 if done.returncode > 128 else -min(0, done.returncode)
    if done.returncode and not number:
        typer.echo(done.stdout or "", nl=False)
        raise typer.Exit(done.returncode)
    return json.loads(done.stdout or "{}"), number


def evaluate(
    models: Annotated[
        list[Path] | None,
        typer.Argument(metavar="MODEL [OTHER]", help="run, trial, delivered model or .onnx; default: the newest run"),
    ] = None,
    split: Annotated[
        Literal["test", "validation"], typer.Option(help="images of the run; each look at the test images is counted")
    ] = "test",
    data: Annotated[Path | None, typer.Option(help="other images: class folders, .csv or .npz")] = None,
    out: Annotated[Path | None, typer.Option(help="folder for the page; default: one in final/ of the run")] = None,
    corrupt: Annotated[
        bool | None, typer.Option(help="under noise, blur, brightness and JPEG too; default: where two are compared")
    ] = None,
    device: Device = "cpu",
    trust_code: TrustCode = False,
    open_page: Annotated[bool, typer.Option("--open", help="open the page in the browser")] = False,
    as_json: Json = False,
) -> None:
    """Say what a model is worth on images it has not seen, with intervals; with a second one, which is better."""
    from tuner.commands import evaluating

    named = models or [newest()]
    if len(named) > 2:
        raise BadInput(f"evaluate takes one model, or two to compare; got {len(named)}")
    work = evaluating.compare if len(named) == 2 else evaluating.make
    page = work(
        named, split=split, data=data, out=out, corrupt=corrupt, device=device, trust_code=trust_code,
        command=command_line(), as_json=as_json,
    )  # fmt: skip
    if open_page and page:
        typer.launch(page.absolute().as_uri())


def explain(
    model: Annotated[Path, typer.Argument(help="run, trial or delivered model")],
    images: Annotated[list[Path], typer.Argument(help="images, or a folder of class folders")],
    method: Annotated[
        Literal["gradcam", "gradcam++", "occlusion"], typer.Option(help="what marks the evidence")
    ] = "gradcam",
    out: Annotated[Path | None, typer.Option(help="folder for the pictures; default: final/explain in the run")] = None,
    most: Annotated[int, typer.Option(min=1, help="of a folder so many right and so many wrong images")] = 24,
    device: Device = "cpu",
    trust_code: TrustCode = False,
    open_page: Annotated[bool, typer.Option("--open", help="open the page in the browser")] = False,
    as_json: Json = False,
) -> None:
    """Show where in an image a model sees its class, what its first filters look for, and what they find."""
    from analysis.evaluation import explain_page
    from tuner.delivery.explaining.explain import NAME, check_apart, open_images
    from tuner.delivery.explaining.explain import explain as draw
    from tuner.delivery.model import open_torch
    from tuner.delivery.place import find_model
    from tuner.delivery.target import make_ready

    place = find_model(model)
    folder = (out or place.folder("explain")).absolute()
    check_apart(folder, images)
    make_ready(folder, NAME)
    opened = open_torch(place, device=device, trust_code=trust_code)
    with progress() as tell:
        made = draw(opened, open_images(images, opened.about, tell), folder, method=method, most=most, progress=tell)
    page = explain_page.write(folder)
    if as_json:
        print_json({"folder": str(folder), "page": str(page), **made})
    else:
        layer, count = made["layer"], made["data"]["images"]
        read = f" at {layer['name']} ({layer['side']}x{layer['side']} maps)" if layer else ""
        typer.echo(f"{opened.about.name}: {count} image{'s' * (count != 1)}, {made['method_name']}{read}")
        heads = ("image", "says", "sure", "truth")
        rows = [(i["name"], i["predicted"], f"{i['confidence']:.1%}", i["truth"] or "") for i in made["images"]]
        shown = 4 if made["data"]["truth"] else 3
        print_table(heads[:shown], [row[:shown] for row in rows], numbers=(2,))
        for text in (*made["data"]["problems"], *made["notes"]):
            typer.echo(f"note   {plain(text)}")
        typer.echo(f"page   {show(page)}; its pictures lie beside it")
    if open_page:
        typer.launch(page.as_uri())


def predict(
    model: Annotated[Path, typer.Argument(help="run, trial, delivered model or .onnx")],
    images: Annotated[list[Path], typer.Argument(help="images, or folders of them")],
    top: Annotated[int, typer.Option(min=1, help="so many classes of each image, the most probable first")] = 1,
    out: Annotated[Path | None, typer.Option(help="a .csv or .json file; default: a table on the screen")] = None,
    batch: Annotated[int, typer.Option(min=1, help="images judged at a time")] = 64,
    device: Device = "cpu",
    trust_code: TrustCode = False,
    as_json: Json = False,
) -> None:
    """Label images: the class of each and its probability."""
    from tuner.commands import predicting

    predicting.make(model, images, top=top, out=out, batch=batch, device=device, trust_code=trust_code, as_json=as_json)


def latency(
    models: Annotated[list[Path] | None, typer.Argument(metavar="MODEL...", help="default: the newest run")] = None,
    batch: Annotated[
        list[int] | None, typer.Option(min=1, help="images at a time; repeatable; default: 1, 8, 64")
    ] = None,
    threads: Annotated[list[int] | None, typer.Option(min=1, help="repeatable; default: 1 and all cores")] = None,
    device: Device = "cpu",
    out: Annotated[Path | None, typer.Option(help="the table as JSON; default: final/latency.json in the run")] = None,
    trust_code: TrustCode = False,
    as_json: Json = False,
) -> None:
    """Measure how long models take here: p50, p95, images a second, by batch size and threads, torch beside ONNX."""
    from tuner.delivery.exporting import latency as timing
    from tuner.delivery.place import find_model
    from tuner.delivery.target import check_file
    from tuner.records.writer import write_whole
    from tuner.runner.about import hardware

    paths, machine = models or [newest()], hardware()
    target = out.absolute() if out else find_model(paths[0]).folder("latency.json")
    if (most := max(threads or [1])) > machine["cores"]:
        raise BadInput(f"--threads {most}: this machine has {machine['cores']} cores; at most that many")
    check_file(target)
    counts = threads or sorted({1, machine["cores"]}) if device == "cpu" else [1]
    with progress() as tell:
        found = timing.compare(paths, batch or timing.BATCHES, counts, device=device, trust_code=trust_code, tell=tell)
    told = timing.as_json(found, machine, device)
    write_whole(target, json.dumps(told, indent=1) + "\n")
    if as_json:
        print_json({**told, "file": str(target)})
        return
    typer.echo(f"{machine['cpu']}, {machine['cores']} cores{''.join(f', {gpu}' for gpu in machine['gpus'])}")
    print_table(timing.HEADS, timing.table(found), numbers=range(2, len(timing.HEADS)))
    typer.echo("\n".join([*timing.notes(found, machine["cores"]), f"table    {show(target)}"]))


def chosen(path: Path | None) -> Path:
    """The model that was named, else the newest run."""
    return path or newest()


def command_line() -> str:
    """What was typed, for records."""
    return shlex.join(["hypertune", *sys.argv[1:]])
