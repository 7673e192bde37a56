"""The table of all trials in a real browser: what it shows, sorts, filters, opens and compares is what Python says."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis import fidelity, style
from analysis.folders.parameters import Parameter
from analysis.page import pages, tables
from analysis.results import Results

pytestmark = pytest.mark.browser

HERE = Path(__file__).parents[2] / "analysis" / "page"
EVIL = "</script><img src=x onerror=window.hacked=1>"
COUNT = 60
PARAMETERS = (
    Parameter("lr", "train.lr", "float", True, log=True, low=1e-6, high=1e-1),
    Parameter("kind", "model.kind", "choice", False, choices=("plain", EVIL)),
    Parameter("batch", "train.batch_size", "int", True, low=128, high=128),
)


@pytest.fixture(scope="module")
def results() -> Results:
    rng = np.random.default_rng(3)
    ids = pd.Index([f"{n:03d}" for n in range(1, COUNT + 1)], name="trial", dtype="str")
    length = np.where(np.arange(COUNT) % 3 == 0, 6, 2)
    trial, epoch = np.repeat(np.arange(COUNT), length), np.concatenate([np.arange(1, n + 1) for n in length])
    value = rng.uniform(0.2, 0.9, COUNT)[trial] * (1 - np.exp(-epoch))
    value[trial == 4] = math.nan
    epochs = pd.DataFrame({"trial": ids[trial], "epoch": epoch, "val_accuracy": value, "train_accuracy": value + 0.05})
    best = epochs.groupby("trial")["val_accuracy"].max()
    trials = pd.DataFrame(
        {
            "number": np.arange(1, COUNT + 1), "label": [EVIL, *[None] * (COUNT - 1)],
            "state": pd.array(np.where(length == 6, "finished", "stopped"), dtype="str"), "reason": "rung at epoch 2",
            "epochs": length, "best_epoch": length.astype(float), "full_epochs": 6.0,
            "seconds": rng.uniform(1, 9000, COUNT), "started": 0.0, "ended": 9.0, "repeat_of": None, "breaks": None,
            "val_accuracy": best, "params": rng.integers(900, 2_000_000, COUNT).astype(float),
            "train.lr": 10 ** rng.uniform(-6, -1, COUNT), "train.batch_size": 128.0,
            "model.kind": np.where(np.arange(COUNT) % 5, "plain", EVIL),
        },
        index=ids,
    )  # fmt: skip
    trials.loc["003", "state"] = "failed"
    classes = pd.DataFrame(rng.uniform(size=(COUNT, 10)), index=ids, columns=[f"class {n}" for n in range(10)])
    return Results(
        Path("x"), "x", "hypertune", trials, epochs, PARAMETERS, "val_accuracy", "max", {}, (), classes=classes
    )


def write(results: Results, path: Path) -> Path:
    """The table alone, under a policy at least as strict as the report's."""
    data = pages.script_json(tables.page_json(results, fidelity.order(results)))
    scripts = "".join((HERE / name).read_text() for name in ("trial.js", "trials.js"))
    path.write_text(
        f"""<!doctype html><meta charset="utf-8"><meta http-equiv="Content-Security-Policy"
        content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'"><div id="place"></div>
        <script type="application/json" id="data">{data}</script><script>{scripts}
        const table = trialsTable(document.getElementById("place"),
          JSON.parse(document.getElementById("data").textContent));</script>""",
        encoding="utf-8",
    )
    return path


@pytest.fixture
def page(open_page: Callable[..., Any], results: Results, tmp_path: Path) -> Any:
    """Any error, refused resource or name that was run fails the test."""
    return open_page(write(results, tmp_path / "page.html"))


def column(page: Any, name: str) -> list[str]:
    """The cells under a heading, from top to bottom."""
    heads = [text.strip() for text in page.locator("#place > .scroll thead th:visible").all_inner_texts()]
    cells = page.locator(f"tr.row td:nth-child({heads.index(name) + 1})")
    return [text.strip() for text in cells.all_inner_texts()]


def sort_by(page: Any, name: str) -> None:
    page.locator("thead button", has_text=re.compile(f"^{name}$")).click()


def tick(page: Any, trial: str) -> None:
    page.get_by_role("combobox").select_option("100")
    page.get_by_label(f"compare trial {trial}").check()


