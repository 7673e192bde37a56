from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tuner.errors import BadInput
from tuner.spec.data import Data
from tuner.training.datasets import DataFacts, open_dataset, open_test, prepare
from tuner.training.stream import Pixels


def fill(folder: Path, count: int, first: int = 0, colour: bool = False, size: tuple[int, int] = (6, 6)) -> Path:
    """`count` images of one value each: first, first + 1, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for value in range(first, first + count):
        image = Image.new("RGB" if colour else "L", size, (value, 0, 9) if colour else value)
        image.save(folder / f"{value:03}.png")
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of 20 grey images of 6 x 6."""
    fill(tmp_path / "images" / "cat", 20)
    fill(tmp_path / "images" / "dog", 20, first=100)
    return tmp_path / "images"


def folder(root: Path, **fields: Any) -> Data:
    return Data.model_validate({"dataset": "image_folder", "root": str(root), **fields})


def facts(root: Path, **fields: Any) -> DataFacts:
    return prepare(folder(root, **fields), 0, root.parent / "cache").facts


def problems(root: Path, **fields: Any) -> list[str]:
    with pytest.raises(BadInput) as caught:
        facts(root, **fields)
    return [str(problem) for problem in caught.value.problems]


def corners(images: Pixels) -> NDArray[np.uint8]:
    """The first pixel of each image."""
    return images[np.arange(len(images))][:, 0, 0, 0]


def test_class_folders_alone_are_split_three_ways(root: Path) -> None:
    found = facts(root, test_fraction=0.25, val_fraction=0.2)
    assert found.classes == ("cat", "dog")
    assert (found.train, found.validation, found.test) == (24, 6, 10)
    assert (found.image_size, found.channels, found.unreadable, found.warnings) == (6, 1, 0, ())


def test_labels_belong_to_their_images(root: Path) -> None:
    data = folder(root)
    place = prepare(data, 0, root.parent / "cache").folder
    opened = open_dataset(place, data, 0)
    images, labels = open_test(place)
    assert np.array_equal(corners(opened.images) >= 100, opened.labels == 1)
    assert np.array_equal(corners(images) >= 100, labels == 1)
    assert sorted([*corners(opened.images), *corners(images)]) == [
        *range(20),
        *range(100, 120),
    ]  # each image once, on one side only


def test_splits_of_its_own_are_used_as_they_are(root: Path) -> None:
    for split, first in (("val", 30), ("test", 60)):
        fill(root.parent / "split" / split / "cat", 3, first)
        fill(root.parent / "split" / split / "dog", 2, first + 100)
    root.rename(root.parent / "split" / "train")
    data = folder(root.parent / "split", val_fraction=0.5, test_fraction=0.5)
    prepared = prepare(data, 0, root.parent / "cache")
    assert (prepared.facts.train, prepared.facts.validation, prepared.facts.test) == (40, 5, 5)
    assert "val_fraction" in prepared.facts.warnings[0] and "test_fraction" in prepared.facts.warnings[1]
    opened = open_dataset(prepared.folder, data, 0)
    assert corners(opened.images)[opened.validation].tolist() == [30, 31, 32, 130, 131]
    assert corners(open_test(prepared.folder)[0]).tolist() == [60, 61, 62, 160, 161]


def test_validation_images_of_its_own_stay_apart_where_test_images_are_drawn(root: Path) -> None:
    fill(root.parent / "split" / "val" / "cat", 3, 30)
    fill(root.parent / "split" / "val" / "dog", 2, 130)
    root.rename(root.parent / "split" / "train")
    data = folder(root.parent / "split", test_fraction=0.5)
    prepared = prepare(data, 0, root.parent / "cache")
    assert (prepared.facts.train, prepared.facts.validation, prepared.facts.test) == (20, 5, 20)
    opened = open_dataset(prepared.folder, data, 0)
    assert corners(opened.images)[opened.validation].tolist() == [30, 31, 32, 130, 131]


