"""The page of two models against each other says what versus.json says, and nothing where that says nothing."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from analysis.evaluation import versus_figures, versus_page
from analysis.evaluation.versus_read import read
from analysis.folders.folder import Unreadable

Write = Callable[..., Path]


def side(name: str, accuracy: float) -> dict[str, Any]:
    return {"name": name, "kind": "torch", "run": "shapes", "trial": name[-3:], "epoch": 4, "seed": 0,
            "architecture": "cnn", "params": 12_345, "bytes": 49_380, "image_size": 16, "channels": 3,
            "accuracy": accuracy, "low": accuracy - 0.05, "high": accuracy + 0.05, "macro_f1": 0.7, "loss": 0.9,
            "ece": None}  # fmt: skip


def kinds(start: float) -> dict[str, Any]:
    steps = [
        {"strength": n, "accuracy": start - n / 20, "low": start - n / 20 - 0.04, "high": start - n / 20 + 0.04}
        for n in range(6)
    ]
    return {"mean": start - 0.15, "kinds": {"noise": steps, "jpeg": steps}}


SAID: dict[str, Any] = {
    "format": 1,
    "answer": "run 001 is better than run 002 by 10.0 points (95%: 4.0 to 16.0, p = 0.002) on 200 test images.",
    "what": "test", "split": "test", "images": 200, "looks": {"run": 1}, "problems": [],
    "classes": ["circle", "square", "<b>"],
    "models": [side("run 001", 0.75), side("run 002", 0.65)],
    "overall": {"both": 120, "first": 30, "second": 10, "neither": 40, "difference": 0.1, "low": 0.04, "high": 0.16,
                "p": 0.002},
    "agreement": 0.7, "wrong_apart": 20,
    "per_class": [
        {"name": "circle", "images": 70, "recalls": [0.9, 0.6], "difference": 0.3, "low": 0.2, "high": 0.4,
         "p": 1e-5, "p_holm": 3e-5},
        {"name": "square", "images": 65, "recalls": [0.5, 0.8], "difference": -0.3, "low": -0.4, "high": -0.2,
         "p": 2e-5, "p_holm": 4e-5},
        {"name": "<b>", "images": 65, "recalls": [0.5, 0.5], "difference": 0.0, "low": -0.1, "high": 0.1,
         "p": 1.0, "p_holm": 1.0},
    ],
    "only_first": [{"image": "images/00007.png", "name": "a/<i>.png", "truth": "<b>", "predicted": ["<b>", "circle"],
                    "confidence": [0.91, 0.87]}],
    "only_second": [], "both_wrong": [],
    "robustness": {"images": 200, "strengths_of": "CIFAR-10-C", "amounts": {"noise": [0.04], "jpeg": [80]},
                   "models": [kinds(0.75), kinds(0.65)], "difference": {"value": 0.1, "low": 0.05, "high": 0.15}},
    "notes": ["Of this nothing."],
}  # fmt: skip


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """write(change) writes versus.json, changed, with one thumbnail, and returns its folder."""

    def made(change: Callable[[dict[str, Any]], object] = lambda _: None) -> Path:
        said = copy.deepcopy(SAID)
        change(said)
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.new("RGB", (16, 16), "red").save(tmp_path / "images" / "00007.png")
        (tmp_path / "versus.json").write_text(json.dumps(said))
        return tmp_path

    return made


def text(folder: Path) -> str:
    """What a reader sees of the page."""
    page = versus_page.render(read(folder)).split("<main>")[1].split("</main>")[0]
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", page))).replace("\xa0", " ")


@pytest.mark.slow
def test_the_page_lies_beside_the_file_with_its_figures(write: Write) -> None:
    page = versus_page.write(write())
    assert page.name == "index.html" and page.stat().st_size > 100_000
    made = sorted(page.parent.glob("*.png"))
    assert [path.name for path in made] == ["classes.png", "corruptions.png", "only_first.png"]
    for path in made:
        with Image.open(path) as image:
            assert image.width >= 1_000


def test_it_answers_first_and_shows_all_four_counts_and_both_models(write: Write) -> None:
    shown = text(write())
    assert shown.index(SAID["answer"]) < shown.index("Side by side")
    assert "+10.0 points of accuracy, run 001 over run 002 95% interval +4.0 to +16.0" in shown
    assert all(part in shown for part in ("120 60.0%", "30 15.0%", "10 5.0%", "40 20.0%", "12,345", "0.0494 MB"))
    assert "75.0% (70.0 to 80.0)" in shown and "first look at the test images" in shown and "Of this nothing." in shown


def test_the_one_that_is_ahead_stands_first_in_the_answer(write: Write) -> None:
    shown = text(
        write(lambda said: said["overall"].update(first=10, second=30, difference=-0.1, low=-0.16, high=-0.04))
    )
    assert "+10.0 points of accuracy, run 002 over run 001 95% interval +4.0 to +16.0" in shown


def test_names_are_text_and_thumbnails_are_in_the_page(write: Write) -> None:
    page = versus_page.render(read(write()))
    assert "<i>" not in page and "<b>" not in page.split("<script>")[0] and "&lt;b&gt;" in page
    assert page.split("<script>")[0].count("data:image/png;base64,") == 1


@pytest.mark.parametrize("image", ["../secret.png", "/etc/passwd", "images/../versus.json", "images/00008.png"])
def test_only_pictures_of_the_folder_are_shown(image: str, write: Write) -> None:
    page = versus_page.render(read(write(lambda said: said["only_first"][0].update(image=image))))
    assert "base64," not in page.split("<script>")[0] and 'class="lost"' in page


def test_classes_are_coloured_only_where_they_differ_by_more_than_chance(write: Write) -> None:
    versus = read(write())
    figure = versus_figures.draw_classes(versus).to_dict()
    dots = {trace["name"]: (list(trace["x"]), list(trace["y"])) for trace in figure["data"]}
    assert dots["run 001 clearly better"] == ([30.0], [0]) and dots["run 002 clearly better"] == ([-30.0], [2])
    assert dots["could be chance"] == ([0.0], [1]) and "&lt;b&gt;" in figure["layout"]["yaxis"]["ticktext"][1]
    assert "In 2 classes of 3" in versus_figures.classes_said(versus)


def test_corruptions_have_a_line_and_a_band_each_on_one_scale(write: Write) -> None:
    versus = read(write())
    assert list(versus_figures.steps(versus)) == ["noise", "jpeg"]
    one, other = (versus_figures.draw_kind(versus, kind).to_dict() for kind in ("noise", "jpeg"))
    assert list(one["data"][1]["y"]) == pytest.approx([75, 70, 65, 60, 55, 50]) and len(one["data"]) == 4
    assert max(one["data"][0]["y"]) == pytest.approx(79)
    assert one["layout"]["yaxis"]["range"] == other["layout"]["yaxis"]["range"]
    assert "60.0% of 200 images, run 002 on 50.0%: +10.0 points (95%: +5.0 to +15.0)" in text(write())


def test_without_corruptions_the_page_says_nothing_of_them(write: Write) -> None:
    assert "worse images" not in text(write(lambda said: said.update(robustness=None)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda said: said.update(looks={"run": 4}), "test images of run have been looked at 4 times"),
        (lambda said: said.update(split="validation", looks=None), "by which the search chose its models"),
        (lambda said: said.update(split=None, what="new/photos", looks=None), "the same 200 images of new/photos"),
        (lambda said: said.update(problems=["x.png was left out"]), "x.png was left out"),
    ],
)
def test_what_makes_the_numbers_worth_less_stands_above_them(
    change: Callable[[dict[str, Any]], object], said: str, write: Write
) -> None:
    shown = text(write(change))
    assert said in shown and shown.index(said) < shown.index("Side by side")


def test_of_many_classes_those_that_differ_most_are_drawn_and_the_rest_is_in_the_table(write: Write) -> None:
    def many(said: dict[str, Any]) -> None:
        said["classes"] = [f"class {n}" for n in range(90)]
        one = said["per_class"][0]
        said["per_class"] = [{**one, "name": f"class {n}", "difference": n / 100} for n in range(90)]

    versus = read(write(many))
    assert [one.name for one in versus_figures.rows(versus)] == [f"class {n}" for n in range(89, 59, -1)]
    shown = text(write(many))
    assert "The 30 that differ most are drawn" in shown and "All 90 classes as a table" in shown and "class 3 " in shown


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda said: said.update(format=2), "format"),
        (lambda said: said["overall"].update(both=1), "counts"),
        (lambda said: said["per_class"][0].update(recalls=[0.1]), "recalls"),
        (lambda said: said["models"].pop(), "models"),
        (lambda said: said["robustness"]["models"][0]["kinds"].pop("noise"), "kinds of corruption"),
    ],
)
def test_a_damaged_file_is_refused_with_its_place(
    change: Callable[[dict[str, Any]], object], said: str, write: Write
) -> None:
    with pytest.raises(Unreadable, match=rf"versus\.json.*{said}"):
        read(write(change))


def test_a_folder_without_the_file_says_which_command_writes_it(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="hypertune evaluate A B"):
        read(tmp_path)
