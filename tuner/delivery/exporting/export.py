"""Export: a model in forms that others read, each read back from disk and compared with the network itself."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export import ExportedProgram

from tuner.delivery.about import File
from tuner.delivery.exporting.card import CARD, is_card, write_card
from tuner.delivery.exporting.onnx_model import KEY, open_onnx, trace, write_onnx
from tuner.delivery.model import WEIGHTS, Model, open_torch, save_model
from tuner.delivery.pictures import open_split
from tuner.delivery.place import MODEL, Place
from tuner.delivery.predictions import batches
from tuner.errors import BadInput

Pixels = NDArray[np.uint8]
Judge = Callable[[Pixels], NDArray[np.float32]]
Tell = Callable[[str, int, int], None]

TOLERANCE = 1e-4
"""No probability of a form may be further than this from the network's own."""
IMAGES = 64
BATCHES = (1, 3)
"""Sizes of the first batches of the images, so that a form with a fixed batch does not pass; the rest is one more."""
FILES = {"safetensors": (WEIGHTS, MODEL), "onnx": ("model.onnx",), "torch": ("model.pt2",)}
"""Form -> its files."""


@dataclass(frozen=True)
class Form:
    """One form of a model. difference: the largest of a probability, None where it could not be computed.

    problem: why the form is not there; empty where it passed, and then `files` are its files.
    """

    name: str
    files: Mapping[str, File]
    difference: float | None
    problem: str = ""


@dataclass(frozen=True)
class Exported:
    """What an export came to. images: what the forms were compared on, in words; note: why on noise, else empty."""

    folder: Path
    forms: tuple[Form, ...]
    images: str
    note: str

    @property
    def failed(self) -> tuple[Form, ...]:
        """Forms that are not there."""
        return tuple(form for form in self.forms if form.problem)


def export_model(
    model: Model, folder: Path, forms: Sequence[str] = tuple(FILES), *, tell: Tell = lambda *_: None
) -> Exported:
    """Write a model into `folder` in these forms, with a model card as README.md; what differs from it is left out.

    What an earlier export wrote there is replaced, when all is done; where no form passes nothing is touched.

    Raises:
        BadInput: a form is not known, the folder holds something else, or it cannot be written.
    """
    if unknown := [form for form in forms if form not in FILES]:
        raise BadInput(f"--format {unknown[0]}: no such form; there are {', '.join(FILES)}")
    _check_folder(folder, model.place)
    pixels, images, note = _choose(model, tell)
    truth = _probabilities(model.logits, pixels)
    traced = lru_cache(lambda: trace(model))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as name:
            made, wanted = [], list(dict.fromkeys(forms))
            for number, form in enumerate(wanted):
                tell(f"writing {form}, and comparing it", number, len(wanted))
                made.append(_make(form, model, Path(name), traced, pixels, truth))
            exported = Exported(folder, tuple(made), images, note)
            files = {file: said for form in made for file, said in form.files.items()}
            if files:
                compared = {form.name: form.difference for form in made if form.difference is not None and form.files}
                write_card(Path(name), model, files, compared, images)
                _move(Path(name), folder, [*files, CARD])
    except OSError as error:
        raise BadInput(f"{folder} cannot be written: {error.strerror}") from error
    return exported


HEADS = ("form", "files", "MB", "largest difference")


def table(exported: Exported) -> list[tuple[str, ...]]:
    """A row a form, for a person."""
    return [
        (
            form.name,
            ", ".join(form.files) or "not written",
            f"{sum(file.bytes for file in form.files.values()) / 1e6:.2f}" if form.files else "",
            "" if form.difference is None else f"{form.difference:.1e}" if form.difference else "0",
        )
        for form in exported.forms
    ]


def foot(exported: Exported, folder: str) -> list[str]:
    """What to say after the table. folder: as it can be typed."""
    said = [f"compared  on {exported.images}; a probability may differ by less than {TOLERANCE:g}"]
    said += [f"note      on noise, as {exported.note}"] if exported.note else []
    said += [f"failed    {form.name}: {form.problem}" for form in exported.failed]
    if len(exported.failed) < len(exported.forms):
        said += [f"card      {folder}/{CARD}", f"next      hypertune latency {folder}   how fast it is here"]
    return said


def as_json(exported: Exported, model: Model) -> dict[str, Any]:
    """What `hypertune export --json` prints."""
    folder = exported.folder
    return {
        "model": model.about.name,
        "folder": str(folder),
        "card": str(folder / CARD) if len(exported.failed) < len(exported.forms) else None,
        "images": exported.images,
        "note": exported.note or None,
        "tolerance": TOLERANCE,
        "forms": {
            form.name: {
                "files": {name: file.model_dump() for name, file in form.files.items()},
                "difference": form.difference if form.difference == form.difference else None,  # NaN is no JSON
                "problem": form.problem or None,
            }
            for form in exported.forms
        },
    }