def test_a_class_may_be_called_train(root: Path) -> None:
    fill(root / "train", 20, first=50)
    assert facts(root).classes == ("cat", "dog", "train")


def test_one_colour_image_makes_colour_of_all(root: Path) -> None:
    fill(root / "cat", 1, first=77, colour=True)
    assert facts(root, test_fraction=0.01).channels == 3
    assert facts(root, channels=1).channels == 1


def test_grey_images_saved_as_colour_are_grey(root: Path) -> None:
    for path in root.rglob("*.png"):
        Image.open(path).convert("RGB").save(path)
    assert facts(root).channels == 1


def test_hidden_and_other_files_and_links_out_are_left_out(root: Path, tmp_path: Path) -> None:
    outside = fill(tmp_path / "outside", 2, first=200)
    (root / "cat" / ".hidden.png").write_bytes(b"no image")
    (root / "cat" / "notes.txt").write_text("not an image")
    (root / ".thumbnails").mkdir()
    (root / "cat" / "away.png").symlink_to(outside / "200.png")
    (root / "cat" / "folder").symlink_to(outside)
    (root / "bird").symlink_to(outside)
    (root / "dog" / "inside.png").symlink_to(root / "cat" / "001.png")
    found = facts(root)
    assert found.train + found.validation + found.test == 41
    assert "3 links" in found.warnings[0] and "1 files that are no images were left out (.txt)" in found.warnings[1]


def test_folders_inside_class_folders_belong_to_the_class(root: Path) -> None:
    fill(root / "cat" / "more" / "still more", 3, first=40)
    found = facts(root)
    assert found.train + found.validation + found.test == 43


def test_a_missing_folder(tmp_path: Path) -> None:
    assert problems(tmp_path / "gone") == [
        f"{tmp_path}/gone: no such folder; data.root must name the folder that holds the class folders"
    ]


def test_a_folder_without_class_folders(tmp_path: Path) -> None:
    assert "no class folders" in problems(fill(tmp_path / "flat", 3))[0]


def test_all_problems_come_at_once(root: Path) -> None:
    for name in ("val", "test"):
        fill(root.parent / "split" / name / "cat", 2, first=40)
    fill(root.parent / "split" / "test" / "cow", 1)
    (root / "empty").mkdir()
    root.rename(root.parent / "split" / "train")
    found = problems(root.parent / "split", subset=999)
    assert [line.removeprefix(str(root.parent)) for line in found] == [
        "/split/test/cow: train/ has no class of this name; add it there, or remove or rename this folder",
        "/split/train/empty: 0 images, but at least 1 is needed: one to train on; add images or leave the class out",
        "data.subset: 999, but there are only 40 images for it; at most 40, or leave it out",
    ]


def test_a_class_whose_name_a_terminal_would_obey_is_refused(root: Path) -> None:
    (root / "cat").rename(root / "cat\x1b[2J")
    (said,) = problems(root)
    assert "control characters" in said and "\x1b" not in said


def test_one_class(root: Path) -> None:
    (root / "dog").rename(root.parent / "dog")
    assert problems(root) == [f"{root}: only one class, 'cat'; there must be two or more"]


def test_a_class_needs_an_image_for_every_use(root: Path) -> None:
    fill(root / "rare", 2)
    assert "rare: 2 images, but at least 3 are needed: one to train on" in problems(root)[0]
    fill(root / "rare", 3)
    assert facts(root).classes == ("cat", "dog", "rare")


def test_validation_images_without_training_images(root: Path) -> None:
    (root / "cat").rename(root / "val")
    assert "val/ but no class folders in train/" in problems(root)[0]


def test_links_that_were_not_followed_are_said_with_the_problem(root: Path) -> None:
    (root / "bird").mkdir()
    (root / "bird" / "a.png").symlink_to("/etc/hostname")
    with pytest.raises(BadInput, match="1 links to folders or out of the folder were not followed"):
        facts(root)


