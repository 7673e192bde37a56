"""The report: the files, what the page says, that it loads nothing from elsewhere and runs nobody's names."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.figure import Figure as StaticFigure
from PIL import Image

from analysis.__main__ import main
from analysis.folders.goal import Constraint, Goal, Objective
from analysis.folders.parameters import Parameter
from analysis.folders.runs import RunSummary
from analysis.page import overview, pages, report, tables
from analysis.plots import FIGURES
from analysis.results import Results

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


def rich(path: Path) -> Results:
    """24 trials about which every figure has something to say: two objectives, stretches, a gap, failures."""
    states = ("finished", "stopped", "finished", "finished", "diverged", "stopped", "finished", "failed") * 3
    results = make(path, states, goal=BOTH)
    count = len(states)
    results.trials["val_accuracy"] /= 10
    results.epochs["val_accuracy"] /= 10
    results.epochs["train_accuracy"] = results.epochs["val_accuracy"] + 0.05
    results.trials["params"] = [900.0 + 100 * (n % 5) + n for n in range(count)]
    results.trials["train.lr"] = [10.0 ** (-4 + 3 * n / count) for n in range(count)]
    results.trials["model.kind"] = [("plain", EVIL)[n % 2] for n in range(count)]
    rows = [(trial, 1, 5.0 * n, 5.0 * n + 4) for n, trial in enumerate(results.trials.index)]
    return replace(results, stretches=pd.DataFrame(rows, columns=["trial", "worker", "began", "ended"]))


class Page(HTMLParser):
    """The elements of a page with their attributes, and its text without scripts and styles."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts: list[str] = []
        self.data: dict[str, str] = {}  # what scripts with an id hold
        self.inside = ""
        self.html = path.read_text(encoding="utf-8")
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.inside = tag
        if tag == "script":
            self.scripts.append("")
            self.id = dict(attrs).get("id")
            self.data |= {self.id: ""} if self.id else {}

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "script":
            self.scripts[-1] += data
            if self.id:
                self.data[self.id] += data
        elif self.inside != "style":
            self.text += data


def write(results: Results, **options: Any) -> Page:
    """Its report, in the run's folder, and the page read again."""
    return Page(report.write(results, **options).page)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a report in which every figure is drawn, as images too."""
    path = tmp_path_factory.mktemp("full")
    results = rich(path)
    results.trials.loc["008", "reason"] = EVIL
    results.trials[EVIL] = ["a", "b"] * 12
    other = Parameter(EVIL, EVIL, "choice", False, choices=("a", "b"))
    run = {**RUN, "command_line": EVIL}
    hostile = replace(results, name=EVIL, problems=(EVIL,), run=run, parameters=(LR, KIND, other))
    return report.write(hostile).page.parent


@pytest.fixture(autouse=True)
def _blank_images(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small blank images everywhere but in the test of their size: drawing them is most of a report's time."""
    if "an_image_a_figure" not in request.node.name:
        for name, kind in FIGURES.items():
            monkeypatch.setitem(FIGURES, name, kind._replace(draw_static=lambda it: StaticFigure(figsize=(1, 1))))


def test_the_report_is_a_page_its_tables_and_an_image_a_figure_and_nothing_else(full: Path) -> None:
    found = {str(p.relative_to(full)) for p in full.parent.rglob("*") if p.is_file()}
    files = {"report.html", "report.md", "trials.csv", "epochs.csv", "findings.json"}
    assert found == files | {f"figures/{name}.png" for name in FIGURES}
    for name in FIGURES:
        with Image.open(full / "figures" / f"{name}.png") as image:
            image.load()
            assert image.width >= 1000


def test_every_figure_has_its_place_and_its_data_in_the_page(full: Path) -> None:
    page = Page(full / "report.html")
    places = [attributes["data-figure"] for _, attributes in page.elements if "data-figure" in attributes]
    assert sorted(map(str, places)) == sorted(json.loads(page.data["figures"])) == sorted({*FIGURES} - {"parallel"})
    assert "parallel-place" in [attributes.get("id") for _, attributes in page.elements]
    assert set(json.loads(page.data["templates"])) == {"light", "dark"}
    assert [kind.title for kind in FIGURES.values() if kind.reading not in page.text] == []


