"""Images on the device: where they lie, and how they are normalised."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tuner.training import images as images_module
from tuner.training.dataset import Dataset
from tuner.training.images import Images, fits
from tuner.training.stream import Streamed

CPU = torch.device("cpu")


def decoded(dataset: Dataset) -> Any:
    assert isinstance(dataset.images, np.ndarray)
    return dataset.images


@pytest.mark.parametrize("channels", [1, 3])
def test_batches_are_normalised_and_leave_the_pixels_where_they_are(
    channels: int, make_images: Callable[..., Dataset]
) -> None:
    dataset = make_images(channels=channels)
    images = Images(dataset, CPU, torch.float32)
    index = torch.tensor([5, 2])
    batch = images.batch(index)
    assert batch.permute(0, 2, 3, 1).numpy() == pytest.approx((decoded(dataset)[[5, 2]] / 255 - 0.4) / 0.2, abs=1e-5)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert images.stored is not None and images.stored.data_ptr() == decoded(dataset).ctypes.data
    assert Images(dataset, CPU, torch.bfloat16).batch(index).dtype == torch.bfloat16


def test_pixels_are_copies_of_the_bytes(make_images: Callable[..., Dataset]) -> None:
    dataset = make_images(channels=3)
    images = Images(dataset, CPU, torch.float32)
    order = torch.tensor([[3, 1], [0, 7]])
    for index, pixels in zip(order, images.batches(order), strict=True):
        assert pixels.dtype == torch.uint8
        assert (pixels.numpy() == decoded(dataset)[index.numpy()]).all()
        pixels.zero_()
    assert decoded(dataset)[[0, 1, 3, 7]].any()


def test_another_mean_and_deviation_replace_the_datasets_own(make_images: Callable[..., Dataset]) -> None:
    dataset = make_images(channels=3)
    given = Images(dataset, CPU, torch.float32, mean=(0.5, 0.1, 0.2), std=(0.5, 0.3, 1.0))
    own = Images(dataset, CPU, torch.float32)
    index = torch.arange(4)
    levels = own.batch(index) * 0.2 + 0.4
    mean, std = torch.tensor([0.5, 0.1, 0.2]).view(3, 1, 1), torch.tensor([0.5, 0.3, 1.0]).view(3, 1, 1)
    assert torch.allclose(given.batch(index), (levels - mean) / std, atol=1e-5)


def test_bytes_and_floats_that_lie_otherwise_normalise_alike(make_images: Callable[..., Dataset]) -> None:
    images = Images(make_images(channels=3), CPU, torch.float32)
    pixels = images.pixels(torch.arange(6))
    floats = pixels.float().permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    assert not floats.is_contiguous()
    assert torch.equal(images.normalise(floats), images.normalise(pixels))


def test_a_channel_that_does_not_vary_is_not_blown_up(make_images: Callable[..., Dataset]) -> None:
    images = Images(make_images(), CPU, torch.float32, mean=(0.0,), std=(0.0,))
    assert images.batch(torch.arange(9)).max() <= 255 + 1e-3


def test_files_give_the_batches_that_decoded_images_give(make_images: Callable[..., Dataset], tmp_path: Path) -> None:
    dataset = make_images(train=6, validation=0, channels=3)
    paths = [str(tmp_path / f"{number}.png") for number in range(6)]
    for path, pixels in zip(paths, decoded(dataset), strict=True):
        Image.fromarray(pixels).save(path)
    mapped = Images(dataset, CPU, torch.float32)
    files = Images(replace(dataset, images=Streamed(paths, 8, 3, "stretch")), CPU, torch.float32)
    order = torch.tensor([[3, 1], [0, 5]])
    assert len(files) == len(mapped) == 6
    assert torch.equal(files.batch(order[0]), mapped.batch(order[0]))
    for found, expected in zip(files.batches(order), mapped.batches(order), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize(("free", "found"), [(2000, True), (1999, False)])
def test_images_may_take_half_of_what_a_gpu_has_free(free: int, found: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10**6))
    assert fits(1000, torch.device("cuda")) is found
    assert fits(10**15, torch.device("cpu"))


def test_images_that_stay_in_memory_give_the_same_batches(
    make_images: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    device = torch.device("cpu")
    there = Images(make_images(), device, torch.float32)
    monkeypatch.setattr(images_module, "fits", lambda size, device: False)
    apart = Images(make_images(), device, torch.float32)
    assert there.stored is not None and apart.stored is None
    order = torch.arange(24).view(3, 8)
    assert all(torch.equal(a, b) for a, b in zip(there.batches(order), apart.batches(order), strict=True))
    assert torch.equal(there.batch(order[1]), apart.batch(order[1]))
