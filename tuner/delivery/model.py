"""Model: a trained network with all that it needs to judge images; opened safely, saved as safetensors and JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from tuner.delivery.about import About, File, Origin
from tuner.delivery.place import MODEL, Place, find_model
from tuner.errors import BadInput, Infeasible
from tuner.records.reader import read_record
from tuner.records.writer import now, write_whole
from tuner.spec.model import Backbone, UserModel
from tuner.spec.section import Section
from tuner.spec.trial_config import TrialConfig
from tuner.training import checkpoint
from tuner.training.datasets import open_dataset, prepare
from tuner.training.networks import counting_device, make_network
from tuner.training.weights import preprocessing

WEIGHTS = "model.safetensors"
S = TypeVar("S", bound=Section)

LARGEST_JSON = 2**24
"""Bytes of a model.json that are read: 100,000 class names fit."""


class Classifier(Protocol):
    """Whatever judges images: a network of ours, an ONNX file, several together."""

    @property
    def about(self) -> About:
        """Classes, preprocessing, origin."""

    @property
    def place(self) -> Place:
        """Where it lies."""

    @property
    def kind(self) -> str:
        """What computes it, for people: torch, onnx, ensemble."""

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits (N, classes) of images, uint8 (N, image_size, image_size, channels)."""


class Shipped(nn.Module):
    """A network with its preprocessing inside: bytes in, logits out, so that nobody can normalise otherwise."""

    scale: Tensor
    offset: Tensor

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network
        deviation = torch.tensor(std).clamp_min(1 / 255)  # as training has it: training/images.py
        self.register_buffer("scale", (1 / (255 * deviation)).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("offset", (-torch.tensor(mean) / deviation).view(1, -1, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits (N, classes), float32, of images, uint8 (N, S, S, C)."""
        images = pixels.permute(0, 3, 1, 2).to(self.scale.dtype) * self.scale + self.offset
        logits: Tensor = self.network(images)
        return logits.float()


@dataclass(frozen=True)
class Model:
    """A network of ours in fp32, ready to judge; `network` is in evaluation mode, its weights on `device`."""

    about: About
    place: Place
    network: Shipped
    device: torch.device

    kind = "torch"

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits (N, classes) of images, uint8 (N, image_size, image_size, channels)."""
        with torch.inference_mode():
            made: NDArray[np.float32] = self.network(torch.tensor(pixels, device=self.device)).cpu().numpy()
        return made


# ---------------------------------------------------------------- opening


def open_model(path: Path | Place, *, device: str = "cpu", trust_code: bool = False) -> Classifier:
    """The model that a path names, whatever computes it.

    trust_code: whether a model.json may name code of the user's own, which is imported and called.

    Raises:
        BadInput: there is none, it is damaged, or it wants code that is not trusted.
    """
    place = path if isinstance(path, Place) else find_model(path)
    if place.kind == "onnx":
        from tuner.delivery.exporting.onnx_model import open_onnx

        opened: Classifier = open_onnx(place, device=device)
    elif place.kind == "ensemble":
        from tuner.delivery.ensembles.ensemble import open_ensemble

        opened = open_ensemble(place, device=device, trust_code=trust_code)
    else:
        return open_torch(place, device=device, trust_code=trust_code)
    _check_code(opened.about, place.path, trust_code, network=False)  # what it computes lies in its own files
    return opened


def open_torch(path: Path | Place, *, device: str = "cpu", trust_code: bool = False) -> Model:
    """The same, where a torch network is needed.

    Raises:
        BadInput: as `open_model`, and for what has no torch network.
    """
    place = path if isinstance(path, Place) else find_model(path)
    if place.kind in ("onnx", "ensemble"):
        raise BadInput(f"{place.path}: this needs the network itself; name the model or trial that it was made of")
    if device != "cpu" and not torch.cuda.is_available():
        raise BadInput(f"--device {device}: torch sees no GPU here; leave it out")
    about, tensors = _read_trial(place) if place.kind == "trial" else _read_model(place, trust_code)
    network = _build(about, tensors, place)
    shipped = Shipped(network, about.mean, about.std).eval()
    where = torch.device(device)
    return Model(about, place, shipped.to(where, memory_format=torch.channels_last), where)  # type: ignore[call-overload]


def _build(about: About, tensors: Mapping[str, Tensor], place: Place) -> nn.Module:
    """The network with these weights; it is compared on the meta device first, where a lie about its size is free."""
    shape = {"classes": len(about.classes), "in_channels": about.channels, "image_size": about.image_size}
    try:
        with counting_device(about.model):
            expected = {name: value.shape for name, value in make_network(about.model, **shape).state_dict().items()}
        found = {name: value.shape for name, value in tensors.items()}
        if expected != found:
            wrong = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
            first = wrong[0]
            detail = f"{first} is {_shape(found.get(first))}, the architecture has {_shape(expected.get(first))}"
            raise BadInput(f"{place.path}: the weights are not of this architecture ({len(wrong)} differ: {detail})")
        network = make_network(about.model, **shape)
    except Infeasible as error:
        raise BadInput(f"{place.path}: its network cannot be built: {error}") from error
    network.load_state_dict(dict(tensors))
    return network


def _shape(shape: torch.Size | None) -> str:
    return "missing" if shape is None else str(tuple(shape))


def _read_trial(place: Place) -> tuple[About, dict[str, Tensor]]:
    """A trial's best weights, with what its run knows of the images."""
    assert place.run is not None and place.trial is not None
    tensors, state = checkpoint.load(place.path)
    config = TrialConfig.model_validate_json(json.dumps(state["config"]))
    run = read_record(place.run).run
    data, row = run.get("data") or {}, state["metrics"]
    metric = next((str(goal["metric"]) for goal in run.get("objectives") or () if goal.get("metric") in row), "")
    try:
        classes, channels = tuple(map(str, data["classes"])), int(data["channels"])
        size = int(config.data.image_size or data["image_size"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{place.run / 'run.json'} does not say what the images are: {error}") from error
    mean, std = _colours(place, config, channels, (run.get("seeds") or {}).get("split", config.seed))
    weights = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    return (
        About(
            name=f"{run.get('name') or place.run.name} {place.trial}",
            classes=classes,
            image_size=size,
            channels=channels,  # type: ignore[arg-type]  # checked
            resize=config.data.resize,
            mean=mean,
            std=std,
            model=_without_weights(config),
            params=int(row["params"]),
            origin=Origin(
                run=str(run.get("name") or place.run.name),
                trial=place.trial,
                epoch=int(row["epoch"]),
                seed=config.seed,
                metric=metric,
                value=float(row[metric]) if metric else None,
                dataset=config.data.dataset,
                fingerprint=str(data.get("fingerprint") or ""),
                train=int(data.get("train") or 0),
                created=now(),
                versions={name: str(version) for name, version in (run.get("versions") or {}).items()},
            ),
            settings={
                "train": config.train.model_dump(mode="json"),
                "data": config.data.model_dump(mode="json", exclude={"root"}),
            },
        ),
        weights,
    )


def _without_weights(config: TrialConfig) -> Any:
    """The `model` section; what it started from is no part of what it is, and may be a path of this machine."""
    model = config.model
    return model.model_copy(update={"weights": "none"}) if isinstance(model, Backbone) else model


def _colours(
    place: Place, config: TrialConfig, channels: int, seed: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation that the weights were trained with: as their file says, else as the images say."""
    try:
        with safe_open(place.path / checkpoint.WEIGHTS, framework="pt") as file:
            held = file.metadata() or {}
        return tuple(json.loads(held["mean"])), tuple(json.loads(held["std"]))
    except (KeyError, OSError, SafetensorError, ValueError):
        pass
    if (known := preprocessing(config, channels)) is not None:
        return known
    dataset = open_dataset(prepare(config.data, seed).folder, config.data, seed)
    return dataset.mean, dataset.std


def _read_model(place: Place, trust_code: bool) -> tuple[About, dict[str, Tensor]]:
    about = read_about(place.path / MODEL)
    _check_code(about, place.path / MODEL, trust_code)
    return about, read_weights(place.path / WEIGHTS, about)


def _check_code(about: About, where: Path, trust_code: bool, *, network: bool = True) -> None:
    """Refuse code of somebody's own, of the network or of the images, unless it is trusted."""
    dataset = str((about.settings.get("data") or {}).get("dataset") or "")
    named = [about.model.name] if network and isinstance(about.model, UserModel) else []
    named += [dataset] if ":" in dataset else []
    if named and not trust_code:
        rule = "names code of somebody's own, which would run here; if you trust it, add --trust-code"
        raise BadInput(f"{where} {rule}: {', '.join(named)}")


def read_about(path: Path) -> About:
    """What a model.json says.

    Raises:
        BadInput: it is missing, damaged, or of a later version.
    """
    return read_section(path, About)


def read_section(path: Path, kind: type[S]) -> S:
    """A JSON file as a value of this kind.

    Raises:
        BadInput: it is missing, damaged, too large, or of a later version.
    """
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise BadInput(f"{path}: larger than {LARGEST_JSON >> 20} MiB; no {path.name} is")
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise BadInput(f"{path} is damaged or of another version: {where}: {first['msg']}") from error


def read_weights(path: Path, about: About) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, after its length and checksum were compared with what model.json says.

    Raises:
        BadInput: it is missing or changed.
    """
    known = about.files.get(path.name)
    if known is None:
        raise BadInput(f"{path.parent / MODEL} does not name {path.name}, so that nothing vouches for it")
    try:
        content = path.read_bytes() if path.stat().st_size == known.bytes else b""
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != known.sha256:
        raise BadInput(f"{path} is not what was written: {known.bytes:,} bytes with another sha256; copy it again")
    try:
        return dict(safetensors.torch.load(content))
    except SafetensorError as error:
        raise BadInput(f"{path} holds no tensors: {error}") from error


# ---------------------------------------------------------------- saving


def save_model(folder: Path, model: Model, *, notes: tuple[str, ...] = ()) -> About:
    """Write model.safetensors and model.json into `folder`; returns what model.json says.

    Raises:
        BadInput: it cannot be written there.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.network.network.state_dict().items()}
    content = safetensors.torch.save(
        tensors, {name: json.dumps(getattr(model.about, name)) for name in ("mean", "std")}
    )
    file = File(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    about = model.about.model_copy(update={"files": {WEIGHTS: file}, "notes": (*model.about.notes, *notes)})
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / WEIGHTS, content)
        write_whole(folder / MODEL, about.model_dump_json(indent=1) + "\n")
    except OSError as error:
        raise BadInput(f"{folder} cannot be written: {error.strerror}") from error
    return about
