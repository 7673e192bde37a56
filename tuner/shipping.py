"""The commands that make something to take along: export, eject, compress, ensemble."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from tuner.proving import Device, TheModel, TrustCode
from tuner.terminal import Json

Form = Literal["safetensors", "onnx", "torch"]


def export(
    model: TheModel = None,
    out: Annotated[Path | None, typer.Option(help="folder; default: final/export in the run")] = None,
    formats: Annotated[
        list[str] | None, typer.Option("--format", help="safetensors, onnx or torch; repeatable; default: all")
    ] = None,
    trust_code: TrustCode = False,
    as_json: Json = False,
) -> None:
    """Write a model in forms that others read, each checked against it, with a card that says what it is."""
    raise NotImplementedError


def eject(
    path: TheModel = None,
    out: Annotated[Path | None, typer.Option(help="the Python file; default: NAME.py in this folder")] = None,
    as_json: Json = False,
) -> None:
    """Write the winner as one plain PyTorch file: network, preprocessing and training loop, nothing of hypertune."""
    raise NotImplementedError


def compress(
    model: TheModel = None,
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
    raise NotImplementedError


def ensemble(
    path: TheModel = None,
    most: Annotated[int, typer.Option(min=2, help="members at most")] = 5,
    out: Annotated[Path | None, typer.Option(help="folder; default: final/ensemble in the run")] = None,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Let the leading trials judge together, and average the weights of those that are alike: gain and cost."""
    raise NotImplementedError
