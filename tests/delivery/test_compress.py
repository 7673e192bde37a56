"""What compression reports is what its files give, and nothing is praised that was not measured to be better."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.evaluation import pareto
from analysis.folders.folder import Unreadable
from tuner.delivery.compressing import compress as compressing
from tuner.delivery.compressing.compress import Compressed, _clear, as_json, compress, write
from tuner.delivery.compressing.quantise import CALIBRATION, quantise_static
from tuner.delivery.compressing.variants import Variant, compare, pick, summarise
from tuner.delivery.looks import count_looks
from tuner.delivery.model import Model, open_model, open_torch, save_model
from tuner.delivery.pictures import open_split
from tuner.delivery.predictions import judge
from tuner.errors import BadInput

Call = Callable[..., tuple[int, str, str]]
Done = tuple[Compressed, Path]


@pytest.fixture(scope="module")
def done(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("compressed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYPERTUNE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        found = compress(open_torch(trained), folder, shares=(0.5,), epochs=1, tell=lambda *_: None, seconds=0.01)
    return found, folder


def test_what_an_earlier_time_made_goes_and_nothing_else(tmp_path: Path) -> None:
    for name in ("pruned-30.onnx", "mine.onnx", "sparse-30/model.json", "../above"):
        (tmp_path / "here" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "here" / name).write_text("x")
    said = {"variants": [{"file": name} for name in ("pruned-30.onnx", "sparse-30/model.json", "../above", None)]}
    (tmp_path / "here" / "compressed.json").write_text(json.dumps(said))
    _clear(tmp_path / "here")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["above", "here", "mine.onnx"]


def of(done: Done, name: str) -> Variant:
    return next(variant for variant in done[0].variants if variant.name == name)


# ---------------------------------------------------------------- what is made


def test_each_file_gives_the_accuracy_and_the_size_that_are_reported(done: Done, model: Model) -> None:
    pictures = open_split(model.place, model.about, "validation", "test")
    kept = [variant for variant in done[0].variants if variant.file]
    assert {variant.name for variant in kept} >= {"original", "int8", "pruned-50", "pruned-50-int8", "sparse-50"}
    for variant in kept:
        file = done[1] / str(variant.file)
        assert judge(open_model(file), pictures).right.mean() == pytest.approx(variant.accuracy)
        size = file.with_name("model.safetensors") if file.name == "model.json" else file
        assert size.stat().st_size == variant.bytes and variant.low <= variant.accuracy <= variant.high


def test_what_is_lost_is_what_the_original_has_more(done: Done) -> None:
    best = of(done, "original-torch").accuracy
    differences = [variant.difference for variant in done[0].variants]
    assert differences == pytest.approx([variant.accuracy - best for variant in done[0].variants]) and any(differences)
    assert all(one.difference_low <= one.difference <= one.difference_high for one in done[0].variants)


def test_the_ranges_of_int8_are_those_of_training_images(done: Done, model: Model, tmp_path: Path) -> None:
    original, training = open_model(done[1] / "original.onnx"), open_split(model.place, model.about, "train", "test")
    pixels = np.asarray(training.pixels)
    assert done[0].calibration == len(pixels) <= CALIBRATION
    quantise_static(original.place.path, tmp_path / "again.onnx", original.about, pixels)
    made, again = open_model(done[1] / "int8.onnx"), open_model(tmp_path / "again.onnx")
    assert np.array_equal(made.logits(pixels), again.logits(pixels))


def test_pruning_and_int8_make_parameters_arithmetic_and_files_fewer(done: Done, model: Model) -> None:
    original, pruned, both = (of(done, name) for name in ("original", "pruned-50", "pruned-50-int8"))
    assert original.params == model.about.params > 2 * pruned.params and pruned.params == both.params
    assert original.multiply_adds > 2 * pruned.multiply_adds
    assert pruned.bytes < original.bytes


def test_zeros_make_a_file_no_smaller_but_a_packed_one(done: Done) -> None:
    sparse = of(done, "sparse-50")
    assert sparse.size == pytest.approx(1, abs=0.05) and sparse.gzip_size < 0.8
    assert sparse.verdict.startswith(f"no smaller ({sparse.gzip_size:.2f} when packed)")


def test_the_model_says_what_was_done_to_it(done: Done) -> None:
    assert open_model(done[1] / "pruned-50-int8.onnx").about.notes == (
        of(done, "pruned-50").what,
        of(done, "pruned-50-int8").what,
    )
    assert "1 epoch of fine-tuning" in of(done, "sparse-50").what


# ---------------------------------------------------------------- what is said of it


def variant(name: str, form: Any = "onnx", **changes: Any) -> Variant:
    made = Variant(
        name=name, form=form, what="", file=f"{name}.onnx", bytes=1000, gzip_bytes=900, params=100, multiply_adds=100,
        accuracy=0.8, low=0.7, high=0.9, difference=0.0, difference_low=-0.01, difference_high=0.01, p=1.0,
        ms={1: 1.0, 64: 10.0},
    )  # fmt: skip
    return replace(made, **changes)


ORIGINAL = variant("original")


def said_of(again: dict[int, float] | None = None, **changes: Any) -> Variant:
    return compare([ORIGINAL, variant("other", **changes)], {"onnx": again or ORIGINAL.ms})[1]


@pytest.mark.parametrize(
    ("changes", "words", "gains"),
    [
        ({"bytes": 270, "ms": {1: 0.5, 64: 5.0}}, "0.27 of the size, 2.0 times as fast", True),
        ({"bytes": 270, "ms": {1: 1.25, 64: 20.0}}, "0.27 of the size, not faster here: 0.5 to 0.8 times", False),
        ({"bytes": 270}, "0.27 of the size, not faster", True),
        ({"ms": {1: 0.5, 64: 20.0}}, "no smaller, 2.0 times as fast on 1 image, slower on 64 images: 0.5 times", False),
        ({"ms": {1: 1.0, 64: 5.0}}, "no smaller, as fast on 1 image, 2.0 times as fast on 64 images", False),
        ({"bytes": 270, "file": None}, "0.27 of the size, not faster", False),
        ({"ms": {1: 0.95, 64: 9.5}}, "no smaller, not faster", False),
        ({"bytes": 1200}, "larger, not faster", False),
        (
            {"bytes": 500, "accuracy": 0.7, "difference": -0.1, "difference_low": -0.12, "difference_high": -0.08},
            "0.50 of the size, not faster, loses 10.0 points",
            False,
        ),
    ],
)
def test_a_verdict_says_what_was_measured_and_no_more(changes: Any, words: str, gains: bool) -> None:
    found = said_of(**changes)
    assert (found.verdict, found.gains) == (words, gains)


def test_what_is_smaller_but_slower_is_named_for_its_size_alone() -> None:
    small = said_of(bytes=270, ms={1: 1.25, 64: 20.0})
    assert summarise([ORIGINAL, small], 100)[0].startswith("Only for size: other, 0.27 of the size")
    assert summarise([ORIGINAL, said_of(bytes=1200)], 100)[0].startswith("Nothing here is smaller or faster")


def test_what_the_machine_gives_for_nothing_is_not_called_faster() -> None:
    assert said_of(ms={1: 0.7, 64: 7.0}).gains
    noisy = said_of(again={1: 2.0, 64: 10.0}, ms={1: 0.7, 64: 9.9})
    assert noisy.verdict == "no smaller, not faster" and not noisy.gains


def test_the_summary_names_the_safest_the_smallest_and_the_fastest_that_lose_nothing() -> None:
    found = compare(
        [
            ORIGINAL,
            variant("safe", bytes=800, ms={1: 0.8, 64: 8.0}),
            variant("tiny", bytes=100, difference=-0.02, difference_low=-0.05, ms={1: 0.2, 64: 2.0}),
            variant("poor", bytes=10, accuracy=0.3, difference=-0.5, difference_low=-0.6, difference_high=-0.4),
        ],
        {"onnx": ORIGINAL.ms},
    )
    first, second, last = summarise(found, 1000)
    assert first.startswith("safest: safe, 0.80 of the size") and second.startswith("smallest and fastest: tiny, 0.10")
    assert "-2.0 points (95%: -5.0 to +1.0)" in second and "1,000 validation images" in last
    assert (chosen := pick(found)) is not None and chosen.name == "safe"
    assert summarise(found[:1], 1000) == [
        "Nothing here is smaller or faster without a loss beyond noise: keep the original."
    ]


def test_the_front_holds_what_no_other_beats_in_everything() -> None:
    better = variant("better", bytes=500, ms={1: 0.5, 64: 10.0})
    dear = variant("dear", accuracy=0.9, bytes=2000)
    found = compare([ORIGINAL, better, dear, variant("twin", bytes=500, ms=better.ms)], {"onnx": ORIGINAL.ms})
    assert [one.front for one in found] == [False, True, True, True]


# ---------------------------------------------------------------- what is refused, and the command


@pytest.mark.parametrize("share", [1, 1.5, -0.1])
def test_a_share_that_leaves_nothing_is_refused(model: Model, tmp_path: Path, share: float) -> None:
    with pytest.raises(BadInput, match=f"--prune {share:g}: a share"):
        compress(model, tmp_path / "out", shares=(share,), tell=lambda *_: None)
    assert not (tmp_path / "out").exists()


def test_a_model_outside_of_a_run_is_told_what_would_help(model: Model, tmp_path: Path) -> None:
    save_model(tmp_path, model)
    with pytest.raises(BadInput, match=r"no training images.*name the run or trial"):
        compress(open_torch(tmp_path), tmp_path, tell=lambda *_: None)


def test_a_model_that_learned_from_its_validation_images_is_refused(run: Path) -> None:
    model = open_torch(run)
    data = {**model.about.settings["data"], "train_on": "all"}
    whole = replace(model, about=model.about.model_copy(update={"settings": {**model.about.settings, "data": data}}))
    with pytest.raises(BadInput, match="learned from its validation images"):
        compress(whole, run / "out", tell=lambda *_: None)


@pytest.mark.slow
def test_the_command_writes_files_a_figure_and_the_same_as_json(
    run: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compressing, "compress", partial(compress, seconds=0.01))
    code, out, _ = call("compress", run, "--prune", 0, "--json")
    told, folder = json.loads(out), run / "final" / "compressed"
    assert code == 0 and told["folder"] == str(folder)
    assert json.loads((folder / "compressed.json").read_text())["variants"] == told["variants"]
    assert {"original", "int8"} <= {one["name"] for one in told["variants"]}
    assert not any("pruned" in one["name"] for one in told["variants"])
    assert (folder / "pareto.png").read_bytes().startswith(b"\x89PNG") and count_looks(run) == 0
    shutil.rmtree(folder)
    code, out, _ = call("compress", run, "--prune", 0, "--out", run / "here")
    assert code == 0 and "the original" in out and (run / "here" / "int8.onnx").is_file() and not folder.exists()


def test_the_figure_names_every_form(done: Done, trained: Path) -> None:
    said = as_json(done[0], open_torch(trained), {"cpu": "a processor"})
    write(done[1], said)
    figure = pareto.draw_static(pareto.read(done[1]))
    for axes in figure.axes:
        assert {text.get_text() for text in axes.texts} == {variant.name for variant in done[0].variants}
    assert "a processor" in figure.axes[1].get_xlabel()


def test_a_figure_of_nothing_or_of_something_damaged_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="hypertune compress"):
        pareto.read(tmp_path)
    (tmp_path / "compressed.json").write_text('{"format": 1, "model": {}, "data": {}, "variants": []}')
    with pytest.raises(Unreadable, match="damaged"):
        pareto.read(tmp_path)
