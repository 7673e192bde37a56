"""Labels for files: those that the model gives, in order, or why there are none; in files that others read."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image

from tuner.delivery import predict as module
from tuner.delivery.model import Model, open_torch
from tuner.delivery.pictures import open_pictures
from tuner.delivery.predict import Labelled, Pixels, list_images, predict, refuse_none, write
from tuner.delivery.predictions import judge
from tuner.errors import BadInput

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def photos(trained: Path, tmp_path: Path) -> Path:
    """Twenty-one images of three sizes in class folders, as people have them."""
    chance = np.random.default_rng(0)
    for n in range(21):
        folder = tmp_path / "photos" / ("circle", "square", "triangle")[n % 3]
        folder.mkdir(parents=True, exist_ok=True)
        values = chance.integers(0, 256, (16 + n, 20, 3), dtype=np.uint8)
        Image.fromarray(values).save(folder / f"{n:02}.{'png' if n % 2 else 'jpg'}")
    return tmp_path / "photos"


def test_labels_are_those_that_judge_gives_whatever_the_batch(photos: Path, model: Model) -> None:
    pictures = open_pictures(photos, model.about)
    expected = judge(model, pictures)
    for batch in (1, 4, 64):
        rows = list(predict(model, list_images([photos]), batch=batch))
        assert [row.image for row in rows] == list(pictures.names)
        assert [row.labels[0] for row in rows] == [expected.classes[place] for place in expected.predicted]
        np.testing.assert_allclose([row.probabilities[0] for row in rows], expected.probabilities.max(1), rtol=1e-5)


def test_all_classes_of_an_image_add_up_and_come_most_probable_first(photos: Path, model: Model) -> None:
    rows = list(predict(model, list_images([photos]), top=3))
    assert all(sum(row.probabilities) == pytest.approx(1) for row in rows)
    assert all(list(row.probabilities) == sorted(row.probabilities, reverse=True) for row in rows)
    assert all(sorted(row.labels) == sorted(model.about.classes) for row in rows)
    with pytest.raises(BadInput, match=r"--top 4: .* knows 3 classes"):
        next(predict(model, list_images([photos]), top=4))


def test_a_broken_file_has_its_reason_and_the_others_their_labels(photos: Path, model: Model) -> None:
    whole = {row.image: row for row in predict(model, list_images([photos]))}
    (photos / "circle" / "00a.png").write_text("no image")
    (photos / "square" / "01a.jpg").write_bytes((photos / "circle" / "00.jpg").read_bytes()[:200])
    rows = list(predict(model, list_images([photos]), batch=4))
    broken = [row for row in rows if row.error]
    assert [Path(row.image).name for row in broken] == ["00a.png", "01a.jpg"] and not any(r.labels for r in broken)
    rest = [row for row in rows if not row.error]
    assert [row.labels for row in rest] == [row.labels for row in whole.values()]
    np.testing.assert_allclose([r.probabilities for r in rest], [r.probabilities for r in whole.values()], rtol=1e-4)


def test_few_batches_are_decoded_ahead_however_many_files(
    photos: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def decode(file: str, *rest: object) -> Pixels:
        done.append(file)
        return np.zeros((16, 16, 3), dtype=np.uint8)

    monkeypatch.setattr(module, "decode_or_say_why", decode)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    rows = predict(model, [str(n) for n in range(10_000)], batch=16)
    next(rows)
    rows.close()  # type: ignore[attr-defined]
    assert 16 <= len(done) <= 16 + 2 * 16 + 3 * module.STEP


def test_folders_are_walked_hidden_and_other_files_left_out_and_each_file_named_once(photos: Path) -> None:
    (photos / ".hidden.png").touch()
    (photos / ".git").mkdir()
    (photos / ".git" / "a.png").touch()
    (photos / "notes.txt").touch()
    (photos / "loop").symlink_to(photos)
    os.mkfifo(photos / "pipe.png")
    one = photos / "triangle" / "02.jpg"
    found = list_images([one, photos, photos / "circle"])
    assert found == sorted(found) and len(found) == 21 == len(set(found)) and str(one) in found
    assert list_images([photos / "notes.txt"]) == [str(photos / "notes.txt")]  # whoever names a file means it


def test_all_that_is_not_there_is_said_at_once(photos: Path, run: Path, call: Call) -> None:
    (photos / "empty").mkdir()
    code, out, err = call("predict", run, photos / "empty", photos / "nowhere", photos / "gone.png")
    assert code == 2 and not out
    assert "empty: no images in it" in err and err.count("no such file or folder") == 2


def test_none_that_can_be_read_is_bad_input_and_leaves_no_file(tmp_path: Path, run: Path, call: Call) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_text("no image")
    code, _, err = call("predict", run, tmp_path / "a.png", tmp_path / "b.png", "--out", tmp_path / "labels.csv")
    assert code == 2 and "a.png: cannot identify" in err and "b.png: cannot identify" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png", "results"]


# ---------------------------------------------------------------- files


def test_a_csv_reads_back_with_csv_and_pandas(photos: Path, run: Path, call: Call, tmp_path: Path) -> None:
    (photos / "z.png").write_text("no image")
    code, out, _ = call("predict", run, photos, "--top", 2, "--out", tmp_path / "labels.csv", "--batch", 5)
    assert code == 0 and "22 images" in out and "1 could not be read" in out
    table = pd.read_csv(tmp_path / "labels.csv")
    assert list(table) == ["image", "label", "probability", "label_2", "probability_2", "error"] and len(table) == 22
    assert table["image"].tolist() == sorted(table["image"]) and table["error"].notna().tolist() == [False] * 21 + [
        True
    ]
    rows = list(predict(open_torch(run), list_images([photos]), top=2))
    assert table["label_2"].tolist()[:21] == [row.labels[1] for row in rows[:21]]
    with (tmp_path / "labels.csv").open(newline="") as file:
        assert [line["label"] for line in csv.DictReader(file)][:21] == [row.labels[0] for row in rows[:21]]


def test_json_is_strict_in_a_file_and_on_the_screen(photos: Path, run: Path, call: Call, tmp_path: Path) -> None:
    (photos / "z.png").write_text("no image")

    def refuse(word: str) -> None:
        raise AssertionError(word)

    call("predict", run, photos, "--out", tmp_path / "labels.json")
    _, out, _ = call("predict", run, photos, "--json")
    filed, shown = (json.loads(text, parse_constant=refuse) for text in ((tmp_path / "labels.json").read_text(), out))
    assert filed["images"] == shown["images"] and len(filed["images"]) == shown["count"] == 22
    assert filed["images"][21]["label"] is None and "identify" in filed["images"][21]["error"]
    assert filed["images"][0]["top"][0] == {name: filed["images"][0][name] for name in ("label", "probability")}


def test_cells_that_a_spreadsheet_would_run_are_text(tmp_path: Path) -> None:
    rows = [Labelled("=1+1.png", ("@SUM(1)",), (0.5,)), Labelled('-a,\n"b".png', error="+bad")]
    write(rows, tmp_path / "a.csv", "m", 1)
    with (tmp_path / "a.csv").open(newline="") as file:
        assert list(csv.reader(file))[1:] == [["'=1+1.png", "'@SUM(1)", "0.5", ""], ['\'-a,\n"b".png', "", "", "'+bad"]]


@pytest.mark.parametrize("suffix", [".csv", ".json"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, BadInput("gone")])
def test_what_ends_early_leaves_the_old_file_and_no_half_one(
    suffix: str, error: type[BaseException] | BaseException, tmp_path: Path
) -> None:
    def rows() -> Iterator[Labelled]:
        yield Labelled("a.png", ("x",), (1.0,))
        raise error

    target = tmp_path / f"labels{suffix}"
    target.write_text("the old one")
    with pytest.raises((KeyboardInterrupt, BadInput)):
        write(rows(), target, "m", 1)
    assert target.read_text() == "the old one" and [path.name for path in tmp_path.iterdir()] == [target.name]


@pytest.mark.parametrize(
    ("out", "said"), [("labels.txt", "name it .csv or .json"), ("no/labels.csv", "no folder"), ("d.csv", "a folder")]
)
def test_a_file_that_cannot_be_written_is_refused_before_the_work(
    out: str, said: str, photos: Path, run: Path, call: Call, tmp_path: Path
) -> None:
    (tmp_path / "d.csv").mkdir()
    code, _, err = call("predict", run, photos, "--out", tmp_path / out)
    assert code == 2 and said in err


def test_a_name_that_is_no_text_is_labelled_all_the_same(photos: Path, run: Path, call: Call, tmp_path: Path) -> None:
    (photos / "circle" / "00.jpg").rename(photos / "circle" / os.fsdecode(b"\xff.jpg"))
    for target in ("a.csv", "a.json"):
        assert call("predict", run, photos, "--out", tmp_path / target)[0] == 0
    assert "\\udcff.jpg" in (tmp_path / "a.csv").read_text(encoding="utf-8")
    assert call("predict", run, photos)[0] == call("predict", run, photos, "--json")[0] == 0


def test_numbers_that_are_none_are_an_error_of_that_image(model: Model, photos: Path) -> None:
    class Broken:
        about, place, kind = model.about, model.place, "torch"

        def logits(self, pixels: Pixels) -> NDArray[np.float32]:
            return np.full((len(pixels), 3), np.nan, dtype=np.float32)

    rows = predict(Broken(), list_images([photos]))
    with pytest.raises(BadInput, match="gives no number"):
        list(refuse_none(rows))


def test_the_table_on_the_screen_names_each_image_and_its_label(photos: Path, run: Path, call: Call) -> None:
    _, out, _ = call("predict", run, photos)
    rows = list(predict(open_torch(run), list_images([photos])))
    assert all(any(Path(row.image).name in line and row.labels[0] in line for line in out.splitlines()) for row in rows)
