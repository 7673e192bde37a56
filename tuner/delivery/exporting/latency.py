"""Latency: how long models take here, by batch and threads; all in turns, so that the machine's noise falls on all."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tuner.delivery.about import About
from tuner.delivery.exporting.onnx_model import PROVIDERS, OnnxModel, open_onnx, write_onnx
from tuner.delivery.model import Classifier, Model, open_model
from tuner.delivery.place import Place, find_model
from tuner.errors import BadInput

SECONDS = 1.0
"""What a model gets at each batch and number of threads; a slow one takes that of 2 calls to warm up and of 6."""
ROUNDS, CALLS = 3, 2
"""Turns of each model at least, and timed calls a turn: 6 at least."""
SHORT = 0.05
"""Seconds: a turn of calls that are shorter begins with one that is not timed, as caches hold the other model's
weights and the other's threads may still be waiting on the cores."""
BATCHES = (1, 8, 64)
BUSY = 0.5
"""Load a core above which times are those of a shared machine."""

Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Row:
    """One model at one batch size and number of threads. Times are of a call: from uint8 pixels to logits in memory.

    form: what computes it: torch, onnx, onnx tensorrt, ensemble. calls: that were timed; of few, p95 is the slowest.
    """

    model: str
    form: str
    batch: int
    threads: int
    calls: int
    p50_ms: float
    p95_ms: float
    images_per_second: float


@dataclass(frozen=True)
class Latency:
    """What was measured, and in sentences what was not. load: of the machine before, in processes that want a core."""

    rows: tuple[Row, ...]
    not_run: tuple[str, ...]
    load: float


# ---------------------------------------------------------------- timing


