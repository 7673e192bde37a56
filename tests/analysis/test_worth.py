"""Whether another hour is worth it: of whole runs, finished, stopped, repeated, bare."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import analysis
from analysis.gain import gain
from analysis.worth import ended_values, worth

MakeRun = Callable[..., Path]
DATA = {"dataset": "digits", "validation": 1000}


def finished(*values: float, **more: Any) -> list[dict[str, Any]]:
    return [{"values": (value / 2, value), "state": "finished", **more} for value in values]


def spread_over(count: int, low: float, high: float) -> list[dict[str, Any]]:
    values = np.random.default_rng(0).uniform(low, high, count)
    return finished(*(round(float(value), 4) for value in values))


def repeat(folder: Path, trial: str, of: str) -> None:
    path = folder / "events.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    told = [
        {**line, "repeat_of": of} if (line["event"], line.get("trial")) == ("asked", trial) else line for line in lines
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in told))


def test_values_are_those_of_trials_that_ended_and_stopped_ones_are_not_known(make_run: MakeRun) -> None:
    made = [
        *finished(0.6, 0.7),
        {"values": (0.5,), "state": "stopped"},
        {"values": (0.65,), "state": "diverged"},
        {"values": (0.9,)},  # running or interrupted: not ended
        *finished(0.68),
    ]
    assert ended_values(analysis.load(make_run(made))) == pytest.approx(
        [0.6, 0.7, math.nan, math.nan, 0.68], nan_ok=True
    )


def test_a_stopped_trial_that_leads_is_the_best_so_far(make_run: MakeRun) -> None:
    results = analysis.load(make_run([*finished(0.6), {"values": (0.8, 0.5), "state": "stopped"}]))
    assert ended_values(results) == [0.6, 0.8] and results.best() == "002"


def test_an_hour_of_a_search_that_rises_is_worth_it(make_run: MakeRun) -> None:
    found = worth(analysis.load(make_run(spread_over(30, 0.1, 0.6), data=DATA)))
    assert not found.enough and found.note == "" and found.gain > found.noise and found.low <= found.gain <= found.high
    assert found.text.endswith(": worth it.") and "than the noise of 1,000 validation images (1." in found.text


def test_an_hour_of_a_search_on_its_plateau_is_not(make_run: MakeRun) -> None:
    found = worth(analysis.load(make_run(spread_over(30, 0.78, 0.8), data=DATA)))
    assert found.enough and found.chance < 0.2 and found.text.endswith("(1.3 points): not worth it.")


def test_it_is_the_gain_of_the_trials_that_fit_the_hour_and_never_of_more_than_there_were(make_run: MakeRun) -> None:
    results = analysis.load(make_run(spread_over(30, 0.1, 0.6), data=DATA))
    span = results.trials["ended"].max() - results.trials["started"].min()
    few = worth(results, hours=10 * span / 30 / 3600)  # the time of ten trials
    assert (few.trials, few.hours) == (10, 10 * span / 30 / 3600)
    values = ended_values(results)
    expected = gain(values, maximise=True, more=10, noise=few.noise, most=1 - max(values))
    assert expected is not None and few[:4] == expected
    assert worth(results).trials == 30 and worth(results).text.startswith("As many trials again (30, about ")


def test_repeats_tell_the_noise_and_are_no_trials_of_the_search(make_run: MakeRun) -> None:
    folder = make_run([*spread_over(10, 0.1, 0.6), *finished(0.7, 0.75)], data=DATA)
    repeat(folder, "012", "011")
    found = worth(analysis.load(folder))
    assert found.noise == pytest.approx(0.05 / math.sqrt(2)) and found.noise_source == "the noise between 2 seeds"
    assert len(ended_values(analysis.load(folder))) == 11


def test_a_loss_has_no_points_and_its_noise_is_the_jitter(make_run: MakeRun) -> None:
    made = [
        {"values": (v, v - 0.02, v + 0.01, v, v - 0.01, v + 0.02), "state": "finished"}
        for v in np.linspace(0.2, 0.6, 20).tolist()
    ]
    loss = [{"metric": "val_loss", "mode": "min"}]
    found = worth(analysis.load(make_run(made, epochs=6, objectives=loss, data=DATA)))
    assert found.noise_source == "the leaders' jitter from epoch to epoch" and found.gain > 0
    assert "points" not in found.text


@pytest.mark.parametrize("made", [[], finished(0.5, 0.6, 0.7), [{"values": (0.2,), "state": "stopped"}] * 20])
def test_of_too_few_it_says_that_there_are_too_few(make_run: MakeRun, made: list[dict[str, Any]]) -> None:
    found = worth(analysis.load(make_run(made, data=DATA)))
    assert found.text == "" and found.note.startswith("Too few trials to tell") and not found.enough
    assert math.isnan(found.gain)


@pytest.mark.parametrize("name", ["ray_asha", "ray_grid", "ray_killed", "hypertune_digits", "hypertune_killed"])
def test_any_folder_has_an_answer_or_a_reason(name: str) -> None:
    found = worth(analysis.load(Path(__file__).parent.parent / "fixtures" / name))
    assert bool(found.text) != bool(found.note) and found.trials >= 1
