from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tuner.errors import BadInput, NoSpace
from tuner.spec.data import Data
from tuner.training.datasets import check_batch, open_dataset, open_test, prepare
from tuner.training.decode import decode_all
from tuner.training.shapes import draw
from tuner.training.stream import Pixels


def data_of(dataset: str, **fields: Any) -> Data:
    return Data.model_validate({"dataset": dataset, **fields})


def every(images: Pixels) -> NDArray[np.uint8]:
    """All of them, decoded."""
    return images[np.arange(len(images))]


@pytest.fixture
def images(tmp_path: Path) -> Data:
    """Two classes of 10 grey images."""
    for name, first in (("a", 0), ("b", 100)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for value in range(first, first + 10):
            Image.new("L", (6, 6), value).save(tmp_path / "images" / name / f"{value}.png")
    return data_of("image_folder", root=str(tmp_path / "images"))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one entry whenever a list of images is decoded."""
    calls: list[int] = []

    def counted(items: Any, *rest: Any) -> Any:
        calls.append(len(items))
        return decode_all(items, *rest)

    monkeypatch.setattr("tuner.training.build.decode_all", counted)
    return calls


@pytest.mark.parametrize("dataset", ["digits", "shapes", "image_folder"])
def test_every_dataset_keeps_the_contract(dataset: str, images: Data, tmp_path: Path) -> None:
    data = images if dataset == "image_folder" else data_of(dataset)
    prepared = prepare(data, 0, tmp_path / "cache")
    facts, opened = prepared.facts, open_dataset(prepared.folder, data, 0)
    test_images, test_labels = open_test(prepared.folder)
    assert opened.images.dtype == np.uint8 and opened.labels.dtype == np.int64 == test_labels.dtype
    assert opened.images.shape == (len(opened.labels), facts.image_size, facts.image_size, facts.channels)
    assert test_images.shape == (facts.test, *opened.images.shape[1:])
    assert (facts.train, facts.validation) == (len(opened.train), len(opened.validation))
    assert (opened.fingerprint, opened.classes) == (facts.fingerprint, facts.classes)
    assert set(opened.labels[opened.validation]) == set(test_labels) == set(range(len(facts.classes)))


def test_images_cannot_be_written(tmp_path: Path) -> None:
    data = data_of("digits")
    opened = open_dataset(prepare(data, 0, tmp_path).folder, data, 0)
    assert isinstance(opened.images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        opened.images[0] = 0


def test_digits_are_those_of_scikit_learn(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    data = data_of("digits")
    prepared = prepare(data, 0, tmp_path)
    assert (prepared.facts.train, prepared.facts.validation, prepared.facts.test) == (1150, 288, 359)
    parts = every(open_dataset(prepared.folder, data, 0).images), every(open_test(prepared.folder)[0])
    assert sum(int(part.sum(dtype=int)) for part in parts) == pytest.approx(
        load_digits().images.sum() * 255 / 16, rel=1e-3
    )


def test_shapes_are_what_draw_draws(tmp_path: Path) -> None:
    data = data_of("shapes", images=40, image_size=16, channels=1)
    folder = prepare(data, 5, tmp_path).folder
    assert np.array_equal(every(open_dataset(folder, data, 5).images), draw(data, [5, 0], 40)[0])
    assert np.array_equal(open_test(folder)[1], draw(data, [5, 1], 8)[1])


def test_mean_and_deviation_are_those_of_the_training_split(tmp_path: Path) -> None:
    data = data_of("shapes", images=60, subset=30)
    opened = open_dataset(prepare(data, 0, tmp_path).folder, data, 0)
    pixels = opened.images[opened.train] / 255
    assert opened.mean == pytest.approx(pixels.mean(axis=(0, 1, 2)))
    assert opened.std == pytest.approx(pixels.std(axis=(0, 1, 2)))


def test_a_channel_without_contrast_divides_by_one(images: Data, tmp_path: Path) -> None:
    for path in (tmp_path / "images").rglob("*.png"):
        Image.new("L", (6, 6), 51).save(path)
    opened = open_dataset(prepare(images, 0, tmp_path / "cache").folder, images, 0)
    assert (opened.mean, opened.std) == ((0.2,), (1.0,))


def test_the_second_time_nothing_is_decoded(images: Data, tmp_path: Path, decoded: list[int]) -> None:
    first, second = (prepare(images, 0, tmp_path / "cache") for _ in range(2))
    assert first == second and decoded == [16, 4]


def test_subset_val_fraction_and_augment_share_one_cache(images: Data, tmp_path: Path, decoded: list[int]) -> None:
    for change in ({}, {"subset": 8}, {"val_fraction": 0.4}, {"augment": "flip_crop"}):
        prepare(Data.model_validate({**images.model_dump(), **change}), 0, tmp_path / "cache")
    assert len(decoded) == 2


@pytest.mark.parametrize(
    "change", [{"image_size": 8}, {"resize": "crop"}, {"channels": 3}, {"test_fraction": 0.3}, {"seed": 1}]
)
def test_what_changes_the_pixels_or_the_test_images_is_decoded_again(
    images: Data, tmp_path: Path, decoded: list[int], change: dict[str, Any]
) -> None:
    prepare(images, 0, tmp_path / "cache")
    seed = change.pop("seed", 0)
    prepare(Data.model_validate({**images.model_dump(), **change}), seed, tmp_path / "cache")
    assert len(decoded) == 4


@pytest.mark.parametrize("change", [{"noise": 0.2}, {"classes": 5}, {"images": 30}])
def test_other_shapes_are_drawn_again(tmp_path: Path, change: dict[str, Any]) -> None:
    fields = {"images": 40, **change}
    prints = {prepare(data_of("shapes", **f), 0, tmp_path).facts.fingerprint for f in ({"images": 40}, fields)}
    assert len(prints) == 2


def test_a_changed_file_is_seen(images: Data, tmp_path: Path) -> None:
    before = prepare(images, 0, tmp_path / "cache").facts
    Image.new("L", (6, 6), 255).save(tmp_path / "images" / "a" / "0.png")
    assert prepare(images, 0, tmp_path / "cache").facts.fingerprint != before.fingerprint


def test_the_fingerprint_is_of_the_content_not_of_the_place(images: Data, tmp_path: Path) -> None:
    before = prepare(images, 0, tmp_path / "cache").facts.fingerprint
    (tmp_path / "images").rename(tmp_path / "moved")
    moved = images.model_copy(update={"root": str(tmp_path / "moved")})
    assert prepare(moved, 0, tmp_path / "cache").facts.fingerprint == before
    (tmp_path / "moved" / "a").rename(tmp_path / "moved" / "A")
    assert prepare(moved, 0, tmp_path / "cache").facts.fingerprint != before


@pytest.mark.parametrize("name", ["meta.json", "search_images.npy", "test_labels.npy"])
@pytest.mark.parametrize("damage", ["missing", "cut short"])
def test_a_damaged_cache_is_built_again(images: Data, tmp_path: Path, name: str, damage: str) -> None:
    first = prepare(images, 0, tmp_path / "cache")
    victim = first.folder / name
    if damage == "missing":
        victim.unlink()
    else:
        os.truncate(victim, victim.stat().st_size // 2)
    with pytest.raises(BadInput, match="prepare it again"):
        open_dataset(first.folder, images, 0)
    assert prepare(images, 0, tmp_path / "cache") == first
    assert len(open_dataset(first.folder, images, 0).train) == first.facts.train


def test_what_a_killed_process_left_is_not_taken_for_a_cache(images: Data, tmp_path: Path) -> None:
    first = prepare(images, 0, tmp_path / "cache")
    first.folder.rename(f"{first.folder}.partial")
    (first.folder.with_name(f"{first.folder.name}.partial") / "meta.json").unlink()
    assert prepare(images, 0, tmp_path / "cache") == first
    assert not list((tmp_path / "cache").glob("*.partial"))


def test_nothing_is_left_of_a_preparation_that_failed(images: Data, tmp_path: Path) -> None:
    for path in (tmp_path / "images" / "a").iterdir():
        path.write_bytes(b"broken")
    with pytest.raises(BadInput, match="cannot be read"):
        prepare(images, 0, tmp_path / "cache")
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


PREPARE = """
import sys
from pathlib import Path
from tuner.spec.data import Data
from tuner.training import build
from tuner.training.datasets import open_dataset, prepare
calls = []
original = build.decode_all
build.decode_all = lambda *arguments: calls.append(1) or original(*arguments)
data = Data(dataset="image_folder", root=sys.argv[1])
sys.stdin.readline()
prepared = prepare(data, 0, Path(sys.argv[2]))
heavy = {"torch", "torchvision", "sklearn", "pandas"} & set(sys.modules)
print(len(calls), open_dataset(prepared.folder, data, 0).validation.tolist(), *heavy)
"""


def test_two_processes_decode_once_and_split_alike(images: Data, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PREPARE, str(images.root), str(tmp_path / "cache")]
    started = [subprocess.Popen(command, stdin=-1, stdout=-1, text=True) for _ in range(2)]
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = sorted(process.communicate()[0].strip() for process in started)
    split = open_dataset(prepare(images, 0, tmp_path / "cache").folder, images, 0).validation.tolist()
    assert outputs == [f"0 {split}", f"2 {split}"]


def test_progress_is_told(images: Data, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    prepare(images, 0, tmp_path / "cache", lambda *event: told.append(event))
    assert ("search images", 16, 16) in told and told[-1] == ("test images", 4, 4)


def test_the_cache_lies_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYPERTUNE_CACHE", str(tmp_path / "here"))
    assert prepare(data_of("digits"), 0).folder.parent == tmp_path / "here"
    monkeypatch.delenv("HYPERTUNE_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert prepare(data_of("digits"), 0).folder.parent == tmp_path / ".cache" / "hypertune"


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(BadInput, match="HYPERTUNE_CACHE"):
        prepare(data_of("digits"), 0, tmp_path / "file" / "cache")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which plays a full disk")
def test_a_full_disk_is_said(images: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def to_full_disk(items: Any, path: Path, *rest: Any) -> Any:
        return decode_all(items, Path("/dev/full"), *rest)

    monkeypatch.setattr("tuner.training.build.decode_all", to_full_disk)
    with pytest.raises(NoSpace, match="disk is full"):
        prepare(images, 0, tmp_path / "cache")


def test_fields_without_effect_are_pointed_out(tmp_path: Path) -> None:
    facts = prepare(data_of("digits", noise=0.3, val_fraction=0.3), 0, tmp_path).facts
    assert facts.warnings == ("data.noise: 0.3 has no effect, it is for shapes",)


def test_too_few_shapes_for_their_classes(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="class crescent: 1 image, but at least 2 are needed"):
        prepare(data_of("shapes", images=20, classes=12), 0, tmp_path)


def test_a_batch_larger_than_the_training_split(tmp_path: Path) -> None:
    facts = prepare(data_of("digits", subset=100), 0, tmp_path).facts
    check_batch(facts, 80)
    with pytest.raises(BadInput, match=r"train\.batch_size: 81, but there are only 80 images"):
        check_batch(facts, 81)


CIFAR_JPEG = Path(os.environ.get("HYPERTUNE_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.mark.skipif(not (CIFAR_JPEG / "cifar10-jpeg.tar.xz").exists(), reason="needs cifar10-jpeg.tar.xz")
def test_cifar10_as_a_folder_of_jpegs(tmp_path: Path) -> None:
    with tarfile.open(CIFAR_JPEG / "cifar10-jpeg.tar.xz", "r|xz") as archive:
        for member in islice(archive, 5_400):  # all birds, some frogs; every tenth of them
            if member.name.endswith("0.jpg"):
                archive.extract(member, tmp_path, filter="data")
    facts = prepare(data_of("image_folder", root=str(tmp_path)), 0, tmp_path / ".cache").facts
    assert facts.classes == ("bird", "frog")
    assert (facts.image_size, facts.channels, facts.unreadable, facts.warnings) == (32, 3, 0, ())
