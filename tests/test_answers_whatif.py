"""`hypertune whatif` as a user types it: on whole runs, on what others left, and where it cannot tell."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

Call = Callable[..., tuple[int, str, str]]

FIXTURES = Path(__file__).parent / "fixtures"
CROSSING = [[n * 5 % 12 / 12 + e / 100 for e in range(9)] for n in range(12)]  # the order stays, one after another


def ask(call: Call, *words: object) -> Any:
    """What it prints for programs."""
    code, out, err = call("whatif", *words, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def make(
    folder: Path,
    curves: Sequence[Sequence[float | None]],
    metric: str = "val_accuracy",
    ends: Mapping[int, str] = {},
    extra: Mapping[str, Any] = {},
    asked: Mapping[int, Mapping[str, Any]] = {},
    **run: Any,
) -> Path:
    """A run folder of these curves, a second an epoch; trial n ends as `ends` says, finished where it does not."""
    full = max(map(len, curves))
    folder.mkdir()
    events = []
    for n, curve in enumerate(curves):
        trial = f"{n + 1:03d}"
        place = folder / "trials" / trial
        place.mkdir(parents=True)
        rows = [
            {"trial_id": trial, "epoch": e, metric: value, "epoch_seconds": 1.0, **extra}
            for e, value in enumerate(curve, 1)
        ]
        (place / "result.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
        events.append({"event": "asked", "trial": trial, "parameters": {}, **asked.get(n, {})})
        if ends.get(n) != "running":
            events.append({"event": "ended", "trial": trial, "state": ends.get(n, "finished"), "epoch": len(curve)})
    (folder / "events.jsonl").write_text("".join(json.dumps({"seq": n, **e}) + "\n" for n, e in enumerate(events)))
    said = {
        "format": 1, "name": folder.name, "status": "finished", "epochs": full, "scheduler": {"name": "none"},
        "objectives": [{"metric": metric, "mode": "min" if "loss" in metric else "max"}],
        "resources": {"trials_at_once": 1}, "seeds": {"search": 0}, **run,
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(said))
    return folder


def test_a_recommendation_says_what_it_costs_and_what_it_keeps(tmp_path: Path, call: Call) -> None:
    code, out, _ = call("whatif", make(tmp_path / "run", CROSSING))
    said = out.splitlines()
    assert code == 0
    assert said[0] == "run: 12 trials of up to 9 epochs, 1 at a time, under none: 108 of 108 epochs (100%) were spent"
    assert "kept the winner (in 20 of 20 random orders too)" in said[1] and "% of the epochs" in said[1]
    assert next(line for line in said if line.startswith("as it ran")).split()[3:6] == ["108", "100%", "1m"]


def test_the_first_row_and_its_own_scheduler_are_what_the_folder_holds(call: Call) -> None:
    found = ask(call, FIXTURES / "hypertune_digits")
    rows = [p.read_text().count("\n") for p in (FIXTURES / "hypertune_digits").glob("trials/*/result.json")]
    assert found["as_it_ran"]["epochs"] == [sum(rows)] * 2
    assert found["own_scheduler_ends_alike"] == found["trials"] == 12
    own = next(
        s for s in found["schedulers"] if s["config"] == {"name": "asha", "grace": 1, "factor": 3, "brackets": 1}
    )
    assert own["epochs"] == [sum(rows)] * 2 and own["unknown"] == 0


def test_one_scheduler_alone_can_be_asked_for(tmp_path: Path, call: Call) -> None:
    run = make(tmp_path / "run", CROSSING)
    found = ask(call, run, "--scheduler", "asha", "--grace", 3, "--factor", 4)
    assert [s["config"] for s in found["schedulers"]] == [{"name": "asha", "grace": 3, "factor": 4, "brackets": 1}]
    _, out, _ = call("whatif", run, "--scheduler", "asha", "--grace", 3, "--factor", 4)
    assert out.count("asha(grace 3, factor 4)") == 2


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (["--grace", "3"], "belong to a --scheduler"),
        (["--scheduler", "median", "--factor", "3"], "median has no such option"),
    ],
)
def test_options_that_do_not_go_together_are_refused(words: list[str], rule: str, call: Call) -> None:
    code, _, err = call("whatif", FIXTURES / "hypertune_digits", *words)
    assert code == 2 and rule in err


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, call: Call) -> None:
    code, _, err = call("whatif", tmp_path)
    assert code == 2 and "Traceback" not in err


@pytest.mark.parametrize(
    ("curves", "run", "why"),
    [
        ([[0.5], [0.6]], {}, "trials of one epoch: no scheduler could have stopped any of them earlier"),
        ([[0.5, 0.6]], {}, "one trial alone has left epochs: schedulers stop a trial for what others did"),
        ([[], []], {}, "no trial has left an epoch: there is nothing to replay"),
        ([[None, None], [None, None]], {}, "no trial has a value of val_accuracy that may win"),
        ([[0.1, 0.2], [0.3, 0.4]], {"scheduler": {"name": "pbt"}}, "population-based training: trials went on from"),
    ],
)
def test_where_there_is_nothing_to_replay_it_says_why(
    curves: list[list[float | None]], run: Any, why: str, tmp_path: Path, call: Call
) -> None:
    folder = make(tmp_path / "run", curves, **run)
    code, out, _ = call("whatif", folder)
    assert code == 0 and out.startswith(f"run: {why}")
    assert ask(call, folder)["sentences"][0].startswith(why)


@pytest.mark.parametrize("name", ["hypertune_killed", "ray_asha", "ray_grid", "ray_killed"])
def test_killed_and_foreign_runs_are_played_too(name: str, call: Call) -> None:
    found = ask(call, FIXTURES / name)
    assert found["as_it_ran"]["winner"] is True and len(found["schedulers"]) > 5
    assert found["advice"] is None


def test_what_goes_on_past_the_record_is_said_and_bounded(tmp_path: Path, call: Call) -> None:
    run = make(tmp_path / "run", [[0.5, 0.6, 0.7], [0.4], [0.3]], ends={1: "stopped", 2: "stopped"})
    _, out, _ = call("whatif", run, "--scheduler", "none")
    assert "2 of 3 trials would have gone on past what was recorded: their course is not known" in out
    assert "7-9" in out and "from 5s" in out


def test_a_loss_is_best_where_it_is_lowest(tmp_path: Path, call: Call) -> None:
    found = ask(call, make(tmp_path / "run", [[0.9, 0.8], [0.5, 0.4], [0.7, 0.6]], "val_loss"))
    assert (found["winner"], found["top"], found["as_it_ran"]["best"]) == ("002", ["002", "003", "001"], 0.4)
    assert found["as_it_ran"]["to_best"] == 4.0


def test_the_first_of_several_objectives_counts(tmp_path: Path, call: Call) -> None:
    goals = [{"metric": "val_accuracy", "mode": "max"}, {"metric": "epoch_seconds", "mode": "min"}]
    found = ask(call, make(tmp_path / "run", [[0.1, 0.2], [0.3, 0.4]], objectives=goals))
    assert (found["metric"], found["winner"]) == ("val_accuracy", "002")


def test_another_metric_can_be_asked_for(tmp_path: Path, call: Call) -> None:
    run = make(tmp_path / "run", [[0.1, 0.2], [0.3, 0.4]], extra={"val_macro_f1": 0.5})
    assert ask(call, run, "--metric", "val_macro_f1")["as_it_ran"]["best"] == 0.5


def test_a_trial_that_breaks_a_constraint_is_not_the_winner(tmp_path: Path, call: Call) -> None:
    run = make(tmp_path / "run", [[0.1, 0.2], [0.8, 0.9]], constraints=["val_accuracy <= 0.5"])
    found = ask(call, run)
    assert (found["winner"], found["as_it_ran"]["best"]) == ("001", 0.2)


def test_trials_that_were_to_train_to_the_end_do(tmp_path: Path, call: Call) -> None:
    curves = [[0.5, 0.6], [0.1, 0.2], [0.1, 0.2]]
    found = ask(call, make(tmp_path / "a", curves), "--scheduler", "asha")
    kept = ask(call, make(tmp_path / "b", curves, asked={1: {"to_the_end": True}}), "--scheduler", "asha")
    assert (found["schedulers"][0]["epochs"], kept["schedulers"][0]["epochs"]) == ([4, 4], [5, 5])
    assert any(line.startswith("1 of 3 trials were to train to the end") for line in kept["sentences"])


def test_a_diverged_trial_is_stopped_by_its_last_epoch_and_not_by_a_scheduler(tmp_path: Path, call: Call) -> None:
    found = ask(call, make(tmp_path / "run", [[0.5, 0.6, 0.7], [0.4, None]], ends={1: "diverged"}))
    none = found["schedulers"][0]
    assert (none["epochs"], none["unknown"], none["stopped"]) == ([5, 5], 0, 0)


def test_repeats_do_not_race(tmp_path: Path, call: Call) -> None:
    run = make(tmp_path / "run", [[0.1, 0.2], [0.3, 0.4], [0.8, 0.9]], asked={2: {"repeat_of": "002"}})
    found = ask(call, run)
    assert (found["trials"], found["winner"], found["all_epochs"]) == (2, "002", 4)


def test_a_sampler_that_learns_is_spoken_of(tmp_path: Path, call: Call) -> None:
    found = ask(call, make(tmp_path / "run", [[0.1, 0.2], [0.3, 0.4]], sampler={"name": "tpe"}))
    assert any(line.startswith("tpe learns") for line in found["sentences"])


def test_as_many_run_at_once_as_did_where_no_plan_says_so(call: Call) -> None:
    assert ask(call, FIXTURES / "ray_asha")["workers"] == 2


def rewrite(run: Path, trial: str, rows: Sequence[Mapping[str, Any]]) -> None:
    text = "".join(json.dumps({"trial_id": trial, **row}) + "\n" for row in rows)
    (run / "trials" / trial / "result.json").write_text(text)


def test_an_epoch_that_left_no_row_counts_and_has_the_value_before_it(tmp_path: Path, call: Call) -> None:
    run = make(tmp_path / "run", [[0.1, 0.2, 0.3], [0.5, 0.6, 0.7]])
    rewrite(run, "002", [{"epoch": 1, "val_accuracy": 0.9}, {"epoch": 3, "val_accuracy": 0.8}])
    found = ask(call, run, "--scheduler", "asha", "--grace", "2")
    assert found["as_it_ran"]["epochs"] == [6, 6]
    assert (found["schedulers"][0]["epochs"], found["schedulers"][0]["winner"]) == ([6, 6], True)


@pytest.mark.parametrize("column", ["time_total_s", "elapsed"])
def test_durations_follow_from_the_clock_where_no_row_tells_its_own(column: str, tmp_path: Path, call: Call) -> None:
    run = make(tmp_path / "run", [[0.1, 0.2, 0.3], [0.5, 0.6, 0.7]])
    for trial in ("001", "002"):
        rewrite(run, trial, [{"epoch": e, "val_accuracy": e / 10, column: 10.0 + 4 * e} for e in (1, 2, 3)])
    assert ask(call, run)["as_it_ran"]["seconds"] == 24.0  # the first epoch as long as the others


def test_where_its_own_scheduler_would_end_trials_elsewhere_it_says_so(tmp_path: Path, call: Call) -> None:
    curves = [[0.5, 0.6, 0.7], [0.9, 0.9, 0.9], [0.1]]
    asha = {"name": "asha", "grace": 2, "factor": 2}
    found = ask(call, make(tmp_path / "run", curves, ends={2: "stopped"}, scheduler=asha))
    assert found["own_scheduler_ends_alike"] == 2
    assert any(line.startswith("played again under its own scheduler, 2 of 3 trials") for line in found["sentences"])


def test_epochs_beyond_counting_are_refused(tmp_path: Path, call: Call) -> None:
    run = make(tmp_path / "run", [[0.1, 0.2], [0.5, 0.6]])
    rewrite(run, "001", [{"epoch": 10**9, "val_accuracy": 0.5}])
    code, _, err = call("whatif", run)
    assert code == 2 and "its trials count 1,000,000,002 epochs" in err


def test_the_median_rule_is_left_out_of_very_long_runs_and_that_is_said(tmp_path: Path, call: Call) -> None:
    found = ask(call, make(tmp_path / "run", [[n / 10 for _ in range(3000)] for n in range(2)]))
    assert not any(one["config"]["name"] == "median" for one in found["schedulers"])
    assert any(line.startswith("the median rule hears every epoch and was left out") for line in found["sentences"])


def test_it_needs_neither_torch_nor_ray_nor_optuna(tmp_path: Path) -> None:
    run = make(tmp_path / "run", [[0.1, 0.2], [0.5, 0.6]])
    code = (
        "import sys; from tuner.commands import answers; from pathlib import Path\n"
        f"answers.whatif(Path({str(run)!r}))\n"
        "print({'torch', 'ray', 'optuna'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "set()\n"


def test_a_grace_beyond_the_training_is_refused(call: Call) -> None:
    code, _, err = call("whatif", FIXTURES / "hypertune_digits", "--scheduler", "asha", "--grace", 100)
    assert code == 2 and "--grace 100: trials train for" in err
