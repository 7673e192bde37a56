"""What a terminal shows: short names, short numbers, the table, the ending."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tuner.records import writer
from tuner.runner.conductor import Conductor
from tuner.runner.plan import Plan, make_plan
from tuner.runner.progress import Progress, ended_line
from tuner.runner.run import Outcome
from tuner.runner.told import outcome_text
from tuner.search.preflight import Size
from tuner.search.sampler import Sampler
from tuner.spec.search import Grid
from tuner.spec.space import parse_space
from tuner.spec.text import columns, show_metric, show_time, show_value

TEXT = """
name: shown
data: {dataset: digits}
model: {name: cnn, depth: {choice: [2]}, width: [{choice: [8]}, 8], dropout: {choice: [0.1]}}
train:
  epochs: 4
  optimizer:
    choice:
      adam: {lr: {choice: [0.01, 0.02, 1.9e-3]}}
search: {sampler: grid, scheduler: asha}
"""


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return make_plan(parse_space(TEXT, "shown.yaml"), tmp_path_factory.mktemp("cache"))


@pytest.fixture
def conductor(plan: Plan, tmp_path: Path) -> Iterator[Conductor]:
    """Three trials: one has finished, one was stopped, one is at epoch 2 of 4."""
    with writer.create(tmp_path, "shown") as folder:
        found = Conductor(
            plan.space, Sampler(plan.space, lambda c: Size(1, 1), Grid()), folder, trials=3, full=4, seconds=None
        )
        for _ in range(3):
            found.next()
        for trial, curve in {"001": [0.5, 0.7, 0.614, 0.6], "002": [0.382], "003": [0.598, 0.55]}.items():
            for epoch, accuracy in enumerate(curve, start=1):
                found.hear(trial, make_row(epoch, accuracy), host="here", pid=1)
        yield found


def make_row(epoch: int, accuracy: float) -> dict[str, Any]:
    return {
        "epoch": epoch, "val_accuracy": accuracy, "val_loss": 1.0, "train_loss": 1.0, "val_macro_f1": accuracy - 0.004,
        "epoch_seconds": 3.1, "params": 374000,
    }  # fmt: skip


def draw(plan: Plan, conductor: Conductor, terminal: bool, width: int = 120) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=width, color_system=None, highlight=False)
    with Progress(plan, console, "results/shown") as screen:
        screen.watch(conductor)
    return out.getvalue()


def test_the_table_shows_running_trials_the_best_and_who_just_ended(plan: Plan, conductor: Conductor) -> None:
    screen = draw(plan, conductor, terminal=True)
    assert "2 of 3 done · 1 running" in screen and "best 70.0%  trial 001" in screen
    row = next(line for line in screen.splitlines() if line.startswith("  003"))
    assert row.split() == ["003", "2", "8", "0.1", "adam", "1.9e-3", "█████░░░░░", "2", "55.0%", "0.546", "3.1"]
    assert "just ended: 002 stopped at epoch 1 (38.2%) · 001 finished 70.0%" in screen


def test_a_narrow_terminal_is_not_overrun(plan: Plan, conductor: Conductor) -> None:
    lines = draw(plan, conductor, terminal=True, width=80).splitlines()
    assert all(len(line) <= 80 for line in lines if "\x1b" not in line)


def test_a_log_gets_one_plain_line_an_ended_trial(plan: Plan, conductor: Conductor) -> None:
    lines = draw(plan, conductor, terminal=False).splitlines()
    assert [line.split("  ")[0] for line in lines] == ["001 finished epoch 4", "002 stopped epoch 1"]
    settings = "model.depth 2  model.width.0 8  model.dropout 0.1  train.optimizer adam  train.optimizer[adam].lr 0.02"
    assert ended_line(conductor.trials["002"], "val_accuracy") == f"002 stopped epoch 1  val_accuracy 0.382  {settings}"


def test_the_ending_says_what_happened_what_was_best_and_what_to_type(plan: Plan, conductor: Conductor) -> None:
    conductor.interrupt("SIGINT")
    text = outcome_text(Outcome(Path("/x"), conductor, 238.0, signal=2), plan, "results/shown", " --address auto").plain
    assert text.splitlines() == [
        "interrupted after 3m 58s: 3 trials, 1 finished, 1 stopped early, 0 failed, 1 interrupted, 7 of 12 epochs",
        "best   trial 001   val accuracy 70.0% at epoch 2   (the next two: 59.8%, 38.2%)",
        "       depth 2 · width.0 8 · dropout 0.1 · adam · lr 0.01 · 374,000 parameters",
        "       results/shown/trials/001/checkpoint_best",
        "next   hypertune resume results/shown --address auto   goes on where it stopped",
        "       hypertune analyze results/shown   what mattered: figures, tables, one page",
    ]


def test_columns_are_as_short_as_they_can_be_told_apart() -> None:
    flips = "{HorizontalFlip: {p: {uniform: [0, 1]}}, RandomCrop: {p: {uniform: [0, 1]}}}"
    model = "{name: cnn, width: [{choice: [8, 16]}, 8, 8]}"
    text = f"name: c\ndata: {{dataset: digits, augment: {flips}}}\nmodel: {model}\n"
    train = "train: {optimizer: {name: {choice: [adam, sgd]}, lr: {uniform: [0.1, 0.2]}}}\n"
    found = columns(parse_space(text + train, "c").parameters)
    assert list(found) == ["HorizontalFlip.p", "RandomCrop.p", "width.0", "optimizer", "lr"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0019, "1.9e-3"), (0.1, "0.1"), (0.12345, "0.123"), (32, "32"), (True, "true"), (0.0, "0"), (1e-4, "1e-4")],
)
def test_values_take_two_or_three_digits(value: Any, shown: str) -> None:
    assert show_value(value) == shown


def test_metrics_and_times_are_in_a_persons_units() -> None:
    assert [show_metric("val_accuracy", 0.6144), show_metric("val_loss", 1.23456), show_metric("val_loss", None)] == [
        "61.4%", "1.235", "",
    ]  # fmt: skip
    assert [show_time(s) for s in (0.4, 42, 238, 7500)] == ["0s", "42s", "3m 58s", "2h 05m"]


def test_what_trials_say_is_shown_once(plan: Plan, conductor: Conductor) -> None:
    console = Console(width=120, file=io.StringIO())
    shown = Progress(plan, console, "results/p")
    conductor.note("001", "the head is new")
    for _ in range(2):
        shown.watch(conductor)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().count("trial 001: the head is new") == 1


def test_of_more_running_trials_than_a_terminal_has_lines_the_rest_is_counted(plan: Plan, tmp_path: Path) -> None:
    with writer.create(tmp_path, "many") as folder:
        sampler = Sampler(plan.space, lambda c: Size(1, 1), Grid())
        conductor = Conductor(plan.space, sampler, folder, trials=3, full=4, seconds=None)
        while conductor.next():
            pass
        out = io.StringIO()
        with Progress(plan, Console(file=out, force_terminal=True, width=120, height=7), "again") as screen:
            screen.watch(conductor)
    shown = out.getvalue()
    assert "  001" in shown and "  002" not in shown and "  and 2 more" in shown
