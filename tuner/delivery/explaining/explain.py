"""Explain: pictures of where a model sees the class of an image, of its first filters, and of what they find."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tuner.delivery.about import About
from tuner.delivery.explaining import overlay
from tuner.delivery.explaining.evidence import METHODS, Layer, Method, find_layer, grad_cam, list_layers, occlude
from tuner.delivery.explaining.overlay import Panel, Pixels
from tuner.delivery.model import Model
from tuner.delivery.pictures import Pictures, Progress, open_pictures
from tuner.delivery.plain import readable
from tuner.delivery.predictions import Predictions, judge
from tuner.delivery.target import make_ready
from tuner.errors import BadInput, Problem
from tuner.records.writer import write_whole
from tuner.training.cnn import Whiten
from tuner.training.decode import decode_or_say_why, image_warnings

BATCH = 16
"""Images whose gradients are held at a time: about 3 GB for a ResNet-50 at 224 pixels."""
MOST_FILTERS, MOST_MAPS, MOST_LAYERS = 64, 8, 5
UNEVEN = (
    "The layers after {layer} give each place of a map a weight of its own. Grad-CAM takes their mean, so the place is "
    "less sure than with average pooling; occlusion does not suffer from it."
)
NAME = "explain.json"
UNKNOWN = -1
"""The label of an image whose truth is not known."""


def open_images(paths: Sequence[Path], about: About, progress: Progress | None = None) -> Pictures:
    """Images as a model of `about` sees them: files, of unknown truth, or one folder of class folders (.csv, .npz).

    Raises:
        BadInput: a folder among files, or no image that can be read.
    """
    if len(paths) == 1 and paths[0].is_dir() and not any(part.is_dir() for part in paths[0].iterdir()):
        raise BadInput(f"{paths[0]}: no class folders in it; name its images themselves: {paths[0]}/*")
    if len(paths) == 1 and (paths[0].is_dir() or paths[0].suffix.lower() in (".csv", ".npz")):
        return open_pictures(paths[0], about, progress)
    if folders := [path for path in paths if path.is_dir()]:
        rule = "explain takes one folder of class folders, or image files; name the files in it: FOLDER/*"
        raise BadInput([Problem(str(folder), 0, 0, rule) for folder in folders])
    found: dict[Path, Pixels] = {}
    problems = []
    with image_warnings():
        for done, path in enumerate(dict.fromkeys(paths), 1):
            pixels = decode_or_say_why(str(path), about.image_size, about.resize, about.channels)
            if isinstance(pixels, str):
                problems.append(Problem(readable(str(path)), 0, 0, readable(pixels).removeprefix("[Errno 2] ")))
            else:
                found[path] = pixels
            if progress:
                progress("reading", done, len(paths))
    if not found:
        raise BadInput(problems or "no images were named")
    said = tuple(f"{problem.source} was left out: {problem.message}" for problem in problems)
    labels = np.full(len(found), UNKNOWN, dtype=np.int64)
    return Pictures("the images named", np.stack(list(found.values())), labels, list(map(str, found)), problems=said)


def explain(
    model: Model, pictures: Pictures, folder: Path, method: Method, most: int, progress: Progress | None = None
) -> dict[str, Any]:
    """Write the pictures and explain.json into `folder`; returns what explain.json says.

    Of images whose truth is known at most `most` right ones, evenly taken, and `most` wrong ones, the most confident
    first. Where a wrong one is shown, so is the evidence for the true class.

    Raises:
        BadInput: the method cannot look into this network, or the folder cannot be written or holds something else.
    """
    check_apart(folder, list(map(Path, pictures.names)))
    make_ready(folder, NAME)
    (folder / "panels").mkdir(exist_ok=True)
    tell = progress or (lambda what, done, of_all: None)
    said = judge(model, pictures, progress=lambda done, of_all: tell("judging", done, of_all))
    if not np.isfinite(said.logits).all():
        raise BadInput(f"{model.about.name} gives logits that are no numbers, so that there is nothing to explain")
    chosen = choose(said, most)
    tell("drawing", 0, len(chosen))
    network = model.network.network
    first = np.asarray(pictures.pixels[chosen[:1]])
    layers = list_layers(network, normalise(model, first))
    layer = None if method == "occlusion" else find_layer(layers, method)

    paths = [readable(str(pictures.names[n])) for n in chosen]
    names = _shorten(paths)
    files = _name_files(names)
    images: list[dict[str, Any]] = []
    for start in range(0, len(chosen), BATCH):
        part = chosen[start : start + BATCH]
        pixels = np.asarray(pictures.pixels[part])
        drawn = _draw(model, method, layer, pixels, said, part)
        for n, (panels, about) in enumerate(drawn, start):
            picture = f"{files[n]}.png"
            write_whole(folder / picture, overlay.picture(panels, about["title"], names[n]))
            write_whole(folder / "panels" / picture, overlay.strip(panels))
            images.append(
                {"name": names[n], "path": paths[n], "picture": picture, "panels": f"panels/{picture}", **about}
            )
            tell("drawing", len(images), len(chosen))

    known = pictures.labels != UNKNOWN
    record = {
        "format": 1,
        "model": {
            "name": model.about.name, "kind": model.kind, "architecture": model.about.model.name,
            "params": model.about.params, "image_size": model.about.image_size,
        },
        "data": {
            "what": pictures.what, "images": len(pictures), "truth": bool(known.any()),
            "right": int(said.right[known].sum()), "problems": list(pictures.problems),
        },
        "method": method,
        "method_name": METHODS[method],
        "layer": layer and {"name": layer.name, "side": layer.side, "maps": len(layer.maps)},
        "scale": overlay.scale(),
        "notes": [UNEVEN.format(layer=layer.name)] if layer and not layer.even else [],
        "images": images,
        "filters": _write_filters(network, layers, folder),
        "maps": _write_maps(layers, first[0], files[0], names[0], folder),
    }  # fmt: skip
    write_whole(folder / NAME, json.dumps(record, ensure_ascii=False, indent=1, allow_nan=False) + "\n")
    return record


def check_apart(folder: Path, images: Sequence[Path]) -> None:
    """Refuse a folder for pictures that holds an image to be explained, or lies in a folder of them.

    Raises:
        BadInput: naming one.
    """
    at = folder.resolve()
    for path in images:
        if (there := path.resolve()).is_relative_to(at) or at.is_relative_to(there):
            rule = "pictures would lie among the images that they are of"
            raise BadInput(f"{folder}: {rule} ({readable(str(path))}); choose another folder with --out")


def choose(said: Predictions, most: int) -> NDArray[np.int64]:
    """The images that are shown, by their places: all of unknown truth; else right ones, then wrong ones."""
    unknown = np.flatnonzero(said.labels == UNKNOWN)
    right = np.flatnonzero(said.right)
    wrong = np.flatnonzero(~said.right & (said.labels != UNKNOWN))
    evenly = right[np.linspace(0, len(right) - 1, min(most, len(right))).round().astype(np.int64)]
    surest = wrong[np.argsort(-said.probabilities[wrong].max(axis=1), kind="stable")][:most]
    return np.concatenate([unknown, evenly, surest]).astype(np.int64)


def normalise(model: Model, pixels: Pixels) -> Tensor:
    """What the network inside gets of images, uint8 (N, S, S, C): float32 (N, C, S, S), to which gradients lead."""
    shipped = model.network
    images = torch.tensor(pixels, device=model.device).permute(0, 3, 1, 2)
    return images * shipped.scale + shipped.offset


def find_evidence(
    model: Model, method: Method, layer: Layer | None, pixels: Pixels, targets: NDArray[np.int64]
) -> tuple[NDArray[np.float32], list[float | None]]:
    """Evidence for a class of each image, (N, S, S) from 0 to 1; of occlusion also by what the odds are divided."""
    network, images = model.network.network, normalise(model, pixels)
    if layer is not None:
        return grad_cam(network, images, targets, layer, squares=method == "gradcam++"), [None] * len(pixels)
    falls = np.maximum(occlude(network, images, targets), 0)
    peak = falls.max(axis=(1, 2), keepdims=True)
    return (falls / np.where(peak > 0, peak, 1)).astype(np.float32), np.exp(peak).ravel().tolist()


def _draw(
    model: Model, method: Method, layer: Layer | None, pixels: Pixels, said: Predictions, part: NDArray[np.int64]
) -> Iterator[tuple[list[Panel], dict[str, Any]]]:
    """The panels of each image, and what explain.json says of it."""
    predicted, labels = said.predicted[part], said.labels[part]
    strength, falls = find_evidence(model, method, layer, pixels, predicted)
    wrong = np.flatnonzero((labels != UNKNOWN) & (labels != predicted))
    if len(wrong):
        missed, missed_falls = find_evidence(model, method, layer, pixels[wrong], labels[wrong])
    side, way = model.about.image_size, METHODS[method]
    for n, index in enumerate(part.tolist()):
        image = overlay.enlarge(pixels[n])
        says, sure = said.classes[predicted[n]], float(said.probabilities[index, predicted[n]])
        panels = [
            Panel(image, f"what the model sees, {side}×{side}"),
            Panel(overlay.cover(image, strength[n]), f"{way}: {says}{_note(strength[n], falls[n])}"),
        ]
        about: dict[str, Any] = {
            "title": f"{says} {sure:.1%}", "predicted": says, "confidence": sure, "truth": None,
            "probability_of_truth": None, "right": None, "flat": not strength[n].any(), "divides": falls[n],
        }  # fmt: skip
        if labels[n] != UNKNOWN:
            truth, chance = said.classes[labels[n]], float(said.probabilities[index, labels[n]])
            about |= {"truth": truth, "probability_of_truth": chance, "right": truth == says}
        if n in wrong:
            at = int(np.flatnonzero(wrong == n)[0])
            text = f"{way}: {truth}, the truth{_note(missed[at], missed_falls[at])}"
            panels.append(Panel(overlay.cover(image, missed[at]), text))
            about |= {"title": f"says {says} {sure:.1%}, is {truth} ({chance:.1%})"}
            about |= {"flat_truth": not missed[at].any(), "divides_truth": missed_falls[at]}
        yield panels, about


def _note(strength: NDArray[np.float32], fall: float | None) -> str:
    if not strength.any():
        return ", nowhere"
    return "" if fall is None else f", odds ÷ {fall:.1f}" if fall < 10 else f", odds ÷ {fall:,.0f}"


def _shorten(files: Sequence[str]) -> list[str]:
    """Paths below the folder that they share."""
    paths = [Path(file).absolute() for file in files]
    shared = os.path.commonpath([path.parent for path in paths])
    return [path.relative_to(shared).as_posix() for path in paths]


def _name_files(names: Sequence[str]) -> list[str]:
    """File names without suffix: safe anywhere, each once, and none that another picture here has."""
    taken = ["filters", "index", "explain"]
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9_-]+", "-", str(Path(name).with_suffix(""))).strip("-")[-60:] or "image"
        plain = f"image-{plain}" if plain.startswith("maps_") else plain
        free = (plain if number == 1 else f"{plain}-{number}" for number in count(1))
        taken.append(next(one for one in free if one.lower() not in map(str.lower, taken)))
    return taken[3:]


def _write_filters(network: nn.Module, layers: Sequence[Layer], folder: Path) -> dict[str, Any] | None:
    """filters.png and what it shows; None where no convolution sees the image."""
    conv = next((layer for layer in layers if isinstance(layer.module, nn.Conv2d)), None)
    if conv is None:
        return None
    weights = conv.module.state_dict()["weight"].float().cpu().numpy()
    strongest = np.sort(np.argsort(-np.abs(weights).sum(axis=(1, 2, 3)), kind="stable")[:MOST_FILTERS])
    made, channels, side = len(weights), weights.shape[1], weights.shape[2]
    shown = f"The {made} filters" if made <= MOST_FILTERS else f"The {MOST_FILTERS} largest of the {made} filters"
    about = f"{shown} of {side}×{weights.shape[3]} of {conv.name}, the first convolution"
    if isinstance(conv.module, Whiten):
        about += ", which was fitted to the training images (whitening) and never learned"
    about += {3: ", in colour", 1: ", in grey"}.get(channels, f", the mean over their {channels} channels in grey")
    about += ". Each has its own scale: mid-grey is 0."
    write_whole(folder / "filters.png", overlay.filters(weights[strongest]))
    return {"picture": "filters.png", "about": about, "layer": conv.name, "filters": len(strongest)}


def _write_maps(layers: Sequence[Layer], pixels: Pixels, file: str, name: str, folder: Path) -> dict[str, Any] | None:
    """maps_NAME.png and what it shows: of each side that maps have the last layer, of its maps those that vary most."""
    last = {layer.side: layer for layer in layers}
    rows, listed = [], []
    for side, layer in sorted(last.items(), reverse=True)[:MOST_LAYERS]:
        maps = layer.maps.float().cpu().numpy()
        varied = np.argsort(-maps.std(axis=(1, 2)), kind="stable")[:MOST_MAPS]
        rows.append((f"{layer.name}, {side}×{side}: {len(varied)} of {len(maps)} maps", maps[varied]))
        listed.append({"layer": layer.name, "side": side, "maps": len(maps), "shown": varied.tolist()})
    if not rows:
        return None
    write_whole(folder / f"maps_{file}.png", overlay.maps(overlay.enlarge(pixels), rows))
    return {"picture": f"maps_{file}.png", "image": name, "layers": listed}
