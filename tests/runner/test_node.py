"""What a node says before trials run there: whether it sees the run folder of the driver, and the same images."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tuner.errors import BadInput
from tuner.runner.node import MARKS, check, find_images, leave_mark
from tuner.spec.data import Data
from tuner.training.datasets import prepare

SHAPES = Data.model_validate({"dataset": "shapes", "images": 40, "image_size": 8})


def test_a_node_that_sees_the_mark_of_the_driver_leaves_its_own(tmp_path: Path) -> None:
    (tmp_path / MARKS).mkdir()
    (tmp_path / MARKS / "driver-1").write_text("driver-1")
    assert leave_mark(str(tmp_path), "", "driver-1", "n1") == ""
    assert (tmp_path / MARKS / "n1").read_text() == "n1"


def test_another_folder_of_that_name_is_told_apart(tmp_path: Path) -> None:
    assert "no such folder" in leave_mark(str(tmp_path), "", "driver-1", "n1")
    (tmp_path / MARKS).mkdir()
    (tmp_path / MARKS / "driver-1").write_text("another")
    assert "another folder" in leave_mark(str(tmp_path), "", "driver-1", "n1")
    assert not (tmp_path / MARKS / "n1").exists()


def test_a_store_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "full").write_text("no folder")
    assert leave_mark("", f"file://{tmp_path}/there", "driver-1", "n1") == ""
    assert leave_mark("", f"file://{tmp_path}/full", "driver-1", "n1")


def test_a_node_has_the_images_of_the_driver_or_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYPERTUNE_CACHE", str(tmp_path))
    facts = prepare(SHAPES, 0).facts
    assert Path(find_images(SHAPES.model_dump_json(), 0, facts.fingerprint)).is_dir()
    with pytest.raises(BadInput, match="not those of the driver"):
        find_images(SHAPES.model_dump_json(), 0, "another")
    job = {
        "run": "",
        "store": f"file://{tmp_path}/s",
        "said": "",
        "mark": "n1",
        "user_path": sys.path[-1],
        "split_seed": 0,
    }
    sizes = [{"images": SHAPES.model_dump_json(), "fingerprint": "another"}]
    assert check({**job, "sizes": sizes})["about"] == "images"
    assert check({**job, "sizes": []}) == {"problem": "", "about": ""}
