"""Evaluations made by the contract of evaluation.json, without tuner: read, drawn, and shown as a page."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from analysis import Unreadable, style
from analysis.evaluation import finalists, page
from analysis.evaluation.figures import FIGURES
from analysis.evaluation.read import read, read_finals

if TYPE_CHECKING:
    from playwright.sync_api import Page

EVIL = (
    "<script>window.hacked=1</script>",
    "x" * 300,
    "🦆 $\\frac{",
    "%{x} 100%",
    "<img src=x onerror=window.hacked=1>",
)
FINALS: dict[str, Any] = {
    "finalists": [
        {"trial": "005", "values": [0.61, 0.63], "mean": 0.62, "low": 0.6, "high": 0.64},
        {"trial": "007", "values": [0.6, 0.62], "mean": 0.61, "low": 0.59, "high": 0.63},
    ],
    "winner": "005",
    "better": "Whether 005 is better than 007 cannot be told.",
    "metric": "val_accuracy",
    "test": {"accuracy": 0.6, "low": 0.58, "high": 0.62, "seeds": [0, 1]},
}


def an_evaluation(classes: Sequence[str], images: int = 400) -> dict[str, Any]:
    """What the contract says, of made-up predictions: neighbouring classes are mistaken for each other."""
    n, rng = len(classes), np.random.default_rng(0)
    truth = np.arange(images) % n
    logits = rng.normal(size=(images, n)) + 2.5 * np.eye(n)[truth] + 1.2 * np.eye(n)[truth ^ 1 if n % 2 == 0 else truth]
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    said, sure = chances.argmax(axis=1), chances.max(axis=1)
    confusion = np.zeros((n, n), dtype=int)
    np.add.at(confusion, (truth, said), 1)
    right = confusion.diagonal()
    recall, precision = right / confusion.sum(1), right / np.maximum(confusion.sum(0), 1)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-9)
    pairs = sorted(((int(confusion[i, j]), i, j) for i in range(n) for j in range(n) if i != j), reverse=True)[:20]
    bins = [(low / 15, (low + 1) / 15, (sure > low / 15) & (sure <= (low + 1) / 15)) for low in range(15)]
    wrong = sorted(np.flatnonzero(said != truth), key=lambda k: -sure[k])[:40]
    x = np.linspace(0, 1, 30)
    ends = {f"{name}_{end}" for name in ("precision", "recall", "f1") for end in ("low", "high")}
    macro = {"macro_precision": precision.mean(), "macro_recall": recall.mean(), "macro_f1": f1.mean()}
    metrics = {"accuracy": float(right.sum() / images), **macro, "ece": 0.081, "roc_auc": 0.9, "loss": 1.1}
    return {
        "format": 1,
        "model": {"name": "small run", "kind": "trial", "run": "small", "trial": "005", "epoch": 4, "seed": 0,
                  "params": 374000, "architecture": "cnn", "metric": "val_accuracy", "value": 0.63},
        "data": {"what": "test", "images": images, "looks": 1, "problems": []},
        "classes": list(classes),
        "metrics": {k: {"value": v, "low": 0.98 * v, "high": min(1.02 * v, 1.0 + (k == "loss"))}
                    for k, v in metrics.items()},
        "per_class": [
            {"class": name, "images": int(confusion[i].sum()), "predicted": int(confusion[:, i].sum()),
             "precision": precision[i], "recall": recall[i], "f1": f1[i], "roc_auc": 0.95 - i / 500,
             "average_precision": 0.9 - i / 500,
             **{end: max(0.0, min(1.0, 0.7 + 0.1 * (1 if "high" in end else -1))) for end in ends}}
            for i, name in enumerate(classes)
        ],
        "confusion": confusion.tolist(),
        "confused": [{"truth": classes[i], "predicted": classes[j], "count": k, "share": k / int(confusion[i].sum())}
                     for k, i, j in pairs if k],
        "calibration": [{"low": low, "high": high, "images": int(of.sum()), "confidence": float(sure[of].mean()),
                         "accuracy": float((said == truth)[of].mean())} for low, high, of in bins if of.any()],
        "curves": {kind: [{"class": name, "x": x.tolist(), "y": (y ** (0.2 + i / 50)).tolist()}
                          for i, name in enumerate(["macro", *classes[:20]])]
                   for kind, y in (("roc", x), ("pr", 1 - x))},
        "wrong": [{"image": f"images/{k:05}.png", "name": f"{classes[truth[k]]}/{k}.png", "truth": classes[truth[k]],
                   "predicted": classes[said[k]], "confidence": float(sure[k]),
                   "probability_of_truth": float(chances[k, truth[k]])} for k in map(int, wrong)],
        "training": [{"epoch": e, "train_loss": 2 / e, "val_loss": 2.1 / e, "train_accuracy": 1 - 0.8 / e,
                      "val_accuracy": 1 - 0.85 / e, "lr": 0.01} for e in range(1, 6)],
        "gap": {"train": 0.781, "images": 2000, "here": 0.6, "difference": 0.181, "low": 0.16, "high": 0.2},
        "notes": [],
        "seconds": 2.5,
        "images_per_second": 160.0,
    }  # fmt: skip


MakeEvaluation = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> MakeEvaluation:
    """make(classes, **changes of evaluation.json) writes a run's final/evaluation with thumbnails; returns it."""

    def write(classes: Sequence[str] | int = 4, /, **changes: Any) -> Path:
        from PIL import Image

        names = [f"class {n}" for n in range(classes)] if isinstance(classes, int) else classes
        told = an_evaluation(names) | changes
        folder = tmp_path / "final" / "evaluation"
        (folder / "images").mkdir(parents=True)
        rng = np.random.default_rng(0)
        for wrong in told["wrong"]:
            Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(folder / wrong["image"])
        (folder / "evaluation.json").write_text(json.dumps(told))
        return folder

    return write


