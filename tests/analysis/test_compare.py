"""Runs side by side: rows, groups, differences against noise, changes, budgets; and the page, the table, the JSON."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import analysis
from analysis.comparison import compare_page
from analysis.comparison.compare import Comparison, compare
from analysis.plots import course

MakeRun = Callable[..., Path]
FIXTURES = Path(__file__).parents[1] / "fixtures"
EVIL = "</script><img src=x onerror=alert(1)> | `a` [b](http://evil.example)\n# *c* \x1b[31m"


def done(*values: float, **more: Any) -> dict[str, Any]:
    return {"values": list(values), "state": "finished", **more}


@pytest.fixture
def two(make_run: MakeRun) -> Comparison:
    """Run a: 60% in two trials of two epochs; run b, an hour later: 70% in its third trial."""
    first = make_run([done(0.4, 0.5), done(0.6, 0.55)], name="a")
    second = make_run([done(0.1), done(0.3), done(0.2, 0.7)], name="b", created="2026-01-02T04:04:05+01:00")
    return compare([analysis.load(second), analysis.load(first)])


def repeat(folder: Path, of: str, *trials: str) -> None:
    """Makes trials of a run repeats of another one."""
    path = folder / "events.jsonl"
    events = [json.loads(line) for line in path.read_text().splitlines()]
    for event in events:
        if event["event"] == "asked" and event["trial"] in trials:
            event["repeat_of"] = of
    path.write_text("".join(json.dumps(event) + "\n" for event in events))


# ---------------------------------------------------------------- rows


def test_rows_are_oldest_first_with_what_each_reached(two: Comparison) -> None:
    assert [(row.name, row.value, row.trial, row.best_epoch, row.best) for row in two.rows] == [
        ("a", 0.6, "002", 1.0, False),
        ("b", 0.7, "003", 2.0, True),
    ]
    assert [(row.trials, row.epochs, row.seconds) for row in two.rows] == [(2, 4, 12.5), (3, 4, 12.5)]


def test_the_test_accuracy_is_that_of_a_final_evaluation_alone(make_run: MakeRun) -> None:
    folders = [make_run([done(0.5)], name=name) for name in "abc"]
    for folder in folders[:2]:
        (folder / "final").mkdir()
    (folders[0] / "final" / "evaluation.json").write_text('{"test_accuracy": 0.48}')
    (folders[1] / "final" / "evaluation.json").write_text('{"test_accuracy": "good"}')
    comparison = compare([analysis.load(folder) for folder in folders])
    assert [row.test for row in comparison.rows] == [0.48, None, None]
    shown = compare_page.table(comparison, comparison.groups[0])
    assert [row[shown.heads.index("test")] for row in shown.rows] == ["48.0%", "not looked at", "not looked at"]


def test_a_test_of_another_trial_than_the_best_one_does_not_stand_in_its_row(make_run: MakeRun) -> None:
    folders = [make_run([done(0.5), done(0.4)], name=name) for name in "ab"]
    for folder, winner in zip(folders, ("001", "002"), strict=True):
        (folder / "final").mkdir()
        (folder / "final" / "finalize.json").write_text(json.dumps({"test_accuracy": 0.4, "winner": winner}))
    comparison = compare([analysis.load(folder) for folder in folders])
    assert [(row.test, row.tested) for row in comparison.rows] == [(0.4, None), (None, "002")]
    assert "trial 002, 40.0% on test images" in " ".join(comparison.notes)


def test_the_gap_is_between_training_and_validation_accuracy_of_the_best_epoch() -> None:
    row = compare([analysis.load(FIXTURES / name) for name in ("hypertune_digits", "hypertune_killed")]).rows[0]
    best = analysis.load(FIXTURES / "hypertune_digits").trials.loc[row.trial]
    assert row.gap == pytest.approx(best["train_accuracy"] - best["val_accuracy"])
    assert (row.network, row.schedule) == ("cnn, 3 blocks, width 16-16-16", "onecycle, warmup 0.25")


def test_runs_of_the_same_name_are_told_apart(make_run: MakeRun, tmp_path: Path) -> None:
    make_run([done(0.5)], name="a")
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    assert {row.name for row in compare([analysis.load(tmp_path / n) for n in ("a", "copy")]).rows} == {"a", "a (copy)"}


def test_one_run_or_a_run_twice_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    run = analysis.load(make_run([done(0.5)]))
    (tmp_path / "link").symlink_to(run.path)
    with pytest.raises(ValueError, match="at least two"):
        compare([run])
    with pytest.raises(ValueError, match="named twice"):
        compare([run, analysis.load(tmp_path / "link")])


def test_a_run_without_a_value_has_a_row_and_a_sentence(make_run: MakeRun) -> None:
    runs = [make_run([done(0.5)], name="a"), make_run([], name="b"), make_run([{"values": [None]}], name="c")]
    comparison = compare([analysis.load(run) for run in runs])
    assert [row.value for row in comparison.rows] == [0.5, None, None]
    assert comparison.rows[0].best
    assert not comparison.differences
    assert sum("no trial that may be best has a value" in note for note in comparison.notes) == 2


# ---------------------------------------------------------------- groups


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"data": {"dataset": "emotions", "fingerprint": "other", "train": 80, "validation": 20}}, "not digits"),
        ({"data": {"dataset": "digits", "fingerprint": "abc", "train": 8000, "validation": 20}}, "8,000 to train on"),
        ({"seeds": {"split": 1}}, "another split"),
        ({"objectives": [{"metric": "val_loss", "mode": "min"}]}, "judged by validation loss"),
        ({"data": {}}, "records neither data nor split"),
    ],
)  # fmt: skip
def test_runs_that_do_not_compare_stand_apart_with_the_reason(make_run: MakeRun, change: Any, why: str) -> None:
    runs = [make_run([done(0.5)], name="a"), make_run([done(0.6)], name="b"), make_run([done(0.7)], name="c", **change)]
    comparison = compare([analysis.load(run) for run in runs])
    assert [group.runs for group in comparison.groups] == [(0, 1), (2,)]
    assert why in comparison.groups[1].reason
    assert [(d.first, d.second) for d in comparison.differences] == [(0, 1)]
    assert not comparison.rows[2].best


def test_foreign_runs_are_shown_and_never_compared() -> None:
    comparison = compare([analysis.load(FIXTURES / name) for name in ("ray_grid", "ray_asha", "ray_killed")])
    assert len(comparison.groups) == 3
    assert not comparison.differences
    assert all("Ray Tune records neither data nor split" in group.reason for group in comparison.groups)
    assert comparison.rows[1].network == "layers 32, width 9"


# ---------------------------------------------------------------- noise


def test_repeats_in_the_folder_reach_the_difference(make_run: MakeRun) -> None:
    trials = [done(0.6), done(0.62), done(0.61), done(0.3)]
    folders = [make_run(trials, name="a"), make_run([done(value["values"][0] + 0.2) for value in trials], name="b")]
    for folder in folders:
        repeat(folder, "001", "002", "003")
    comparison = compare([analysis.load(folder) for folder in folders])
    (difference,) = comparison.differences
    assert comparison.rows[0].seeds == (0.6, 0.62, 0.61)
    assert (comparison.rows[0].trials, difference.basis, difference.better) == (2, "welch", True)
    assert comparison.rows[1].improvement == difference
    assert "Welch's t over 3 and 3 seeds" in difference.text


def test_repeats_of_another_trial_than_the_best_are_not_its_seeds(make_run: MakeRun) -> None:
    folder = make_run([done(0.6), done(0.9), done(0.61)], name="a")
    repeat(folder, "001", "003")
    comparison = compare([analysis.load(folder), analysis.load(make_run([done(0.5)], name="b"))])
    assert comparison.rows[0].seeds == ()
    assert any("trial 001 was repeated, not its best one" in note for note in comparison.notes)


def test_lower_is_better_where_the_run_says_so(make_run: MakeRun) -> None:
    goal = {"objectives": [{"metric": "val_loss", "mode": "min"}]}
    runs = [make_run([done(value)], name=name, **goal) for name, value in (("a", 0.5), ("b", 0.7))]
    comparison = compare([analysis.load(run) for run in runs])
    assert [row.best for row in comparison.rows] == [False, True]
    assert comparison.differences[0].change == pytest.approx(-0.2)
    assert comparison.groups[0].budgets[-1].ahead == (1,)


# ---------------------------------------------------------------- budgets and courses


def test_at_the_same_price_another_run_may_be_ahead(two: Comparison) -> None:
    """After two trials a has 60%, b 30%; after two epochs a has 50% and b 30%; with all spent b is ahead."""
    found = {(budget.by, budget.spent): (budget.values, budget.ahead) for budget in two.groups[0].budgets}
    assert found["trials", 2.0] == ((0.6, 0.3), (0,))
    assert found["epochs", 2.0] == ((0.5, 0.3), (0,))
    assert found["epochs", 4.0] == ((0.6, 0.7), (1,))


def test_repeats_are_no_part_of_the_course(make_run: MakeRun) -> None:
    folder = make_run([done(0.6), done(0.9)], name="a")
    repeat(folder, "001", "002")
    comparison = compare([analysis.load(folder), analysis.load(make_run([done(0.5)], name="b"))])
    steps = {line.name: line.steps["epochs"] for line in comparison.groups[0].course.lines}
    assert (steps["a"].x[-1], steps["a"].best[-1]) == (1.0, 60.0)


def test_a_course_knows_its_value_at_any_price() -> None:
    steps = course.Steps((1.0, 3.0, 5.0), (10.0, 20.0, 20.0))
    assert [steps.at(x) for x in (0.5, 1, 2.9, 3, 99)] == [None, 10.0, 10.0, 20.0, 20.0]


def test_courses_are_drawn_both_ways(two: Comparison) -> None:
    it = two.groups[0].course
    figure = course.draw(it, "epochs")
    assert [trace.name for trace in figure.data] == ["a", "b"]
    assert list(figure.data[1].y) == list(it.lines[1].steps["epochs"].best)
    assert len(course.draw_static(it).axes) == len(course.axes_of(it)) == 3


def test_more_runs_than_colours_are_told_apart_by_dashes() -> None:
    assert len({(course.colour(n), course.dash(n)) for n in range(18)}) == 18


# ---------------------------------------------------------------- changes


def configure(folder: Path, **train: Any) -> Path:
    for path in folder.glob("trials/*/params.json"):
        config = json.loads(path.read_text())
        config["train"] |= train
        path.write_text(json.dumps(config))
    return folder


def test_what_was_asked_differently_is_listed(make_run: MakeRun) -> None:
    one, two = (configure(make_run([done(0.5)], name=name), batch_size=size) for name, size in (("a", 32), ("b", 64)))
    space = json.loads((two / "space.json").read_text())
    space[0]["distribution"]["attributes"]["high"] = 0.5
    (two / "space.json").write_text(json.dumps(space))
    found = {change.setting: change for change in compare([analysis.load(one), analysis.load(two)]).changes}
    assert found["train.batch_size"].values == ("32", "64")
    assert found["train.lr"].values == ("1e-4 to 0.1, logarithmic", "1e-4 to 0.5, logarithmic")
    assert set(found) == {"train.batch_size", "train.lr"}


def test_what_was_asked_alike_and_found_differently_is_listed_apart(make_run: MakeRun) -> None:
    runs = [make_run([done(0.5, parameters={"train.lr": lr})], name=name) for name, lr in (("a", 0.01), ("b", 0.02))]
    (change,) = compare([analysis.load(run) for run in runs]).changes
    assert (change.setting, change.kind, change.values) == ("train.lr", "found", ("0.01", "0.02"))


def test_a_section_that_only_one_run_has_is_one_change(make_run: MakeRun) -> None:
    one = configure(make_run([done(0.5)], name="a"), early_stopping=None)
    two = configure(make_run([done(0.5)], name="b"), early_stopping={"gap": 0.15, "epochs": 10})
    (change,) = compare([analysis.load(one), analysis.load(two)]).changes
    assert (change.setting, change.values) == ("train.early_stopping", ("null", "gap 0.15, epochs 10"))


def test_equal_runs_have_no_changes(make_run: MakeRun) -> None:
    assert not compare([analysis.load(make_run([done(0.5)], name=name)) for name in "ab"]).changes


# ---------------------------------------------------------------- the table, the page, the JSON


def test_the_markdown_table_marks_the_best_and_says_what_the_interval_is(two: Comparison) -> None:
    text = compare_page.to_markdown(two)
    head, line, first, second = (row.strip("| ").split(" | ") for row in text.splitlines() if row.startswith("|"))
    assert len(head) == len(line) == len(first) == len(second)
    assert dict(zip(head, second, strict=True))["validation"] == "**70.0%**"
    assert re.fullmatch(r"\+10\.0 ± \d+\.\d²", second[-1])
    assert "² Noise between seeds is not known" in text


def test_hostile_names_are_text_everywhere(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run([done(0.5)], name="a"), make_run([done(0.6)], name="b")]
    data = json.loads((runs[1] / "run.json").read_text())
    (runs[1] / "run.json").write_text(json.dumps(data | {"name": EVIL}))
    comparison = compare([analysis.load(run) for run in runs])
    rows = [line for line in compare_page.to_markdown(comparison).splitlines() if "evil" in line and line[0] == "|"]
    assert len(rows) == 1
    assert len(re.findall(r"(?<!\\)\|", rows[0])) == len(
        re.findall(r"\|", compare_page.to_markdown(comparison).split("\n")[2])
    )
    assert not re.search(r"(?<!\\)[<`\[]|https?://|\x1b", rows[0])
    page = compare_page.write(comparison, tmp_path / "out").read_text()
    assert "<img" not in page
    assert "&lt;img src=x" in page


class _Loads(HTMLParser):
    found: tuple[str, ...] = ()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += tuple(f"{tag} {value}" for name, value in attrs if name in ("src", "href"))


def test_the_page_stands_alone_and_nothing_else_is_written(two: Comparison, tmp_path: Path) -> None:
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    page = compare_page.write(two, tmp_path / "out")
    after = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert {path.relative_to(tmp_path).as_posix() for path in after - before} == {
        "out/compare.html", "out/compare.md", "out/course.png"
    }  # fmt: skip
    loads = _Loads()
    loads.feed(re.sub(r"<script>.*?</script>", "", page.read_text(), flags=re.S))
    assert loads.found == ()
    for text in ("b is 10.0 points above a", "after 2 trials", "Best is b with 70.0% validation accuracy."):
        assert text in page.read_text()
    for by in ("trials", "epochs", "seconds"):
        assert f'id="plot-0-{by}"' in page.read_text()


def test_no_figure_is_left_where_nothing_compares(tmp_path: Path) -> None:
    (tmp_path / "course.png").touch()
    compare_page.write(compare([analysis.load(FIXTURES / n) for n in ("ray_grid", "ray_asha")]), tmp_path)
    assert not (tmp_path / "course.png").exists()


def test_the_json_holds_the_numbers(two: Comparison) -> None:
    found = json.loads(json.dumps(compare_page.as_json(two), allow_nan=False))
    assert [row["value"] for row in found["rows"]] == [0.6, 0.7]
    assert found["rows"][1]["improvement"]["basis"] == "validation size"
    assert found["groups"][0]["runs"] == [0, 1]
