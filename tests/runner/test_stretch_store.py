"""Checkpoints of workers with disks of their own: put into the run's store, fetched from there, deleted there."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tuner.errors import HypertuneError
from tuner.records.claim import Claim
from tuner.records.segments import Segments
from tuner.records.store import Store, StoreError, open_store
from tuner.runner.sending import Sending
from tuner.runner.stretch import BEST, Stretch
from tuner.runner.trial import Goal, Trial
from tuner.runner.weights import Weights
from tuner.search.preflight import Size
from tuner.spec.data import Data
from tuner.spec.objective import Objective
from tuner.spec.trial_config import TrialConfig
from tuner.training import checkpoint
from tuner.training.datasets import prepare

Tree = dict[str, Any]
MakeJob = Callable[..., Tree]

GOAL = Goal((Objective("val_accuracy", "max"),))
CONFIG = TrialConfig.model_validate(
    {
        "data": {"dataset": "shapes", "images": 60, "image_size": 8},
        "model": {"depth": 1, "width": 4},
        "train": {"epochs": 8, "batch_size": 16, "precision": "fp32"},
    }
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(CONFIG.data, 0, tmp_path_factory.mktemp("cache")).folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store((tmp_path / "store").as_uri(), ())


@pytest.fixture
def make_job(data: Path, tmp_path: Path, store: Store) -> MakeJob:
    """A job on the worker with this name, which has a disk of its own."""

    def make(worker: str = "a", *start: str, **fields: Any) -> Tree:
        return {
            "id": "001", "job": 1, "trial": CONFIG.model_dump_json(), "data": str(data), "split_seed": 0,
            "folder": str(tmp_path / worker / "001"), "metric": "val_accuracy", "sign": 1, "rules": [], "threads": 1,
            "gpu": 0, "user_path": "", "latency": False, "start": list(start), "stop_at": None, "store": store.url,
        } | fields  # fmt: skip

    return make


def always() -> float:
    """A clock by which writing costs nothing: a checkpoint every epoch."""
    return 0.0


def train(job: Tree, epochs: int) -> list[Tree]:
    stretch = Stretch(job, clock=always)
    results = [stretch.step() for _ in range(epochs)]
    stretch.close()
    return results


def folders(store: Store, trial: str = "001") -> set[str]:
    return {name.split("/")[2] for name in store.names(f"trials/{trial}")}


# ---------------------------------------------------------------- on a worker


def test_what_is_on_the_workers_disk_is_in_the_store_with_what_is_pruned_gone(
    make_job: MakeJob, store: Store, tmp_path: Path
) -> None:
    train(make_job(), 4)
    assert folders(store) == {"checkpoint_000003", "checkpoint_000004", BEST}
    for name in store.names("trials"):
        assert store.get(name) == (tmp_path / "a" / name.removeprefix("trials/")).read_bytes()


def test_a_trial_goes_on_on_another_machine_as_if_it_had_stayed(make_job: MakeJob, tmp_path: Path) -> None:
    whole = [result["row"] for result in train(make_job("whole", store=""), 6)]
    train(make_job("a"), 4)
    rows = [result["row"] for result in train(make_job("b", "checkpoint_000004", "checkpoint_000003"), 3)]
    seconds = {"epoch_seconds", "images_per_second", "peak_memory_mb"}
    assert [{k: v for k, v in row.items() if k not in seconds} for row in rows] == [
        {k: v for k, v in row.items() if k not in seconds} for row in whole[3:6]
    ]


def test_where_both_have_it_the_one_in_the_store_counts(make_job: MakeJob, tmp_path: Path, store: Store) -> None:
    train(make_job("a"), 2)
    tensors, state = checkpoint.load(tmp_path / "a/001/checkpoint_000002")
    checkpoint.save(tmp_path / "b/001/checkpoint_000002", tensors, state | {"row": {"epoch": 2, "of": "another life"}})
    (result,) = train(make_job("b", "checkpoint_000002"), 1)
    assert "of" not in result["row"]


def test_what_is_damaged_or_gone_there_is_passed_over(make_job: MakeJob, store: Store) -> None:
    train(make_job("a"), 3)
    store.put("trials/001/checkpoint_000003/weights.safetensors", b"half")
    store.delete_under("trials/001/checkpoint_000002")
    (result,) = train(make_job("b", "checkpoint_000003", "checkpoint_000002"), 1)
    assert result["row"]["epoch"] == 1
    assert ["has 4 bytes" in text or "is missing" in text for text in result["passed_over"]] == [True, True]


def best_epoch(store: Store, folder: Path) -> int:
    for file in (checkpoint.WEIGHTS, checkpoint.STATE):
        store.download(f"trials/001/{BEST}/{file}", folder / BEST / file)
    return int(checkpoint.load(folder / BEST)[1]["metrics"]["epoch"])


def test_the_best_weights_of_another_machine_are_not_replaced_by_worse_ones(
    make_job: MakeJob, store: Store, tmp_path: Path
) -> None:
    train(make_job("a", metric="epoch", sign=-1), 3)
    train(make_job("b", "checkpoint_000003", metric="epoch", sign=-1), 3)
    assert best_epoch(store, tmp_path / "look") == 1


def test_best_weights_of_a_time_that_the_log_lost_do_not_count(make_job: MakeJob, store: Store, tmp_path: Path) -> None:
    train(make_job("a", metric="epoch"), 4)
    assert best_epoch(store, tmp_path / "look") == 4
    train(make_job("b", metric="epoch", epochs=4), 1)
    assert best_epoch(store, tmp_path / "look") == 4
    train(make_job("b", metric="epoch", epochs=1), 1)  # it begins again: the driver has heard of one epoch
    assert best_epoch(store, tmp_path / "look") == 1


def test_a_store_that_cannot_be_reached_is_noted_and_the_trial_goes_on(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: Any) -> None:
        raise StoreError("s3://bucket/x: access denied")

    monkeypatch.setattr(Store, "upload", refuse)
    results = train(make_job(), 3)
    assert [result["row"]["epoch"] for result in results] == [1, 2, 3]
    notes = [note for result in results for note in result.get("notes", []) if "access denied" in note]
    assert "its checkpoints stay on the worker's disk: s3://bucket/x: access denied" in notes
    assert checkpoint.newest(tmp_path / "a/001") == ["checkpoint_000003", "checkpoint_000002"]


def test_the_time_of_putting_counts_as_writing(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    put = Sending.put

    def slow(self: Sending, folder: Path, name: str) -> None:
        nonlocal now
        now += 0.6  # 1.5% of 40 s
        put(self, folder, name)

    monkeypatch.setattr(Sending, "put", slow)
    stretch = Stretch(make_job(), clock=lambda: now)
    written = []
    for _ in range(5):
        written.append(stretch.step()["row"]["checkpoint_epoch"])
        now += 15.0
    stretch.close()
    assert written == [1, 1, 1, 4, 4]


def test_best_weights_on_their_way_stay_as_they_were_when_the_next_ones_are_written(
    tmp_path: Path, store: Store
) -> None:
    held, sending = threading.Event(), Sending(store.url, "001")
    sending._pool.submit(held.wait)  # the line is busy
    for number in (b"1", b"2"):
        shutil.rmtree(tmp_path / "001" / BEST, ignore_errors=True)
        (tmp_path / "001" / BEST).mkdir(parents=True)
        for file in (checkpoint.WEIGHTS, checkpoint.STATE):
            (tmp_path / "001" / BEST / file).write_bytes(number)
        if number == b"1":
            sending.put_meanwhile(tmp_path / "001", BEST)
    held.set()
    sending.close()
    assert {store.get(name) for name in store.names("trials")} == {b"1"}


# ---------------------------------------------------------------- at the driver


@pytest.fixture
def copy(store: Store) -> Segments:
    return Segments(store, Claim(store))


@pytest.fixture
def make(store: Store) -> Callable[..., Trial]:
    """A trial whose checkpoints are in the store alone."""

    def make(name: str, accuracy: float, *epochs: int) -> Trial:
        for folder in (BEST, *map(checkpoint.name, epochs)):
            for file in (checkpoint.WEIGHTS, checkpoint.STATE):
                store.put(f"trials/{name}/{folder}/{file}", f"{name} {folder}".encode())
        best = {"val_accuracy": accuracy, "epoch": 1}
        config = TrialConfig(data=Data(dataset="digits"))
        return Trial(name, {}, config, Size(1, 1), best=best, epochs=max(epochs, default=0))

    return make


def test_a_trial_starts_from_what_the_store_has_and_is_whole(
    tmp_path: Path, copy: Segments, store: Store, make: Callable[..., Trial]
) -> None:
    trial, weights = make("001", 0.5, 6, 7, 8), Weights(tmp_path, 3, GOAL, copy)
    store.delete(f"trials/001/checkpoint_000008/{checkpoint.STATE}")
    (tmp_path / "001/checkpoint_000005").mkdir(parents=True)
    assert weights.starts(trial) == ("checkpoint_000007", "checkpoint_000006", "checkpoint_000005")
    trial.epochs = 5  # the copy that the log was brought from was behind
    assert weights.starts(trial) == ("checkpoint_000006", "checkpoint_000005")


def test_what_no_longer_serves_is_deleted_there_too(
    tmp_path: Path, copy: Segments, store: Store, make: Callable[..., Trial]
) -> None:
    weights = Weights(tmp_path, 1, GOAL, copy)
    for name, accuracy in (("001", 0.5), ("002", 0.7), ("003", 0.6)):
        trial = make(name, accuracy, 3)
        store.put(f"trials/{name}/given_000002/{checkpoint.STATE}", b"")
        store.put(f"trials/{name}/params.json", b"{}")
        trial.state = "finished"
        weights.retain(trial)
    repeat = make("004", 0.9, 3)
    repeat.state, repeat.repeat_of = "finished", "002"
    weights.retain(repeat)
    make("005", 0.1, 1, 2)
    copy.turn()
    assert {trial: folders(store, trial) for trial in ("001", "002", "003", "004", "005")} == {
        "001": {"params.json"}, "002": {"params.json", BEST}, "003": {"params.json"}, "004": set(),
        "005": {BEST, "checkpoint_000001", "checkpoint_000002"},
    }  # fmt: skip


def test_a_population_gives_weights_through_the_store(
    tmp_path: Path, copy: Segments, store: Store, make: Callable[..., Trial]
) -> None:
    weights, good, bad = Weights(tmp_path, 1, GOAL, copy), make("001", 0.9, 3, 4), make("002", 0.1, 3, 4)
    assert weights.give(good, bad, 4)
    assert store.get(f"trials/002/given_000004/{checkpoint.STATE}") == b"001 checkpoint_000004"
    bad.changed = 4
    assert weights.starts(bad) == ("given_000004", "checkpoint_000004", "checkpoint_000003")
    assert not weights.give(good, bad, 7)
    bad.changed = 3
    weights.forget_given(bad)
    copy.turn()
    assert "given_000004" not in folders(store, "002")


def test_weights_that_another_trial_gave_are_fetched(make_job: MakeJob, store: Store) -> None:
    *_, expected = train(make_job("a", id="002", folder=make_job("a")["folder"].replace("001", "002")), 3)
    for file in (checkpoint.WEIGHTS, checkpoint.STATE):
        assert store.copy(f"trials/002/checkpoint_000002/{file}", f"trials/001/given_000002/{file}")
    (result,) = train(make_job("b", "given_000002"), 1)
    assert result["row"]["epoch"] == 3
    assert result["row"]["val_loss"] == expected["row"]["val_loss"]


def test_a_trial_that_the_driver_has_heard_nothing_of_costs_no_request(
    tmp_path: Path, copy: Segments, make: Callable[..., Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    trial, asked = make("001", 0.5), list[str]()
    monkeypatch.setattr(copy.store, "names", asked.append)
    assert Weights(tmp_path, 1, GOAL, copy).starts(trial) == ()
    assert asked == []


def test_a_store_that_cannot_be_asked_does_not_begin_a_trial_anew(
    tmp_path: Path, copy: Segments, make: Callable[..., Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(under: str) -> None:
        raise StoreError("it cannot be reached", passing=True)

    trial = make("001", 0.5, 3)
    monkeypatch.setattr(copy.store, "names", refuse)
    with pytest.raises(HypertuneError, match="cannot be reached"):
        Weights(tmp_path, 1, GOAL, copy).starts(trial)
