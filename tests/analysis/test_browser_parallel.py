"""The widget of the parallel coordinates in a real browser, under the page's own policy, moved by a real mouse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from analysis.folders.parameters import Parameter
from analysis.page import pages
from analysis.plots import parallel
from analysis.results import Results

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser
HERE = Path(parallel.__file__).parents[1] / "page"
EVIL = "</script><img src=x onerror=alert(1)>"
COUNT = 200
PAGE = """<!doctype html><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'">
<style>{css}</style><main><div id="place"></div></main>
<script type="application/json" id="data">{data}</script><script>{js}</script>
<script>
const place = document.getElementById("place");
place.addEventListener("brushed", (event) => {{ window.brushed = event.detail.trials; }});
window.widget = parallelCoordinates(place, JSON.parse(document.getElementById("data").textContent), "light");
</script>"""


def make() -> Results:
    """A learning rate, an optimizer of three with a hostile name, a momentum that one of them alone has."""
    random = np.random.default_rng(0)
    ids = pd.Index([f"{i:03d}" for i in range(COUNT)], name="trial")
    optimizer = random.choice(["adam", "sgd", EVIL], COUNT)
    accuracy = random.uniform(0.1, 0.9, COUNT)
    columns = {
        "label": None, "state": "finished", "epochs": 1, "repeat_of": None, "breaks": None, "val_accuracy": accuracy,
        "lr": 10 ** random.uniform(-4, -1, COUNT), "opt": optimizer,
        "momentum": np.where(optimizer == "sgd", random.uniform(0.5, 0.9, COUNT), np.nan),
    }  # fmt: skip
    parameters = (
        Parameter("lr", "lr", "float", True, log=True, low=1e-4, high=0.1),
        Parameter("opt", "opt", "choice", False, choices=("adam", "sgd", EVIL)),
        Parameter("momentum", "momentum", "float", True, low=0.5, high=0.9),
    )
    epochs = pd.DataFrame({"trial": ids, "epoch": 1, "val_accuracy": accuracy})
    table = pd.DataFrame(columns, index=ids)
    return Results(Path("run"), "run", "ray", table, epochs, parameters, "val_accuracy", "max", {}, ())


@pytest.fixture(scope="module")
def it() -> parallel.Parallel:
    return parallel.compute(make())


@pytest.fixture
def page(open_page: Callable[..., Page], it: parallel.Parallel, tmp_path: Path) -> Page:
    """The widget, drawn. Whatever the console says fails the test; markup from data would make it speak."""
    css, js = ((HERE / f"parallel.{kind}").read_text() for kind in ("css", "js"))
    target = tmp_path / "page.html"
    target.write_text(PAGE.format(css=css, js=js, data=pages.script_json(parallel.page_json(it))))
    return open_page(target, viewport={"width": 900, "height": 700})


def brush(page: Page, axis: int, top: float, bottom: float) -> None:
    """Drags down along an axis, from a share of its height to another."""
    box = page.locator(".strip").nth(axis).bounding_box()
    assert box is not None
    x, y, tall = box["x"] + box["width"] / 2, box["y"] + 4, box["height"] - 8
    page.mouse.move(x, y + top * tall)
    page.mouse.down()
    page.mouse.move(x, y + (top + bottom) / 2 * tall)
    page.mouse.move(x, y + bottom * tall)
    page.mouse.up()


def between(lane: parallel.Lane, top: float, bottom: float) -> Any:
    """Which trials lie within these shares of the height of an axis without exact values."""
    at = np.nan_to_num(lane.positions, nan=-99.0 if lane.floor is None else lane.floor)
    height = (lane.high - at) / (lane.high - lane.bottom)
    return (height >= top) & (height <= bottom)


def titles(page: Page) -> list[str]:
    """Those of the axes shown, from left to right."""
    boxes = [(head.bounding_box(), head.inner_text()) for head in page.locator(".head:visible").all()]
    return [text.split("\n")[0] for box, text in sorted(boxes, key=lambda pair: pair[0]["x"] if pair[0] else 0)]


def test_a_brush_keeps_the_trials_that_numpy_keeps_and_tells_the_page(page: Page, it: parallel.Parallel) -> None:
    brush(page, 0, 0.2, 0.7)
    kept = between(it.lanes[0], 0.2, 0.7)
    assert page.locator(".count").inner_text() == f"{kept.sum()} of 200 trials"
    brush(page, 3, 0.1, 0.5)
    kept &= between(it.lanes[3], 0.1, 0.5)
    ids = [trial for trial, keep in zip(it.trials, kept, strict=True) if keep]
    assert 0 < len(ids) < 100 and page.evaluate("brushed") == ids
    best = page.locator(".best-of button").first.inner_text()
    assert best.startswith(f"{ids[-1]}: ")
    page.locator(".clear").click()
    assert page.locator(".count").inner_text() == "200 trials" and page.evaluate("brushed") is None


def test_a_brush_that_touches_a_category_takes_all_of_it(page: Page, it: parallel.Parallel) -> None:
    lane = it.lanes[1]
    sgd = (lane.high - 1) / (lane.high - lane.bottom)
    brush(page, 1, sgd - 0.03, sgd + 0.03)
    assert page.locator(".count").inner_text() == f"{(np.array(lane.positions) == 1).sum()} of 200 trials"


def test_missing_values_can_be_brushed(page: Page, it: parallel.Parallel) -> None:
    brush(page, 2, 0.85, 1.0)
    missing = int(np.isnan(it.lanes[2].positions).sum())
    assert page.locator(".count").inner_text() == f"{missing} of 200 trials" and missing > 0


def test_a_brush_moves_with_the_mouse_and_goes_with_a_click(page: Page, it: parallel.Parallel) -> None:
    brush(page, 0, 0.2, 0.4)
    brush(page, 0, 0.3, 0.6)  # from inside the brush: all of it moves by 0.3
    assert page.locator(".count").inner_text() == f"{between(it.lanes[0], 0.5, 0.7).sum()} of 200 trials"
    page.locator(".strip").first.click()
    assert page.locator(".count").inner_text() == "200 trials"


def test_the_keyboard_brushes_too(page: Page, it: parallel.Parallel) -> None:
    page.locator(".strip").nth(1).focus()
    page.keyboard.press("ArrowUp")
    of = [(np.array(it.lanes[1].positions) == n).sum() for n in range(3)]
    assert page.locator(".count").inner_text() == f"{of[0]} of 200 trials"
    page.keyboard.press("ArrowUp")
    assert page.locator(".count").inner_text() == f"{of[1]} of 200 trials"
    page.keyboard.press("Shift+ArrowUp")
    assert page.locator(".count").inner_text() == f"{of[1] + of[2]} of 200 trials"
    page.keyboard.press("Escape")
    assert page.locator(".count").inner_text() == "200 trials"


def test_an_axis_moves_with_its_title(page: Page) -> None:
    assert titles(page) == ["learning rate (log)", "opt", "momentum", "validation accuracy (%)"]
    box, target = (page.locator(".title").nth(n).bounding_box() for n in (0, 2))
    assert box is not None and target is not None
    page.mouse.move(box["x"] + 10, box["y"] + 8)
    page.mouse.down()
    page.mouse.move(target["x"] - 40, box["y"] + 8)
    page.mouse.move(target["x"] + 10, box["y"] + 8)
    page.mouse.up()
    assert titles(page) == ["opt", "momentum", "learning rate (log)", "validation accuracy (%)"]
    page.locator(".title", has_text="opt").press("ArrowRight")
    assert titles(page) == ["momentum", "opt", "learning rate (log)", "validation accuracy (%)"]


def test_a_hidden_axis_takes_its_brush_along_and_comes_back_by_its_chip(page: Page) -> None:
    brush(page, 0, 0.2, 0.7)
    page.locator(".title").nth(0).hover()
    page.locator(".hide").nth(0).click()
    assert titles(page) == ["opt", "momentum", "validation accuracy (%)"]
    assert page.locator(".count").inner_text() == "200 trials"
    page.locator(".hidden-axes button").click()
    assert titles(page)[0] == "learning rate (log)" and page.locator(".hidden-axes").is_hidden()


def test_a_line_under_the_pointer_says_what_it_is(page: Page, it: parallel.Parallel) -> None:
    box = page.locator(".strip").nth(3).bounding_box()
    assert box is not None
    lane = it.lanes[3]
    top = (lane.high - lane.positions[-1]) / (lane.high - lane.bottom)
    page.mouse.move(box["x"] - 1, box["y"] + 4 + top * (box["height"] - 8))
    tip = page.locator(".tip").inner_text()
    assert tip.startswith(f"{it.names[-1]}\nvalidation accuracy {it.reached[-1]}, finished")


def test_colour_by_a_category_names_its_values(page: Page) -> None:
    page.locator("select").select_option(label="opt")
    legend = page.locator(".legend").inner_text()
    assert legend.split("\n")[:2] == ["adam", "sgd"] and EVIL[:21] in legend


def test_a_thinned_crowd_says_of_how_many(page: Page) -> None:
    page.evaluate("""() => {
        const data = JSON.parse(document.getElementById("data").textContent);
        parallelCoordinates(place, { ...data, total: 10000 }, "light");
    }""")
    assert page.locator(".count").all_inner_texts() == ["200 of 10,000 trials drawn"]
    brush(page, 2, 0.85, 1.0)
    assert page.locator(".count").inner_text().endswith(" of 200 drawn, 10,000 in all")


def test_repainting_changes_the_theme(page: Page) -> None:
    before = page.locator(".stage").screenshot()
    page.evaluate("widget.repaint('dark')")
    assert page.locator(".stage").screenshot() != before


def test_on_a_phone_it_scrolls_inside_its_box(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 700})
    page.wait_for_function("document.querySelector('.stage').offsetWidth < 600")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    box = page.evaluate(
        "(({ scrollWidth, clientWidth }) => [scrollWidth, clientWidth])(document.querySelector('.sideways'))"
    )
    assert box[0] > box[1]
