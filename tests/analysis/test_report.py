"""The report: the files, what the page says, that it loads nothing from elsewhere and runs nobody's names."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.figure import Figure as StaticFigure
from PIL import Image

from analysis import overview, pages, report, style, tables
from analysis.__main__ import main
from analysis.goal import Constraint, Goal, Objective
from analysis.parameters import Parameter
from analysis.plots import FIGURES
from analysis.results import Results
from analysis.runs import RunSummary

BOTH = Goal((Objective("val_accuracy", "max"), Objective("params", "min")))
RULE = Constraint("params <= 9", "params", "<=", 9.0)
EVIL = "</script><img src=http://evil.example/x onerror=alert(1)>"
LR = Parameter("lr", "train.lr", "float", True, log=True, low=1e-4, high=1e-1)
KIND = Parameter(
    "model.kind", "model.kind", "choice", False, choices=("plain", EVIL), active_when=({"name": "a", "above": 2},)
)
RUN = {
    "name": "tiny", "status": "finished", "created": "2025-11-21T10:03:11+01:00", "seconds": 238.2,
    "data": {"dataset": "digits", "fingerprint": "sha256:2b1f", "classes": ["0", "1"], "image_size": 8, "channels": 1,
             "train": 1200, "validation": 300},
    "hardware": {"host": "node-1", "cpu": "EPYC", "cores": 2, "gpus": []},
    "versions": {"hypertune": "0.1.0", "torch": "2.15.0"}, "seeds": {"search": 7},
}  # fmt: skip


def make(path: Path, states: tuple[str, ...] = ("finished", "stopped", "finished"), **changes: Any) -> Results:
    """A run with one trial a state: trial n reaches accuracy 0.2 n, a stopped one in one epoch, others in two."""
    trials, epochs = [], []
    for n, state in enumerate(states, 1):
        length = {"finished": 2, "failed": 0}.get(state, 1)
        trials.append(
            {"trial": f"{n:03d}", "number": n, "label": EVIL if n == 2 else None, "state": state,
             "reason": "out of memory" if state == "failed" else None, "epochs": length,
             "best_epoch": float(length) if length else math.nan, "full_epochs": 2.0, "seconds": 3.0 * length,
             "started": 0.0, "ended": 9.0, "val_accuracy": 0.2 * n if length else math.nan,
             "repeat_of": None, "breaks": None, "params": 1234.0, "train.lr": 10.0**-n,
             "model.kind": EVIL if n == 2 else "plain"}
        )  # fmt: skip
        epochs += [
            {"trial": f"{n:03d}", "epoch": e, "val_accuracy": 0.2 * n * e / length} for e in range(1, length + 1)
        ]
    frame = pd.DataFrame(epochs, columns=["trial", "epoch", "val_accuracy"])
    results = Results(
        path, "tiny", "hypertune", pd.DataFrame(trials).set_index("trial"), frame, (LR, KIND), "val_accuracy", "max",
        RUN, (),
    )  # fmt: skip
    return replace(results, **changes)


class Page(HTMLParser):
    """The elements of a page with their attributes, and its text without scripts and styles."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts: list[str] = []
        self.inside = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "script":
            self.scripts[-1] += data
        elif self.inside != "style":
            self.text += data


