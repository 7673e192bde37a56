"""Images that do not fit into memory: the same batches from files as from the memory map."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tuner.errors import BadInput
from tuner.spec.data import Data
from tuner.training.dataset import Dataset
from tuner.training.datasets import Prepared, name_images, open_dataset, open_test, prepare
from tuner.training.stream import Streamed, batches, machine_bytes

Open = Callable[..., tuple[Prepared, Dataset]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of 20 noisy colour images of 12 x 9."""
    rng = np.random.default_rng(0)
    for name in "ab":
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(20):
            pixels = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{i:02d}.png")
    return tmp_path / "images"


@pytest.fixture
def opened(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Prepares the folder as files or as a memory map."""

    def build(streamed: bool, **fields: Any) -> tuple[Prepared, Dataset]:
        data = Data.model_validate({"dataset": "image_folder", "root": str(folder), "image_size": 8, **fields})
        monkeypatch.setattr("tuner.training.stream.MEMORY_SHARE", 0.0 if streamed else 1.0)
        prepared = prepare(data, 0, tmp_path / f"cache-{streamed}")
        return prepared, open_dataset(prepared.folder, data, 0)

    return build


def key(dataset: Dataset) -> str:
    assert isinstance(dataset.images, Streamed)
    return dataset.images.key


ORDER = torch.tensor([[3, 1, 7], [31, 0, 3]])


def test_files_give_the_batches_of_the_memory_map(opened: Open) -> None:
    (_, files), (_, mapped) = opened(True), opened(False)
    assert isinstance(files.images, Streamed) and isinstance(mapped.images, np.ndarray)
    assert files.images.shape == mapped.images.shape and files.images.dtype == mapped.images.dtype
    pairs = zip(batches(files.images, ORDER), batches(mapped.images, ORDER), ORDER, strict=True)
    for from_files, from_map, index in pairs:
        assert torch.equal(from_files, from_map) and from_map.dtype == torch.uint8
        assert np.array_equal(from_map.numpy(), mapped.images[index.numpy()])


@pytest.mark.parametrize("streamed", [True, False])
def test_rows_may_differ_in_length(opened: Open, streamed: bool) -> None:
    rows = [torch.tensor(row) for row in ([0, 1, 2], [3, 4, 5], [6, 7])]
    assert [len(batch) for batch in batches(opened(streamed)[1].images, rows)] == [3, 3, 2]


def test_everything_but_the_images_is_the_same(opened: Open) -> None:
    (first, files), (second, mapped) = opened(True), opened(False)
    for field in ("classes", "image_size", "channels"):
        assert getattr(files, field) == getattr(mapped, field)
    for field in ("labels", "train", "validation"):
        assert np.array_equal(getattr(files, field), getattr(mapped, field))
    assert (files.mean, files.std) == (mapped.mean, mapped.std)  # the sample holds so few images wholly
    assert first.facts.test == second.facts.test == len(open_test(first.folder)[0])
    assert np.array_equal(open_test(first.folder)[0][2], open_test(second.folder)[0][2])


def test_a_sample_gives_mean_and_deviation_of_the_training_split(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuner.training.build.SAMPLE", 8)
    prepared, files = opened(True)
    sample = np.load(prepared.folder / "search_sample.npy")
    assert len(sample) == 8
    pixels = files.images[np.intersect1d(sample, files.train)] / 255
    assert files.mean == pytest.approx(pixels.mean(axis=(0, 1, 2)))
    assert files.std == pytest.approx(pixels.std(axis=(0, 1, 2)))


def test_it_is_said_and_nothing_is_written_out(opened: Open) -> None:
    prepared, _ = opened(True)
    assert "they stay files, decoded anew in each epoch" in prepared.facts.warnings[0]
    assert not list(prepared.folder.glob("*images.npy")) and not (prepared.folder / "sample.npy").exists()


def test_grey_files_stay_grey(opened: Open, folder: Path) -> None:
    for path in folder.rglob("*.png"):
        Image.open(path).convert("L").save(path)
    assert opened(True)[1].channels == 1


@pytest.mark.parametrize("sampled", [2000, 1])
def test_the_fingerprint_is_of_the_content_the_key_of_the_files(
    opened: Open, folder: Path, monkeypatch: pytest.MonkeyPatch, sampled: int
) -> None:
    monkeypatch.setattr("tuner.training.build.SAMPLE", sampled)
    first, again = opened(True)[1], opened(True)[1]
    assert (first.fingerprint, key(first)) == (again.fingerprint, key(again))
    os.utime(folder / "a" / "07.png", (1, 1))  # as a copy may have it
    touched = opened(True)[1]
    assert touched.fingerprint == first.fingerprint and key(touched) != key(first)
    other = opened(True, resize="crop")[1]
    assert other.fingerprint != first.fingerprint and key(other) != key(touched)


def test_images_that_moved_are_the_same_but_not_under_other_names(opened: Open, folder: Path) -> None:
    before = opened(True)[1].fingerprint
    moved = folder.rename(folder.with_name("elsewhere"))
    assert opened(True, root=str(moved))[1].fingerprint == before
    (moved / "a" / "deeper").mkdir()
    (moved / "a" / "19.png").rename(moved / "a" / "deeper" / "19.png")
    assert opened(True, root=str(moved))[1].fingerprint != before


def test_other_pixels_of_the_same_length_are_other_images(opened: Open, folder: Path) -> None:
    for path in folder.rglob("*.png"):
        Image.open(path).save(path.with_suffix(".bmp"))
        path.unlink()
    before = opened(True)[1].fingerprint
    for path in folder.rglob("*.bmp"):
        Image.open(path).rotate(180).save(path)
    assert opened(True)[1].fingerprint != before


def test_files_none_of_which_is_an_image_are_refused(opened: Open, folder: Path) -> None:
    for path in folder.rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(BadInput, match="40 of 40 images cannot be read"):
        opened(True, channels=3)


def test_what_cannot_be_opened_is_left_out(opened: Open, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuner.training.build.UNREADABLE_SHARE", 0.5)
    (folder / "a" / "03.png").write_bytes(b"no image")
    cut = (folder / "b" / "05.png").read_bytes()
    (folder / "b" / "05.png").write_bytes(cut[: len(cut) // 2])
    (prepared, files), (_, mapped) = opened(True), opened(False)
    assert prepared.facts.unreadable == 2 and np.array_equal(files.labels, mapped.labels)
    assert np.array_equal(files.images[np.arange(10)], mapped.images[np.arange(10)])


@pytest.mark.parametrize("streamed", [True, False])
def test_images_know_their_files(opened: Open, streamed: bool) -> None:
    prepared, dataset = opened(streamed)
    names = name_images(prepared.folder, "search")
    assert names is not None
    expected = np.asarray(Image.open(names[5]).resize((8, 8), Image.Resampling.BILINEAR))
    assert np.array_equal(dataset.images[5], expected) and Path(names[5]).parent.name == "ab"[dataset.labels[5]]


def test_a_file_that_goes_away_is_one_line(opened: Open, folder: Path) -> None:
    images = opened(True)[1].images
    for path in folder.rglob("*.png"):
        path.unlink()
    with pytest.raises(BadInput) as caught:
        list(batches(images, ORDER))
    assert "\n" not in str(caught.value) and "remove it, and begin the search anew" in str(caught.value)


@pytest.mark.parametrize("ends", ["whole", "left early"])
def test_no_process_is_left(opened: Open, ends: str) -> None:
    asked = batches(opened(True)[1].images, ORDER)
    next(asked)
    assert multiprocessing.active_children()
    _ = list(asked) if ends == "whole" else asked.close()  # type: ignore[attr-defined]
    assert not multiprocessing.active_children()


def test_streaming_draws_from_no_generator(opened: Open) -> None:
    images, before = opened(True)[1].images, torch.get_rng_state()
    list(batches(images, ORDER))
    assert torch.equal(before, torch.get_rng_state())


def test_arrays_are_never_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuner.training.stream.MEMORY_SHARE", 0.0)
    data = Data(dataset="digits")
    assert isinstance(open_dataset(prepare(data, 0, tmp_path).folder, data, 0).images, np.ndarray)


def test_a_container_may_have_less_memory_than_the_machine(tmp_path: Path) -> None:
    whole = machine_bytes(tmp_path)
    (tmp_path / "memory.max").write_text("max\n")
    assert machine_bytes(tmp_path) == whole > 2**20
    (tmp_path / "memory.max").write_text("1048576\n")
    assert machine_bytes(tmp_path) == 2**20
