"""How fast `hypertune predict` labels a folder of images, against a plain loop and against torch's DataLoader.

`python benchmarks/predict.py [FOLDER]`: about five minutes; without a folder it draws 2,000 JPEGs of 256 px. The
network is a small convolutional one for 64 px with random weights: only how long it takes matters here.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from report import machine, spread, write
from torch.utils.data import DataLoader, Dataset

from tuner.delivery.about import About
from tuner.delivery.model import Model, Shipped
from tuner.delivery.place import Place
from tuner.delivery.predict import list_images, predict
from tuner.spec.model import Cnn
from tuner.training.decode import decode
from tuner.training.networks import make_network

REPEATS = 5
IMAGES, SIDE, SIZE, BATCH = 2_000, 256, 64, 64
CLASSES = tuple(f"class {n}" for n in range(10))


def draw(folder: Path) -> None:
    """Smooth colours with some noise, about as many bytes as a photograph of this size."""
    chance = np.random.default_rng(0)
    for n in range(IMAGES):
        coarse = Image.fromarray(chance.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((SIDE, SIDE))
        noisy = np.asarray(coarse).astype(np.int16) + chance.integers(-20, 21, (SIDE, SIDE, 3))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{n:05}.jpg", quality=85)


def make_model() -> Model:
    section = Cnn(name="cnn", depth=3, width=32)
    torch.manual_seed(0)
    network = make_network(section, classes=len(CLASSES), in_channels=3, image_size=SIZE)
    mean, std = (0.5,) * 3, (0.25,) * 3
    about = About(
        name="benchmark", classes=CLASSES, image_size=SIZE, channels=3, resize="stretch", mean=mean, std=std,
        model=section, params=sum(p.numel() for p in network.parameters()),
    )  # fmt: skip
    shipped = Shipped(network, mean, std).eval().to(memory_format=torch.channels_last)
    return Model(about, Place(Path(), "model"), shipped, torch.device("cpu"))


# ---------------------------------------------------------------- the ways


def ours(model: Model, files: list[str]) -> NDArray[np.int64]:
    return np.array([CLASSES.index(row.labels[0]) for row in predict(model, files, batch=BATCH)])


def plain(model: Model, files: list[str]) -> NDArray[np.int64]:
    """One batch after the other: decoded, then judged."""
    return judge(model, (np.stack([load(file) for file in part]) for part in parts(files)))


def loader(model: Model, files: list[str]) -> NDArray[np.int64]:
    """As many processes as cores decode ahead, at their default of two batches each."""
    loading: DataLoader[Any] = DataLoader(Files(files), batch_size=BATCH, num_workers=os.cpu_count() or 1)
    return judge(model, (batch.numpy() for batch in loading))


class Files(Dataset[Any]):
    """Images as the loader's processes decode them."""

    def __init__(self, files: list[str]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: int) -> torch.Tensor:
        return torch.tensor(load(self.files[place]))


def load(file: str) -> NDArray[np.uint8]:
    return decode(file, SIZE, "stretch", 3)


def parts(files: list[str]) -> Iterator[list[str]]:
    return (files[start : start + BATCH] for start in range(0, len(files), BATCH))


def judge(model: Model, batches: Iterator[NDArray[np.uint8]]) -> NDArray[np.int64]:
    return np.concatenate([model.logits(pixels).argmax(axis=1) for pixels in batches])


WAYS: dict[str, Callable[[Model, list[str]], NDArray[np.int64]]] = {"predict": ours, "plain": plain, "loader": loader}


# ---------------------------------------------------------------- measuring


def measure(work: Callable[[], object]) -> dict[str, float]:
    """Seconds, and seconds of the processor in this process and in those that it started."""
    wall, busy = time.perf_counter(), processor()
    work()
    return {"seconds": time.perf_counter() - wall, "cpu_seconds": processor() - busy}


def processor() -> float:
    found = os.times()
    return found.user + found.system + found.children_user + found.children_system


def bound(model: Model, files: list[str]) -> dict[str, float]:
    """Seconds an image: decoding alone on one core, the network alone on all. The plain loop takes their sum.

    Beside each other they take the larger one at least, if each had its cores for itself; as decoding can use all
    cores but shares them with the network, about a core's part of the decoding, and the network.
    """
    some = [load(file) for file in files[: BATCH * 8]]
    batches = [np.stack(some[start : start + BATCH]) for start in range(0, len(some), BATCH)]
    model.logits(batches[0])
    decoding = measure(lambda: [load(file) for file in files[: len(some)]])
    judging = measure(lambda: judge(model, iter(batches)))
    return {"decode": decoding["seconds"] / len(some), "network": judging["seconds"] / len(some)}


def main() -> None:
    load = os.getloadavg()[0]  # of others before: on a shared machine the ratios wander
    with tempfile.TemporaryDirectory() as text:
        folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(text)
        if len(sys.argv) < 2:
            draw(folder)
        files, model = list_images([folder]), make_model()
        said = {name: way(model, files) for name, way in WAYS.items()}  # warms up, and all say the same
        assert all(np.array_equal(said["predict"], each) for each in said.values())
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
        alone = []
        for repeat in range(REPEATS):
            order = list(WAYS) if repeat % 2 else list(WAYS)[::-1]
            for name in order:
                runs[name].append(measure(lambda name=name: WAYS[name](model, files)))  # type: ignore[misc]
            alone.append(bound(model, files))
            print(repeat, {name: round(len(files) / found[-1]["seconds"]) for name, found in runs.items()}, flush=True)
    found: dict[str, Any] = {"machine": machine(), "load": load, "images": len(files), "batch": BATCH, "size": SIZE}
    for name, measured in runs.items():
        found[name] = {
            "images_per_second": spread([len(files) / run["seconds"] for run in measured]),
            "cpu_ms_an_image": spread([1000 * run["cpu_seconds"] / len(files) for run in measured]),
        }
    for name in ("plain", "loader"):
        pairs = zip(runs[name], runs["predict"], strict=True)
        found[f"times_faster_than_{name}"] = spread([other["seconds"] / its["seconds"] for other, its in pairs])
    found["alone_ms_an_image"] = {name: spread([1000 * each[name] for each in alone]) for name in ("decode", "network")}
    cores = os.cpu_count() or 1
    found["bound_by_overlap"] = spread([sum(each.values()) / max(each.values()) for each in alone])
    found["bound_by_cores"] = spread(
        [sum(each.values()) / (each["decode"] / cores + each["network"]) for each in alone]
    )
    write("predict", found)


if __name__ == "__main__":
    main()