@pytest.fixture(autouse=True)
def _blank_images(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small blank images everywhere but in the test of their size: drawing them is most of a report's time."""
    if "an_image_a_figure" not in request.node.name:
        monkeypatch.setattr(report, "DPI", 20)
        for name, kind in FIGURES.items():
            monkeypatch.setitem(FIGURES, name, kind._replace(draw_static=lambda it: StaticFigure(figsize=(1, 1))))


def test_the_report_is_a_page_two_tables_and_an_image_a_figure_and_nothing_else(tmp_path: Path) -> None:
    rows = ("finished", "stopped", "finished", "finished", "stopped", "finished") * 2
    page = report.write(make(tmp_path, rows, goal=BOTH))
    assert page == tmp_path / "report" / "report.html"
    found = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert found == {"report/report.html", "report/trials.csv", "report/epochs.csv"} | {
        f"report/figures/{name}.png" for name in FIGURES
    }
    for name in FIGURES:
        with Image.open(tmp_path / "report" / "figures" / f"{name}.png") as image:
            image.load()
            assert image.width >= 1000


def test_the_page_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    page = Page(report.write(make(tmp_path)))
    links = [v for _, attributes in page.elements for k, v in attributes.items() if k in ("src", "href") and v]
    assert links and all(link.startswith("data:") for link in links)
    assert not [tag for tag, _ in page.elements if tag in ("link", "iframe", "object")]
    policy = next(a["content"] for tag, a in page.elements if tag == "meta" and a.get("http-equiv"))
    assert policy is not None and policy.startswith("default-src 'none'")


def test_hostile_names_are_text_in_the_page_and_in_its_scripts(tmp_path: Path) -> None:
    page = Page(report.write(make(tmp_path, name=EVIL, problems=(EVIL,), run={**RUN, "command_line": EVIL})))
    assert page.text.count(EVIL) >= 5
    assert len(page.scripts) == 4
    drawn = json.loads(page.scripts[1])
    assert set(drawn) == {"best_so_far", "parallel", "interaction", "curves"}  # three trials: no statistics
    assert EVIL not in page.scripts[1]
    assert [a for tag, a in page.elements if tag == "img" and "onerror" in a] == []


def test_the_card_names_the_best_trial_and_the_table_begins_with_it(tmp_path: Path) -> None:
    text = " ".join(Page(report.write(make(tmp_path))).text.split())
    assert "best trial 60.0% validation accuracy at epoch 2 of 2, trial 003 the next two: 40.0%, 20.0%" in text
    assert "digits: 1,200 training and 300 validation images of 8×8 grey, 2 classes" in text
    assert "21 November 2025, 10:03 · took 3m 58s · node-1 (EPYC, 2 cores)" in text
    assert "stopped at epoch 1" in text
    assert "hypertune 0.1.0, torch 2.15.0" in text and "sha256:2b1f" in text
    ranked = tables.ranked(make(tmp_path))
    assert [row.trial for row in ranked.rows] == ["003", "002", "001"]


def test_the_next_names_no_trial_that_cannot_be_best_and_repeats_are_counted_apart(tmp_path: Path) -> None:
    results = make(tmp_path, ("finished", "diverged", "finished", "finished", "finished"))
    results.trials.loc["003", "breaks"] = "params <= 9"
    results.trials.loc["005", "repeat_of"] = "004"
    page = Page(report.write(replace(results, goal=Goal(constraints=(RULE,)))))
    text = " ".join(page.text.split())
    assert "4 trials: 3 finished, 1 diverged; 1 repeat; 9 epochs in all" in text
    assert "trial 004 the next: 20.0%" in text
    assert "Trial 004 with 2 seeds: 90.0% on average, standard deviation 14.1 points" in text
    assert "finished, breaks params <= 9" in text and "repeat of 004, finished" in text
    assert "Chosen as the best of 3 trials" in text
    assert "constraintsparams <= 9" in text


def test_a_front_is_shown_where_there_are_several_objectives_only(tmp_path: Path) -> None:
    two, one = (Page(report.write(make(tmp_path, goal=goal))) for goal in (BOTH, Goal(BOTH.objectives[:1])))
    assert FIGURES["pareto"].title in two.text and FIGURES["pareto"].title not in one.text
    assert "pareto" in json.loads(two.scripts[1]) and "pareto" not in json.loads(one.scripts[1])
    assert not (tmp_path / "report" / "figures" / "pareto.png").exists()
    front = tables.front(make(tmp_path, goal=BOTH))
    assert [row.trial for row in front.rows] == ["003"]
    assert front.headers[:3] == ("trial", "validation accuracy", "parameters")


def test_where_all_failed_the_page_says_so_and_leaves_no_image(tmp_path: Path) -> None:
    report.write(make(tmp_path))
    page = Page(report.write(make(tmp_path, ("failed", "failed"))))
    assert "None of the trials gave a value" in page.text and "2 × out of memory" in page.text
    assert list((tmp_path / "report" / "figures").iterdir()) == []
    assert json.loads(page.scripts[1]) == {}


@pytest.mark.parametrize("states", [("finished",), ("stopped", "running"), ("diverged",)])
def test_small_and_unfinished_runs_have_a_page(tmp_path: Path, states: tuple[str, ...]) -> None:
    page = Page(report.write(make(tmp_path, states, run={**RUN, "status": "interrupted"})))
    assert "This run was interrupted" in page.text


def test_a_folder_of_ray_without_run_json_has_a_page(tmp_path: Path) -> None:
    page = Page(report.write(make(tmp_path, kind="ray", run={}, parameters=())))
    assert "Ray Tune" in page.text and "60.0%" in page.text
    assert "0 settings searched" in page.text
    assert "could not be read" not in page.text


def test_what_could_not_be_read_is_said(tmp_path: Path) -> None:
    assert "line 7 cut off" in Page(report.write(make(tmp_path, problems=("line 7 cut off",)))).text


def test_the_table_shows_ten_and_folds_the_rest(tmp_path: Path) -> None:
    page = Page(report.write(make(tmp_path, ("finished",) * 12)))
    assert sum(tag == "tr" for tag, _ in page.elements) == (1 + 10) + (1 + 12) + (1 + 2)  # the last: what was asked
    assert "All 12 trials" in page.text


def test_cells_that_a_spreadsheet_would_run_are_escaped_and_numbers_stay_numbers(tmp_path: Path) -> None:
    frame = pd.DataFrame({"=a": ["=1+1", "-2.5", "+x", "@y", "ok"], "n": [-1.5, 2, 3, 4, 5]}, index=list("vwxyz"))
    tables.write_csv(frame.rename_axis("trial"), tmp_path / "x.csv")
    with (tmp_path / "x.csv").open(newline="") as lines:
        rows = list(csv.reader(lines))
    assert rows[0] == ["trial", "'=a", "n"]
    assert [row[1] for row in rows[1:]] == ["'=1+1", "-2.5", "'+x", "'@y", "ok"]
    assert [float(row[2]) for row in rows[1:]] == [-1.5, 2, 3, 4, 5]


def test_what_was_asked_is_said_in_words() -> None:
    assert tables.asked((LR, KIND))[0] == ("lr", "1e-4 to 0.1, logarithmic", "")
    assert tables.asked((LR, KIND))[1] == ("model.kind", f"plain, {EVIL}", "a above 2")


def test_a_file_that_cannot_be_made_leaves_the_old_one_and_no_other(tmp_path: Path) -> None:
    target = tmp_path / "x.csv"
    target.write_text("old")

    def half(path: Path) -> None:
        path.write_text("ha")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        pages.put(target, half)
    assert [p.name for p in tmp_path.iterdir()] == ["x.csv"] and target.read_text() == "old"


# ---------------------------------------------------------------- words and numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0027123, "0.00271"), (3.2e-5, "3.2e-5"), (1e-4, "1e-4"), (374000, "374,000"), (0.1 + 0.2, "0.3"),
     (True, "True"), (64.0, "64"), (0.0, "0"), (math.nan, "–"), ("adam", "adam"), (-0.25, "-0.25"), (2.5e10, "2.5e10")],
)  # fmt: skip
def test_numbers_have_three_digits(value: Any, text: str) -> None:
    assert style.number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.42, "0.4 s"), (45, "45 s"), (238.2, "3m 58s"), (7500, "2h 05m"), (None, "–")]
)
def test_durations_read_like_durations(seconds: Any, text: str) -> None:
    assert style.duration(seconds) == text


