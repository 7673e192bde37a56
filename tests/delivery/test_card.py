"""The model card says what is known of a model, what is not, and nothing that a class name would have it say."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from tuner.delivery.about import File
from tuner.delivery.exporting.card import escape, is_card, render, write_card
from tuner.delivery.looks import note_look
from tuner.delivery.model import Model, open_torch, save_model
from tuner.training.decode import decode

FILES = {"model.safetensors": File(bytes=12_345, sha256="a" * 64), "model.json": File(bytes=678, sha256="b" * 64)}


def card(model: Model, **changes: Any) -> str:
    changed = replace(model, about=model.about.model_copy(update=changes))
    return render(changed, FILES, {"safetensors": 0.0, "onnx": 5e-7}, "48 validation images")


def write_evaluation(run: Path, model: Model, **data: Any) -> None:
    origin = model.about.origin
    said = {"trial": origin.trial, "epoch": origin.epoch, "seed": origin.seed, "params": model.about.params}
    per_class = [
        {
            "class": name, "images": 10, "recall": recall, "recall_low": 0.1, "recall_high": 0.9,
            "precision": None if name == "square" else 0.5,
        }
        for name, recall in (("circle", 0.8), ("square", 0.25), ("triangle", None))
    ]  # fmt: skip
    told = {
        "model": said,
        "data": {"what": "test", "images": 1234, **data},
        "metrics": {
            "accuracy": {"value": 0.8123, "low": 0.79, "high": 0.83},
            "ece": {"value": 0.0456, "low": 0.03, "high": None},
        },
        "per_class": per_class,
        "notes": ["square is never predicted"],
    }
    folder = run / "final" / "evaluation"
    folder.mkdir(parents=True)
    (folder / "evaluation.json").write_text(json.dumps(told))


def write_finalized(run: Path, **changes: Any) -> None:
    files = json.loads((run / "final" / "model" / "model.json").read_text())["files"]
    told = {
        "model_sha256": files["model.safetensors"]["sha256"],
        "metric": "val_accuracy", "winner": "001", "seeds": [1, 2, 3], "model": "final/model",
        "better": "001 and 002 cannot be told apart",
        "finalists": [{"trial": "001", "values": [0.7, 0.8], "mean": 0.75, "low": 0.61, "high": 0.89}],
        "test": {"accuracy": 0.731, "low": 0.71, "high": 0.752, "seeds": [0.731, 0.7]}, "test_accuracy": 0.731,
    }  # fmt: skip
    (run / "final" / "finalize.json").write_text(json.dumps({**told, **changes}))


def test_it_says_what_the_search_cost_and_chose(model: Model) -> None:
    said = card(model)
    assert "A search of 3 trials, 15 epochs together, " in said
    assert "| train.optimizer.lr |" in said and "name: adam" in said
    assert model.about.origin.fingerprint in said and "circle, square, triangle" in said


def test_it_says_how_trials_were_sampled_and_stopped(run: Path) -> None:
    said = json.loads((run / "run.json").read_text())
    how = {"sampler": {"name": "tpe"}, "scheduler": {"name": "asha"}, "hardware": {"cpu": "EPYC", "cores": 2}}
    (run / "run.json").write_text(json.dumps({**said, **how}))
    assert " on EPYC, 2 cores, sampled by tpe, stopped early by asha." in card(open_torch(run))


def test_without_a_test_it_says_that_the_number_is_optimistic(model: Model) -> None:
    value = f"{model.about.origin.value:.1%}"
    said = card(model)
    assert f"validation images: accuracy {value}" in said and "optimistic" in said
    assert "Nothing else is known" in said and "have never been opened" in said


def test_an_evaluation_of_this_model_is_told_with_its_intervals(run: Path) -> None:
    model = open_torch(run)
    write_evaluation(run, model)
    said = card(model)
    assert "| accuracy | 81.2% | 79.0% to 83.0% |" in said and "1,234 test images" in said
    assert "| expected calibration error (0 is best) | 0.046 |  |" in said
    assert said.index("| square | 10 | 25.0% | 10.0% to 90.0% |  |") < said.index("| circle | 10 | 80.0% |")
    assert "square is never predicted" in said and "nobody has measured it" not in said


def test_an_evaluation_of_another_model_is_not_told(run: Path) -> None:
    write_evaluation(run, open_torch(run / "trials" / "003"))
    assert "81.2%" not in card(open_torch(run))


def test_numbers_on_validation_images_are_called_optimistic(run: Path) -> None:
    model = open_torch(run)
    write_evaluation(run, model, what="validation")
    assert "by which the search chose this model" in card(model)


def test_what_finalizing_found_is_told_of_the_delivered_model_only(run: Path) -> None:
    trial = open_torch(run)
    save_model(run / "final" / "model", trial)
    write_finalized(run)
    note_look(run, "m", "finalize")
    said = card(open_torch(run))
    assert "accuracy **73.1%**, 95% interval over images 71.0% to 75.2%" in said and "73.1%, 70.0%" in said
    assert "| 001 | 75.0% | 61.0% to 89.0% |" in said and "cannot be told apart" in said
    assert "were opened once" in said
    assert "73.1%" not in card(trial)


def test_what_finalizing_found_is_not_told_of_a_model_that_came_after_it(run: Path) -> None:
    save_model(run / "final" / "model", open_torch(run))
    write_finalized(run)
    save_model(run / "final" / "model", open_torch(run / "trials" / "003"))
    assert "73.1%" not in card(open_torch(run))


def test_a_single_seed_has_no_interval(run: Path) -> None:
    save_model(run / "final" / "model", open_torch(run))
    write_finalized(run, finalists=[{"trial": "001", "mean": 0.75, "low": None, "high": None}])
    assert "| 001 | 75.0% |  |" in card(open_torch(run))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model": 3}', '{"finalists": 3, "test": {}}'])
def test_damaged_files_are_passed_over(content: str, run: Path) -> None:
    save_model(run / "final" / "model", open_torch(run))
    (run / "final" / "evaluation").mkdir()
    (run / "final" / "finalize.json").write_text(content)
    (run / "final" / "evaluation" / "evaluation.json").write_text(content)
    assert "Nothing else is known" in card(open_torch(run))


def test_outside_a_run_it_says_that_the_cost_is_not_known(model: Model, tmp_path: Path) -> None:
    save_model(tmp_path, model)
    said = card(open_torch(tmp_path))
    assert "what its search cost is not known" in said and "test images of the run" not in said


HOSTILE = "a|b`c`\n# Own\n<script>alert(1)</script>![x](http://y)\u202e\x00"


def test_class_names_cannot_write_markdown_or_html(model: Model) -> None:
    said = card(model, classes=(HOSTILE, "square", "triangle"), name=HOSTILE, notes=(HOSTILE,))
    assert said.count("a\\|b\\`c\\` \\# Own &lt;script&gt;") == 3
    assert "<script" not in said and "![x]" not in said and "\u202e" not in said and "\x00" not in said


def test_plain_names_stay_as_they_are() -> None:
    for name in ("grosse Katze", "Müller-Thurgau 2.5", "犬", "a/b (c)"):
        assert escape(name) == name


def test_a_configuration_cannot_end_its_block(model: Model) -> None:
    said = card(model, settings={"train": {"name": "``` ````\n# Own"}})
    fence = next(line for line in said.splitlines() if line.endswith("yaml")).removesuffix("yaml")
    assert set(fence) == {"`"} and len(fence) == 5 and said.splitlines().count(fence) == 1


def test_snippets_are_those_of_the_files_that_are_there(model: Model) -> None:
    assert card(model).count("```python") == 2
    only = render(model, {"model.onnx": FILES["model.json"]}, {"onnx": 1e-7}, "48 validation images")
    assert only.count("```python") == 1 and "onnxruntime.InferenceSession" in only


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("channels", [1, 3])
def test_snippets_prepare_an_image_as_training_did(
    resize: Any, channels: int, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (90, 131, 3), dtype=np.uint8)
    Image.fromarray(noise).save("photo.jpg")
    said = card(model, resize=resize, channels=channels, mean=(0.5,) * channels, std=(0.2,) * channels)
    names: dict[str, Any] = {"Image": Image, "ImageOps": ImageOps, "np": np}
    exec(said[said.index("image = Image.open") : said.index("images = (torch")], names)
    assert np.array_equal(names["pixels"][0], decode("photo.jpg", 16, resize, channels))


def test_files_stand_with_length_and_sha256(model: Model) -> None:
    said = card(model)
    assert f"| model.safetensors | 12,345 | `{'a' * 64}` |" in said and "safetensors 0, onnx 5.0e-07" in said


def test_every_row_of_a_table_has_as_many_cells_as_its_head(run: Path) -> None:
    save_model(run / "final" / "model", open_torch(run))
    model = open_torch(run)
    write_evaluation(run, model)
    write_finalized(run)
    for table in re.findall(r"(?:^\|.*\n)+", card(model, classes=("a|b", "c", "d")), re.M):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_a_card_is_known_from_another_readme(model: Model, tmp_path: Path) -> None:
    assert is_card(write_card(tmp_path, model, FILES, {}, "nothing"))
    (tmp_path / "other.md").write_text("# Project")
    assert not is_card(tmp_path / "other.md") and not is_card(tmp_path / "none.md")
