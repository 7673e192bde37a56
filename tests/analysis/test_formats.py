"""The files beside the page: each is read back as the programs read it that it is for."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import analysis
from analysis.findings import Evidence, Finding, Report, findings
from analysis.page import figures, formats
from analysis.page.findings_json import findings_json
from analysis.page.markdown import escape, to_markdown
from analysis.plots import FIGURES
from analysis.results import Results

FIXTURES = Path(__file__).parents[1] / "fixtures"
EVIL = "</text><script>alert(1)</script> $x^2$ & |_a_| [b](http://evil.example)"
LR = Finding(
    "setting", f"Learning rate <b>|{EVIL}", "clear", ("train.lr",), Evidence("rank test", 48, 0.31, "share", 1e-9, 1e-7)
)
NONE = Finding(
    "no effect", "ema made no difference.", "no effect", ("train.ema",),
    Evidence("rank test", 48, math.nan, "share", 0.9, math.nan),
)  # fmt: skip
REPORT = Report((LR,), (NONE,), ("18 trials do not tell.",), ("1 of 8 trials diverged.",), (), ())

MakeRun = Callable[..., Path]


@pytest.fixture
def digits() -> Results:
    return analysis.load(FIXTURES / "hypertune_digits")


class Drawn(NamedTuple):
    """What a figure of the tests draws."""

    text: str
    note: str = ""


@pytest.fixture
def four(monkeypatch: pytest.MonkeyPatch) -> dict[str, Drawn]:
    """Five figures of one word each, the last with nothing to draw."""

    def draw(it: Drawn) -> Figure:
        figure = Figure(figsize=(2, 1))
        figure.text(0.1, 0.2, it.text)
        return figure

    names = list(FIGURES)[:5]
    for name in names:
        monkeypatch.setitem(FIGURES, name, FIGURES[name]._replace(draw_static=draw, title=f"{name} {os.getpid()}"))
    return {name: Drawn(EVIL, "nothing" * (name == names[4])) for name in names}


# ---------------------------------------------------------------- figures


def test_every_figure_that_has_something_to_draw_is_drawn_in_every_kind(four: dict[str, Drawn], tmp_path: Path) -> None:
    files = figures.write_figures(four, tmp_path, ("png", "svg"), dpi=20)
    assert [p.name for p in files] == [f"{name}.{kind}" for name in list(four)[:4] for kind in ("png", "svg")]
    assert set(tmp_path.iterdir()) == set(files)
    assert all(p.read_bytes().startswith(b"\x89PNG" if p.suffix == ".png" else b"<?xml") for p in files)


def test_text_in_an_svg_is_text_and_no_element(four: dict[str, Drawn], tmp_path: Path) -> None:
    path = figures.write_figures(four, tmp_path, ("svg",))[0]
    texts = ["".join(e.itertext()) for e in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")]
    assert EVIL in texts and "<script" not in path.read_text()


def test_figures_of_an_earlier_report_are_removed_and_other_files_stay(four: dict[str, Drawn], tmp_path: Path) -> None:
    figures.write_figures(four, tmp_path, ("png", "svg"), dpi=20)
    (tmp_path / "mine.png").write_text("mine")
    first, *_ = four
    figures.write_figures({first: four[first]}, tmp_path, ("svg",))
    assert {p.name for p in tmp_path.iterdir()} == {"mine.png", f"{first}.svg"}


@pytest.mark.skipif(not figures._can_fork(), reason="needs Linux and two cores")
def test_what_the_second_process_did_not_draw_is_drawn_by_the_first(
    four: dict[str, Drawn], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = list(four)[1]
    usual, home = FIGURES[second].draw_static, os.getpid()

    def fails_away_from_home(it: Drawn) -> Any:
        if os.getpid() != home:
            os._exit(3)
        return usual(it)

    monkeypatch.setitem(FIGURES, second, FIGURES[second]._replace(draw_static=fails_away_from_home))
    assert all(path.exists() for path in figures.write_figures(four, tmp_path, ("svg",)))


def test_one_process_draws_the_same(four: dict[str, Drawn], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = [p.read_bytes() for p in figures.write_figures(four, tmp_path / "two", ("svg",))]
    monkeypatch.setattr(figures, "_can_fork", lambda: False)
    assert [p.read_bytes() for p in figures.write_figures(four, tmp_path / "one", ("svg",))] == both


def test_an_error_in_drawing_is_not_swallowed(four: dict[str, Drawn], tmp_path: Path) -> None:
    def broken(it: Drawn) -> Figure:
        raise ZeroDivisionError

    for name in four:
        FIGURES[name] = FIGURES[name]._replace(draw_static=broken)  # undone with the fixture
    with pytest.raises(ZeroDivisionError):
        figures.write_figures(four, tmp_path)


def test_marks_of_a_large_svg_become_an_image(
    four: dict[str, Drawn], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(it: Drawn) -> Figure:
        figure = Figure(figsize=(2, 1))
        figure.add_subplot().plot(np.arange(2000), np.arange(2000) ** 2 % 97)
        return figure

    first, *_ = four
    monkeypatch.setitem(FIGURES, first, FIGURES[first]._replace(draw_static=draw))
    plain = figures.write_figures({first: four[first]}, tmp_path, ("svg",))[0].read_text()
    monkeypatch.setattr(figures, "LARGEST_SVG", 1000)
    small = figures.write_figures({first: four[first]}, tmp_path, ("svg",))[0].read_text()
    assert "<image" in small and "<image" not in plain and "<text" in small and len(small) < len(plain)


# ---------------------------------------------------------------- tables


def test_parquet_gives_both_tables_back(digits: Results, tmp_path: Path) -> None:
    formats.write_parquet(digits, digits.trials, tmp_path / "trials.parquet")
    formats.write_parquet(digits, digits.epochs, tmp_path / "epochs.parquet")
    trials = pd.read_parquet(tmp_path / "trials.parquet")
    assert list(trials["trial"]) == list(digits.trials.index)
    assert trials["val_accuracy"].equals(digits.trials["val_accuracy"].reset_index(drop=True))
    epochs = pd.read_parquet(tmp_path / "epochs.parquet")
    pd.testing.assert_frame_equal(epochs, digits.epochs, check_dtype=False)


def test_parquet_names_the_run_and_the_metric(digits: Results, tmp_path: Path) -> None:
    from pyarrow import parquet

    formats.write_parquet(digits, digits.trials, tmp_path / "t.parquet")
    metadata = parquet.read_schema(tmp_path / "t.parquet").metadata
    assert metadata[b"hypertune.run"] == b"hypertune_digits" and metadata[b"hypertune.metric"] == b"val_accuracy"


def test_a_column_of_mixed_kinds_becomes_text(digits: Results, tmp_path: Path) -> None:
    mixed = pd.Series([1, "a", None, True, 2.5, math.nan], dtype=object)
    frame = pd.DataFrame({"mixed": mixed, "flags": pd.Series([True, None] * 3, dtype=object)})
    formats.write_parquet(digits, frame, tmp_path / "m.parquet")
    back = pd.read_parquet(tmp_path / "m.parquet")
    assert [v if isinstance(v, str) else None for v in back["mixed"]] == ["1", "a", None, "True", "2.5", None]
    assert list(back["flags"]) == [True, None] * 3


def test_json_is_strict(tmp_path: Path) -> None:
    value = {"a": (1.5, math.nan, -math.inf), "b": np.float64(2), "c": np.int64(3), "d": [None, True, "é"], 5: np.nan}
    formats.write_json(value, tmp_path / "x.json")
    back = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert back == {"a": [1.5, None, None], "b": 2.0, "c": 3, "d": [None, True, "é"], "5": None}


# ---------------------------------------------------------------- findings.json


def test_findings_json_holds_the_answer_and_its_evidence(digits: Results) -> None:
    made = findings_json(digits, REPORT)
    assert json.loads(json.dumps(made, allow_nan=False)) == made and made["format"] == 1
    best = made["best"]
    assert (best["trial"], best["value"], best["epoch"]) == ("005", 0.89, 5)
    assert best["settings"]["train.optimizer"] == "adam" and "train.optimizer[sgd].lr" not in best["settings"]
    assert made["trials"] == {"all": 12, "finished": 7, "stopped": 3, "failed": 1, "diverged": 1}
    assert made["findings"][0]["evidence"] == LR.evidence._asdict() and made["findings"][0]["settings"] == ["train.lr"]
    assert made["made_no_difference"][0]["evidence"]["adjusted"] is None


@pytest.mark.parametrize("folder", sorted(p.name for p in FIXTURES.iterdir() if p.is_dir() and p.name[0] in "hr"))
def test_both_forms_of_every_fixture(folder: str) -> None:
    results = analysis.load(FIXTURES / folder)
    report = findings(results)
    assert json.dumps(findings_json(results, report), allow_nan=False)
    assert to_markdown(results, report).startswith(f"# {folder}\n")


# ---------------------------------------------------------------- Markdown


def test_the_markdown_says_the_answer_first(digits: Results) -> None:
    text = to_markdown(digits, REPORT, head=["7 settings on digits"], images=["importance", "curves"])
    blocks = text.split("\n\n")
    answer = "**89.0%** validation accuracy at epoch 5, trial 005"
    assert blocks[:3] == ["# hypertune_digits", "7 settings on digits", answer]
    assert "| optimizer | adam |" in blocks[3]
    assert f"![{FIGURES['importance'].title}](figures/importance.png)" in text and "curves.png" not in text
    assert "rank test; 0.31 share; p < 0.001)" in text and "- 1 of 8 trials diverged." in text


def test_the_best_five_stand_in_the_order_of_the_report(digits: Results) -> None:
    from analysis import fidelity

    table = to_markdown(digits, REPORT).split("## The best 5\n\n")[1].split("\n\n")[0].splitlines()
    assert [line.split(" | ")[1] for line in table[2:]] == fidelity.order(digits)[:5]
    assert len({line.count("|") for line in table}) == 1


def test_a_run_without_an_answer_says_so(make_run: MakeRun) -> None:
    results = analysis.load(make_run([{"values": ()}]))
    assert "No answer yet" in to_markdown(results, Report((), (), (), (), (), ()))
    assert findings_json(results, Report((), (), (), (), (), ()))["best"] is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("val_accuracy 0.89", "val_accuracy 0.89"),
        ("_a_ *b*", "\\_a\\_ \\*b\\*"),
        ("<img src=x>\n# h", "&lt;img src=x&gt; # h"),
        ("# title", "\\# title"),
        ("1. item", "1\\. item"),
        ("a|b", "a\\|b"),
        ("[x](http://e)", "\\[x\\](http:\\//e)"),
    ],
)
def test_markdown_shows_names_as_they_are(text: str, shown: str) -> None:
    assert escape(text) == shown


def test_no_name_makes_html_or_a_cell(make_run: MakeRun) -> None:
    run = make_run([{"values": (0.5,), "state": "finished", "label": EVIL, "parameters": {"train.lr": 0.1}}])
    text = to_markdown(analysis.load(run), REPORT, head=[EVIL])
    assert "<" not in text.replace("p < 0.001", "") and "http://" not in text
    assert not re.search(r"(?<!\\)\](?=\((?!figures/))", text)
    rows = [line for line in text.splitlines() if line.startswith("| 1 ")]
    assert len(rows) == 1 and "\\|\\_a\\_\\|" in rows[0]
