"""A job on a worker: what it goes on from, what it keeps, what it says when something breaks. No Ray cluster."""

from __future__ import annotations

import errno
import itertools
import json
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from safetensors import safe_open

from tuner.runner.stretch import BEST, Pace, Stretch
from tuner.runner.trainable import TrialTrainable
from tuner.spec.data import Data
from tuner.spec.trial_config import MID_RUN, TrialConfig
from tuner.training import checkpoint
from tuner.training.datasets import prepare
from tuner.training.trainer import Trainer

MEASURED = {"epoch_seconds", "images_per_second", "peak_memory_mb", "checkpoint_epoch"}
Tree = dict[str, Any]
MakeJob = Callable[..., Tree]

# All that draws or remembers: dropout, augmentation, momentum, running statistics, a schedule on its way.
CONFIG: Tree = {
    "data": {"dataset": "shapes", "images": 60, "image_size": 8, "augment": "flip_crop"},
    "model": {"depth": 2, "width": 4, "dropout": 0.2},
    "train": {
        "epochs": 6,
        "batch_size": 16,
        "precision": "fp32",
        "optimizer": {"name": "sgd", "nesterov": True},
        "schedule": {"name": "onecycle"},
    },
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(Data.model_validate(CONFIG["data"]), 0, tmp_path_factory.mktemp("cache")).folder


@pytest.fixture
def make_job(data: Path, tmp_path: Path) -> MakeJob:
    """A job dictionary; `config` is merged into CONFIG by path, everything else replaces a field."""

    def make(config: Tree | None = None, **fields: Any) -> Tree:
        tree = json.loads(json.dumps(CONFIG))
        for path, value in (config or {}).items():
            *sections, field = path.split(".")
            section = tree
            for name in sections:
                section = section.setdefault(name, {})
            section[field] = value
        return {
            "id": "001",
            "job": 1,
            "trial": TrialConfig.model_validate(tree).model_dump_json(),
            "data": str(data),
            "split_seed": 0,
            "folder": str(tmp_path / "001"),
            "metric": "val_accuracy",
            "sign": 1,
            "rules": [],
            "threads": 1,
            "gpu": 0,
            "memory": None,
            "fingerprint": "",
            "user_path": str(tmp_path),
            "latency": False,
            "start": [],
            "stop_at": None,
        } | fields  # fmt: skip

    return make


def always() -> float:
    """A clock by which writing costs nothing: a checkpoint every epoch."""
    return 0.0


def seldom() -> Callable[[], float]:
    """A clock by which writing costs as much as training: only the first epoch and `stop_at` have checkpoints."""
    return map(float, itertools.count()).__next__


def rows(stretch: Stretch, epochs: int) -> list[Tree]:
    return [stretch.step()["row"] for _ in range(epochs)]


def strip(rows: list[Tree]) -> list[Tree]:
    return [{name: value for name, value in row.items() if name not in MEASURED} for row in rows]


def starts(job: Tree) -> Tree:
    """The next job of the same trial."""
    return job | {"start": checkpoint.newest(Path(job["folder"]))}


# ---------------------------------------------------------------- going on


@pytest.mark.parametrize("optimizer", [{"name": "sgd", "nesterov": True}, {"name": "adam"}, {"name": "adamw"},
                                       {"name": "rmsprop", "momentum": 0.5}], ids=lambda o: o["name"])  # fmt: skip
@pytest.mark.parametrize("behind", [0, 2], ids=["at the log", "behind the log"])
def test_a_killed_trial_equals_one_that_went_on(
    optimizer: Tree, behind: int, make_job: MakeJob, tmp_path: Path
) -> None:
    config = {"train.optimizer": optimizer}
    expected = strip(rows(Stretch(make_job(config, folder=str(tmp_path / "whole")), clock=always), 6))
    job = make_job(config)
    heard = rows(Stretch(job, clock=seldom() if behind else always), 3)
    again = rows(Stretch(starts(job), clock=always), 4 + behind)
    assert again[0] == heard[2 - behind]  # as it was, times and all: it was not trained again
    assert strip(heard[: 2 - behind] + again) == expected


def test_a_checkpoint_ahead_of_the_log_gives_the_row_that_nobody_heard(make_job: MakeJob) -> None:
    job = make_job()
    *_, unheard = rows(Stretch(job, clock=always), 4)
    again = rows(Stretch(starts(job), clock=always), 2)
    assert again[0] == unheard
    assert again[1]["epoch"] == 5


def test_weights_that_another_trial_gave_train_on_without_its_row(make_job: MakeJob, tmp_path: Path) -> None:
    source = make_job(id="002", folder=str(tmp_path / "002"))
    *_, expected = rows(Stretch(source, clock=always), 3)
    checkpoint.copy(tmp_path / "002" / "checkpoint_000002", tmp_path / "001" / "given_000002")
    row = Stretch(make_job(start=["given_000002"])).step()["row"]
    assert row["epoch"] == 3
    assert strip([row]) == strip([expected])


SGD, RMSPROP, ADAM, ADAMW = ({"train.optimizer.name": name} for name in ("sgd", "rmsprop", "adam", "adamw"))
CHANGES: list[tuple[str, Any, Any, Tree]] = [
    ("train.optimizer.lr", 0.05, 0.01, SGD),
    ("train.optimizer.weight_decay", 0.0, 0.1, SGD),
    ("train.optimizer.weight_decay", 0.0, 0.1, RMSPROP),
    ("train.optimizer.weight_decay", 0.0, 0.1, ADAM),
    ("train.optimizer.weight_decay", 0.0, 0.1, ADAMW),
    ("train.optimizer.momentum", 0.9, 0.5, SGD),
    ("train.optimizer.momentum", 0.0, 0.9, SGD),
    ("train.optimizer.momentum", 0.9, 0.0, SGD),
    ("train.optimizer.momentum", 0.0, 0.9, RMSPROP),
    ("train.optimizer.momentum", 0.9, 0.0, RMSPROP),
    ("train.optimizer.betas", [0.9, 0.999], [0.5, 0.9], ADAM),
    ("train.optimizer.alpha", 0.99, 0.5, RMSPROP),
    ("train.batch_size", 16, 8, SGD),
    ("model.dropout", 0.2, 0.5, SGD),
    ("model.dropout", 0.0, 0.5, SGD),
    ("model.dropout", 0.5, 0.0, SGD),
    ("data.augment", "none", "flip_crop", SGD),
    ("data.augment", {"flip_crop": {"padding": 4}}, {"flip_crop": {"padding": 1}}, SGD),
]


@pytest.mark.parametrize(("path", "before", "after", "fixed"), CHANGES)
def test_what_may_change_in_mid_run_changes_after_a_load(
    path: str, before: Any, after: Any, fixed: Tree, make_job: MakeJob
) -> None:
    plain = {"train.optimizer": {"name": "sgd"}} | fixed
    first, changed = make_job(plain | {path: before}), make_job(plain | {path: after})
    rows(Stretch(first, clock=always), 2)
    names = {"start": ["checkpoint_000002"]}
    same, new = (rows(Stretch(job | names, clock=seldom()), 2)[1] for job in (first, changed))
    assert same["epoch"] == new["epoch"] == 3
    assert new["train_loss"] != same["train_loss"]


def test_every_field_that_may_change_in_mid_run_is_tried() -> None:
    assert {path for path, *_ in CHANGES} == set(MID_RUN)


# ---------------------------------------------------------------- passing over


def flip_a_byte(folder: Path) -> None:
    weights = bytearray((folder / "weights.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "weights.safetensors").write_bytes(weights)


def lose_the_weights(folder: Path) -> None:
    (folder / "weights.safetensors").unlink()


def cut_the_state(folder: Path) -> None:
    (folder / "state.json").write_bytes((folder / "state.json").read_bytes()[:50])


def take_another_trials(folder: Path) -> None:
    tensors, state = checkpoint.load(folder)
    checkpoint.save(folder, tensors, state | {"trial": "007"})


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (flip_a_byte, "sha256 differs"),
        (lose_the_weights, "weights.safetensors is missing"),
        (cut_the_state, "is no state of a checkpoint"),
        (take_another_trials, "a checkpoint of trial 007"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_and_named(
    damage: Callable[[Path], None], why: str, make_job: MakeJob
) -> None:
    job = make_job()
    heard = rows(Stretch(job, clock=always), 4)
    damage(Path(job["folder"]) / "checkpoint_000004")
    stretch = Stretch(starts(job), clock=always)
    result = stretch.step()
    assert result["row"] == heard[2]
    (text,) = result["passed_over"]
    assert text.startswith("checkpoint_000004: ") and why in text
    again = stretch.step()
    assert "passed_over" not in again
    assert strip([again["row"]]) == strip(heard[3:])
    assert all(checkpoint.load(Path(job["folder"]) / name) for name in checkpoint.newest(Path(job["folder"])))


def test_where_nothing_loads_it_trains_from_the_start(make_job: MakeJob) -> None:
    job = make_job()
    heard = rows(Stretch(job, clock=always), 3)
    for name in checkpoint.newest(Path(job["folder"])):
        flip_a_byte(Path(job["folder"]) / name)
    result = Stretch(starts(job), clock=always).step()
    assert len(result["passed_over"]) == 2
    assert strip([result["row"]]) == strip(heard[:1])
    assert result["row"]["checkpoint_epoch"] == 1
    assert checkpoint.newest(Path(job["folder"])) == ["checkpoint_000001"]  # the damaged ones would hide it


@pytest.mark.parametrize(
    ("change", "why"),
    [({"model.width": 5}, "another model"), ({"train.optimizer": {"name": "adam"}}, "were trained with sgd")],
)
def test_weights_of_another_configuration_are_passed_over(change: Tree, why: str, make_job: MakeJob) -> None:
    rows(Stretch(make_job(), clock=always), 1)
    result = Stretch(make_job(change, start=["checkpoint_000001"])).step()
    assert result["row"]["epoch"] == 1
    assert why in result["passed_over"][0]


# ---------------------------------------------------------------- what is kept


def test_checkpoints_come_when_writing_them_is_their_share_of_the_time() -> None:
    now = 0.0
    pace = Pace(lambda: now)
    assert pace.due()
    with pace.writing(to_go_on=True):
        now += 0.3
    now += 19.9  # 0.3 s are 1.5% of 20 s
    assert not pace.due()
    now += 0.2
    assert pace.due()
    with pace.writing(to_go_on=False):  # the best weights
        now += 0.3
    assert not pace.due()
    now += 20.0
    assert pace.due()


def test_a_checkpoint_comes_within_a_minute_whatever_it_costs() -> None:
    now = 0.0
    pace = Pace(lambda: now)
    with pace.writing(to_go_on=True):
        now += 10.0
    now += 59.9
    assert not pace.due()
    now += 0.1
    assert pace.due()


def test_the_first_epoch_and_where_a_job_ends_are_written_whatever_it_costs(make_job: MakeJob) -> None:
    job = make_job(stop_at=4)
    found = rows(Stretch(job, clock=seldom()), 5)
    assert [row["checkpoint_epoch"] for row in found] == [1, 1, 1, 4, 4]


def test_the_two_newest_are_kept(make_job: MakeJob) -> None:
    job = make_job()
    rows(Stretch(job, clock=always), 4)
    left = sorted(path.name for path in Path(job["folder"]).iterdir())
    assert left == ["checkpoint_000003", "checkpoint_000004", "checkpoint_best"]


def test_the_best_weights_are_those_of_the_best_epoch(make_job: MakeJob) -> None:
    job = make_job(metric="val_loss", sign=-1)
    found = rows(Stretch(job, clock=always), 6)
    tensors, state = checkpoint.load(Path(job["folder"]) / "checkpoint_best")
    best = min(found, key=lambda row: float(row["val_loss"]))
    assert strip([state["metrics"]]) == strip([best])
    with safe_open(Path(job["folder"]) / BEST / checkpoint.WEIGHTS, framework="pt") as file:
        assert set(file.metadata()) == {"mean", "std"}  # whoever starts from them needs the same normalisation
    assert all(name.startswith("model.") for name in tensors)


def best_epoch(job: Tree) -> int:
    return int(checkpoint.load(Path(job["folder"]) / "checkpoint_best")[1]["metrics"]["epoch"])


def test_of_equal_epochs_the_first_is_the_best(make_job: MakeJob) -> None:
    job = make_job(metric="params")
    rows(Stretch(job, clock=always), 2)
    assert best_epoch(job) == 1


def test_after_a_resume_worse_epochs_do_not_replace_the_best_weights(make_job: MakeJob) -> None:
    job = make_job(metric="epoch", sign=-1)  # each epoch is worse than the one before
    rows(Stretch(job, clock=always), 2)
    rows(Stretch(starts(job), clock=always), 2)
    assert best_epoch(job) == 1


@pytest.mark.parametrize("damage", [flip_a_byte, cut_the_state, take_another_trials])
def test_damaged_best_weights_are_replaced(damage: Callable[[Path], None], make_job: MakeJob) -> None:
    job = make_job(metric="epoch", sign=-1)
    rows(Stretch(job, clock=always), 2)
    damage(Path(job["folder"]) / "checkpoint_best")
    rows(Stretch(starts(job), clock=always), 2)
    assert best_epoch(job) == 3


def test_a_diverged_epoch_is_not_kept(make_job: MakeJob) -> None:
    job = make_job(
        {"train.optimizer": {"name": "sgd", "lr": 1e20}, "model.norm": "none", "train.schedule.name": "constant"}
    )
    row = Stretch(job, clock=always).step()["row"]
    assert not np.isfinite(row["train_loss"])
    assert row["checkpoint_epoch"] == 0
    assert not Path(job["folder"]).exists()


def test_a_diverged_epoch_names_the_checkpoint_before_it(make_job: MakeJob) -> None:
    rows(Stretch(make_job({"model.norm": "none"}), clock=always), 2)
    wild = {"model.norm": "none", "train.optimizer": {"name": "sgd", "lr": 1e20}, "train.schedule.name": "constant"}
    again = rows(Stretch(make_job(wild, start=["checkpoint_000002"]), clock=always), 2)
    assert not np.isfinite(again[1]["train_loss"])
    assert again[1]["checkpoint_epoch"] == 2


def test_latency_is_measured_once_a_job_and_told_in_every_row(make_job: MakeJob) -> None:
    found = rows(Stretch(make_job(latency=True), clock=always), 3)
    assert found[0]["latency_ms"] > 0
    assert {row["latency_ms"] for row in found} == {found[0]["latency_ms"]}
    assert "latency_ms" not in Stretch(make_job()).step()["row"]


# ---------------------------------------------------------------- what breaks


def raising(error: BaseException) -> Callable[..., Any]:
    def run(*_: Any, **__: Any) -> Any:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (ValueError("no"), "failure"),
        (OSError(errno.EACCES, "not allowed"), "failure"),
        (RuntimeError("shapes differ"), "failure"),
        (MemoryError("no more"), "out_of_memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory"),
        (OSError(errno.ENOSPC, "No space left on device"), "no_space"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "no_space"),
    ],
)
def test_what_breaks_is_a_result(
    error: Exception, name: str, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "run_epoch", raising(error))
    result = Stretch(make_job()).step()
    assert list(result) == [name]
    assert str(error) in result[name]
    assert ("Traceback" in result[name]) == (name == "failure")


def test_without_memory_the_trainer_is_let_go(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[weakref.ref[Trainer]] = []

    def run_out(self: Trainer) -> None:
        built.append(weakref.ref(self))
        raise MemoryError

    monkeypatch.setattr(Trainer, "run_epoch", run_out)
    stretch = Stretch(make_job())
    assert "out_of_memory" in stretch.step()
    assert built[0]() is None


def test_torchs_own_words_for_no_memory_are_understood(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "run_epoch", lambda self: torch.empty(2**45))
    assert "allocate" in Stretch(make_job()).step()["out_of_memory"]


def test_a_device_in_doubt_ends_the_process(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "run_epoch", raising(torch.AcceleratorError("CUDA error: device-side assert")))
    with pytest.raises(torch.AcceleratorError):
        Stretch(make_job()).step()


@pytest.mark.parametrize("best", [True, False])
def test_a_full_disk_is_no_failed_trial(best: bool, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    save = checkpoint.save

    def fill(folder: Path, *parts: Any) -> None:
        if folder.name.endswith("best") == best:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(folder, *parts)

    monkeypatch.setattr(checkpoint, "save", fill)
    assert "No space left" in Stretch(make_job()).step()["no_space"]


# ---------------------------------------------------------------- one process, many jobs


@pytest.fixture
def trainable(make_job: MakeJob) -> Iterator[TrialTrainable]:
    path = list(sys.path)
    yield TrialTrainable(make_job())
    sys.path[:] = path


def test_rays_trainable_speaks_json_and_takes_the_next_job(trainable: TrialTrainable, make_job: MakeJob) -> None:
    assert sys.path[-1] == make_job()["user_path"]
    result = trainable.step()
    assert {"host", "pid"} < set(result) and result["training_iteration"] == json.loads(result["row"])["epoch"] == 1
    assert trainable.reset_config(make_job(start=["checkpoint_000009"]))
    result = trainable.step()
    assert json.loads(result["row"])["epoch"] == 1
    (passed,) = json.loads(result["passed_over"])
    assert passed.startswith("checkpoint_000009: no checkpoint")


def test_the_trainer_is_gone_before_the_next_one_is_built(
    trainable: TrialTrainable, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[weakref.ref[Trainer]] = []
    init = Trainer.__init__

    def note(self: Trainer, *args: Any, **options: Any) -> None:
        assert not any(trainer() for trainer in built)
        built.append(weakref.ref(self))
        init(self, *args, **options)

    monkeypatch.setattr(Trainer, "__init__", note)
    for _ in range(3):
        trainable.reset_config(make_job())
        assert "row" in trainable.step()
    assert len(built) == 3


@pytest.mark.slow
def test_memory_does_not_grow_with_the_jobs(trainable: TrialTrainable, make_job: MakeJob) -> None:
    """Trainers that stayed would add 140 MB; the kernels that torch compiles for new shapes, 15 or so, may stay."""
    process, used = psutil.Process(), []
    for number in range(40):
        config = {"model.width": 120 + number, "train.optimizer": {"name": "adam"}}
        trainable.reset_config(make_job(config, stop_at=1))
        assert "row" in trainable.step()
        used.append(process.memory_info().rss / 2**20)
    assert used[39] < used[9] + 40


def test_the_best_weights_are_those_of_the_best_epoch_that_keeps_to_the_rules(
    make_job: MakeJob, tmp_path: Path
) -> None:
    gaps = [row["accuracy_gap"] for row in rows(Stretch(make_job(folder=str(tmp_path / "free"))), 4)]
    job = make_job(rules=[f"accuracy_gap <= {sorted(gaps)[0]}"])
    rows(Stretch(job), 4)
    _, state = checkpoint.load(tmp_path / "001" / BEST)
    assert state["metrics"]["epoch"] == 1 + gaps.index(min(gaps))
    rows(Stretch(starts(job)), 2)
    assert checkpoint.load(tmp_path / "001" / BEST)[1]["metrics"]["epoch"] == state["metrics"]["epoch"]


def test_what_a_trainer_found_is_said_once(make_job: MakeJob) -> None:
    stretch = Stretch(make_job({"train.compile": "graph"}))
    assert stretch.step()["notes"] == ["train.compile: a step is captured on a GPU, not on cpu; steps run as with off"]
    assert "notes" not in stretch.step()
