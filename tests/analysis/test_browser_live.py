"""A page whose run goes on, in a real browser: loads itself again at the same place until the run has ended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.browser

SCRIPT = Path(__file__).parents[2] / "analysis" / "page" / "live.js"
PART = "<details><summary>part</summary>text</details>"


USE = "<script>document.querySelectorAll('details')[1].open = true; scrollTo(0, 1234);</script>"
THERE = "scrollY === 1234 && [...document.querySelectorAll('details')].map((d) => d.open).join() === 'false,true'"


def write(path: Path, version: int, *, live: bool, used: bool = False) -> None:
    mark = ' data-live="0.2"' if live else ""
    body = f'<p>{version}</p>{PART}{PART}<div style="height:5000px"></div>{USE * used}'
    path.write_text(f"<!doctype html><html{mark}><body>{body}<script>{SCRIPT.read_text()}</script>")


def test_a_live_page_loads_itself_again_at_the_same_place_until_its_run_has_ended(
    open_page: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    write(path, 1, live=True, used=True)
    page = open_page(path)
    write(path, 2, live=True)
    page.wait_for_function(f"document.querySelector('p').textContent === '2' && {THERE}")
    write(path, 3, live=False)
    page.wait_for_function(f"document.querySelector('p').textContent === '3' && {THERE}")
    write(path, 4, live=False)
    page.evaluate("new Promise((done) => setTimeout(done, 600))")  # a live page is gone before
    assert page.inner_text("p") == "3"