def measure(models: Sequence[Classifier], batch: int, threads: int, *, seconds: float = SECONDS) -> list[Row]:
    """Time models on `batch` images with so many threads of the CPU, in turns; torch's own number is put back.

    seconds: that each gets, and at least 6 calls. A row a model, in their order.

    Raises:
        BadInput: one of them cannot be run.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        ready = [_with_threads(model, threads) for model in models]
        taken = race([partial(model.logits, _noise(model.about, batch)) for model in ready], seconds)
    finally:
        torch.set_num_threads(before)
    rows = []
    for model, times in zip(models, taken, strict=True):
        p50, p95 = np.percentile(times, [50, 95]).tolist()
        rows.append(Row(model.about.name, _form(model), batch, threads, len(times), 1e3 * p50, 1e3 * p95, batch / p50))
    return rows


def race(calls: Sequence[Callable[[], object]], seconds: float = SECONDS) -> list[list[float]]:
    """Seconds that each call took, each time: in rounds, every round beginning with another one, after a warm-up.

    It ends when each had `seconds` on average and every one 6 timed calls.
    """
    short = [min(_time(call), _time(call)) < SHORT for call in calls]
    taken: list[list[float]] = [[] for _ in calls]
    for turn in count():
        for n in ((turn + place) % len(calls) for place in range(len(calls))):
            if short[n]:
                calls[n]()
            taken[n] += [_time(calls[n]) for _ in range(CALLS)]
        if turn + 1 >= ROUNDS and sum(map(sum, taken)) >= seconds * len(calls):
            break
    return taken


def _time(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _noise(about: About, batch: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    shape = (batch, about.image_size, about.image_size, about.channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def _with_threads(model: Classifier, threads: int) -> Classifier:
    """onnxruntime is told of threads when a file is opened; torch takes its own number."""
    return open_onnx(model.place, device=model.device, threads=threads) if isinstance(model, OnnxModel) else model


def _form(model: Classifier) -> str:
    by_tensorrt = isinstance(model, OnnxModel) and model.device.startswith("tensorrt")
    return "onnx tensorrt" if by_tensorrt else model.kind


# ---------------------------------------------------------------- what is measured


def compare(
    paths: Sequence[Path],
    batches: Sequence[int],
    threads: Sequence[int],
    *,
    device: str,
    trust_code: bool,
    tell: Tell,
    seconds: float = SECONDS,
) -> Latency:
    """Time the models that paths name, those of torch in ONNX too, at each batch size and number of threads.

    Raises:
        BadInput: a path names no model, or one cannot be run here.
    """
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="ht-latency-") as scratch:
        models, labels, not_run = _open(paths, Path(scratch), device, trust_code, tell)
        cells = [(batch, number) for number in threads for batch in batches]
        rows: list[Row] = []
        for done, (batch, number) in enumerate(cells):
            tell(f"batch {batch}, {number} thread{'s' * (number > 1)}", done, len(cells))
            found = measure(models, batch, number, seconds=seconds)
            rows += [replace(row, model=label) for row, label in zip(found, labels, strict=True)]
        tell("done", len(cells), len(cells))
    return Latency(tuple(rows), tuple(not_run), load)


def _open(
    paths: Sequence[Path], scratch: Path, device: str, trust_code: bool, tell: Tell
) -> tuple[list[Classifier], list[str], list[str]]:
    """The models, what each is called, and what cannot be had of them."""
    models: list[Classifier] = []
    labels: list[str] = []
    not_run: list[str] = []
    for number, path in enumerate(paths):
        tell(f"opening {path.name}", number, len(paths))
        model = open_model(path, device=device, trust_code=trust_code)
        label = path.name if model.kind == "onnx" else model.about.name
        models.append(model)
        labels.append(label)
        if not isinstance(model, Model):
            continue
        try:
            file = _find_onnx(model) or _write(scratch / f"{number}.onnx", model)
        except BadInput as error:
            not_run.append(f"{label} in ONNX: {error}")
            continue
        for kind in ("cpu",) if device == "cpu" else ("cuda", "tensorrt"):
            try:
                models.append(open_onnx(file, device=device.replace("cuda", kind)))
                labels.append(label)
            except BadInput as error:
                not_run.append(f"{label} in ONNX by {PROVIDERS[kind]}: {error}")
    return models, labels, not_run


def _find_onnx(model: Model) -> Place | None:
    """The ONNX file that an export of this very model left."""
    path = model.place.folder("export") / "model.onnx"
    if not path.is_file():
        return None
    place = find_model(path)
    try:
        found = open_onnx(place).about
    except BadInput:
        return None
    return place if _same(found) == _same(model.about) else None


def _same(about: About) -> dict[str, Any]:
    return about.model_dump(exclude={"files": True, "origin": {"created"}})


def _write(path: Path, model: Model) -> Place:
    write_onnx(path, model)
    return Place(path, "onnx")


HEADS = ("model", "form", "batch", "threads", "p50 ms", "p95 ms", "images/s", "speed")


def table(found: Latency) -> list[tuple[str, ...]]:
    """A row a measurement, for a person; speed: against the first model at the same batch and threads."""
    first: dict[tuple[int, int], Row] = {}
    return [
        (
            row.model,
            row.form,
            str(row.batch),
            str(row.threads),
            f"{row.p50_ms:.3g}",
            f"{row.p95_ms:.3g}",
            f"{row.images_per_second:,.0f}",
            f"{first.setdefault((row.batch, row.threads), row).p50_ms / row.p50_ms:.2f}x",
        )
        for row in found.rows
    ]


def notes(found: Latency, cores: int) -> list[str]:
    """What to say after the table."""
    said = [f"not run  {text}" for text in found.not_run]
    if found.load > BUSY * cores:
        rule = "times are longer than on an idle one"
        said.insert(0, f"note     others use this machine (load {found.load:.1f} on {cores} cores): {rule}")
    return said


def as_json(found: Latency, machine: dict[str, Any], device: str) -> dict[str, Any]:
    """What latency.json holds. machine: cpu, cores and more, as run.json has them."""
    kept = {name: machine[name] for name in ("cpu", "cores", "gpus") if name in machine}
    versions = {name: version(name) for name in ("torch", "onnxruntime")}
    return {
        "format": 1,
        "machine": {**kept, **versions, "load": round(found.load, 2)},
        "device": device,
        "rows": [asdict(row) for row in found.rows],
        "not_run": list(found.not_run),
    }