def test_folders_beside_train_are_pointed_out(root: Path) -> None:
    (root.parent / "split" / "valid").mkdir(parents=True)
    root.rename(root.parent / "split" / "train")
    assert "valid/ not used" in facts(root.parent / "split").warnings[0]


@pytest.mark.parametrize(
    ("names", "renamed"),
    [
        (("Train", "Test"), ["Test: {} test/", "Train: {} train/"]),
        (("training", "testing"), ["testing: {} test/", "training: {} train/"]),
        (("train", "valid", "test"), ["valid: {} val/"]),
        (("train", "VAL", "others"), ["VAL: {} val/"]),
        (("Train",), ["Train: {} train/"]),
    ],
)
def test_splits_under_other_names_are_refused(tmp_path: Path, names: tuple[str, ...], renamed: list[str]) -> None:
    for name in names:
        for label in "ab":
            fill(tmp_path / "split" / name / label, 5)
    rule = "is called like a split, not like a class; rename it to"
    found = problems(tmp_path / "split")
    assert found == [f"{tmp_path}/split/{line.format(rule)}, or move it out of here" for line in renamed]


def test_classes_may_be_called_like_splits(root: Path) -> None:
    fill(root / "valid" / "more", 5)
    assert facts(root).classes == ("cat", "dog", "valid")
    fill(root.parent / "two" / "Valid", 5)
    fill(root.parent / "two" / "Training", 5)
    assert facts(root.parent / "two").classes == ("Training", "Valid")


def test_a_class_that_validation_lacks_is_pointed_out(root: Path) -> None:
    fill(root.parent / "split" / "val" / "cat", 2, first=40)
    root.rename(root.parent / "split" / "train")
    assert facts(root.parent / "split").warnings[0].endswith("no images of dog")


@pytest.mark.parametrize("subset", [3, 33])
def test_a_subset_that_does_not_fit(root: Path, subset: int) -> None:
    assert problems(root, subset=subset)[0].startswith(f"data.subset: {subset}")
    assert facts(root, subset=32).train + facts(root, subset=4).validation == 26 + 2


def test_one_unreadable_file_in_a_hundred_is_left_out_and_named(root: Path) -> None:
    fill(root / "cat", 60, first=20)
    (root / "cat" / "003.png").write_bytes(b"broken")
    found = facts(root)
    assert found.unreadable == 1 and found.train + found.validation + found.test == 99
    assert found.unreadable_files == (f"{root}/cat/003.png: cannot identify image file",)
    assert found.warnings[0].startswith("1 of 100 images cannot be read and are left out, such as ")


def test_more_unreadable_files_are_refused_by_name(root: Path) -> None:
    for name in ("cat/003.png", "dog/104.png"):
        (root / name).write_bytes(b"broken")
    found = problems(root)
    assert {line.removeprefix(f"{root}/") for line in found[:2]} == {
        "cat/003.png: cannot identify image file",
        "dog/104.png: cannot identify image file",
    }
    assert found[2] == "data.root: 2 of 40 images cannot be read, at most 1% may; repair or remove them"


def test_test_images_that_are_also_training_images_are_pointed_out(root: Path) -> None:
    fill(root.parent / "split" / "test" / "cat", 3, first=18)  # 018 and 019 are in train/ too
    root.rename(root.parent / "split" / "train")
    assert "2 of 3 test images are among the others too" in facts(root.parent / "split").warnings[-1]


def test_names_in_any_script_and_bytes_that_are_no_text(tmp_path: Path) -> None:
    root = tmp_path / "图像 😀"
    fill(root / "gato ñ", 5)
    fill(root / "кошка", 5, first=50)
    os.rename(os.fsencode(root / "кошка" / "050.png"), os.fsencode(root / "кошка") + b"/\xff.png")  # noqa: PTH104
    assert facts(root).classes == ("gato ñ", "кошка")
