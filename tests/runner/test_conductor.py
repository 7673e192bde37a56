"""The search without Ray: what is decided, and what is on disk when it is."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tuner.records import writer
from tuner.records.writer import RunFolder
from tuner.runner.conductor import Conductor
from tuner.search.preflight import Size
from tuner.search.sampler import Sampler
from tuner.spec.search import RandomSampler
from tuner.spec.space import Space, parse_space

SPACE = """
name: c
data: {dataset: digits}
model: {name: cnn, depth: {int: [1, 3]}}
train: {epochs: 4, optimizer: {name: adam, lr: {loguniform: [1.0e-4, 1.0e-1]}}}
"""


def space(search: str) -> Space:
    return parse_space(f"{SPACE}search: {search}\n", "c")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    with writer.create(tmp_path, "c") as folder:
        yield folder


def conduct(folder: RunFolder, search: str, trials: int = 5, seconds: float | None = None) -> Conductor:
    wanted = space(search)
    sampler = Sampler(wanted, lambda config: Size(1, 1), RandomSampler())
    return Conductor(wanted, sampler, folder, trials=trials, full=4, seconds=seconds)


def row(epoch: int, value: float, loss: float = 1.0) -> dict[str, Any]:
    return {
        "epoch": epoch, "val_accuracy": value, "val_loss": loss, "train_loss": loss, "val_macro_f1": value,
        "epoch_seconds": 0.5, "params": 10,
    }  # fmt: skip


def hear(conductor: Conductor, trial: str, *rows: dict[str, Any]) -> list[bool]:
    return [conductor.hear(trial, r, host="here", pid=1) for r in rows]


def start(conductor: Conductor) -> str:
    job = conductor.next()
    assert job is not None
    return job.trial.id


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def events(folder: RunFolder, kind: str) -> list[dict[str, Any]]:
    return [line for line in lines(folder.path / "events.jsonl") if line["event"] == kind]


def test_a_trial_ends_with_its_last_epoch_and_best_is_not_last(folder: RunFolder) -> None:
    conductor = conduct(folder, "{scheduler: none}")
    trial = start(conductor)
    assert hear(conductor, trial, row(1, 0.2), row(2, 0.9), row(3, 0.5), row(4, 0.6)) == [False, False, False, True]
    best = conductor.best()
    assert best is not None and (best.best["epoch"], best.best["val_accuracy"], best.state) == (2, 0.9, "finished")


def test_a_minimised_metric_has_its_lowest_epoch_as_best(folder: RunFolder) -> None:
    conductor = conduct(folder, "{scheduler: none, metric: val_loss}")
    hear(conductor, start(conductor), row(1, 0.2, 2.0), row(2, 0.1, 0.5), row(3, 0.9, 1.0))
    best = conductor.best()
    assert best is not None and best.best["epoch"] == 2


def test_the_line_carries_the_decision_and_the_event_follows_it(folder: RunFolder) -> None:
    conductor = conduct(folder, "{scheduler: {name: asha, grace: 1, factor: 2}}")
    first, second = start(conductor), start(conductor)
    hear(conductor, first, row(1, 0.9))
    assert hear(conductor, second, row(1, 0.1)) == [True]
    last = lines(folder.trial(second) / "result.json")[-1]
    assert (last["decision"], last["reason"]) == ("stop", "rung at epoch 1: 1 of 2 were better, the best went on")
    ended = events(folder, "ended")[0]
    assert (ended["trial"], ended["state"], ended["epoch"]) == (second, "stopped", 1)
    assert ended["seq"] == last["seq"] + 1


def test_a_trial_to_the_end_is_not_stopped_early(folder: RunFolder) -> None:
    conductor = conduct(
        folder,
        "{scheduler: asha, start_from: [{label: mine, to_the_end: true, model.depth: 2, train.optimizer.lr: 0.01}]}",
    )
    mine, other = start(conductor), start(conductor)
    hear(conductor, other, row(1, 0.9))
    assert hear(conductor, mine, row(1, 0.1), row(2, 0.1), row(3, 0.1), row(4, 0.1)) == [False, False, False, True]
    asked = events(folder, "asked")[0]
    assert (asked["label"], asked["to_the_end"], asked["parameters"]) == (
        "mine",
        True,
        {"model.depth": 2, "train.optimizer.lr": 0.01},
    )


def test_a_loss_that_is_no_number_ends_the_trial_as_diverged(folder: RunFolder) -> None:
    conductor = conduct(folder, "{scheduler: none}")
    trial = start(conductor)
    assert hear(conductor, trial, row(1, 0.3), row(2, 0.1, math.nan)) == [False, True]
    assert events(folder, "ended")[0]["state"] == "diverged"
    last = lines(folder.trial(trial) / "result.json")[-1]
    assert last["val_loss"] is None and last["reason"] == "train_loss is not a number"
    best = conductor.best()
    assert best is not None and best.best["epoch"] == 1


def test_a_failed_trial_leaves_its_trace_and_the_search_goes_on(folder: RunFolder) -> None:
    conductor = conduct(folder, "{scheduler: none}")
    trial = start(conductor)
    conductor.fail(trial, "Traceback ...\nValueError: no\n")
    assert (folder.trial(trial) / "error.txt").read_text().startswith("Traceback")
    assert events(folder, "ended")[0]["reason"] == "ValueError: no"
    assert conductor.next() is not None and conductor.counts()["failed"] == 1


def test_time_ends_running_trials_and_starts_no_more(folder: RunFolder) -> None:
    conductor = conduct(folder, "{scheduler: none}", seconds=0.0)
    assert conductor.next() is None
    conductor = conduct(folder, "{scheduler: none}", seconds=3600)
    trial = start(conductor)
    conductor._deadline = 0.0
    assert hear(conductor, trial, row(1, 0.5)) == [True]
    assert events(folder, "ended")[0]["reason"] == "the time budget is spent"


def test_no_more_trials_than_wanted(folder: RunFolder) -> None:
    conductor = conduct(folder, "{scheduler: none}", trials=2)
    assert [start(conductor), start(conductor), conductor.next()] == ["001", "002", None]


def test_interrupted_trials_are_told_apart(folder: RunFolder) -> None:
    conductor = conduct(folder, "{scheduler: none}")
    trial = start(conductor)
    hear(conductor, trial, row(1, 0.5))
    conductor.interrupt("SIGINT")
    assert conductor.counts()["interrupted"] == 1 and not conductor.running
    assert conductor.sampler.study.trials[0].state.is_finished()


def test_params_json_is_the_whole_resolved_configuration(folder: RunFolder) -> None:
    conductor = conduct(folder, "{scheduler: none}")
    trial = conductor.trials[start(conductor)]
    written = json.loads((folder.trial(trial.id) / "params.json").read_text())
    assert written == trial.config.model_dump(mode="json")
    assert written["train"]["optimizer"]["name"] == "adam"


def test_an_epoch_that_diverged_is_never_the_best(folder: RunFolder) -> None:
    conductor = conduct(folder, "{scheduler: none}")
    hear(conductor, start(conductor), row(1, 0.3), row(2, 0.9, math.inf))
    best = conductor.best()
    assert best is not None and best.best["epoch"] == 1


def unfinished(conductor: Conductor) -> list[str]:
    return [trial.id for trial in conductor.trials.values() if trial.state is None]


def test_an_epoch_that_was_heard_already_changes_nothing(folder: RunFolder) -> None:
    conductor = conduct(folder, "{scheduler: none}")
    trial = start(conductor)
    assert hear(conductor, trial, row(1, 0.5), row(2, 0.6), row(1, 0.9), row(2, 0.9), row(3, 0.7)) == [False] * 5
    assert [line["val_accuracy"] for line in lines(folder.trial(trial) / "result.json")] == [0.5, 0.6, 0.7]


def test_an_epoch_out_of_order_ends_the_trial_as_failed(folder: RunFolder) -> None:
    conductor = conduct(folder, "{scheduler: none}")
    trial = start(conductor)
    assert hear(conductor, trial, row(1, 0.5), row(3, 0.6)) == [False, True]
    assert conductor.trials[trial].reason.startswith("epoch 3 came after epoch 1")


def test_a_dead_worker_is_a_retry_until_the_limit(folder: RunFolder) -> None:
    conductor = conduct(folder, "{scheduler: none, retries: 1}")
    trial = start(conductor)
    hear(conductor, trial, row(1, 0.5))
    conductor.die(trial, "the actor died")
    assert start(conductor) == trial and conductor.trials[trial].jobs == 2
    conductor.die(trial, "the actor died")
    assert conductor.trials[trial].state == "failed" and start(conductor) != trial
    assert [(e["deaths"], e["epoch"]) for e in events(folder, "retried")] == [(1, 1)]
    assert "its process died 2 times" in (folder.trial(trial) / "error.txt").read_text()


def test_out_of_memory_is_an_outcome_of_its_own(folder: RunFolder) -> None:
    conductor = conduct(folder, "{scheduler: none}")
    trial = start(conductor)
    conductor.lack_memory(trial, "CUDA out of memory")
    assert conductor.counts()["out_of_memory"] == 1
    assert conductor.sampler.study.trials[0].state.name == "PRUNED"  # so that the model keeps away from there


def test_out_of_memory_is_tried_again_alone_when_that_is_wanted(folder: RunFolder) -> None:
    conductor = conduct(folder, "{scheduler: none, out_of_memory: retry_alone}", trials=2)
    first, second = start(conductor), start(conductor)
    conductor.lack_memory(first, "no memory")
    assert conductor.next() is None and not conductor.over  # the second one is still there
    hear(conductor, second, row(1, 0.1), row(2, 0.1), row(3, 0.1), row(4, 0.1))
    assert start(conductor) == first
    conductor.lack_memory(first, "no memory")
    assert conductor.trials[first].state == "out_of_memory" and conductor.over


def test_a_search_in_which_everything_fails_gives_up(folder: RunFolder) -> None:
    conductor = conduct(folder, "{scheduler: none}", trials=50)
    for _ in range(5):
        conductor.fail(start(conductor), "ValueError: no images")
    assert conductor.next() is None and conductor.over
    assert "5 trials failed" in conductor.ending and "ValueError: no images" in conductor.ending


def test_one_epoch_of_one_trial_is_enough_to_go_on(folder: RunFolder) -> None:
    conductor = conduct(folder, "{scheduler: none}", trials=50)
    hear(conductor, start(conductor), row(1, 0.1))
    for _ in range(10):
        conductor.fail(start(conductor), "no")
    assert conductor.next() is not None


def test_a_stopped_search_ends_each_job_with_its_next_epoch_and_leaves_the_trial_open(folder: RunFolder) -> None:
    conductor = conduct(folder, "{scheduler: none}")
    trial = start(conductor)
    conductor.stop("SIGINT")
    assert hear(conductor, trial, row(1, 0.5)) == [True]
    assert conductor.over and unfinished(conductor) == [trial] and conductor.next() is None


def test_a_silent_trial_hangs_after_ten_usual_epochs_and_the_least_wait(folder: RunFolder) -> None:
    conductor = conduct(folder, "{scheduler: none, hang_after: 3s}")
    quick, silent = start(conductor), start(conductor)
    conductor.placed(silent)
    hear(conductor, quick, row(1, 0.5), row(2, 0.5))  # epochs of half a second: ten are five
    conductor.trials[silent].heard -= 4.9
    assert conductor.hanging() == []
    conductor.trials[silent].heard -= 0.2
    assert [trial.id for trial in conductor.hanging()] == [silent]
    conductor.die(silent, "the actor was killed")
    assert conductor.trials[silent].state == "failed" and "search.hang_after" in conductor.trials[silent].reason


def test_repeats_train_the_best_early_configuration_with_other_seeds(folder: RunFolder) -> None:
    conductor = conduct(folder, "{scheduler: none, repeats: 3}", trials=2)
    for accuracy in (0.3, 0.8):
        hear(conductor, start(conductor), *(row(n, accuracy) for n in (1, 2, 3, 4)))
    again = [start(conductor), start(conductor)]
    assert conductor.next() is None
    asked = [e for e in events(folder, "asked") if e["trial"] in again]
    assert [(e["repeat_of"], e["seed"]) for e in asked] == [("002", 1), ("002", 2)]
    for trial in again:
        hear(conductor, trial, *(row(n, 0.99) for n in (1, 2, 3, 4)))
    best = conductor.best()
    assert conductor.over and best is not None and best.id == "002"  # a lucky seed is no better configuration


def test_what_breaks_a_measured_rule_is_not_the_best(folder: RunFolder) -> None:
    conductor = conduct(folder, '{scheduler: none, constraints: ["latency_ms <= 5"]}')
    slow, quick = start(conductor), start(conductor)
    hear(conductor, slow, {**row(1, 0.9), "latency_ms": 9.0})
    hear(conductor, quick, {**row(1, 0.5), "latency_ms": 4.0})
    best = conductor.best()
    assert best is not None and best.id == quick


def test_the_front_holds_what_no_other_beats_in_everything(folder: RunFolder) -> None:
    conductor = conduct(folder, "{scheduler: none, metric: {val_accuracy: max, epoch_seconds: min}}")
    for accuracy, seconds in ((0.9, 3.0), (0.5, 1.0), (0.5, 2.0), (0.2, 1.0)):
        hear(conductor, start(conductor), {**row(1, accuracy), "epoch_seconds": seconds})
    assert [trial.id for trial in conductor.front()] == ["001", "002"]


def test_a_population_waits_at_its_milestone_and_the_worst_takes_over_the_best_weights(folder: RunFolder) -> None:
    conductor = conduct(
        folder, "{metric: val_accuracy, scheduler: {name: pbt, every: 2, mutate: [train.optimizer.lr]}}", trials=4
    )
    members = [start(conductor) for _ in range(4)]
    for place, member in enumerate(members):
        checkpoint = folder.trial(member) / "checkpoint_000002"
        checkpoint.mkdir()
        (checkpoint / "state.json").write_text(member)
        (checkpoint / "weights.safetensors").touch()
        assert conductor.next() is None
        assert hear(conductor, member, row(1, 0.1), row(2, 0.1 + place / 10)) == [False, True]
    jobs = [conductor.next() for _ in range(4)]
    assert {job.trial.id for job in jobs if job} == set(members) and {job.stop_at for job in jobs if job} == {4}
    changed = events(folder, "mutated")
    assert [(e["trial"], e["source"], e["epoch"]) for e in changed] == [(members[0], members[3], 2)]
    first = next(job for job in jobs if job and job.trial.id == members[0])
    assert first.start[0] == "given_000002"
    assert (folder.trial(members[0]) / "given_000002/state.json").read_text() == members[3]


def test_what_trials_say_is_written_down_once(folder: RunFolder) -> None:
    conductor = conduct(folder, "{}")
    first, second = start(conductor), start(conductor)
    for trial in (first, second, first):
        conductor.note(trial, "the head is new")
    assert [(line["trial"], line["reason"]) for line in events(folder, "noted")] == [(first, "the head is new")]


def test_a_job_that_waits_for_room_does_not_hang(folder: RunFolder) -> None:
    conductor = conduct(folder, "{scheduler: none, hang_after: 3s}")
    trial = start(conductor)
    conductor.trials[trial].heard -= 1000
    assert conductor.hanging() == []
    conductor.placed(trial)  # its clock starts only now
    assert conductor.hanging() == []
    conductor.trials[trial].heard -= 4
    assert [each.id for each in conductor.hanging()] == [trial]


def test_a_trial_without_a_process_does_not_hang_and_its_clock_starts_anew(folder: RunFolder) -> None:
    conductor = conduct(folder, "{scheduler: none, hang_after: 3s}", trials=1)
    trial = start(conductor)
    conductor.placed(trial)
    conductor.trials[trial].heard -= 1000
    conductor.move(trial, "its node is gone")
    assert conductor.hanging() == [] and start(conductor) == trial
    conductor.placed(trial)
    assert conductor.hanging() == []


def test_of_silent_trials_those_alone_hang_whose_models_are_not_larger(folder: RunFolder) -> None:
    conductor = conduct(folder, "{scheduler: none, hang_after: 1s}", trials=4)
    usual, small, large = start(conductor), start(conductor), start(conductor)
    conductor.trials[large].size = Size(1, 3)
    for trial in (large, small):
        conductor.placed(trial)
        conductor.trials[trial].heard -= 10  # ten epochs of half a second are five, of the large one fifteen
    hear(conductor, usual, row(1, 0.5))
    assert [trial.id for trial in conductor.hanging()] == [small]


def test_a_trial_whose_node_is_gone_goes_on_and_that_is_no_death(folder: RunFolder) -> None:
    conductor = conduct(folder, "{scheduler: none, retries: 0}", trials=1)
    trial = start(conductor)
    hear(conductor, trial, row(1, 0.5))
    conductor.move(trial, "its node 10.0.0.7 is gone")
    assert start(conductor) == trial
    retried = events(folder, "retried")[-1]
    assert (retried["deaths"], retried["moves"], retried["reason"]) == (0, 1, "its node 10.0.0.7 is gone")
    conductor.die(trial, "the actor died")
    assert conductor.trials[trial].state == "failed"
    conductor.move(trial, "its node is gone")  # too late
    assert len(events(folder, "retried")) == 1 and conductor.over


def test_a_node_that_goes_for_the_twenty_first_time_is_a_death(folder: RunFolder) -> None:
    conductor = conduct(folder, "{scheduler: none, retries: 1}", trials=1)
    trial = start(conductor)
    for _ in range(21):
        conductor.move(trial, "its node is gone")
        assert start(conductor) == trial
    assert (conductor.trials[trial].moves, conductor.trials[trial].deaths) == (20, 1)
    conductor.move(trial, "its node is gone")
    assert conductor.trials[trial].state == "failed"


def test_what_was_silent_because_its_node_went_does_not_hang_when_it_goes_on(folder: RunFolder) -> None:
    conductor = conduct(folder, "{scheduler: none, retries: 1}", trials=1)
    trial = start(conductor)
    conductor.trials[trial].hung = "no epoch for an hour"
    conductor.move(trial, "its node is gone")
    conductor.die(trial, "the actor died")
    assert conductor.trials[trial].state is None and start(conductor) == trial


def test_for_a_trial_that_has_ended_no_sharing_is_lowered(folder: RunFolder) -> None:
    conductor = conduct(folder, "{scheduler: none}", trials=1)
    trial = start(conductor)
    conductor.fail(trial, "broken")
    conductor.make_room = lambda trial: pytest.fail("it was asked for")
    conductor.lack_memory(trial, "CUDA out of memory")
    assert conductor.trials[trial].state == "failed" and not events(folder, "retried")


def test_out_of_memory_with_room_to_make_is_no_end_and_no_death(folder: RunFolder) -> None:
    conductor = conduct(folder, "{scheduler: none, out_of_memory: retry_alone}", trials=1)
    answers = [True, True, False]
    asked: list[str] = []
    conductor.make_room = lambda trial: asked.append(trial.id) or answers.pop(0)  # type: ignore[func-returns-value]
    trial = start(conductor)
    for alone in (False, False, True):
        conductor.lack_memory(trial, "CUDA out of memory")
        assert start(conductor) == trial and conductor.trials[trial].alone is alone
    assert [e["reason"] for e in events(folder, "retried")] == [
        *["out of memory: again, with fewer at once"] * 2,
        "out of memory: again, alone",
    ]
    assert asked == [trial] * 3 and conductor.trials[trial].deaths == 0


def test_several_objectives_keep_the_weights_of_the_front_of_what_has_ended(folder: RunFolder) -> None:
    conductor = conduct(
        folder, "{scheduler: none, keep_checkpoints: 1, metric: {val_accuracy: max, epoch_seconds: min}}"
    )
    trials = [start(conductor) for _ in range(3)]
    for trial in trials:
        (folder.trial(trial) / "checkpoint_best").mkdir()
    running, quick, slow = trials
    hear(conductor, running, {**row(1, 0.9), "epoch_seconds": 0.1})  # beats both, and may yet lose its place
    for trial, value, seconds in ((quick, 0.3, 1.0), (slow, 0.5, 2.0)):
        hear(conductor, trial, *({**row(n, value), "epoch_seconds": seconds} for n in (1, 2, 3, 4)))
    assert all((folder.trial(trial) / "checkpoint_best").exists() for trial in trials)
    hear(conductor, running, *({**row(n, 0.95), "epoch_seconds": 0.2} for n in (2, 3, 4)))
    assert [(folder.trial(trial) / "checkpoint_best").exists() for trial in trials] == [True, False, False]
