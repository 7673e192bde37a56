"""Forms: makes the smaller forms of a model; one that cannot be made is noted, and the others are."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import safetensors.torch
from numpy.typing import NDArray
from torch import nn

from tuner.delivery.compressing.finetune import finetune
from tuner.delivery.compressing.prune import mask_weights, settle, take_channels
from tuner.delivery.compressing.quantise import (
    CALIBRATION,
    linear_share,
    quantise_dynamic,
    quantise_linear,
    quantise_static,
    state_bytes,
)
from tuner.delivery.exporting.onnx_model import write_onnx
from tuner.delivery.model import WEIGHTS, Classifier, Model, open_model, save_model
from tuner.errors import BadInput, Infeasible
from tuner.training.dataset import Dataset

ORIGINAL = "original-torch"
"""The name of the model itself; that of its ONNX file is original."""
LINEAR = 0.1
"""Of the parameters that linear layers must hold before it is worth a try to make them alone int8."""

Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Made:
    """A form before it was measured. network: the torch network that counts for parameters and arithmetic."""

    name: str
    what: str
    model: Classifier
    network: nn.Module
    bytes: int
    gzip_bytes: int
    file: str | None


class Maker:
    """Makes one form after the other in `folder`. made: what it has so far; not_made: why others are not there."""

    def __init__(self, model: Model, folder: Path, dataset: Dataset, epochs: int, tell: Tell) -> None:
        self.model, self.folder, self.dataset, self.epochs, self.tell = model, folder, dataset, epochs, tell
        self.calibration = _calibration(dataset)
        content = _stored(model.network)
        self.made = [Made(ORIGINAL, "the model", model, model.network, len(content), _packed(content), None)]
        self.not_made: list[str] = []

    def convert(self) -> None:
        """The model as ONNX, and that in int8."""
        self._try("original", partial(self._write_onnx, "original", "the model as ONNX", self.model))

    def _try(self, name: str, make: Callable[[], None]) -> None:
        try:
            make()
        except (Infeasible, BadInput) as error:
            self.not_made.append(f"{name}: {error}")

    def _write_onnx(self, name: str, what: str, model: Model) -> None:
        path = self.folder / f"{name}.onnx"
        write_onnx(path, model, notes=() if name == "original" else (what,))
        self._add_onnx(name, what, model)
        self._try(_int8(name), partial(self._quantise, name, model))

    def _add_onnx(self, name: str, what: str, model: Model) -> None:
        path = self.folder / f"{name}.onnx"
        content = path.read_bytes()
        self.made.append(Made(name, what, open_model(path), model.network, len(content), _packed(content), path.name))

    def _quantise(self, name: str, model: Model) -> None:
        """int8 of an ONNX file that was written."""
        target = _int8(name)
        self.tell(target, 0, 1)
        what = f"weights (7 bits) and activations in int8, ranges from {len(self.calibration)} training images"
        source = self.folder / f"{name}.onnx"
        about = open_model(source).about
        about = about.model_copy(update={"notes": (*about.notes, what)})
        quantise_static(source, self.folder / f"{target}.onnx", about, self.calibration)
        self._add_onnx(target, what, model)

    def prune(self, share: float) -> None:
        """Without channels, that again in int8, and with zeros in the place of weights."""
        percent = f"{100 * share:g}"
        for name, make in ((f"pruned-{percent}", self._take_channels), (f"sparse-{percent}", self._mask_weights)):
            self._try(name, partial(make, name, share))

    def _take_channels(self, name: str, share: float) -> None:
        pruned = take_channels(self.model, share)
        self._finetune(name, pruned)
        what = f"{100 * share:g}% of the channels of each layer taken out{self._after}"
        self._write_onnx(name, what, pruned)

    def _mask_weights(self, name: str, share: float) -> None:
        sparse = mask_weights(self.model, share)
        self._finetune(name, sparse)
        settle(sparse.network)
        what = f"the smallest {100 * share:g}% of the weights set to zero{self._after}"
        save_model(self.folder / name, sparse, notes=(what,))
        content = (self.folder / name / WEIGHTS).read_bytes()
        self.made.append(Made(name, what, sparse, sparse.network, len(content), _packed(content), f"{name}/model.json"))

    def quantise_matrices(self) -> None:
        """Only linear layers in int8, by onnxruntime and by torchao; where these hold little it is not tried."""
        held = linear_share(self.model.network)
        if held < LINEAR:
            why = f"linear layers, the only ones they change, hold {held:.0%} of the parameters"
            self.not_made.append(f"int8-dynamic, int8-torchao: {why}")
            return
        if any(one.name == "original" for one in self.made):
            self._try("int8-dynamic", self._quantise_dynamic)
        self._try("int8-torchao", self._quantise_linear)

    def _quantise_dynamic(self) -> None:
        name, what = "int8-dynamic", "matrix products in int8, ranges found anew each time; convolutions stay fp32"
        self.tell(name, 0, 1)
        about = self.model.about.model_copy(update={"notes": (*self.model.about.notes, what)})
        quantise_dynamic(self.folder / "original.onnx", self.folder / f"{name}.onnx", about)
        self._add_onnx(name, what, self.model)

    def _quantise_linear(self) -> None:
        self.tell("int8-torchao", 0, 1)
        changed = quantise_linear(self.model)
        what = "weights of linear layers in int8 by torchao; measured, not kept: no file that is safe to open holds it"
        size = state_bytes(changed.network)
        self.made.append(Made("int8-torchao", what, changed, self.model.network, size, size, None))

    @property
    def _after(self) -> str:
        return f", then {self.epochs} epoch{'s' * (self.epochs > 1)} of fine-tuning" if self.epochs else ""

    def _finetune(self, name: str, model: Model) -> None:
        finetune(model, self.dataset, self.epochs, partial(self.tell, f"fine-tuning {name}"))


def _int8(name: str) -> str:
    return "int8" if name == "original" else f"{name}-int8"


def _calibration(dataset: Dataset) -> NDArray[np.uint8]:
    """Up to 512 training images, evenly over them."""
    count = min(CALIBRATION, len(dataset.train))
    chosen = dataset.train[np.linspace(0, len(dataset.train) - 1, count).astype(np.int64)]
    return np.asarray(dataset.images[chosen])


def _stored(network: nn.Module) -> bytes:
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    return safetensors.torch.save(tensors)


def _packed(content: bytes) -> int:
    return len(gzip.compress(content, compresslevel=6))
