"""A search that was killed and folded again from its folder goes on as one that was not; no Ray, made-up epochs."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path
from typing import Any

import pytest

from tuner.errors import BadInput
from tuner.records.reader import read_record
from tuner.records.writer import RunFolder
from tuner.runner.conductor import Conductor
from tuner.runner.replay import Replayed, replay
from tuner.runner.trial import Goal, Job, Trial
from tuner.runner.warm import know
from tuner.search.choose import choose_sampler
from tuner.search.preflight import Size
from tuner.search.sampler import Sampler
from tuner.spec.space import Space, parse_space

FULL = 6
SPACE = """
name: r
data: {dataset: digits}
model: {name: cnn, depth: {int: [1, 3]}, width: {choice: [8, 16]}, dropout: {uniform: [0, 0.5]}}
train:
  epochs: 6
  optimizer:
    choice:
      adam: {lr: {loguniform: [1.0e-4, 1.0e-1]}}
      sgd: {lr: {loguniform: [1.0e-3, 0.5]}}
"""


def space(search: str, text: str = SPACE) -> Space:
    return parse_space(f"{text}search: {search}\n", "r")


def open_search(path: Path, wanted: Space, trials: int = 8) -> tuple[Conductor, Replayed | None]:
    """A conductor on the folder: a new search, or the one that lies there."""
    there = (path / "run.json").exists()
    path.mkdir(exist_ok=True)
    folder = RunFolder(path)
    record = read_record(path) if there else None
    changed = record is not None and record.space_text != wanted.text
    folder.write_space(wanted.text, wanted.to_json())
    folder.write_run(name="r", status="running", trials=trials)
    sampler = Sampler(wanted, lambda config: Size(1, 1), choose_sampler(wanted, trials)[0])
    conductor = Conductor(wanted, sampler, folder, trials=trials, full=FULL, seconds=None)
    found = replay(conductor, record, wanted, changed=changed) if record else None
    if changed and found:
        folder.write_event("space_changed", dropped=found.dropped)
    return conductor, found


def epoch_of(trial: Trial) -> dict[str, Any]:
    """The next epoch of a trial: made up from its settings alone; now and then one that is not a number."""
    epoch = trial.epochs + 1
    chance = zlib.crc32(f"{sorted(trial.parameters.items())}{trial.config.seed}".encode()) / 2**32
    value = chance * (1 - 0.6**epoch)
    loss = math.nan if chance < 0.12 and epoch == 2 else 1 - value
    return {
        "epoch": epoch, "val_accuracy": value, "val_loss": loss, "train_loss": loss, "val_macro_f1": value,
        "epoch_seconds": 0.5, "params": 10, "latency_ms": 3.0,
    }  # fmt: skip


def work(conductor: Conductor, at_once: int, epochs: int | None = None) -> bool:
    """Let workers train in turns, `epochs` in all; whether the search came to its end."""
    jobs: list[Job] = []
    while epochs is None or epochs > 0:
        while len(jobs) < at_once and (job := conductor.next()):
            jobs.append(job)
        if not jobs:
            assert conductor.over
            return True
        job = jobs.pop(0)
        checkpoint = conductor.folder.trial(job.trial.id) / f"checkpoint_{job.trial.epochs + 1:06d}"
        checkpoint.mkdir(exist_ok=True)
        for name in ("weights.safetensors", "state.json"):
            (checkpoint / name).touch()
        if not conductor.hear(job.trial.id, epoch_of(job.trial), host="here", pid=1):
            jobs.append(job)
        epochs = None if epochs is None else epochs - 1
    return False


def left(path: Path) -> tuple[Any, ...]:
    """What a search left, without numbers and times."""
    keys = ("epoch", "val_accuracy", "decision", "reason")
    rows = {
        file.parent.name: [[json.loads(line)[k] for k in keys] for line in file.read_text().splitlines()]
        for file in sorted(path.glob("trials/*/result.json"))
    }
    events = [json.loads(line) for line in (path / "events.jsonl").read_text().splitlines()]
    asked = [(e["trial"], e["parameters"]) for e in events if e["event"] == "asked"]
    mutated = [(e["trial"], e["epoch"], e["source"], e["parameters"]) for e in events if e["event"] == "mutated"]
    states = {e["trial"]: e["state"] for e in events if e["event"] == "ended"}
    return rows, asked, mutated, states


@pytest.mark.parametrize(
    ("search", "at_once"),
    [
        ("{sampler: {name: tpe, startup_trials: 3}, scheduler: asha}", 1),
        ("{sampler: random, scheduler: {name: asha, factor: 2, brackets: 2}}", 2),
        ("{sampler: qmc, scheduler: hyperband}", 1),
        ("{sampler: nsga2, scheduler: median}", 1),
        ("{sampler: cmaes, scheduler: none, repeats: 3}", 1),
        ("{metric: {val_accuracy: max, latency_ms: min}, sampler: tpe}", 1),
        ("{scheduler: {name: pbt, every: 2}, sampler: random}", 2),
    ],
)
def test_a_search_killed_after_any_epoch_goes_on_as_if_it_had_not_been(
    tmp_path: Path, search: str, at_once: int
) -> None:
    wanted = space(search)
    calm, _ = open_search(tmp_path / "calm", wanted)
    assert work(calm, at_once)
    calm.folder.close()
    path, kills = tmp_path / "killed", 0
    while True:
        conductor, _ = open_search(path, wanted)
        if at_once == 1 or kills < 1:
            ended = work(conductor, at_once, epochs=5 if at_once == 1 else 9)
        else:
            ended = work(conductor, at_once)
        conductor.folder.close()  # a dead process lets go of its lock; nothing else is done in order
        kills += 1
        if ended:
            break
    expected, found = left(tmp_path / "calm"), left(path)
    if at_once == 1 or wanted.fixed.search.scheduler.name == "pbt":
        assert found == expected
    assert bool(expected[2]) == (wanted.fixed.search.scheduler.name == "pbt")
    assert found[3].keys() == expected[3].keys() and kills > 1


def test_what_was_best_is_best_again(tmp_path: Path) -> None:
    wanted = space("{sampler: random, scheduler: none}")
    first, _ = open_search(tmp_path / "r", wanted)
    work(first, 1, epochs=20)
    first.folder.close()
    again, found = open_search(tmp_path / "r", wanted)
    ours, theirs = first.best(), again.best()
    assert ours and theirs and (ours.id, dict(ours.best)["val_accuracy"]) == (theirs.id, theirs.best["val_accuracy"])
    assert found and found.unfinished == [t.id for t in first.trials.values() if t.state is None]


def test_a_trial_killed_between_its_last_row_and_its_end_is_not_trained_again(tmp_path: Path) -> None:
    wanted = space("{sampler: random, scheduler: none}")
    first, _ = open_search(tmp_path / "r", wanted)
    work(first, 1, epochs=FULL)
    first.folder.close()
    events = tmp_path / "r" / "events.jsonl"
    events.write_text("".join(line for line in events.read_text().splitlines(keepends=True) if '"ended"' not in line))
    again, found = open_search(tmp_path / "r", wanted)
    assert again.trials["001"].state == first.trials["001"].state and found and "001" not in found.unfinished


@pytest.mark.parametrize(("lost", "next_one"), [("params.json", "002"), ("result.json", "003")])
def test_only_a_folder_that_holds_epochs_takes_its_id_with_it(tmp_path: Path, lost: str, next_one: str) -> None:
    wanted = space("{sampler: random, scheduler: none}")
    first, _ = open_search(tmp_path / "r", wanted)
    work(first, 1, epochs=2)
    first.folder.close()
    (tmp_path / "r/trials/002").mkdir()
    (tmp_path / "r/trials/002" / lost).write_text("{}\n")
    again, _ = open_search(tmp_path / "r", wanted)
    work(again, 1)
    assert list(again.trials)[:2] == ["001", next_one]


def test_a_lost_configuration_is_made_anew_from_its_parameters(tmp_path: Path) -> None:
    wanted = space("{sampler: random, scheduler: none}")
    first, _ = open_search(tmp_path / "r", wanted)
    work(first, 1)
    first.folder.close()
    lost = tmp_path / "r/trials/001/params.json"
    before = lost.read_text()
    lost.unlink()
    again, found = open_search(tmp_path / "r", wanted)
    assert lost.read_text() == before and len(again.trials) == 8
    assert found and "trial 001: its params.json is missing" in found.texts()[0]


def test_more_trials_are_those_that_a_longer_search_would_have_asked_for(tmp_path: Path) -> None:
    wanted = space("{sampler: {name: tpe, startup_trials: 3}, scheduler: asha}")
    for path, counts in (("long", [12]), ("extended", [8, 12])):
        for trials in counts:
            conductor, _ = open_search(tmp_path / path, wanted, trials)
            assert work(conductor, 1)
            conductor.folder.close()
    assert left(tmp_path / "long") == left(tmp_path / "extended")


def test_a_changed_space_keeps_what_fits_as_knowledge_and_names_the_rest(tmp_path: Path) -> None:
    before = space("{sampler: random, scheduler: none}")
    first, _ = open_search(tmp_path / "r", before)
    work(first, 1)
    first.folder.close()
    narrow = SPACE.replace("[1, 3]", "[2, 3]").replace("dropout:", "growth: {uniform: [1, 3]}, dropout:")
    wanted = space("{sampler: tpe, scheduler: none}", narrow)
    again, found = open_search(tmp_path / "r", wanted, trials=12)
    fits = {t.id for t in first.trials.values() if t.parameters["model.depth"] != 1}
    assert found and found.dropped.keys() == first.trials.keys() - fits and 0 < len(fits) < 8
    assert "do not lie in the changed space" in found.texts()[0]
    assert all("model.depth: 1 is outside 2 .. 3" in why for why in found.dropped.values())
    known = again.sampler.study.trials
    assert len(known) == len(fits) and all(t.params["model.growth"] == 2.0 for t in known)
    assert work(again, 1) and len(again.trials) == 12
    again.folder.close()
    third, later = open_search(tmp_path / "r", wanted, trials=14)  # and once more, now that it has changed
    assert later and not later.unfinished and work(third, 1) and len(third.trials) == 14


def test_other_runs_are_knowledge_parameter_by_parameter(tmp_path: Path) -> None:
    first, _ = open_search(tmp_path / "old", space("{sampler: random, scheduler: asha}"))
    work(first, 1)
    first.folder.close()
    wanted = space("{sampler: tpe}", SPACE.replace("[1, 3]", "[1, 2]"))
    known = know(wanted, [read_record(tmp_path / "old")])
    deep = {t.id for t in first.trials.values() if t.parameters["model.depth"] == 3}
    assert {name.split("/")[1] for name in known.dropped} == deep
    assert {item.trial for item in known.trials} == first.trials.keys() - deep
    assert {item.told.state for item in known.trials} >= {"finished", "stopped"}
    with pytest.raises(BadInput, match="none of 8 trials fits"):
        know(space("{}", SPACE.replace("[8, 16]", "[64, 128]")), [read_record(tmp_path / "old")])


def test_knowledge_is_written_down_and_known_again_after_a_crash(tmp_path: Path) -> None:
    first, _ = open_search(tmp_path / "old", space("{sampler: random, scheduler: none}"))
    work(first, 1)
    wanted = space("{sampler: {name: tpe, startup_trials: 3}, scheduler: none}")
    conductor, _ = open_search(tmp_path / "new", wanted)
    for item in know(wanted, [read_record(tmp_path / "old")]).trials:
        conductor.folder.write_event("learned", **item.as_dict())
        conductor.sampler.learn(item.parameters, item.told)
    conductor.folder.close()
    again, _ = open_search(tmp_path / "new", wanted)
    assert [t.params for t in again.sampler.study.trials] == [t.params for t in conductor.sampler.study.trials]
    job, same = conductor.sampler.ask(), again.sampler.ask()
    assert job and same and job.parameters == same.parameters


def test_the_goal_decides_what_is_best(tmp_path: Path) -> None:
    goal = Goal(space("{metric: val_loss}").fixed.search.objectives)
    first, _ = open_search(tmp_path / "r", space("{sampler: random, scheduler: none, metric: val_loss}"))
    work(first, 1, epochs=3)
    trial = first.trials["001"]
    assert goal.first.score(trial.best) == max(-v for v in trial.curve.values())


def forget(path: Path, *words: str) -> None:
    """Take the lines with these words out of events.jsonl."""
    events = path / "events.jsonl"
    lines = events.read_text().splitlines(keepends=True)
    events.write_text("".join(line for line in lines if not all(word in line for word in words)))


def mutations(path: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (path / "events.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == "mutated"]


def test_a_trial_of_its_own_length_is_not_trained_beyond_it_after_a_kill(tmp_path: Path) -> None:
    wanted = space("{sampler: random, scheduler: none}", SPACE.replace("epochs: 6", "epochs: {choice: [2, 6]}"))
    first, _ = open_search(tmp_path / "r", wanted)
    assert work(first, 1)
    first.folder.close()
    short = next(t.id for t in first.trials.values() if t.full == 2 and t.state == "finished")
    forget(tmp_path / "r", '"ended"', f'"{short}"')
    again, found = open_search(tmp_path / "r", wanted)
    assert found and not found.unfinished and again.trials[short].state == "finished"


def test_what_is_unfinished_does_not_go_on_with_another_split_of_the_images(tmp_path: Path) -> None:
    first, _ = open_search(tmp_path / "r", space("{sampler: random, scheduler: none}"))
    work(first, 1, epochs=FULL + 2)
    first.folder.close()
    again, found = open_search(tmp_path / "r", space("{sampler: random, scheduler: none}", f"seed: 7\n{SPACE}"))
    assert found and found.left_out == ["002"] and "seed was 0, now 7" in again.trials["002"].reason
    assert again.trials["001"].state in ("finished", "diverged") and not found.unfinished


def test_repeats_of_a_trial_that_is_lost_are_left_out(tmp_path: Path) -> None:
    wanted = space("{sampler: random, scheduler: none, repeats: 3}")
    first, _ = open_search(tmp_path / "r", wanted)
    assert work(first, 1)
    first.folder.close()
    again = [trial.id for trial in first.repeats()]
    forget(tmp_path / "r", '"asked"', f'"trial": "{again[0]}"')
    conductor, found = open_search(tmp_path / "r", wanted)
    assert found and len([note for note in found.notes if "it repeats trial" in note]) == 2
    assert not conductor.trials.keys() & set(again)


@pytest.mark.parametrize("text", ["{}", '{"model": {"name": "of another version"}}', "[1]"])
def test_a_configuration_that_cannot_be_read_is_none_but_no_error(tmp_path: Path, text: str) -> None:
    wanted = space("{sampler: random, scheduler: none}")
    first, _ = open_search(tmp_path / "r", wanted)
    assert work(first, 1)
    first.folder.close()
    (tmp_path / "r/trials/001/params.json").write_text(text)
    assert "001" not in {item.trial for item in know(wanted, [read_record(tmp_path / "r")]).trials}
    again, found = open_search(tmp_path / "r", wanted)
    assert found and "made anew" in found.notes[0] and len(again.trials) == 8


def test_a_space_that_was_changed_by_hand_is_refused(tmp_path: Path) -> None:
    first, _ = open_search(tmp_path / "r", space("{sampler: random, scheduler: none}"))
    assert work(first, 1)
    narrow = space("{sampler: random, scheduler: none}", SPACE.replace("depth: {int: [1, 3]}", "depth: 2"))
    sampler = Sampler(narrow, lambda config: Size(1, 1), choose_sampler(narrow, 8)[0])
    conductor = Conductor(narrow, sampler, first.folder, trials=8, full=FULL, seconds=None)
    with pytest.raises(BadInput, match=r"trial 001 is not of the space in .* changed by hand; put it back, or"):
        replay(conductor, read_record(tmp_path / "r"), narrow, changed=False)


def test_what_ran_when_the_space_changed_is_not_trained_a_second_time(tmp_path: Path) -> None:
    text = "name: g\ndata: {dataset: digits}\nmodel: {name: cnn, depth: {choice: [1, 2]}}\ntrain: {epochs: 6}\n"
    first, _ = open_search(tmp_path / "r", space("{sampler: grid, scheduler: none}", text), trials=2)
    work(first, 2, epochs=3)
    first.folder.close()
    wider = space("{sampler: grid, scheduler: none}", text.replace("[1, 2]", "[1, 2, 3]"))
    again, _ = open_search(tmp_path / "r", wider, trials=3)
    assert work(again, 2)
    assert sorted(int(trial.parameters["model.depth"] or 0) for trial in again.trials.values()) == [1, 2, 3]


def test_knowledge_under_another_metric_is_forgotten(tmp_path: Path) -> None:
    conductor, _ = open_search(tmp_path / "r", space("{sampler: tpe, scheduler: none}"))
    proposal = conductor.sampler.ask()
    assert proposal
    told = {"state": "finished", "values": [0.97], "curve": {"1": 0.97}, "excess": {}, "metrics": ["val_accuracy"]}
    conductor.folder.write_event("learned", run="old", trial="1", parameters=dict(proposal.parameters), **told)
    conductor.folder.close()
    for metric, known in (("val_accuracy", 1), ("val_loss", 0)):
        wanted = space(f"{{sampler: tpe, scheduler: none, metric: {metric}}}")
        again, _ = open_search(tmp_path / "r", wanted)
        again.folder.close()
        assert len(again.sampler.study.trials) == known


def test_a_population_says_what_its_best_epoch_was_trained_with(tmp_path: Path) -> None:
    wanted = space("{scheduler: {name: pbt, every: 2}, sampler: random}")
    first, _ = open_search(tmp_path / "r", wanted)
    assert work(first, 1)
    changes = mutations(tmp_path / "r")
    for trial in (first.trials[change["trial"]] for change in changes):
        asked = [e["parameters"] for e in changes if e["trial"] == trial.id and e["epoch"] < trial.best["epoch"]]
        assert trial.best_config and trial.best_parameters == (
            asked[-1] if asked else first_asked(tmp_path / "r", trial)
        )
    known = know(wanted, [read_record(tmp_path / "r")])
    changed = {change["trial"] for change in changes}
    assert changed and {item.told.state for item in known.trials if item.trial in changed} == {"stopped"}


def first_asked(path: Path, trial: Trial) -> dict[str, Any]:
    lines = [json.loads(line) for line in (path / "events.jsonl").read_text().splitlines()]
    return next(dict(e["parameters"]) for e in lines if e["event"] == "asked" and e["trial"] == trial.id)


def test_what_moved_before_a_crash_is_no_death_after_it(tmp_path: Path) -> None:
    wanted = space("{sampler: random, scheduler: none, retries: 0}")
    first, _ = open_search(tmp_path / "r", wanted)
    job = first.next()
    assert job
    first.move(job.trial.id, "its node is gone")
    first.folder.close()
    again, found = open_search(tmp_path / "r", wanted)
    trial = again.trials[job.trial.id]
    assert (trial.moves, trial.deaths) == (1, 0) and found and found.unfinished == [trial.id]


def test_a_run_from_before_moves_were_counted_goes_on(tmp_path: Path) -> None:
    wanted = space("{trials: 8, sampler: random}")
    first, _ = open_search(tmp_path / "r", wanted)
    job = first.next()
    assert job
    first.die(job.trial.id, "the actor died")
    first.folder.close()
    log = tmp_path / "r" / "events.jsonl"
    log.write_text(log.read_text().replace('"moves": 0, ', ""))
    assert "moves" not in log.read_text()
    trial = open_search(tmp_path / "r", wanted)[0].trials[job.trial.id]
    assert (trial.moves, trial.deaths) == (0, 1)
