"""The page of explained images: right beside wrong, names as they are, nothing that a name could run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from analysis.evaluation import explain_page


def image(name: str, right: bool | None, **changes: Any) -> dict[str, Any]:
    """What explain.json says of one image."""
    said = {
        "name": name, "path": f"photos/{name}", "picture": "a b.png", "panels": "panels/a b.png", "title": "",
        "predicted": "cat", "confidence": 0.912, "truth": None if right is None else "cat" if right else "<b>dog",
        "probability_of_truth": 0.03, "right": right, "flat": False, "divides": None,
    }  # fmt: skip
    return {**said, **changes}


def said(*images: dict[str, Any], **changes: Any) -> dict[str, Any]:
    known = any(one["right"] is not None for one in images)
    plain = {
        "format": 1, "model": {"name": "pets 007", "image_size": 32},
        "data": {"what": "photos", "images": 40, "truth": known, "right": 30, "problems": ["x.png: empty"]},
        "method": "gradcam", "method_name": "Grad-CAM", "layer": {"name": "block3", "side": 4, "maps": 64},
        "scale": ["#808080", "#ffff00"], "notes": [], "images": list(images), "filters": None, "maps": None,
    }  # fmt: skip
    return {**plain, **changes}


def test_right_and_wrong_ones_stand_side_by_side_and_are_counted() -> None:
    page = explain_page.render(said(image("1.jpg", True), image("2.jpg", False), image("3.jpg", False)))
    right, wrong = page.index("<h2>Right</h2>"), page.index("<h2>Wrong</h2>")
    assert right < page.index("1.jpg</span>") < wrong < page.index("2.jpg</span>") < page.index("3.jpg</span>")
    assert "40 images of photos, 75.0% of them right. Shown are 1 of 30 right ones and 2 of 10 wrong ones." in page
    assert "cat 91.2%</b>, is &lt;b&gt;dog (3.0%)" in page and "<b>dog" not in page
    assert "x.png: empty" in page and "each stands for 8 pixels of the 32" in page.lower().replace("\n", " ")


def test_images_of_unknown_truth_are_one_list() -> None:
    page = explain_page.render(said(image("1.jpg", None)))
    assert "1 image of unknown truth" in page and "<h2>Wrong</h2>" not in page and "<h2>Images</h2>" in page


def test_what_occlusion_says_stands_below_the_image() -> None:
    found = image("1.jpg", False, divides=12.34, divides_truth=1.5, flat_truth=True)
    page = explain_page.render(said(found, method="occlusion", layer=None, notes=["Take care."]))
    assert "nothing stands out for &lt;b&gt;dog; odds of cat divided by up to 12;" in page
    assert "odds of &lt;b&gt;dog divided by up to 1.5" in page
    assert "The square is 8 pixels wide" in page and "--method gradcam" in page and "Take care." in page


def test_it_is_written_beside_its_pictures_with_links_that_any_file_name_survives(tmp_path: Path) -> None:
    (tmp_path / "explain.json").write_text(json.dumps(said(image("1.jpg", None))))
    text = explain_page.write(tmp_path).read_text()
    assert 'href="a%20b.png"' in text and 'src="panels/a%20b.png"' in text and "<script" not in text


@pytest.mark.parametrize("content", [None, "{", "[]", '{"format": 2}'])
def test_a_damaged_file_is_refused(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "explain.json").write_text(content)
    with pytest.raises(ValueError, match=r"explain.json"):
        explain_page.write(tmp_path)