def test_the_first_page_is_the_ranking_with_pythons_words(page: Any, results: Results) -> None:
    order = fidelity.order(results)[:25]
    table = results.trials.loc[order]
    assert [name.split(" ")[0] for name in column(page, "trial")] == order
    assert column(page, "rank") == [str(n) for n in range(1, 26)]
    assert column(page, "validation accuracy") == [style.metric(results).text(v) for v in table["val_accuracy"]]
    assert column(page, "learning rate") == [style.number(v) for v in table["train.lr"]]
    assert column(page, "time") == [style.duration(v) for v in table["seconds"]]
    assert column(page, "kind") == list(table["model.kind"])
    assert page.locator(".count").inner_text() == "60 of 60"


def test_a_heading_sorts_both_ways_by_keyboard_too_and_unknown_values_stay_last(page: Any, results: Results) -> None:
    sort_by(page, "time")
    expected = results.trials["seconds"].sort_values()
    assert column(page, "time")[0] == style.duration(expected.iloc[0])
    assert page.locator("th[aria-sort=ascending]").inner_text().startswith("time")
    page.locator("th[aria-sort] button").press("Enter")
    assert column(page, "time")[0] == style.duration(expected.iloc[-1])
    sort_by(page, "validation accuracy")
    best = results.trials["val_accuracy"].idxmax()
    assert column(page, "trial")[0].startswith(str(best))
    for _ in range(2):
        page.get_by_role("button", name="next").click()
        page.get_by_role("button", name="next").click()
        assert column(page, "validation accuracy")[-1] == "–"
        sort_by(page, "validation accuracy")


def test_chips_and_words_filter_together(page: Any, results: Results) -> None:
    page.locator(".chip", has_text="stopped").click()
    stopped = results.trials["state"] == "stopped"
    assert page.locator(".count").inner_text() == f"{stopped.sum()} of 60"
    page.get_by_role("searchbox").fill("KIND </script>")
    both = stopped & (results.trials["model.kind"] == EVIL)
    assert page.locator(".count").inner_text() == f"{both.sum()} of 60"
    assert {name.split(" ")[0] for name in column(page, "trial")} == set(results.trials.index[both])


def test_a_brush_leaves_its_trials_alone(page: Any) -> None:
    page.evaluate("table.only(['007', '009', 'gone'])")
    assert sorted(column(page, "trial")) == ["007", "009"]
    assert page.locator(".count").inner_text() == "2 of 60, 2 brushed"
    page.evaluate("table.only(null)")
    assert page.locator(".count").inner_text() == "60 of 60"


def test_pages_are_turned_and_made_longer(page: Any, results: Results) -> None:
    page.get_by_role("button", name="next").click()
    assert [name.split(" ")[0] for name in column(page, "trial")] == fidelity.order(results)[25:50]
    page.get_by_role("combobox").select_option("100")
    assert len(column(page, "trial")) == 60 and page.get_by_role("button", name="next").is_disabled()


def test_settings_that_never_varied_are_hidden_until_asked_for(page: Any) -> None:
    assert not page.locator("th", has_text="batch size").is_visible()
    page.locator(".columns summary").click()
    page.get_by_label("batch size").check()
    assert column(page, "batch size") == ["128"] * 25


def test_a_row_opens_by_enter_with_its_configuration_curves_and_classes(page: Any, results: Results) -> None:
    first = fidelity.order(results)[0]
    page.locator("tr.row button").first.press("Enter")
    panel = page.locator(".details .panel")
    row = results.trials.loc[first]
    assert page.locator("tr.row button").first.get_attribute("aria-expanded") == "true"
    told = dict(zip(panel.locator("dt").all_inner_texts(), panel.locator("dd").all_inner_texts(), strict=True))
    assert told["kind"] == row["model.kind"] and told["batch size"] == "128"
    assert told["time"] == style.duration(row["seconds"]) and told["parameters"] == style.number(row["params"])
    assert panel.locator("p").first.inner_text() == f"{style.outcome(row)}: rung at epoch 2"
    assert panel.locator("polyline").count() == 2
    assert results.classes is not None
    assert panel.locator(".bars span:first-child").inner_text() == results.classes.T[first].idxmax()
    page.locator("tr.row").first.click()
    assert panel.count() == 0


