"""What a model is read from, that it judges as its trial did, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tuner.delivery import pictures
from tuner.delivery.looks import count_looks, note_look
from tuner.delivery.model import WEIGHTS, Model, Shipped, open_model, open_torch, save_model
from tuner.delivery.pictures import open_pictures, open_run, open_split
from tuner.delivery.place import MODEL, find_model
from tuner.delivery.predictions import judge
from tuner.errors import BadInput
from tuner.training.images import Images


def test_a_run_names_its_best_trial_and_its_delivered_model_once_there_is_one(run: Path) -> None:
    best = find_model(run)
    assert best.kind == "trial" and best.trial in ("001", "002")
    save_model(run / "final" / "model", open_torch(run / "trials" / "003"))
    assert find_model(run) == find_model(run / "final" / "model") and find_model(run).run == run
    assert open_model(run).about.origin.trial == "003"


def test_a_model_judges_validation_images_as_its_trial_did(trained: Path, model: Model) -> None:
    found = judge(model, open_split(model.place, model.about, "validation", "test"))
    assert found.right.mean() == pytest.approx(model.about.origin.value)


def test_a_saved_model_gives_the_same_logits_without_its_run(model: Model, tmp_path: Path) -> None:
    about = save_model(tmp_path, model)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    again = open_model(tmp_path)
    assert again.about == about and np.array_equal(again.logits(pixels), model.logits(pixels))


def test_test_images_are_counted_each_time(run: Path) -> None:
    place, about = (model := open_torch(run)).place, model.about
    assert count_looks(run) == 0
    assert open_split(place, about, "test", "evaluate").looks == 1
    assert open_split(place, about, "test", "evaluate").looks == 2 == count_looks(run)
    assert open_split(place, about, "validation", "evaluate").looks is None


def test_a_look_is_written_down_before_the_images_are_opened(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("the disk is broken")

    monkeypatch.setattr(pictures, "open_test", fail)
    model = open_torch(run)
    with pytest.raises(OSError, match="disk"):
        open_split(model.place, model.about, "test", "evaluate")
    assert count_looks(run) == 1


@pytest.mark.parametrize("split", ["test", "validation", "train"])
def test_images_that_have_changed_since_are_refused(run: Path, split: pictures.Split) -> None:
    model = open_torch(run)
    origin = model.about.origin.model_copy(update={"fingerprint": "another"})
    with pytest.raises(BadInput, match=r"not those that shapes-small \d+ was trained with \(fingerprint another, now"):
        open_split(model.place, model.about.model_copy(update={"origin": origin}), split, "evaluate")
    assert count_looks(run) == 0


def test_a_look_through_a_finalist_counts_for_the_run_that_was_searched(run: Path) -> None:
    finalist = run / "final" / "finalists"
    shutil.copytree(run / "trials", finalist / "trials")
    shutil.copy(run / "run.json", finalist)
    model = open_torch(finalist / "trials" / "001")
    assert open_split(model.place, model.about, "test", "evaluate").looks == 1 == count_looks(run)


def test_a_look_whose_line_was_torn_is_one(run: Path) -> None:
    (run / "final").mkdir()
    (run / "final" / "test_looks.jsonl").write_text('{"time": "2026')
    assert note_look(run, "m", "evaluate") == 2 == count_looks(run)


def test_new_images_are_labelled_by_the_names_of_the_models_classes(model: Model, tmp_path: Path) -> None:
    from PIL import Image

    for name in ("square", "circle"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (20, 30), "red").save(tmp_path / name / "a.png")
    (tmp_path / "square" / "b.png").write_text("no image")
    found = open_pictures(tmp_path, model.about)
    assert [model.about.classes[label] for label in found.labels] == ["circle", "square"]
    assert found.pixels.shape == (2, 16, 16, 3) and len(found.problems) == 1 and "b.png" in found.problems[0]
    (tmp_path / "square").rename(tmp_path / "zebra")
    with pytest.raises(BadInput, match="no such class"):
        open_pictures(tmp_path, model.about)


def change_weights(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS).write_bytes(content)


def change_json(**changes: object) -> object:
    def change(folder: Path) -> None:
        said = json.loads((folder / MODEL).read_text())
        (folder / MODEL).write_text(json.dumps({**said, **changes}))

    return change


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (change_weights, "sha256"),
        (lambda folder: (folder / WEIGHTS).unlink(), "cannot be read"),
        (lambda folder: (folder / MODEL).write_text("{"), "damaged"),
        (change_json(classes=["a", "b"]), "not of this architecture"),
        (change_json(model={"name": "cnn", "depth": 2, "width": 30_000}), "not of this architecture"),
        (change_json(mean=[0.5]), "mean and std"),
        (change_json(files={}), "vouches"),
        (change_json(model={"name": "os:system", "command": "true"}), "--trust-code"),
        (change_json(settings={"data": {"dataset": "os:system", "arguments": {"command": "true"}}}), "--trust-code"),
    ],
)
def test_what_is_damaged_or_wants_to_run_code_is_refused(
    damage: object, said: str, model: Model, tmp_path: Path
) -> None:
    save_model(tmp_path, model)
    damage(tmp_path)  # type: ignore[operator]
    with pytest.raises(BadInput, match=said):
        open_model(tmp_path)


@pytest.mark.parametrize("name", ["nothing", "trials", "run.json"])
def test_a_path_that_is_no_model_is_refused_with_what_would_be_one(name: str, trained: Path) -> None:
    with pytest.raises(BadInput, match="no model"):
        find_model(trained / name)


def test_a_trial_whose_weights_were_not_kept_names_those_that_have_some(run: Path) -> None:
    (run / "trials" / "003" / "checkpoint_best").rename(run / "gone")
    with pytest.raises(BadInput, match="001, 002"):
        find_model(run / "trials" / "003")


def test_preprocessing_inside_is_that_of_training(model: Model) -> None:
    pixels = torch.randint(0, 256, (2, 16, 16, 3), dtype=torch.uint8)
    mean, std = (torch.tensor(values) for values in (model.about.mean, model.about.std))
    by_hand = ((pixels / 255 - mean) / std).permute(0, 3, 1, 2)
    given = pixels.permute(0, 3, 1, 2) * model.network.scale + model.network.offset
    torch.testing.assert_close(given, by_hand, rtol=1e-5, atol=1e-5)


def test_a_channel_that_hardly_varies_is_normalised_as_in_training(model: Model) -> None:
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.0001, 0.0)
    images = Images(open_run(model.place, model.about), torch.device("cpu"), torch.float32, mean=mean, std=std)
    pixels = torch.randint(0, 256, (2, 16, 16, 3), dtype=torch.uint8)
    torch.testing.assert_close(Shipped(torch.nn.Identity(), mean, std)(pixels), images.normalise(pixels))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "a\x1b[31mb"}, r"'a\\x1b\[31mb' holds control characters"),
        ({"classes": ["circle", "square\x9b2J", "triangle"]}, "control characters"),
        ({"notes": ["pruned\r"]}, "control characters"),
        ({"origin": {"run": "a\x07"}}, "control characters"),
        ({"classes": ["circle", "square", "square"]}, "class 'square' is there more than once"),
    ],
)
def test_words_that_a_terminal_would_obey_and_classes_of_one_name_are_refused(
    changes: dict[str, object], said: str, model: Model, tmp_path: Path
) -> None:
    save_model(tmp_path, model)
    change_json(**changes)(tmp_path)  # type: ignore[operator]
    with pytest.raises(BadInput, match=said):
        open_torch(tmp_path)