def test_what_a_page_holds_and_the_findings_are_strict_json(full: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    held = {name: json.loads(text, parse_constant=refuse) for name, text in Page(full / "report.html").data.items()}
    assert list(held) == ["figures", "parallel-data", "trials-data", "templates"] and all(held.values())
    assert json.loads((full / "findings.json").read_text(encoding="utf-8"), parse_constant=refuse)


def test_the_page_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    page = write(make(tmp_path))
    links = [v for _, attributes in page.elements for k, v in attributes.items() if k in ("src", "href") and v]
    assert links and all(link.startswith(("data:image/png;base64,", "#")) for link in links)
    ids = {attributes.get("id") for _, attributes in page.elements}
    assert {link[1:] for link in links if link.startswith("#")} <= ids
    assert not [tag for tag, _ in page.elements if tag in ("link", "iframe", "object")]
    policy = next(a["content"] for tag, a in page.elements if tag == "meta" and a.get("http-equiv"))
    assert policy is not None and policy.startswith("default-src 'none'")


def test_hostile_names_are_text_in_the_page_and_in_its_scripts(full: Path, tmp_path: Path) -> None:
    page = Page(full / "report.html")
    assert page.text.count(EVIL) >= 5
    assert len(page.scripts) == len(write(make(tmp_path)).scripts) == 9  # Plotly, four of data, four of ours
    assert [name for name, text in page.data.items() if "<" in text] == []
    drawn = "".join(_strings(json.loads(page.data["figures"])))
    assert "<img" not in drawn and "&lt;img" in drawn  # Plotly knows some HTML: there it is text as well
    assert EVIL in "".join(_strings(json.loads(page.data["trials-data"])))  # trials.js writes text, see its own tests
    assert [a for tag, a in page.elements if tag == "img" and "onerror" in a] == []


def _strings(value: Any) -> Iterator[str]:
    """All texts in a value of plain JSON, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def test_the_card_names_the_best_trial_and_the_table_begins_with_it(tmp_path: Path) -> None:
    text = " ".join(write(make(tmp_path)).text.split())
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
    page = write(replace(results, goal=Goal(constraints=(RULE,))))
    text = " ".join(page.text.split())
    assert "4 trials: 3 finished, 1 diverged; 1 repeat; 9 epochs in all" in text
    assert "trial 004 the next: 20.0%" in text
    assert "Trial 004 with 2 seeds: 90.0% on average, standard deviation 14.1 points" in text
    assert "finished, breaks params <= 9" in text and "repeat of 004, finished" in text
    assert "Chosen as the best of 3 trials" in text
    assert "constraintsparams <= 9" in text


def test_a_front_is_shown_where_trials_cost_something_and_its_growth_where_the_run_asked_for_two(
    tmp_path: Path,
) -> None:
    one = make(tmp_path, goal=Goal(BOTH.objectives[:1]))
    one = replace(one, trials=one.trials.assign(seconds=[6.0, 3.0, 7.0]))
    free = replace(one, trials=one.trials.assign(seconds=1.0))
    two, costs, alone = (write(run) for run in (make(tmp_path, goal=BOTH), one, free))
    fronts = [{"pareto", "hypervolume"} & set(json.loads(page.data["figures"])) for page in (two, costs, alone)]
    assert fronts == [{"pareto", "hypervolume"}, {"pareto"}, set()]
    assert [f"{FIGURES['pareto'].title}\n" in page.text for page in (two, costs, alone)] == [True, True, False]
    assert "nothing is known of what it costs" in alone.text
    assert not (tmp_path / "report" / "figures" / "pareto.png").exists()
    front = tables.front(make(tmp_path, goal=BOTH))
    assert [row.trial for row in front.rows] == ["003"]
    assert front.headers[:3] == ("trial", "validation accuracy", "parameters")


def test_where_all_failed_the_page_says_so_and_leaves_no_image(tmp_path: Path) -> None:
    report.write(make(tmp_path))
    page = write(make(tmp_path, ("failed", "failed")))
    assert "None of the trials gave a value" in page.text and "2 × out of memory" in page.text
    assert list((tmp_path / "report" / "figures").iterdir()) == []
    assert json.loads(page.data["figures"]) == {} and json.loads(page.data["parallel-data"]) is None
    assert len(json.loads(page.data["trials-data"])["ids"]) == 2


@pytest.mark.parametrize("states", [("finished",), ("stopped", "running"), ("diverged",)])
def test_small_and_unfinished_runs_have_a_page(tmp_path: Path, states: tuple[str, ...]) -> None:
    page = write(make(tmp_path, states, run={**RUN, "status": "interrupted"}))
    assert "This run was interrupted" in page.text


def test_a_folder_of_ray_without_run_json_has_a_page(tmp_path: Path) -> None:
    page = write(make(tmp_path, kind="ray", run={}, parameters=()))
    assert "Ray Tune" in page.text and "60.0%" in page.text
    assert "0 settings searched" in page.text
    assert "could not be read" not in page.text


def test_what_could_not_be_read_is_said(tmp_path: Path) -> None:
    assert "line 7 cut off" in write(make(tmp_path, problems=("line 7 cut off",))).text


def test_the_table_holds_all_trials_best_first_and_shows_ten_without_scripts(tmp_path: Path) -> None:
    page = write(make(tmp_path, ("finished",) * 12), formats=("html",), top=10)
    table = json.loads(page.data["trials-data"])
    assert (table["ids"], table["ranked"], table["size"]) == ([f"{n:03d}" for n in range(12, 0, -1)], 12, 10)
    plain = next(part for part in page.html.split("<noscript>") if part.startswith("\n<div") or "<table" in part[:80])
    assert plain.split("</noscript>")[0].count("<tr") == 1 + 10


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


# ---------------------------------------------------------------- command and overview


RAY = Path(__file__).parents[1] / "fixtures" / "ray_asha"


def test_the_command_prints_where_the_page_is_and_writes_nowhere_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {p: p.stat().st_mtime_ns for p in RAY.rglob("*")}
    assert main([str(RAY), "--out", str(tmp_path / "r"), "--x", "width", "--color", "optimizer"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "r" / "report.html")
    drawn = json.loads(Page(tmp_path / "r" / "report.html").data["figures"])
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


# ---------------------------------------------------------------- where it may be written


def test_a_report_does_not_go_through_links_of_the_run(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    results = make(tmp_path / "run")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "report").symlink_to(outside)
    with pytest.raises(ValueError, match="is a link, which a report does not follow"):
        report.write(results)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "figures").symlink_to(outside)
    with pytest.raises(ValueError, match="is a link"):
        report.write(results, tmp_path / "out")
    assert not list(outside.iterdir())


def test_a_report_does_not_go_among_the_trials(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="belongs to the trials of the run"):
        report.write(make(tmp_path), tmp_path / "trials" / "report")


def test_where_all_trials_failed_it_is_said_at_the_head(tmp_path: Path) -> None:
    assert "Every trial diverged or failed" in write(make(tmp_path, ("diverged", "diverged"))).text
