"""What an evaluation costs: its inference beside a bare torch loop, and where the rest of its time goes.

    python benchmarks/evaluation.py [MODEL]    (default: the reference network with fresh weights)

Both judge the same images from memory, in the same batches, with the same network; the bare loop normalises by hand
and keeps the logits. They take turns every 1,024 images, so that a busy machine slows both. The images are noise: no
test image is opened. Writes results/benchmarks/evaluation.json.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import machine, spread, write
from torch import nn

from analysis.evaluation import page
from tuner.delivery.about import About
from tuner.delivery.judging import evaluation_files
from tuner.delivery.judging.evaluate import evaluate
from tuner.delivery.judging.scores import score
from tuner.delivery.model import Model, Shipped, open_torch
from tuner.delivery.pictures import Pictures
from tuner.delivery.place import Place
from tuner.delivery.predictions import BATCH, judge
from tuner.spec.trial_config import TrialConfig
from tuner.training.networks import make_network

TURN = 1024
"""Images that each of the two judges before the other goes on."""


def make_model() -> Model:
    """The reference network for CIFAR-10 with fresh weights: three stages of 32, 64 and 128 channels."""
    config = TrialConfig.model_validate(
        {"data": {"dataset": "shapes"}, "model": {"name": "cnn", "depth": 3, "width": 32}}
    )
    network = make_network(config.model, classes=10, in_channels=3, image_size=32)
    mean, std = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
    about = About(
        name="reference", classes=tuple(f"class {n}" for n in range(10)), image_size=32, channels=3, resize="stretch",
        mean=mean, std=std, model=config.model, params=sum(each.numel() for each in network.parameters()),
    )  # fmt: skip
    shipped = Shipped(network, mean, std).eval().to(memory_format=torch.channels_last)
    return Model(about, Place(Path(), "model"), shipped, torch.device("cpu"))


def make_pictures(about: About, images: int) -> Pictures:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (images, about.image_size, about.image_size, about.channels), dtype=np.uint8)
    labels = rng.integers(len(about.classes), size=images)
    return Pictures("noise", pixels, labels, [f"image {n}" for n in range(images)])


def split(pictures: Pictures) -> list[Pictures]:
    pixels = np.asarray(pictures.pixels)
    places = [slice(at, at + TURN) for at in range(0, len(pictures), TURN)]
    return [replace(pictures, pixels=pixels[at], labels=pictures.labels[at], names=pictures.names[at]) for at in places]


def bare(network: nn.Module, about: About, pixels: np.ndarray[Any, Any]) -> torch.Tensor:
    """What one writes by hand: logits of images, uint8 (N, S, S, C)."""
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (about.mean, about.std))
    with torch.inference_mode():
        images = torch.from_numpy(pixels)
        parts = [images[at : at + BATCH] for at in range(0, len(images), BATCH)]
        return torch.cat([network((part.permute(0, 3, 1, 2).float() / 255 - mean) / std) for part in parts])


def clock(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    model = open_torch(arguments.model) if arguments.model else make_model()
    # Outside its run, so that no gap to the training images is measured.
    model = Model(model.about, Place(model.place.path, "model"), model.network, model.device)
    network, pictures = model.network.network, make_pictures(model.about, arguments.images)
    first = np.asarray(split(pictures)[0].pixels)
    difference = np.abs(bare(network, model.about, first).numpy() - judge(model, split(pictures)[0]).logits).max()
    assert difference < 1e-3, difference
    times: dict[str, list[float]] = {"bare": [], "evaluation": []}
    for _ in range(arguments.repeats):
        theirs = ours = 0.0
        for part in split(pictures):
            theirs += clock(partial(bare, network, model.about, np.asarray(part.pixels)))
            ours += clock(partial(judge, model, part))
        times["bare"].append(theirs)
        times["evaluation"].append(ours)
    ratios = [ours / theirs for ours, theirs in zip(times["evaluation"], times["bare"], strict=True)]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        found = judge(model, pictures)
        seconds = {
            "judge": spread(times["evaluation"])["median"],
            "scores with intervals": spread([clock(lambda: score(found)) for _ in range(3)])["median"],
        }
        evaluation = evaluate(model, pictures)
        seconds["files"] = clock(lambda: evaluation_files.write(evaluation, folder))
        seconds["page and figures"] = clock(lambda: page.write(folder))
    print(f"{arguments.images:,} images of {model.about.image_size} pixels, {model.about.params:,} parameters")
    for name, values in times.items():
        print(f"{name:22} {spread(values)['median']:6.2f} s   {min(values):.2f} to {max(values):.2f}")
    print(f"{'ratio':22} {spread(ratios)['median']:6.3f}     {min(ratios):.3f} to {max(ratios):.3f}")
    for name, taken in seconds.items():
        print(f"{name:22} {taken:6.2f} s")
    settings = {
        "images": arguments.images, "batch": BATCH, "repeats": arguments.repeats, "threads": torch.get_num_threads(),
        "params": model.about.params,
    }  # fmt: skip
    taken_by = {name: spread(values) for name, values in times.items()}
    write(
        "evaluation",
        {"machine": machine(), **settings, "seconds": taken_by, "ratio": spread(ratios), "parts": seconds},
    )


if __name__ == "__main__":
    main()
