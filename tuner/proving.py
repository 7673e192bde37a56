"""The commands on what a trained model is worth: finalize, evaluate, explain, predict, latency."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from tuner.terminal import Json, newest

TheModel = Annotated[
    Path | None, typer.Argument(metavar="MODEL", help="run, trial, delivered model or .onnx; default: the newest run")
]
Device = Annotated[str, typer.Option(help="cpu or cuda")]
TrustCode = Annotated[bool, typer.Option("--trust-code", help="let model.json name code of its author's, and run it")]


def evaluate(
    models: Annotated[
        list[Path] | None,
        typer.Argument(metavar="MODEL [OTHER]", help="run, trial, delivered model or .onnx; default: the newest run"),
    ] = None,
    split: Annotated[
        Literal["test", "validation"], typer.Option(help="images of the run; each look at the test images is counted")
    ] = "test",
    data: Annotated[Path | None, typer.Option(help="other images: class folders, .csv or .npz")] = None,
    out: Annotated[Path | None, typer.Option(help="folder for the pages; default: final/evaluation in the run")] = None,
    corrupt: Annotated[
        bool | None, typer.Option(help="under noise, blur, brightness and JPEG too; default: where two are compared")
    ] = None,
    device: Device = "cpu",
    trust_code: TrustCode = False,
    open_page: Annotated[bool, typer.Option("--open", help="open the page in the browser")] = False,
    as_json: Json = False,
) -> None:
    """Say what a model is worth on images it has not seen, with intervals; with a second one, which is better."""
    raise NotImplementedError


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
    raise NotImplementedError


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
    raise NotImplementedError


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
    raise NotImplementedError


def chosen(path: Path | None) -> Path:
    """The model that was named, else the newest run."""
    return path or newest()


def command_line() -> str:
    """What was typed, for records."""
    return shlex.join(["hypertune", *sys.argv[1:]])
