"""The report in a real browser, opened from its file: every figure is drawn, and its parts work together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

import analysis
from analysis import style
from analysis.folders.parameters import Parameter
from analysis.page import report
from analysis.results import Results

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

FIXTURES = Path(__file__).parents[1] / "fixtures"
EVIL = "</script><img src=x onerror=window.hacked=1>" + "long" * 60
HTML: tuple[Literal["html"]] = ("html",)
DRAWN = "[...document.querySelectorAll('[data-figure]')].filter((place) => place.querySelector('svg.main-svg')).length"

COLOURS = "[...document.querySelectorAll('.js-plotly-plot')].map((place) => place._fullLayout.paper_bgcolor)"


@pytest.fixture(scope="module")
def results() -> Results:
    return analysis.load(FIXTURES / "hypertune_digits")


@pytest.fixture(scope="module")
def path(results: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run in which hostile people chose the names."""
    trials = results.trials.copy()
    trials["label"] = EVIL
    trials["train.optimizer"] = trials["train.optimizer"].replace({"adam": EVIL})
    trials[EVIL] = [f"{EVIL}{n % 3}" for n in range(len(trials))]
    hostile = Parameter(EVIL, EVIL, "choice", False, choices=(f"{EVIL}0", f"{EVIL}1", f"{EVIL}2"))
    changed = replace(
        results, trials=trials, name=EVIL, problems=(EVIL,), parameters=(*results.parameters, hostile)
    )  # fmt: skip
    return report.write(changed, tmp_path_factory.mktemp("report"), formats=HTML).page


def show_all(page: Page) -> list[str]:
    """Opens what is folded and goes through the page; returns the figures that were drawn."""
    page.evaluate("document.querySelectorAll('#more details').forEach((part) => { part.open = true; })")
    drawn = []
    for place in page.locator("[data-figure]").all():
        place.scroll_into_view_if_needed()
        place.locator("svg.main-svg").first.wait_for()
        drawn.append(str(place.get_attribute("data-figure")))
    return drawn


def backgrounds(page: Page) -> set[str]:
    """Of all figures drawn."""
    return set(page.evaluate(COLOURS))


@pytest.mark.parametrize(("theme", "width"), [("light", 1100), ("dark", 1100), ("light", 360)])
def test_every_figure_is_drawn_in_the_readers_colours_and_the_page_fits_the_screen(
    open_page: Callable[..., Page], path: Path, theme: str, width: int
) -> None:
    page = open_page(path, viewport={"width": width, "height": 800}, color_scheme=theme)
    drawn = show_all(page)
    assert len(drawn) >= 10 and drawn == page.evaluate("places.map((place) => place.dataset.figure)")
    assert backgrounds(page) == {style.THEMES[theme]["page"]}
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("#parallel-place .strip").count() == page.evaluate("lines.lanes.length") > 3
    assert page.locator("#trials-place tr.row").count() == 10


def test_figures_wait_until_the_reader_comes_near(open_page: Callable[..., Page], path: Path) -> None:
    page = open_page(path)
    page.locator("[data-figure=best_so_far] svg.main-svg").first.wait_for()
    at_first = page.evaluate(DRAWN)
    assert at_first < len(show_all(page)) == page.evaluate(DRAWN)


def test_what_is_brushed_is_what_the_table_shows(open_page: Callable[..., Page], path: Path, results: Results) -> None:
    page = open_page(path)
    strip = page.locator("#parallel-place .strip").last
    strip.scroll_into_view_if_needed()
    box = strip.bounding_box()
    assert box is not None
    x, y, tall = box["x"] + box["width"] / 2, box["y"] + 4, box["height"] - 8
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x, y + tall / 4)
    page.mouse.move(x, y + tall / 2)
    page.mouse.up()
    kept = int(page.locator("#parallel-place .count").inner_text().split(" ")[0])
    rows = page.locator("#trials-place tr.row")
    best = results.trials["val_accuracy"].dropna().sort_values(ascending=False).index[:kept]
    assert 0 < kept < 10 and rows.count() == kept
    assert {text.split()[0] for text in rows.locator("td:nth-child(3)").all_inner_texts()} == set(best)
    page.locator("#parallel-place .clear").click()
    assert rows.count() == 10


def test_another_theme_repaints_what_is_drawn(open_page: Callable[..., Page], path: Path) -> None:
    page = open_page(path, color_scheme="light")
    show_all(page)
    stage = page.locator("#parallel-place .stage")
    before = stage.screenshot()
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"(colour) => {COLOURS}.every((one) => one === colour)", arg=style.THEMES["dark"]["page"])
    assert stage.screenshot() != before


def test_on_paper_all_is_there_and_light(open_page: Callable[..., Page], path: Path, tmp_path: Path) -> None:
    page = open_page(path, color_scheme="dark")
    page.evaluate(f"addEventListener('beforeprint', () => {{ window.printed = [{DRAWN}, {COLOURS}]; }})")
    page.pdf(path=tmp_path / "report.pdf")
    drawn, colours = page.evaluate("printed")
    assert drawn == len(colours) == page.locator("[data-figure]").count() >= 10
    assert set(colours) == {style.THEMES["light"]["page"]}
    assert backgrounds(page) == {style.THEMES["dark"]["page"]}
    assert page.locator("#more details[open]").count() == 0


@pytest.mark.parametrize("name", ["ray_asha", "ray_killed"])
def test_the_report_of_a_foreign_run_opens(open_page: Callable[..., Any], tmp_path: Path, name: str) -> None:
    page = open_page(report.write(analysis.load(FIXTURES / name), tmp_path, formats=HTML).page)
    assert show_all(page) == page.evaluate("places.map((place) => place.dataset.figure)")
