from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tuner.errors import BadInput
from tuner.runner.fit import Machine, Seen, choose, look, measure_image_seconds
from tuner.runner.fit_space import data_at, fit_space
from tuner.spec.data import Data
from tuner.spec.space import Space, parse_space
from tuner.spec.trial_config import TrialConfig

CPU = Machine(cores=2, gpus=0, memory=8 * 2**30)
GPU = Machine(cores=16, gpus=1, memory=128 * 2**30, pretrained=("efficientnet_b0",))
Folder = Callable[..., Data]


def fast(config: TrialConfig, size: int, channels: int, classes: int) -> float:
    """A machine that learns from 20,000 images of 32 x 32 a second."""
    return size**2 / 32**2 / 20_000


def slow(config: TrialConfig, size: int, channels: int, classes: int) -> float:
    return 100 * fast(config, size, channels, classes)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Class folders with so many noisy images each."""

    def make(*counts: int, size: tuple[int, int] = (20, 20), mode: str = "RGB", root: str = "photos") -> Data:
        rng = np.random.default_rng(0)
        noise = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).convert(mode)
        for label, count in enumerate(counts):
            (tmp_path / root / f"class{label}").mkdir(parents=True)
            for i in range(count):
                noise.save(tmp_path / root / f"class{label}" / f"{i}.png")
        return data_at(str(tmp_path / root))

    return make


def space(text: str) -> Space:
    return parse_space(text, "test")


def names(text: str) -> set[str]:
    return {parameter.name for parameter in space(text).parameters}


def test_small_balanced_images(folder: Folder) -> None:
    text = fit_space(folder(60, 60, 60), 600, CPU, measure=fast)
    fixed = space(text).fixed
    assert fixed.name == "photos" and fixed.data.image_size == 20 and fixed.search.time == "10m"
    assert fixed.search.metric == "val_accuracy" and fixed.train.epochs == 40 and fixed.data.subset is None
    assert fixed.resources.cpu == 1 and fixed.resources.gpu == 0
    assert {"model", "model[cnn].depth", "train.optimizer[sgd].lr"} <= names(text)
    assert fixed.train.batch_size == 8  # an epoch has eight steps at least
    assert not any("class_weights" in name for name in names(text))


def test_every_choice_has_its_reason(folder: Folder) -> None:
    text = fit_space(folder(60, 20), 600, CPU, measure=fast)
    for field in ("image_size", "epochs", "metric", "trials", "batch_size", "class_weights", "augment", "grace"):
        line = next(line for line in text.splitlines() if f"{field}:" in line)
        assert " # " in line, line
    assert all(len(line) <= 140 for line in text.splitlines())


def test_unbalanced_classes_are_measured_by_macro_f1(folder: Folder) -> None:
    text = fit_space(folder(90, 30), 600, CPU, measure=fast)
    assert space(text).fixed.search.metric == "val_macro_f1" and "train.class_weights" in names(text)
    assert "90 of class0, 30 of class1" in text
    assert space(fit_space(folder(80, 30, root="even"), 600, CPU, measure=fast)).fixed.search.metric == "val_accuracy"


def test_grey_images_and_two_classes(folder: Folder) -> None:
    data = folder(40, 40, mode="L")
    assert look(data).channels == 1
    assert "80 grey images of 2 classes" in fit_space(data, 600, CPU, measure=fast)


def test_large_images_are_made_as_small_as_the_time_asks(folder: Folder) -> None:
    data = folder(40, 40, size=(400, 300))
    sizes = [space(fit_space(data, s, CPU, measure=slow)).fixed.data.image_size for s in (60, 150, 36_000)]
    assert sizes == [32, 64, 96]  # on a CPU never more
    text = fit_space(data, 3600, GPU, measure=fast)
    assert space(text).fixed.data.image_size == 224 and "resize: crop" in text and "400 x 300" in text


def test_a_gpu_gets_large_batches_and_weights_that_are_here(folder: Folder) -> None:
    data = folder(100, 100, size=(100, 100))
    text = fit_space(data, 3600, GPU, measure=fast)
    assert "backbone: {arch: efficientnet_b0, weights: imagenet}" in text and "\n    backbone:" in text
    assert space(text).fixed.resources.gpu == "auto" and space(text).fixed.resources.cpu == "auto"
    assert "\n    # backbone: {arch: resnet18" in fit_space(data, 3600, CPU, measure=fast)


SEEN = Seen((5_000,) * 10, "a", "b", 32, 32, alike=True, channels=3, own_validation=False, own_test=True)


def test_trials_fill_the_time() -> None:
    few, many = (choose(SEEN, seconds, CPU, fast).trials for seconds in (300, 1_200))
    assert 12 <= few < many <= 4.5 * few
    four = choose(SEEN, 300, Machine(cores=8, memory=8 * 2**30), fast).trials
    assert four == pytest.approx(4 * few, rel=0.1)


def test_where_a_dozen_trials_do_not_fit_there_are_fewer_images() -> None:
    fit = choose(SEEN, 600, CPU, slow)
    assert fit.subset is not None and 400 < fit.subset < 50_000 and fit.trials in (11, 12)
    assert choose(SEEN, 20, CPU, slow).subset == 400  # fewer would teach nothing: the trials are fewer then
    assert choose(SEEN, 360_000, CPU, slow).subset is None


def test_few_of_many_images_are_trained_as_long_as_few() -> None:
    fit = choose(SEEN, 600, CPU, slow)
    few = replace(SEEN, subset=fit.subset)
    assert few.learned < 5_000 and fit.epochs == 30 and few.val_fraction == 0.2


def test_images_that_fill_the_memory_are_made_smaller() -> None:
    seen = Seen((100_000,) * 10, "a", "b", 500, 400, alike=False, channels=3, own_validation=False, own_test=True)
    assert choose(seen, 1e7, Machine(cores=16, gpus=1, memory=10**12), fast).size == 224
    assert choose(seen, 1e7, Machine(cores=16, gpus=1, memory=10**11), fast).size == 128


def test_many_images_need_fewer_epochs_and_a_smaller_share_to_validate(folder: Folder) -> None:
    assert choose(SEEN, 3600, CPU, fast).epochs == 15 and SEEN.val_fraction == 0.1


def test_a_name_that_yaml_would_read_otherwise(folder: Folder) -> None:
    data = folder(40, 40, root="no: #1 'ü'")
    fixed = space(fit_space(data, 90, CPU, measure=fast)).fixed
    assert fixed.data.root == data.root and fixed.name == "no-1-ü" and fixed.search.time == "90s"


def test_what_comes_with_splits_keeps_them(tmp_path: Path) -> None:
    part = {"images": np.zeros((60, 16, 16), np.uint8), "labels": np.arange(60) % 2}
    arrays: dict[str, Any] = {f"{split}_{name}": part[name] for split in ("train", "val", "test") for name in part}
    np.savez(tmp_path / "m.npz", **arrays)
    text = fit_space(data_at(str(tmp_path / "m.npz")), 60, CPU, measure=fast)
    assert "val_fraction" not in text and "test_fraction" not in text and "dataset: npz" in text


def test_what_is_no_data() -> None:
    assert data_at("digits").dataset == "digits" and data_at("mine.sets:load").dataset == "mine.sets:load"
    with pytest.raises(BadInput, match=r"no such folder, no \.npz or \.csv file, and no known dataset"):
        data_at("gone/folder")


def test_a_folder_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no class folders in it"):
        fit_space(data_at(str(tmp_path)), 60, CPU, measure=fast)


def test_this_machine_is_timed() -> None:
    config = TrialConfig.model_validate(
        {"data": {"dataset": "shapes"}, "model": {"name": "cnn", "depth": 1, "width": 4}, "train": {"batch_size": 8}}
    )
    wide = config.model_copy(update={"model": config.model.model_copy(update={"depth": 3, "width": 64})})
    small, large = measure_image_seconds(config, 8, 1, 2), measure_image_seconds(wide, 64, 1, 2)  # 1,000 times the work
    assert 0 < small < large


CIFAR = Path(os.environ.get("HYPERTUNE_TEST_CIFAR10", "")) / "train"


@pytest.mark.skipif(not CIFAR.is_dir(), reason="HYPERTUNE_TEST_CIFAR10 names no CIFAR-10 as class folders")
def test_cifar10_as_class_folders() -> None:
    fixed = space(fit_space(data_at(str(CIFAR)), 1_800, CPU, measure=fast)).fixed
    assert fixed.data.image_size == 32 and fixed.search.metric == "val_accuracy" and fixed.train.epochs == 15