def test_labels_are_short_and_longer_where_two_collide() -> None:
    columns = [
        "train.optimizer.name",
        "train.optimizer.lr",
        "head.lr",
        "model.width.0",
        "data.augment.Flip.p",
        "model.depth",
    ]
    assert list(style.labels(columns).values()) == [
        "optimizer", "optimizer learning rate", "head learning rate", "width 1", "Flip p", "depth",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(1e-4, 1e-1, [1e-4, 1e-3, 1e-2, 1e-1]), (1e-3, 1e-2, [1e-3, 2e-3, 5e-3, 1e-2]), (0.04, 0.045, [])],
)  # fmt: skip
def test_logarithmic_ticks_are_round(low: float, high: float, ticks: list[float]) -> None:
    assert style.log_ticks(low, high) == pytest.approx(ticks)


# ---------------------------------------------------------------- command and overview


RAY = Path(__file__).parents[1] / "fixtures" / "ray_asha"


def test_the_command_prints_where_the_page_is_and_writes_nowhere_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {p: p.stat().st_mtime_ns for p in RAY.rglob("*")}
    assert main([str(RAY), "--out", str(tmp_path / "r"), "--x", "width", "--color", "optimizer"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "r" / "report.html")
    drawn = json.loads(Page(tmp_path / "r" / "report.html").scripts[1])
    assert drawn["interaction"]["layout"]["xaxis"]["title"]["text"] == "width"
    assert drawn["interaction"]["layout"]["legend"]["title"]["text"].startswith("optimizer")
    assert {p: p.stat().st_mtime_ns for p in RAY.rglob("*")} == before


def test_the_command_takes_another_metric_and_refuses_one_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loss = ["--metric", "val/loss", "--mode", "min"]
    assert main([str(RAY), "--out", str(tmp_path), *loss]) == 0
    assert "lowest is best" in Page(tmp_path / "report.html").text
    assert main([str(RAY), "--out", str(tmp_path), "--metric", "speed"]) == 2
    assert main([str(RAY), "--out", str(tmp_path), "--x", "speed"]) == 2
    assert capsys.readouterr().err.count("\n") == 2


def test_the_command_refuses_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nowhere")]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and "nowhere" in said.err


def summary(name: str, path: Path, **changes: Any) -> RunSummary:
    """A finished run of 0.5 validation accuracy on data of its own."""
    first = RunSummary(
        path / name, name, "hypertune", "finished", "2025-11-21T10:03:11", 9, 9, "val_accuracy", "max", 0.5, "001", 40,
        61.0, ("sha", "0", "val_accuracy"), 0,
    )  # fmt: skip
    return replace(first, **changes)


def test_runs_are_compared_only_where_data_split_and_metric_are_the_same(tmp_path: Path) -> None:
    runs = [
        summary("a", tmp_path), summary("b", tmp_path, best=0.8), summary("c", tmp_path, comparable=None),
        summary("d", tmp_path, comparable=("other", "0", "val_accuracy")), summary("e", tmp_path, best=None),
    ]  # fmt: skip
    same, alone = overview.groups(runs, tmp_path)
    assert [(row["name"], row["best"], row["bar"]) for row in same["rows"]] == [
        ("b", "80.0%", 100.0), ("a", "50.0%", 62.5), ("e", "–", 0),
    ]  # fmt: skip
    assert [row["name"] for row in alone["rows"]] == ["c", "d"] and not alone["compared"]


def test_the_overview_links_to_reports_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "a b" / "report").mkdir(parents=True)
    (tmp_path / "a b" / "report" / "report.html").write_text("x")
    page = Page(overview.write([summary("a b", tmp_path), summary(EVIL, tmp_path)], tmp_path / "index.html"))
    assert [a["href"] for tag, a in page.elements if tag == "a"] == ["a%20b/report/report.html"]
    assert EVIL in page.text
    assert "No run yet" in Page(overview.write([], tmp_path / "new" / "index.html")).text