def _check_folder(folder: Path, place: Place) -> None:
    if place.kind == "model" and folder.absolute() == place.path:
        raise BadInput(f"{folder} is the model itself; name another folder with --out")
    known = {CARD, *(file for files in FILES.values() for file in files)}
    if (found := [name for name in sorted(known) if (folder / name).exists()]) and not is_card(folder / CARD):
        raise BadInput(f"{folder} holds a {found[0]} that no export wrote; name another folder with --out")


def _move(scratch: Path, folder: Path, names: Sequence[str]) -> None:
    for name in (name for files in FILES.values() for name in files):
        if name not in names:
            (folder / name).unlink(missing_ok=True)  # a form of an earlier export: of another model, maybe
    for name in names:
        (scratch / name).replace(folder / name)


def _choose(model: Model, tell: Tell) -> tuple[Pixels, str, str]:
    """Images to compare on, uint8 (64, S, S, C), what they are, in words, and why they are noise where they are."""
    why = "the model lies in no run"
    if model.place.run is not None:
        try:
            pictures = open_split(model.place, model.about, "validation", "export", tell)
            if len(pictures):
                pixels = next(iter(batches(pictures, IMAGES)))
                return pixels, f"{len(pixels)} validation images", ""
            why = "the run has no validation images"
        except BadInput as error:
            why = str(error).splitlines()[0]
    about = model.about
    shape = (IMAGES, about.image_size, about.image_size, about.channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8), f"{IMAGES} images of noise", why


def _probabilities(judge: Judge, pixels: Pixels) -> NDArray[np.float64]:
    """Probabilities (N, classes) of images, judged in batches of several sizes."""
    parts = [part for part in np.split(pixels, np.cumsum(BATCHES)) if len(part)]
    logits = torch.from_numpy(np.concatenate([judge(part) for part in parts]))
    found: NDArray[np.float64] = torch.softmax(logits.double(), dim=1).numpy()
    return found


def _make(
    form: str,
    model: Model,
    folder: Path,
    traced: Callable[[], ExportedProgram],
    pixels: Pixels,
    truth: NDArray[np.float64],
) -> Form:
    """Write one form and compare it; what does not pass is deleted again."""
    difference, problem = None, ""
    try:
        found = _probabilities(WRITERS[form](model, folder, traced), pixels)
        difference = float(np.abs(found - truth).max()) if found.shape == truth.shape else float("nan")
        if not difference < TOLERANCE:  # NaN neither
            problem = f"a probability differs by {difference:.2g}; it may differ by less than {TOLERANCE:g}"
    except BadInput as error:
        problem = str(error)
    if problem:
        for name in FILES[form]:
            (folder / name).unlink(missing_ok=True)
        return Form(form, {}, difference, problem)
    return Form(form, {name: _describe(folder / name) for name in FILES[form]}, difference)


def _write_safetensors(model: Model, folder: Path, traced: Callable[[], ExportedProgram]) -> Judge:
    save_model(folder, model)
    return open_torch(Place(folder, "model"), trust_code=True).logits  # its code has just run


def _write_onnx(model: Model, folder: Path, traced: Callable[[], ExportedProgram]) -> Judge:
    path = folder / "model.onnx"
    write_onnx(path, model, program=traced())
    return open_onnx(Place(path, "onnx")).logits


def _write_torch(model: Model, folder: Path, traced: Callable[[], ExportedProgram]) -> Judge:
    path = folder / "model.pt2"
    try:
        torch.export.save(traced(), path, extra_files={KEY: model.about.model_dump_json()})
        program = torch.export.load(path).module()  # pickled parts: of the file that was written the line before
    except RuntimeError as error:
        raise BadInput(f"{model.about.name} cannot be saved as a torch.export program: {error}") from error

    def judge(pixels: Pixels) -> NDArray[np.float32]:
        with torch.inference_mode():
            made: NDArray[np.float32] = program(torch.tensor(pixels)).numpy()
        return made

    return judge


WRITERS: dict[str, Callable[[Model, Path, Callable[[], ExportedProgram]], Judge]] = {
    "safetensors": _write_safetensors,
    "onnx": _write_onnx,
    "torch": _write_torch,
}
"""Form -> what writes it into a folder and gives back what judges by the file."""


def _describe(path: Path) -> File:
    with path.open("rb") as file:
        return File(bytes=path.stat().st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())