def html_of(folder: Path) -> str:
    """The page's elements, without its scripts."""
    return page.render(read(folder), read_finals(folder)).split("</main>")[0].split("<main>")[1]


def text_of(folder: Path) -> str:
    """What a reader sees of the page."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html_of(folder)))


# ---------------------------------------------------------------- reading


def test_what_is_read_is_what_the_file_says(make: MakeEvaluation) -> None:
    folder = make(3)
    told, found = json.loads((folder / "evaluation.json").read_text()), read(folder)
    assert found.accuracy.value == told["metrics"]["accuracy"]["value"]
    assert [score.f1 for score in found.per_class] == [score["f1"] for score in told["per_class"]]
    assert [list(row) for row in found.confusion] == told["confusion"]
    assert found.folder == str(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, r"format"),
        ({"classes": ["a"]}, r"classes"),
        ({"confusion": [[1, 2], [3, 4]]}, "confusion is not 4 rows"),
        ({"confusion": [[-1] * 4] * 4}, r"confusion"),
        ({"confusion": [[10**30] * 4] * 4}, r"confusion"),
        ({"metrics": {}}, "no accuracy"),
        ({"per_class": []}, "one entry a class"),
        ({"curves": {"roc": [{"class": "macro", "x": [0, 1], "y": [0]}]}}, "as many x as y"),
        ({"calibration": [{"low": 0, "high": 1, "images": 3, "confidence": 7, "accuracy": 1}]}, "confidence"),
    ],
)
def test_a_damaged_file_is_refused_with_its_place(make: MakeEvaluation, change: dict[str, Any], said: str) -> None:
    with pytest.raises(Unreadable, match=said) as refused:
        read(make(4, **change))
    assert "evaluation.json" in str(refused.value)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '{"format": 1}', "[" * 100_000])
def test_what_is_no_evaluation_is_refused(make: MakeEvaluation, text: str) -> None:
    folder = make(2)
    (folder / "evaluation.json").write_text(text)
    with pytest.raises(Unreadable, match=r"evaluation\.json"):
        read(folder)


def test_a_missing_file_says_which_command_writes_it(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="hypertune evaluate"):
        read(tmp_path)


def test_a_picture_outside_of_the_folder_is_not_shown(make: MakeEvaluation) -> None:
    folder = make(2)
    before, told = html_of(folder), json.loads((folder / "evaluation.json").read_text())
    (folder / told["wrong"][0]["image"]).rename(folder.parents[1] / "secret.png")
    told["wrong"][0]["image"] = "../../secret.png"
    told["wrong"][1]["image"] = str(folder.parents[1] / "secret.png")
    (folder / "evaluation.json").write_text(json.dumps(told))
    assert 'class="lost"' not in before and html_of(folder).count('class="lost"') >= 2


# ---------------------------------------------------------------- figures


def figure(folder: Path, name: str) -> Any:
    draw = FIGURES[name].draw
    assert draw is not None
    return draw(read(folder))


def test_the_matrix_shows_the_shares_of_each_row_and_the_counts(make: MakeEvaluation) -> None:
    folder = make(2, confusion=[[150, 50], [1, 199]])
    shares, counts = (figure(folder, name).data[0] for name in ("confusion", "confusion_counts"))
    assert [list(row) for row in shares.text] == [["75", "25"], ["", "100"]]
    assert [list(row) for row in counts.text] == [["150", "50"], ["1", "199"]]
    assert [cell[0] for row in shares.customdata for cell in row] == [150, 50, 1, 199]
    assert shares.z[0][0] > 0 > shares.z[0][1]


def test_a_class_without_images_is_a_gap(make: MakeEvaluation) -> None:
    shown = figure(make(2, confusion=[[150, 50], [0, 0]]), "confusion").data[0]
    assert shown.z[1].tolist() == [None, None]


@pytest.mark.parametrize(("classes", "numbers"), [(20, True), (21, False)])
def test_cells_hold_numbers_as_long_as_they_can_be_read(make: MakeEvaluation, classes: int, numbers: bool) -> None:
    assert (figure(make(classes), "confusion").data[0].texttemplate is not None) == numbers


def test_classes_are_sorted_by_f1_and_the_worst_thirty_drawn(make: MakeEvaluation) -> None:
    folder = make(40)
    by_name = {trace.name: trace for trace in figure(folder, "per_class").data}
    values = list(by_name["F1"].x)
    known = sorted(score.f1 or 0 for score in read(folder).per_class)
    assert values == known[:30][::-1] and len(by_name["recall"].x) == 30
    assert "Of 40 classes the 30 worst are drawn" in FIGURES["per_class"].said(read(folder))


def test_pairs_are_the_most_frequent_first(make: MakeEvaluation) -> None:
    folder = make(4)
    bars = figure(folder, "confused").data[0]
    assert list(bars.x) == [pair.count for pair in read(folder).confused][:12]
    assert list(bars.x) == sorted(bars.x, reverse=True)


def test_reliability_shows_the_bins_and_their_images(make: MakeEvaluation) -> None:
    folder = make(4)
    bins, shown = read(folder).calibration, figure(folder, "reliability")
    assert list(shown.data[1].y) == [100 * part.accuracy for part in bins]
    assert list(shown.data[2].y) == [part.images for part in bins]


@pytest.mark.parametrize(("confidence", "said"), [(0.9, "too sure"), (0.5, "less sure"), (0.7, "about right")])
def test_the_calibration_error_is_said_in_words(make: MakeEvaluation, confidence: float, said: str) -> None:
    one = {"low": 0.4, "high": 0.9, "images": 400, "confidence": confidence, "accuracy": 0.7}
    words = FIGURES["reliability"].said(read(make(4, calibration=[one])))
    assert said in words and "8.1 points" in words


def test_wilson_reaches_further_for_fewer_images(make: MakeEvaluation) -> None:
    bins = [{"low": n / 2, "high": (n + 1) / 2, "images": images, "confidence": 0.5, "accuracy": 0.5}
            for n, images in enumerate((4, 100))]  # fmt: skip
    bars = figure(make(2, calibration=bins), "reliability").data[1].error_y
    assert bars.array[1] == pytest.approx(9.62, abs=0.02)  # R: binom.confint(50, 100, method="wilson")
    assert bars.array[0] > 3 * bars.array[1]


@pytest.mark.parametrize("name", ["roc", "precision_recall"])
def test_the_worst_classes_and_the_mean_stand_out(make: MakeEvaluation, name: str) -> None:
    traces = figure(make(6), name).data
    named = [trace.name for trace in traces if trace.showlegend and trace.name != "other classes"]
    assert [text.split(",")[0] for text in named] == ["class 5", "class 4", "class 3", "mean of all"]
    assert traces[-1].line.color == style.ACCENT


def test_training_marks_the_delivered_epoch(make: MakeEvaluation) -> None:
    shown = figure(make(2), "training_accuracy")
    assert [trace.name for trace in shown.data] == ["training images", "validation images"]
    assert shown.layout.annotations[0].text == "delivered: epoch 4" and shown.layout.shapes[0].x0 == 4


def test_corruptions_draw_a_line_a_kind(make: MakeEvaluation) -> None:
    steps = [{"strength": n, "accuracy": 0.6 - n / 10, "low": 0.5 - n / 10, "high": 0.7 - n / 10} for n in range(6)]
    flat = [{"strength": n, "accuracy": 0.6} for n in range(6)]
    folder = make(2, corruptions={"kinds": {"noise": steps, "jpeg": flat}})
    shown = figure(folder, "corruptions")
    assert [trace.name for trace in shown.data] == ["noise", "jpeg"]
    assert shown.data[0].y == pytest.approx([60, 50, 40, 30, 20, 10])
    assert "Noise costs most: at strength 5 the accuracy is 10.0%" in FIGURES["corruptions"].said(read(folder))


# ---------------------------------------------------------------- the page


@pytest.mark.parametrize(("looks", "said"), [(1, "first look"), (3, "have been looked at 3 times")])
def test_the_page_says_how_often_the_test_images_were_looked_at(make: MakeEvaluation, looks: int, said: str) -> None:
    shown = text_of(make(2, data={"what": "test", "images": 400, "looks": looks}))
    assert said in shown


def test_validation_images_are_not_sold_as_new_ones(make: MakeEvaluation) -> None:
    shown = text_of(make(2, data={"what": "validation", "images": 400, "looks": None}))
    assert "by which the search chose this model" in shown and "look at the test" not in shown


def test_the_page_shows_accuracy_with_its_interval_and_the_gap(make: MakeEvaluation) -> None:
    folder = make(4)
    accuracy, shown = read(folder).accuracy, text_of(folder)
    assert accuracy.value and accuracy.low and accuracy.high
    assert f"{100 * accuracy.value:.1f}%" in shown
    assert f"95% interval {100 * accuracy.low:.1f} to {100 * accuracy.high:.1f}%" in shown
    assert "78.1%: 18.1 points more, 95% interval 16.0 to 20.0" in shown


@pytest.mark.slow
def test_every_figure_lies_beside_the_page(make: MakeEvaluation) -> None:
    from PIL import Image

    folder = make(3)
    page.write(folder)
    made = {path.stem for path in folder.glob("*.png")}
    assert made == set(FIGURES) - {"corruptions"}
    for name in made:
        with Image.open(folder / f"{name}.png") as image:
            assert image.width >= 800


@pytest.mark.slow
def test_optional_parts_may_be_missing_and_old_figures_go(make: MakeEvaluation) -> None:
    nothing: dict[str, Any] = {
        "training": [],
        "gap": None,
        "curves": {"roc": [], "pr": []},
        "wrong": [],
        "confused": [],
    }
    folder = make(3, **nothing, calibration=[], corruptions=None, seconds=None, images_per_second=None)
    (folder / "roc.png").write_bytes(b"old")
    page.write(folder)
    shown = text_of(folder)
    assert not (folder / "roc.png").exists() and "How it was trained" not in shown
    assert "that it learned from" not in shown


@pytest.mark.parametrize("classes", [2, 100, 300])
def test_few_and_many_classes_fit_a_page_of_eight_megabytes(make: MakeEvaluation, classes: int) -> None:
    folder = make(classes)
    assert len(page.render(read(folder)).encode()) < 8_000_000
    shown = text_of(folder)
    assert all(f" class {n} " in shown for n in range(classes))


def test_hostile_names_are_text_everywhere(make: MakeEvaluation) -> None:
    folder = make(EVIL)
    html = page.render(read(folder))
    assert "<script>window" not in html and "<img src=x" not in html
    assert "x" * 100 not in html_of(folder)


def test_a_large_thumbnail_is_made_small(make: MakeEvaluation) -> None:
    from PIL import Image

    folder = make(2)
    large = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (600, 900, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(large, format="PNG")
    for path in (folder / "images").iterdir():
        path.write_bytes(large.getvalue())
    html = html_of(folder)
    assert "data:image/jpeg" in html and len(html) < 2_000_000 < 40 * len(large.getvalue())


def test_a_broken_thumbnail_leaves_an_empty_place(make: MakeEvaluation) -> None:
    folder = make(2)
    for path in (folder / "images").iterdir():
        path.write_bytes(b"\x89PNG\r\n\x1a\n broken")
    assert "data:image" not in html_of(folder)


@pytest.mark.slow
def test_the_finalists_are_shown_where_there_are_any(make: MakeEvaluation) -> None:
    folder = make(2)
    assert "finalists" not in text_of(folder)
    (folder.parent / "finalize.json").write_text(json.dumps(FINALS))
    page.write(folder)
    assert str(FINALS["better"]) in text_of(folder) and (folder / "finalists.png").exists()


def test_finalists_are_drawn_a_row_each_the_winner_on_top(make: MakeEvaluation) -> None:
    folder = make(2)
    (folder.parent / "finalize.json").write_text(json.dumps({**FINALS, "winner": "007"}))
    found = read_finals(folder)
    assert found
    seeds, means = finalists.draw(found).data
    assert list(seeds.x) == [60.0, 62.0, 61.0, 63.0] and list(seeds.y) == [0, 0, 1, 1]
    assert list(means.x) == [61.0, 62.0]


# ---------------------------------------------------------------- in a browser


def html_file(folder: Path) -> Path:
    """The page alone, without the figures as PNG, which take seconds."""
    path = folder / page.NAME
    path.write_text(page.render(read(folder), read_finals(folder)))
    return path


@pytest.mark.browser
@pytest.mark.parametrize(
    ("classes", "theme", "width"), [(EVIL, "light", 1100), (EVIL, "dark", 360), (30, "light", 360)]
)
def test_the_page_opens_in_the_readers_colours_and_fits_the_screen(
    open_page: Callable[..., Page], make: MakeEvaluation, classes: Any, theme: str, width: int
) -> None:
    folder = make(classes)
    (folder.parent / "finalize.json").write_text(json.dumps(FINALS))
    shown = open_page(html_file(folder), viewport={"width": width, "height": 800}, color_scheme=theme)
    shown.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    for place in shown.locator("[data-figure]").all():
        place.scroll_into_view_if_needed()
        place.locator("svg.main-svg").first.wait_for()
    grounds = "[...document.querySelectorAll('.js-plotly-plot')].map((place) => place._fullLayout.paper_bgcolor)"
    assert set(shown.evaluate(grounds)) == {style.THEMES[theme]["page"]}
    assert shown.locator(".js-plotly-plot").count() == len(FIGURES) - 2 + 1
    assert shown.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.browser
def test_on_paper_all_is_unfolded_and_light(
    open_page: Callable[..., Page], make: MakeEvaluation, tmp_path: Path
) -> None:
    shown = open_page(html_file(make(3)), color_scheme="dark")
    drawn = "document.querySelectorAll('.js-plotly-plot').length"
    opened = "[...document.querySelectorAll('details')].filter((part) => part.open).length"
    shown.evaluate(f"addEventListener('beforeprint', () => {{ window.printed = [{drawn}, {opened}, theme]; }})")
    shown.pdf(path=tmp_path / "page.pdf")
    assert shown.evaluate("printed") == [len(FIGURES) - 2, 1, "light"]
