"""Images/s of the input path alone, ours against transforms of one image at a time in a DataLoader.

    python benchmarks/input_path.py

The same images (5,000 of 32 x 32 in colour, of noise: no transform looks at what they show), batches of 128, one
thread, fp32, three recipes: normalise alone; flip and crop; `standard` (flip, shift, scale and rotate, a hole). The
others are what most tutorials write: torchvision's transforms on PIL images, its v2 transforms on tensors, and
Albumentations on arrays, in a DataLoader without worker processes, as one core is what is compared. Rounds are
interleaved, ratios taken within a round. Writes results/benchmarks/input_path.json.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from report import machine, spread, write
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.transforms import v2

from tuner.spec.augment import Augment
from tuner.training.augment import Augmenter
from tuner.training.dataset import Dataset
from tuner.training.images import Images
from tuner.training.per_image import albumentations

IMAGES, SIZE, BATCH = 5000, 32, 128
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
FILL = (125, 123, 114)
RECIPES: dict[str, dict[str, Any]] = {"normalise": {}, "flip and crop": {"flip_crop": {}}, "standard": {"standard": {}}}


class Decoded(torch.utils.data.Dataset[Any]):
    """Images one at a time through a transform."""

    def __init__(self, images: Any, transform: Callable[[Any], Any]) -> None:
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, item: int) -> Any:
        return self.transform(self.images[item])


def dataset() -> Dataset:
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, SIZE, SIZE, 3), dtype=np.uint8)
    index = np.arange(IMAGES)
    return Dataset("noise", images, index * 0, index, index[:0], ("a",), MEAN, STD, "noise")


def run_ours(data: Dataset, recipe: str) -> Callable[[int], int]:
    """So many batches of ours, as a function that gives the number of images."""
    images = Images(data, torch.device("cpu"), torch.float32)
    augmenter = Augmenter(Augment.model_validate(RECIPES[recipe]), images)
    generator = torch.Generator().manual_seed(0)

    def epoch(batches: int) -> int:
        order = torch.randperm(IMAGES, generator=generator)[: batches * BATCH].view(batches, BATCH)
        return sum(len(augmenter(pixels, generator)) for pixels in images.batches(order))

    return epoch


def run_loader(data: Dataset, transform: Callable[[Any], Any]) -> Callable[[int], int]:
    """So many batches of a DataLoader."""

    def epoch(batches: int) -> int:
        loader = DataLoader(Decoded(data.images, transform), BATCH, shuffle=True)
        return sum(len(batch) for batch, _ in zip(loader, range(batches), strict=False))

    return epoch


def of_torchvision(recipe: str) -> Any:
    """On PIL images. It fills holes after normalising."""
    end = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    fill = [(value / 255 - mean) / std for value, mean, std in zip(FILL, MEAN, STD, strict=True)]
    return transforms.Compose(
        {
            "normalise": [transforms.ToPILImage(), *end],
            "flip and crop": [
                transforms.ToPILImage(),
                transforms.RandomHorizontalFlip(),
                transforms.RandomCrop(SIZE, padding=4),
                *end,
            ],
            "standard": [
                transforms.ToPILImage(),
                transforms.RandomHorizontalFlip(),
                transforms.RandomApply(
                    [transforms.RandomAffine(15, (0.1, 0.1), (0.9, 1.1), None, transforms.InterpolationMode.BILINEAR)]
                ),
                *end,
                transforms.RandomErasing(0.5, (0.25, 0.25), (1, 1), fill),
            ],
        }[recipe]
    )


def of_v2(recipe: str) -> Any:
    """On tensors of bytes."""
    begin = [v2.Lambda(lambda image: torch.from_numpy(image).permute(2, 0, 1))]
    end = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    affine = v2.RandomAffine(15, (0.1, 0.1), (0.9, 1.1), interpolation=v2.InterpolationMode.BILINEAR)
    return v2.Compose(
        {
            "normalise": [*begin, *end],
            "flip and crop": [*begin, v2.RandomHorizontalFlip(), v2.RandomCrop(SIZE, padding=4), *end],
            "standard": [
                *begin,
                v2.RandomHorizontalFlip(),
                v2.RandomApply([affine]),
                v2.RandomErasing(0.5, (0.25, 0.25), (1, 1), list(FILL)),
                *end,
            ],
        }[recipe]
    )


def of_albumentations(recipe: str) -> Callable[[Any], Any]:
    """On arrays of bytes."""
    A = albumentations()
    end = [A.Normalize(MEAN, STD), A.ToTensorV2()]
    affine = A.Affine(scale=(0.9, 1.1), translate_percent=(-0.1, 0.1), rotate=(-15, 15), p=0.5)
    hole = A.CoarseDropout((1, 1), (16, 16), (16, 16), fill=FILL, p=0.5)
    chain = A.Compose(
        {
            "normalise": end,
            "flip and crop": [A.HorizontalFlip(), A.Pad(4), A.RandomCrop(SIZE, SIZE), *end],
            "standard": [A.HorizontalFlip(), affine, hole, *end],
        }[recipe]
    )
    return lambda image: chain(image=image)["image"]


OTHERS = {"torchvision": of_torchvision, "torchvision v2": of_v2, "albumentations": of_albumentations}


def measure(recipe: str, repeats: int, batches: int) -> dict[str, Any]:
    """Images/s of each way and the ratio of ours to the others, by round."""
    data = dataset()
    epochs = {"ours": run_ours(data, recipe)} | {n: run_loader(data, make(recipe)) for n, make in OTHERS.items()}
    speeds: dict[str, list[float]] = {name: [] for name in epochs}
    for repeat in range(1 + repeats):  # the first round warms up
        for name, epoch in epochs.items():
            start = time.perf_counter()
            images = epoch(IMAGES // BATCH if name == "ours" else batches)
            if repeat:
                speeds[name].append(images / (time.perf_counter() - start))
    ratios = {
        f"ours / {name}": spread([a / b for a, b in zip(speeds["ours"], speeds[name], strict=True)]) for name in OTHERS
    }
    return {
        "recipe": recipe,
        "images_per_second": {name: spread(values) for name, values in speeds.items()},
        "ratios": ratios,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batches", type=int, default=16, help="batches a round of the others")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for recipe in RECIPES:
        row = measure(recipe, arguments.repeats, arguments.batches)
        rows.append(row)
        print(recipe)
        for name, value in row["images_per_second"].items():
            print(f"  {name:24} {value['median']:9,.0f} images/s  ({value['low']:,.0f} to {value['high']:,.0f})")
        for name, value in row["ratios"].items():
            print(f"  {name:24} {value['median']:9.1f} x         ({value['low']:.1f} to {value['high']:.1f})")
    print(machine())
    write("input_path", {"machine": machine(), "threads": 1, "repeats": arguments.repeats, "rows": rows})


if __name__ == "__main__":
    main()