def test_a_trial_without_a_curve_says_so(page: Any) -> None:
    page.get_by_role("searchbox").fill("005")
    page.locator("tr.row").first.click()
    assert "No learning curve was recorded." in page.locator(".details").inner_text()


def test_two_ticked_rows_are_compared(page: Any, results: Results) -> None:
    assert results.classes is not None
    rows = results.trials
    for trial in ("007", "004"):  # both finished, of the same kind
        tick(page, trial)
    pair = page.locator(".against")
    assert pair.locator("h3").inner_text() == "Trial 007 → trial 004"
    one, other = (float(rows["val_accuracy"][trial]) for trial in ("007", "004"))
    text, metric = pair.inner_text(), style.metric(results)
    better = "better" if other > one else "worse"
    change = f"{metric.text(one)} → {metric.text(other)}, {abs(other - one) * 100:.1f} points {better}."
    assert f"validation accuracy: {change}" in text
    assert "not known: nothing was repeated" in text and "not trained equally long" not in text
    cells = pair.locator("tbody tr").all_inner_texts()
    lr = [style.number(rows.loc[trial, "train.lr"]) for trial in ("007", "004")]
    assert [cell.split("\t") for cell in cells] == [["learning rate", *lr]]
    assert "The same in both: 2 of 3 settings." in text
    assert pair.locator("polyline").count() == 2
    by = results.classes.T["004"] - results.classes.T["007"]
    names = pair.locator(".bars span:nth-child(3n+1)").all_inner_texts()
    assert names == list(by[by.abs().nlargest(8).index].sort_values(ascending=False).index)
    pair.get_by_role("button", name="swap").click()
    assert pair.locator("h3").inner_text() == "Trial 004 → trial 007"


def test_unequal_lengths_are_compared_at_the_last_epoch_of_both(page: Any, results: Results) -> None:
    for trial in ("007", "008"):
        tick(page, trial)
    at = fidelity.curves(results)[2]
    metric = style.metric(results)
    expected = f"At epoch 2, the last that both have: {metric.text(at['007'])} → {metric.text(at['008'])}."
    assert expected in page.locator(".against").inner_text()


def test_a_third_tick_takes_the_place_of_the_first(page: Any) -> None:
    for n in range(3):
        page.locator(".pick input").nth(n).check()
    names = column(page, "trial")
    assert page.locator(".pick input:checked").count() == 2
    second, third = (name.strip() for name in names[1:3])
    assert page.locator(".against h3").inner_text() == f"Trial {second} → trial {third}"


def test_the_noise_judges_a_difference(page: Any, results: Results, tmp_path: Path) -> None:
    trials = results.trials.copy()
    trials.loc[["010", "013"], "repeat_of"] = "007"  # of very different values: the noise is large
    page.goto(write(replace(results, trials=trials), tmp_path / "noisy.html").as_uri())
    for trial in ("007", "004"):
        tick(page, trial)
    text = page.locator(".against").inner_text()
    assert "That is within the noise: two runs of one configuration differ by up to" in text


@pytest.mark.parametrize("odd", ["no trials", "no metric", "no value", "no settings"])
def test_odd_runs_have_a_table_that_opens_and_compares(page: Any, results: Results, odd: str, tmp_path: Path) -> None:
    changes: dict[str, dict[str, Any]] = {
        "no trials": {"trials": results.trials.iloc[:0], "epochs": results.epochs.iloc[:0]},
        "no metric": {"metric": None},
        "no value": {
            "trials": results.trials.assign(state="failed", val_accuracy=math.nan, best_epoch=math.nan),
            "epochs": results.epochs.iloc[:0],
        },
        "no settings": {"parameters": ()},
    }
    page.goto(write(replace(results, **changes[odd]), tmp_path / "odd.html").as_uri())
    if odd == "no trials":
        assert page.locator(".pages").inner_text() == "No trial is like that."
        return
    page.locator("tr.row button").first.click()
    assert page.locator(".details h4").count() >= 1
    for n in (0, 1):
        page.locator(".pick input").nth(n).check()
    alone = "cannot be compared" in page.locator(".against").inner_text()
    assert alone == (odd in ("no metric", "no value"))
