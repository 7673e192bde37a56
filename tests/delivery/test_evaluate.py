"""What an evaluation says is what scikit-learn says of the same predictions, and it is all in the files."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn import metrics as sk

from tuner.commands import evaluating
from tuner.delivery import looks
from tuner.delivery.judging import curves, scores
from tuner.delivery.judging.evaluate import _read_training, evaluate
from tuner.delivery.judging.evaluation_files import to_csv, write
from tuner.delivery.judging.paired import wilson
from tuner.delivery.judging.ranks import areas
from tuner.delivery.judging.scores import Interval, score
from tuner.delivery.judging.wrong import find_wrong
from tuner.delivery.model import Model, open_torch, save_model
from tuner.delivery.pictures import open_split
from tuner.delivery.place import find_model
from tuner.delivery.predictions import Predictions, batches
from tuner.training import metrics

Call = Callable[..., tuple[int, str, str]]


def predict(labels: NDArray[np.int64], classes: int, skill: float = 1.5, seed: int = 0) -> Predictions:
    logits = np.random.default_rng(seed).normal(size=(len(labels), classes)).astype(np.float32)
    logits[np.arange(len(labels)), labels] += skill
    return Predictions(logits, labels, [f"{n}.png" for n in range(len(labels))], tuple("abcdefghij"[:classes]))


@pytest.fixture(scope="module")
def found() -> Predictions:
    return predict(np.random.default_rng(1).choice(6, 500, p=[0.4, 0.2, 0.2, 0.1, 0.05, 0.05]), 6)


# ---------------------------------------------------------------- the numbers


def test_every_score_is_that_of_scikit_learn(found: Predictions) -> None:
    labels, predicted, sure = found.labels, found.predicted, found.probabilities
    expected = {
        "accuracy": sk.accuracy_score(labels, predicted),
        "top3_accuracy": sk.top_k_accuracy_score(labels, sure, k=3),
        "top5_accuracy": sk.top_k_accuracy_score(labels, sure, k=5),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted),
        "roc_auc": sk.roc_auc_score(labels, sure, multi_class="ovr"),
        "average_precision": sk.average_precision_score(labels, sure),
        "brier": sk.brier_score_loss(labels, sure, scale_by_half=False),
        "loss": sk.log_loss(labels, sure),
        "ece": metrics.evaluate(torch.from_numpy(found.logits), torch.from_numpy(labels)).ece,
    }
    for mean in ("macro", "weighted"):
        values = sk.precision_recall_fscore_support(labels, predicted, average=mean)
        expected |= dict(zip((f"{mean}_precision", f"{mean}_recall", f"{mean}_f1"), values, strict=False))
    assert {name: value for name, (value, _, _) in score(found).metrics.items()} == pytest.approx(expected, rel=1e-6)


def test_every_score_of_a_class_is_that_of_scikit_learn(found: Predictions) -> None:
    precision, recall, f1, images = sk.precision_recall_fscore_support(found.labels, found.predicted)
    for c, row in enumerate(score(found, resamples=50).per_class):
        assert row.precision and row.recall and row.f1
        assert (row.precision.value, row.recall.value, row.f1.value) == pytest.approx((precision[c], recall[c], f1[c]))
        assert row.images == images[c]
        assert row.roc_auc == pytest.approx(sk.roc_auc_score(found.labels == c, found.probabilities[:, c]))


def test_areas_under_ties_and_repeats_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    sure, positive = rng.integers(5, size=200) / 5, rng.random(200) < 0.3
    counts = rng.poisson(1, size=(3, 200)).astype(np.uint8)
    for (auc, ap), weights in zip(areas(sure, positive, counts).T, counts, strict=True):
        assert auc == pytest.approx(sk.roc_auc_score(positive, sure, sample_weight=weights))
        assert ap == pytest.approx(sk.average_precision_score(positive, sure, sample_weight=weights))


def test_the_interval_of_an_accuracy_is_that_of_the_binomial(found: Predictions) -> None:
    value, low, high = score(found).metrics["accuracy"]
    half = 1.96 * np.sqrt(value * (1 - value) / len(found.labels))
    assert (value - low, high - value) == pytest.approx((half, half), rel=0.15)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    labels = np.random.default_rng(0).integers(3, size=20_000)
    truth = {name: found.value for name, found in score(predict(labels, 3, seed=99), resamples=2).metrics.items()}
    again = [score(predict(labels[:300], 3, seed=seed), resamples=200).metrics for seed in range(60)]
    for name in ("macro_f1", "roc_auc", "average_precision", "loss"):
        share = np.mean([made[name].low <= truth[name] <= made[name].high for made in again])
        assert 0.85 <= share <= 1, name


def test_the_same_predictions_have_the_same_intervals(found: Predictions) -> None:
    assert score(found).metrics == score(found).metrics != score(found, seed=1).metrics


def test_fewer_resamples_of_ranks_are_said(found: Predictions, monkeypatch: pytest.MonkeyPatch) -> None:
    every = score(found)
    monkeypatch.setattr(scores, "RANKED", 150 * found.logits.size)
    fewer = score(found)
    assert not every.notes and "rest on 150 resamples" in fewer.notes[-1]
    assert fewer.metrics["roc_auc"] != every.metrics["roc_auc"] and fewer.metrics["loss"] == every.metrics["loss"]


def test_all_right_is_no_certainty() -> None:
    made = score(predict(np.arange(60) % 3, 3, skill=50), resamples=50)
    recall = made.per_class[0].recall
    assert made.metrics["accuracy"] == (1, *wilson(60, 60)) and made.metrics["accuracy"].low < 0.95
    assert recall == made.per_class[0].precision == (1, *wilson(20, 20))


def test_a_class_never_predicted_has_precision_0_and_is_named(found: Predictions) -> None:
    logits = found.logits.copy()
    logits[:, 2] = -50
    made = score(Predictions(logits, found.labels, found.names, found.classes), resamples=50)
    assert made.per_class[2].precision == (0, 0, 0) and "Never predicted: c." in made.notes[0]


def test_a_class_without_images_has_no_recall_and_is_named() -> None:
    found = predict(np.repeat([0, 1], 50), 4)
    made = score(found, resamples=50)
    row = made.per_class[3]
    recalls = found.right[:50].mean(), found.right[50:].mean()
    assert made.metrics["balanced_accuracy"].value == pytest.approx(np.mean(recalls))
    assert made.metrics["macro_recall"].value == pytest.approx(sum(recalls) / 4)  # it counts what is predicted too
    assert row.images == 0 < row.predicted and row.precision and row.precision.value == 0
    assert (row.recall, row.f1, row.roc_auc) == (None, None, None) and "No image of c, d." in made.notes[0]


def test_of_one_class_alone_there_is_no_auc() -> None:
    made = score(predict(np.zeros(40, dtype=np.int64), 3), resamples=50)
    assert not {"roc_auc", "average_precision", "top3_accuracy"} & set(made.metrics)
    assert "there is no ROC AUC" in made.notes[-1]


# ---------------------------------------------------------------- what figures show


def test_confused_pairs_come_by_count_with_their_share(found: Predictions) -> None:
    counts = curves.confusion(found)
    pairs = curves.confused(counts)
    assert counts.tolist() == sk.confusion_matrix(found.labels, found.predicted).tolist()
    assert [pair.times for pair in pairs] == sorted((counts - np.diag(np.diag(counts))).ravel(), reverse=True)[:20]
    assert pairs[0].share == pairs[0].times / (found.labels == pairs[0].truth).sum()


def test_calibration_bins_add_up_to_the_calibration_error(found: Predictions) -> None:
    bins = curves.calibration(found)
    gaps = [each.images * abs(each.confidence - each.accuracy) for each in bins]
    assert sum(gaps) / len(found.labels) == pytest.approx(score(found, resamples=2).metrics["ece"].value)


def test_curves_are_thinned_but_keep_their_area() -> None:
    found = predict(np.random.default_rng(0).integers(3, size=9_000), 3)
    made, rows = curves.roc(found), score(found, resamples=2).per_class
    assert [each.name for each in made] == ["macro", "a", "b", "c"] and max(len(each.x) for each in made) <= 200
    for each, row in zip(made[1:], rows, strict=True):
        assert np.trapezoid(each.y, each.x) == pytest.approx(row.roc_auc, abs=2e-3)


def test_the_most_confidently_wrong_and_some_of_each_confused_pair_are_shown(found: Predictions) -> None:
    pairs = curves.confused(curves.confusion(found))
    wrong = find_wrong(found, pairs)
    sure = [each.confidence for each in wrong]
    assert len(wrong) == 40 and sure == sorted(sure, reverse=True)
    assert sure[0] == found.probabilities.max(axis=1)[~found.right].max()
    for pair in pairs[:5]:
        named = (found.classes[pair.truth], found.classes[pair.predicted])
        assert sum((each.truth, each.predicted) == named for each in wrong) >= min(4, pair.times)


# ---------------------------------------------------------------- files


def test_files_hold_what_was_said_of_each_image(run: Path, tmp_path: Path) -> None:
    model = open_torch(run)
    made = evaluate(model, open_split(model.place, model.about, "validation", "test"))
    told = write(made, tmp_path)
    assert told == json.loads((tmp_path / "evaluation.json").read_text())
    with np.load(tmp_path / "probabilities.npz", allow_pickle=False) as held:
        assert held["probabilities"].dtype == np.float32 and (held["labels"] == made.found.labels).all()
        assert tuple(held["classes"]) == model.about.classes
    rows = list(csv.DictReader((tmp_path / "predictions.csv").read_text().splitlines()))
    assert sum(row["right"] == "true" for row in rows) == made.found.right.sum() and len(rows) == told["data"]["images"]
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == [
        Path(each["image"]).name for each in told["wrong"]
    ]
    assert len(told["training"]) == 6 and told["training"][-1]["val_accuracy"] is not None


def test_a_cell_that_a_spreadsheet_would_run_is_made_text() -> None:
    names = ["=1+1.png", "@a.png"]
    found = Predictions(np.eye(2, dtype=np.float32), np.array([0, 1]), names, ("-cmd", "b"))
    assert to_csv(found).splitlines()[1:] == [
        "'=1+1.png,'-cmd,'-cmd,0.731059,true,0.731059",
        "'@a.png,b,b,0.731059,true,0.731059",
    ]


def test_a_thumbnail_is_the_image_that_was_judged(run: Path, tmp_path: Path) -> None:
    model = open_torch(run / "trials" / "003")
    pictures = open_split(model.place, model.about, "train", "test")
    made = evaluate(model, pictures)
    write(made, tmp_path)
    for each in made.wrong[:3]:
        assert (np.asarray(Image.open(tmp_path / each.image)) == pictures.pixels[each.place]).all()
    assert made.wrong


def test_the_gap_is_that_to_the_training_images_and_unknown_outside_a_run(run: Path, tmp_path: Path) -> None:
    model = open_torch(run)
    pictures = open_split(model.place, model.about, "validation", "test")
    gap = evaluate(model, pictures).gap
    train = open_split(model.place, model.about, "train", "test")
    right = model.logits(np.concatenate([*batches(train)])).argmax(axis=1) == train.labels
    assert gap and gap.images == len(train) and gap.train == right.mean()
    assert gap.low <= gap.difference == gap.train - gap.here <= gap.high
    save_model(tmp_path, model)
    assert evaluate(open_torch(tmp_path), pictures).gap is None


def test_a_delivered_model_has_the_epochs_of_its_own_training(run: Path) -> None:
    model = open_torch(run / "trials" / "001")
    origin = model.about.origin.model_copy(update={"seed": 77})
    save_model(run / "final" / "model", model)
    images = open_split(model.place, model.about, "validation", "test")
    assert len(evaluate(open_torch(run), images).training) == 6
    save_model(run / "final" / "model", replace(model, about=model.about.model_copy(update={"origin": origin})))
    assert evaluate(open_torch(run), images).training == []
    finalists = shutil.copytree(run, run / "final" / "finalists", ignore=shutil.ignore_patterns("final"))
    events = finalists / "events.jsonl"
    asked = events.read_text().replace('{"train.optimizer.lr": 0.05}', '{"finalist": "001", "seed": 77}')
    events.write_text(asked)
    assert len(evaluate(open_torch(run), images).training) == 3  # the epochs of trial 003 there
    data = {**model.about.settings["data"], "train_on": "all"}
    whole = model.about.model_copy(update={"origin": origin, "settings": {**model.about.settings, "data": data}})
    assert _read_training(replace(model, about=whole, place=find_model(run))) == []  # that one was trained on others


# ---------------------------------------------------------------- the command


@pytest.mark.slow
def test_the_command_counts_the_look_writes_the_page_and_says_it_all(run: Path, call: Call) -> None:
    model = open_torch(run)
    open_split(model.place, model.about, "test", "finalize")
    code, out, _ = call("evaluate", run)
    assert code == 0 and "for the 2nd time" in out and looks.count_looks(run) == 2
    assert (run / "final" / "evaluation" / "index.html").is_file()
    for name in (*model.about.classes, "macro", "weighted", "95% interval", "taken for", "hypertune export"):
        assert name in out


@pytest.mark.slow
def test_validation_and_other_images_leave_the_test_images_and_their_page_alone(run: Path, call: Call) -> None:
    images = run.parent / "more"
    for name in ("circle", "square"):
        (images / name).mkdir(parents=True)
        Image.new("RGB", (16, 16), "red").save(images / name / "a.png")
    told = {}
    for name, words in {"validation": ("--split", "validation"), "more": ("--data", images, "--corrupt")}.items():
        code, out, _ = call("evaluate", run, *words, "--json")
        told[name] = json.loads(out)
        assert code == 0 and told[name]["page"] == str(run / "final" / f"evaluation-{name}" / "index.html")
    assert told["validation"]["gap"] and "corruptions" not in told["validation"]
    assert told["more"]["data"]["images"] == 2 and "noise" in told["more"]["corruptions"]["kinds"]
    assert looks.count_looks(run) == 0 and not (run / "final" / "evaluation").exists()


@pytest.mark.slow
def test_two_models_are_set_against_each_other(run: Path, call: Call) -> None:
    trials = [run / "trials" / name for name in ("001", "003")]
    code, out, _ = call("evaluate", *trials, "--split", "validation", "--no-corrupt", "--json")
    told = json.loads(out)
    assert code == 0 and [each["trial"] for each in told["models"]] == ["001", "003"] and told["robustness"] is None
    assert Path(told["page"]).is_file()


def test_of_many_classes_the_worst_are_shown(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = open_torch(run)
    made = evaluate(model, open_split(model.place, model.about, "validation", "test"))
    rows = [replace(made.scores.per_class[0], name=f"c{n}", f1=Interval(n / 30, 0, 1)) for n in range(30)]
    evaluating.say(replace(made, scores=replace(made.scores, per_class=tuple(rows))), run, run / "index.html")
    out = capsys.readouterr().out
    assert "10 classes with the lowest F1 of 30" in out and "c9 " in out and "c10 " not in out


def test_what_cannot_be_evaluated_is_refused_before_the_test_images_are_opened(run: Path, call: Call) -> None:
    (run / "file").write_text("")
    for words, said in (
        ([run / "gone"], "does not exist"),
        ([run, "--out", run / "file" / "x"], "cannot be written"),
        ([run, "--out", run], "is a run itself"),
        ([run, "--data", run / "gone"], "gone"),
        ([run, "--data", run, "--split", "validation"], "leave one out"),
        ([run, run, run], "two to compare"),
    ):
        code, _, err = call("evaluate", *words)
        assert code == 2 and said in err, words
    assert looks.count_looks(run) == 0


def test_a_model_whose_answers_are_no_numbers_is_refused(model: Model, run: Path, call: Call) -> None:
    with torch.no_grad():
        next(model.network.parameters()).fill_(float("nan"))
    save_model(run / "broken", model)
    code, _, err = call("evaluate", run / "broken", "--split", "validation")
    assert code == 2 and "is not finite" in err


def test_a_folder_of_somebodys_own_images_is_not_replaced(run: Path, tmp_path: Path, call: Call) -> None:
    (tmp_path / "mine" / "images").mkdir(parents=True)
    (tmp_path / "mine" / "images" / "a.png").write_text("mine")
    code, _, err = call("evaluate", run, "--split", "validation", "--out", tmp_path / "mine")
    assert code == 2 and "choose another folder" in err and (tmp_path / "mine" / "images" / "a.png").exists()


def test_of_too_many_classes_for_a_page_the_numbers_are_said_all_the_same(
    run: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("analysis.evaluation.read.MOST_CLASSES", 2)
    code, out, _ = call("evaluate", run, "--split", "validation")
    assert code == 0 and "page       none: it could not show so many classes" in out
    folder = run / "final" / "evaluation-validation"
    assert (folder / "evaluation.json").is_file() and not (folder / "index.html").exists()
    trials = (run / "trials" / "001", run / "trials" / "003")
    code, out, _ = call("evaluate", *trials, "--split", "validation", "--no-corrupt", "--json")
    assert code == 0 and json.loads(out)["page"] is None
