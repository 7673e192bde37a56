"""The winner is chosen by fresh seeds, delivered, and the test images are opened once."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from scipy import stats

from tuner.delivery import finalize
from tuner.delivery.looks import count_looks
from tuner.delivery.model import Model, open_model, open_torch, save_model
from tuner.delivery.pictures import open_split
from tuner.errors import BadInput, SearchFailed
from tuner.records.reader import read_record
from tuner.records.writer import RunFolder, create
from tuner.runner import finalists
from tuner.runner.finalists import FOLDER, WHOLE, Finalists, choose, find, make_finalists
from tuner.runner.stretch import Stretch
from tuner.spec.distributions import Plain
from tuner.spec.space import parse_space
from tuner.spec.trial_config import TrialConfig
from tuner.training import checkpoint
from tuner.training.datasets import open_dataset, prepare

Call = Callable[..., tuple[int, str, str]]
Values = Mapping[str, tuple[float, ...]]


def train_again(run: Path, values: Values, *, metric: str = "val_accuracy", whole: bool = False) -> Path:
    """A run of finalists as the runner leaves it: these values, seed by seed, with the weights of the search."""
    seeds = max(map(len, values.values()))
    space = make_finalists(run, list(values), seeds, whole=whole)
    with create(run / "final", WHOLE if whole else FOLDER) as folder:
        folder.write_space(space.text, space.to_json())
        searched = read_record(run).run
        goals = [{"metric": metric, "mode": "min" if metric == "val_loss" else "max"}]
        folder.write_run(**{**searched, "name": space.fixed.name, "objectives": goals, "epochs": 6})
        for finalist, given in values.items():
            for seed, value in zip(space.parameters[1].distribution.values(), given, strict=False):
                name = f"{len(list(folder.path.glob('trials/*'))) + 1:03}"
                at = {"finalist": finalist, "seed": seed}
                config = space.configs[finalist].model_copy(update={"seed": seed})
                add(folder, name, at, config, {metric: value}, run / "trials" / finalist / "checkpoint_best")
    return folder.path


def add(
    folder: RunFolder, name: str, at: Mapping[str, object], config: TrialConfig, row: dict[str, float], best: Path
) -> None:
    folder.start_trial(name, config.model_dump(mode="json"))
    folder.write_event("asked", trial=name, parameters=at, size={"params": 1000}, number=0)
    folder.write_row(name, {"epoch": 6, "train_loss": 0.1, **row, "decision": "stop", "reason": ""})
    folder.write_event("ended", trial=name, state="finished", epoch=6, reason="all epochs done")
    tensors, state = checkpoint.load(best)
    colours = {"mean": "[0.5, 0.5, 0.5]", "std": "[0.2, 0.2, 0.2]"}
    said = {**state, "config": config.model_dump(mode="json")}
    checkpoint.save(folder.trial(name) / "checkpoint_best", tensors, said, colours)


def test_the_leading_trials_get_seeds_that_the_search_never_used(trained: Path) -> None:
    leading = choose(trained, 2)
    space = make_finalists(trained, leading, 3)
    assert leading[0] == open_torch(trained).about.origin.trial and "003" not in leading
    assert space.parameters[1].distribution.values() == (1, 2, 3)
    at: dict[str, Plain] = {"finalist": leading[1], "seed": 2}
    config = space.resolve(lambda p: at[p.name])
    searched = TrialConfig.model_validate_json((trained / "trials" / leading[1] / "params.json").read_text())
    assert config == searched.model_copy(update={"seed": 2})
    with pytest.raises(BadInput, match="none of them"):
        space.resolve(lambda p: ({**at, "finalist": "003"})[p.name])


def test_the_command_trains_as_many_as_it_is_told(run: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    spaces = []

    def train(space: Finalists, *_: object, **__: object) -> None:
        spaces.append(space)
        raise SearchFailed("enough")

    monkeypatch.setattr(finalists, "train_finalists", train)
    for words in (("--top", 1, "--seeds", 2), ()):
        assert call("finalize", run, *words)[0] == 1
    assert [list(space.configs) for space in spaces] == [choose(run, 1), choose(run, 3)]
    assert [len(space.parameters[1].distribution.values()) for space in spaces] == [2, 3]


def test_the_same_finalists_are_found_again_and_others_are_not(run: Path) -> None:
    folder = train_again(run, {"001": (0.5,), "002": (0.6,)})
    same, other = make_finalists(run, ["001", "002"], 1), make_finalists(run, ["001", "002"], 2)
    assert find(run / "final", FOLDER, same) == folder and find(run / "final", FOLDER, other) is None


def test_the_winner_has_the_best_mean_with_students_interval(run: Path) -> None:
    values = {"001": (0.70, 0.74, 0.78), "002": (0.80, 0.60, 0.61)}
    verdict = finalize.decide(run, train_again(run, values))
    low, high = stats.t.interval(0.95, 2, loc=0.74, scale=statistics.stdev(values["001"]) / 3**0.5)
    winner = verdict.winner
    assert winner.trial == "001" and winner.values == values["001"] and winner.mean == pytest.approx(0.74)
    assert (winner.low, winner.high) == pytest.approx((low, high))
    assert (
        "cannot be told apart" in verdict.better
        and verdict.p == stats.ttest_ind(*values.values(), equal_var=False).pvalue
    )


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ((0.70, 0.71, 0.72), (0.60, 0.61, 0.62), "001 is better than 002: +10.0 points"),
        ((0.70, 0.71, 0.72), (0.60, 0.71, 0.80), "cannot be told apart"),
        ((0.7,), (0.6,), "cannot be told from so few seeds"),
    ],
)
def test_it_says_whether_the_lead_is_more_than_luck(
    first: tuple[float, ...], second: tuple[float, ...], said: str, run: Path
) -> None:
    verdict = finalize.decide(run, train_again(run, {"001": first, "002": second}))
    assert said in verdict.better


def test_the_interval_of_a_share_stays_among_shares(run: Path) -> None:
    verdict = finalize.decide(run, train_again(run, {"001": (0.9, 0.99), "002": (0.1, 0.8)}))
    assert [(f.low, f.high) for f in verdict.finalists] == [
        (pytest.approx(0.945 - 12.7062 * 0.045, abs=1e-4), 1),
        (0, 1),
    ]
    assert verdict.difference is not None and verdict.difference[1:] == (-1, 1)


def test_of_a_loss_the_smallest_mean_wins(run: Path) -> None:
    folder = train_again(run, {"001": (0.9, 0.8), "002": (0.3, 0.4)}, metric="val_loss")
    assert finalize.decide(run, folder).winner.trial == "002"


def test_finalists_without_an_epoch_are_an_error_that_says_where_to_look(run: Path) -> None:
    with create(run / "final", FOLDER) as folder:
        folder.write_run(objectives=[{"metric": "val_accuracy", "mode": "max"}], trials=1, name="x", status="failed")
    with pytest.raises(SearchFailed, match=r"error\.txt"):
        finalize.decide(run, folder.path)


def deliver(run: Path, values: Values, *, whole: bool = False) -> tuple[Model, Path, finalize.Verdict]:
    folder = train_again(run, values)
    verdict = finalize.decide(run, folder)
    if whole:
        folder = train_again(run, {verdict.winner.trial: (0.9, 0.9)}, whole=True)
    return finalize.deliver(run, folder, verdict, whole=whole, out=run / "final" / "model"), folder, verdict


def test_the_delivered_model_is_the_best_seed_of_the_winner(run: Path) -> None:
    made, folder, verdict = deliver(run, {"001": (0.2, 0.3), "002": (0.5, 0.7)})
    about = open_model(run).about
    assert about == made.about.model_copy(update={"files": about.files}) and about.name == "shapes-small 002"
    assert (about.origin.run, about.origin.trial, about.origin.seed) == ("shapes-small", "002", 2)
    assert verdict.winner.runs[1] == "004" and folder.name == FOLDER


def test_the_test_images_are_opened_once_for_all_seeds_of_the_winner(run: Path) -> None:
    made, folder, verdict = deliver(run, {"001": (0.2, 0.3), "002": (0.5, 0.7)})
    told = finalize.test(made, folder, verdict)
    pictures = open_split(made.place, made.about, "test", "again")
    right = made.logits(np.asarray(pictures.pixels)).argmax(1) == pictures.labels
    assert told["looks"] == 1 and count_looks(run) == 2 and told["images"] == len(right)
    assert told["accuracy"] == pytest.approx(right.mean()) and told["seeds"] == pytest.approx([right.mean()] * 2)
    assert told["low"] < told["accuracy"] < told["high"]


def test_each_seed_is_judged_by_its_own_weights(run: Path) -> None:
    made, folder, verdict = deliver(run, {"001": (0.2, 0.3), "002": (0.5, 0.7)})
    empty(folder / "trials" / verdict.winner.runs[0] / "checkpoint_best")
    told = finalize.test(made, folder, verdict)
    labels = open_split(made.place, made.about, "test", "again").labels
    assert told["seeds"] == pytest.approx([(labels == 0).mean(), told["accuracy"]])  # of equal logits the first class
    assert (labels == 0).mean() < told["mean"] < told["accuracy"]


def empty(best: Path) -> None:
    """Weights that say the same of every image."""
    tensors, state = checkpoint.load(best)
    with safe_open(best / checkpoint.WEIGHTS, framework="pt") as file:
        colours = file.metadata()
    checkpoint.save(best, {name: torch.zeros_like(value) for name, value in tensors.items()}, state, colours)


def test_of_what_is_trained_on_all_images_the_first_seed_is_delivered(run: Path) -> None:
    made, folder, _ = deliver(run, {"001": (0.2, 0.3), "002": (0.5, 0.7)}, whole=True)
    seeds = [line.fields["parameters"]["seed"] for line in read_record(folder).lines if line.event == "asked"]
    assert len(seeds) == 2 and made.about.origin.seed == min(seeds)


def test_a_model_that_learned_from_the_validation_images_is_not_judged_on_them(run: Path) -> None:
    made, _, _ = deliver(run, {"001": (0.2, 0.3), "002": (0.5, 0.7)}, whole=True)
    assert made.about.origin.value is None and "validation images too" in made.about.notes[0]
    with pytest.raises(BadInput, match="learned from"):
        open_split(made.place, made.about, "validation", "evaluate")


def test_finalize_json_speaks_of_one_model_and_its_finalists_alone(run: Path) -> None:
    _, folder, verdict = deliver(run, {"001": (0.2, 0.3), "002": (0.5, 0.7)})
    where = run / "final" / "model"
    told = finalize.as_json(run, folder, verdict, {"accuracy": 0.5}, whole=False, model=where)
    finalize.write(run, told)
    assert told["model"] == "final/model" and finalize.is_told(run, folder, verdict, where)
    other = replace(verdict, finalists=verdict.finalists[::-1])
    assert not finalize.is_told(run, folder, other, where)
    save_model(where, open_torch(run / "trials" / "003"))
    assert not finalize.is_told(run, folder, verdict, where)
    finalize.deliver(run, folder, verdict, whole=False, out=where)
    assert finalize.read(run) is None  # until the test images have been opened for it


def test_seeds_of_repeats_are_not_fresh(run: Path) -> None:
    with RunFolder(run) as folder:
        folder.write_event("asked", trial="004", parameters={}, size={}, number=None, repeat_of="001", seed=5)
    assert make_finalists(run, ["001"], 2).parameters[1].distribution.values() == (6, 7)


def test_a_run_that_is_being_searched_has_no_finalists_yet(run: Path) -> None:
    with RunFolder(run) as folder:
        folder.write_run(status="running")
        with pytest.raises(BadInput, match="still being searched"):
            choose(run, 2)


def test_a_space_file_may_not_train_on_validation_images() -> None:
    with pytest.raises(BadInput, match=r"data\.train_on"):
        parse_space("name: x\ndata: {dataset: digits, train_on: all}\n", "x.yaml")
    with pytest.raises(BadInput, match=r"data\.train_on"):
        parse_space("name: x\ndata: {dataset: digits, train_on: {choice: [train, all]}}\n", "x.yaml")


def whole_space(run: Path) -> Finalists:
    return make_finalists(run, ["001"], 1, whole=True)


def test_training_on_all_adds_the_validation_images(run: Path) -> None:
    data = whole_space(run).fixed.data
    usual = data.model_copy(update={"train_on": "train"})
    folder = prepare(data, 0).folder
    all_of_it, some = open_dataset(folder, data, 0), open_dataset(folder, usual, 0)
    assert sorted([*some.train, *some.validation]) == all_of_it.train.tolist()
    assert all_of_it.validation.tolist() == some.validation.tolist()


def test_what_is_trained_on_all_images_keeps_its_last_epoch(run: Path, tmp_path: Path) -> None:
    space = whole_space(run)
    config = space.resolve(lambda p: p.distribution.values()[0])
    job = {
        "id": "001", "trial": config.model_dump_json(), "data": str(prepare(config.data, 0).folder), "split_seed": 0,
        "folder": str(tmp_path), "metric": "epoch", "sign": 1, "rules": [], "threads": 1, "gpu": 0, "latency": False,
        "start": [], "stop_at": None,
    }  # fmt: skip
    stretch = Stretch(job)
    for _ in range(2):
        stretch.step()
    assert '"epoch": 2' in (tmp_path / "checkpoint_best" / "state.json").read_text()
