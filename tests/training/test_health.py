from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tuner.spec.data import Data
from tuner.training.datasets import prepare
from tuner.training.health import Health, examine

Examine = Callable[..., Health]


def save(path: Path, seed: int, size: tuple[int, int] = (8, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Healthy: 30 + 30 training, 8 + 8 test images, all different."""
    root = tmp_path / "images"
    for label, name in enumerate("ab"):
        for i in range(30):
            save(root / "train" / name / f"{i:02d}.png", 100 * label + i)
        for i in range(8):
            save(root / "test" / name / f"{i:02d}.png", 1000 + 100 * label + i)
    return root


@pytest.fixture
def look(root: Path, tmp_path: Path) -> Examine:
    def run(**fields: Any) -> Health:
        data = Data.model_validate({"dataset": "image_folder", "root": str(root), **fields})
        return examine(prepare(data, 0, tmp_path / "cache"), data, 0)

    return run


def ends(paths: tuple[str, ...]) -> set[str]:
    return {"/".join(Path(path).parts[-3:]) for path in paths}


def test_a_dataset_in_good_health_needs_no_words(look: Examine) -> None:
    health = look()
    assert health.sentences == () and health.balance == 1.0
    assert health.classes == {"a": (24, 6, 8), "b": (24, 6, 8)}
    assert health.sizes == ((8, 8), (8, 8), (8, 8)) and (health.long, health.enlarged) == (0.0, 0.0)


def test_twins_in_two_classes_contradict_each_other(look: Examine, root: Path) -> None:
    shutil.copy(root / "train/a/03.png", root / "train/b/99.png")
    health = look()
    assert [ends(t.images) for t in health.contradictions] == [{"train/a/03.png", "train/b/99.png"}]
    assert health.contradictions[0].classes == ("a", "b") and not health.duplicates
    assert "1 image is in several classes" in health.sentences[0] and "(a and b)" in health.sentences[0]


def test_twins_in_two_splits_leak(look: Examine, root: Path) -> None:
    shutil.copy(root / "train/a/03.png", root / "test/a/99.png")
    health = look()
    assert [ends(t.images) for t in health.leaks] == [{"train/a/03.png", "test/a/99.png"}]
    assert not health.contradictions and not health.duplicates
    assert any("in several splits" in sentence for sentence in health.sentences)


def test_twins_in_one_class_are_duplicates_whatever_their_format(look: Examine, root: Path) -> None:
    for i in range(3):
        Image.open(root / "train/a/03.png").save(root / "test/a" / f"9{i}.bmp")
    (root / "train/a/03.png").unlink()
    health = look()
    assert [len(t.images) for t in health.duplicates] == [3]
    assert any("more than once in one class and split, 2 too many" in sentence for sentence in health.sentences)


def test_one_colour_all_over(look: Examine, root: Path) -> None:
    Image.new("RGB", (8, 8), (200, 10, 30)).save(root / "train/b/07.png")
    Image.new("RGB", (8, 8), (0, 0, 0)).save(root / "test/a/01.png")
    assert ends(look().constant) == {"train/b/07.png", "test/a/01.png"}


def test_tiny_and_unbalanced_classes(look: Examine, root: Path) -> None:
    for i in range(5, 30):
        (root / f"train/b/{i:02d}.png").unlink()
    health = look()
    assert health.tiny == ("b",) and health.unbalanced and health.balance == 24 / 4
    assert health.sentences == (
        "1 class has fewer than 20 training images: b (4).",
        "Unbalanced: 24 training images of a, 4 of b. search.metric: val_macro_f1 and train.class_weights: balanced "
        "count each class alike.",
    )


def test_odd_sizes(look: Examine, root: Path) -> None:
    save(root / "train/a/00.png", 1, (4, 20))
    save(root / "test/b/00.png", 2, (40, 30))
    health = look(image_size=16)
    assert health.sizes == ((8, 8), (8, 8), (40, 30)) and health.long == pytest.approx(1 / 76)
    assert health.enlarged == pytest.approx(74 / 76)
    assert "Sizes from 8 x 8 to 40 x 30" in health.sentences[0] and "enlarged" in health.sentences[1]


def test_unreadable_files_are_named(look: Examine, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuner.training.build.UNREADABLE_SHARE", 0.5)
    (root / "train/a/02.png").write_bytes(b"nothing")
    health = look()
    assert health.unreadable == 1 and "train/a/02.png" in health.sentences[0]


def test_what_a_subset_leaves_out_does_not_matter(look: Examine, root: Path) -> None:
    for i in range(30, 60):
        shutil.copy(root / "train/a/00.png", root / f"train/a/{i}.png")
    assert sum(len(t.images) for t in (*look().duplicates, *look().leaks)) == 31
    health = look(subset=20)
    assert sum(sum(counts[:2]) for counts in health.classes.values()) == 20


def test_images_that_stay_files_are_compared_byte_by_byte(
    look: Examine, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuner.training.stream.MEMORY_SHARE", 0.0)
    shutil.copy(root / "train/a/03.png", root / "test/a/99.png")
    Image.new("RGB", (8, 8), (200, 10, 30)).save(root / "train/b/07.png")
    health = look()
    assert len(health.leaks) == 1 and ends(health.constant) == {"train/b/07.png"}


def test_arrays_have_no_files_but_are_named_all_the_same(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    images[7] = images[8]
    np.savez(tmp_path / "images.npz", images=images, labels=np.arange(40) % 2)
    data = Data(dataset="npz", root=str(tmp_path / "images.npz"))
    health = examine(prepare(data, 0, tmp_path / "cache"), data, 0)
    assert len(health.contradictions) == 1 and health.sizes is None and health.long is None
    assert all(name.startswith("image ") for name in health.contradictions[0].images)


def test_it_is_json(look: Examine, root: Path) -> None:
    shutil.copy(root / "train/a/03.png", root / "train/b/99.png")
    told = json.loads(json.dumps(look().as_dict()))
    assert told["contradictions"][0]["classes"] == ["a", "b"] and len(told["sentences"]) >= 1
