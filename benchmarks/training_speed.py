"""Training images/s of our Trainer against the recipe of most tutorials, on the same images, model and thread.

    python benchmarks/training_speed.py --data CIFAR10    (a folder with train/<class>/*.jpg, 32 x 32)

The plain recipe is torch's: NCHW, fp32, Adam, a DataLoader over torchvision transforms of one image at a time (crop,
flip, normalise), from the same decoded images, or from the JPEG files through ImageFolder. Ours trains as it does by
default, bf16 where the processor has it, and in fp32. Rounds are interleaved, ratios taken within a round. Beside them
the rate of matrix products of 2,048 x 2,048 in the same precision: training takes three times the arithmetic of a pass
forward, and the share of that rate which it reaches is what a faster loop could still win. Writes
results/benchmarks/training_speed.json.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from report import machine, spread, write
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset
from torchvision import datasets, transforms

from tuner.spec.trial_config import TrialConfig
from tuner.training.cost import count
from tuner.training.dataset import Dataset
from tuner.training.datasets import open_dataset, prepare
from tuner.training.networks import make_network
from tuner.training.trainer import Trainer

IMAGES = 1024  # an epoch
WARM_UP = 2


class Decoded(torch.utils.data.Dataset[tuple[Any, int]]):
    """The decoded training images, one at a time."""

    def __init__(self, dataset: Dataset, transform: Callable[[Any], Any]) -> None:
        self.dataset, self.transform = dataset, transform
        self.to_image = transforms.ToPILImage()

    def __len__(self) -> int:
        return len(self.dataset.train)

    def __getitem__(self, item: int) -> tuple[Any, int]:
        row = self.dataset.train[item]
        return self.transform(self.to_image(self.dataset.images[row])), int(self.dataset.labels[row])


def run_plain(config: TrialConfig, source: Any) -> Callable[[], float]:
    """One epoch of the plain recipe, as a function that gives images/s."""
    model = make_network(config.model, classes=10, in_channels=3, image_size=32)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loader: Iterable[Any] = DataLoader(source, config.train.batch_size, shuffle=True, drop_last=True)

    def epoch() -> float:
        model.train()
        start, images, total = time.perf_counter(), 0, 0.0
        for x, y in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.item()
            images += len(y)
        return images / (time.perf_counter() - start)

    return epoch


def run_ours(config: TrialConfig, dataset: Dataset) -> Callable[[], float]:
    """One epoch of ours, as a function that gives training images/s."""
    trainer = Trainer(config, dataset)
    return lambda: trainer.run_epoch().images_per_second


def run_products(dtype: torch.dtype) -> Callable[[], float]:
    """Matrix products for a tenth of a second or so, as a function that gives multiply-adds/s."""
    side, times = 2048, 3
    a, b = (torch.randn(side, side).to(dtype) for _ in range(2))

    def multiply() -> float:
        start = time.perf_counter()
        for _ in range(times):
            a @ b
        return times * side**3 / (time.perf_counter() - start)

    return multiply


def measure(folder: Path, width: int, batch: int, repeats: int) -> dict[str, Any]:
    """Images/s of each recipe and the ratio of ours to the plain ones, by round."""
    images = IMAGES
    held_out = 256
    data = {
        "dataset": "image_folder",
        "root": str(folder),
        "augment": "flip_crop",
        "subset": images + held_out,
        "val_fraction": held_out / (images + held_out),
    }
    config, fp32 = (
        TrialConfig.model_validate({"data": data, "model": {"name": "cnn", "width": width}, "train": train})
        for train in ({"batch_size": batch}, {"batch_size": batch, "precision": "fp32"})
    )
    dataset = open_dataset(prepare(config.data, seed=0).folder, config.data, seed=0)
    per_image = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(dataset.mean, dataset.std),
        ]
    )
    files = datasets.ImageFolder(str(folder / "train"), per_image)
    step = len(files) // images
    epochs = {
        "ours": run_ours(config, dataset),
        "ours fp32": run_ours(fp32, dataset),
        "products": run_products(Trainer(config, dataset).dtype),
        "plain": run_plain(config, Decoded(dataset, per_image)),
        "plain from JPEG": run_plain(config, Subset(files, range(0, step * images, step))),
    }
    speeds: dict[str, list[float]] = {name: [] for name in epochs}
    for repeat in range(WARM_UP + repeats):
        for name, epoch in epochs.items():
            speed = epoch()
            if repeat >= WARM_UP:
                speeds[name].append(speed)
    ratios = {
        f"{ours} / {plain}": spread([a / b for a, b in zip(speeds[ours], speeds[plain], strict=True)])
        for ours in ("ours", "ours fp32")
        for plain in ("plain", "plain from JPEG")
    }
    work = 3 * count(config, classes=10, image_size=32, channels=3).multiply_adds
    share = spread([work * a / b for a, b in zip(speeds["ours"], speeds.pop("products"), strict=True)])
    return {
        "width": width,
        "batch": batch,
        "images_per_second": {name: spread(values) for name, values in speeds.items()},
        "ratios": ratios,
        "share of the rate of matrix products": share,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for width, batch in itertools.product((16, 32, 64), (32, 128)):
        row = measure(arguments.data, width, batch, arguments.repeats)
        rows.append(row)
        print(f"3 blocks of {width}, {2 * width}, {4 * width} channels, batch {batch}")
        for name, value in row["images_per_second"].items():
            print(f"  {name:34} {value['median']:8,.0f} images/s  ({value['low']:,.0f} to {value['high']:,.0f})")
        for name, value in row["ratios"].items():
            print(f"  {name:34} {value['median']:8.2f} x         ({value['low']:.2f} to {value['high']:.2f})")
        share = row["share of the rate of matrix products"]
        print(
            f"  {'of the rate of matrix products':34} {share['median']:8.0%}           "
            f"({share['low']:.0%} to {share['high']:.0%})",
            flush=True,
        )
    print(machine())
    write("training_speed", {"machine": machine(), "threads": 1, "repeats": arguments.repeats, "rows": rows})


if __name__ == "__main__":
    main()
