"""A small finished run, trained in this process without Ray, and models of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tuner.delivery.model import Model, open_torch
from tuner.records.writer import RunFolder, create
from tuner.runner.stretch import Stretch
from tuner.spec.trial_config import TrialConfig
from tuner.training.datasets import prepare

DATA = {"dataset": "shapes", "images": 240, "image_size": 16, "classes": 3, "noise": 0.02}
CONFIGS: tuple[dict[str, Any], ...] = (
    {
        "model": {"name": "cnn", "depth": 2, "width": 8},
        "train": {"epochs": 6, "optimizer": {"name": "adam", "lr": 0.01}},
    },
    {
        "model": {"name": "cnn", "depth": 2, "width": 8},
        "train": {"epochs": 6, "optimizer": {"name": "adam", "lr": 0.005}},
    },
    {
        "model": {"name": "cnn", "depth": 1, "width": 6},
        "train": {"epochs": 3, "optimizer": {"name": "sgd", "lr": 0.05}},
    },
)
"""Two of one architecture, which a soup needs, and another one."""


def train_run(folder: Path) -> Path:
    """A run folder by the contract of results/README.md, with three trained trials."""
    prepared = prepare(TrialConfig.model_validate({"data": DATA}).data, 0)
    facts = prepared.facts
    with create(folder, "shapes-small") as run:
        run.write_space("name: shapes-small\n", [])
        run.write_run(
            name="shapes-small", status="finished", created="2026-01-02T03:04:05+01:00", ended=None, seconds=9.0,
            objectives=[{"metric": "val_accuracy", "mode": "max"}], constraints=[], epochs=6, trials=3, repeats=1,
            seeds={"search": 0, "split": 0, "training": 0}, versions={"hypertune": "0.1.0"},
            data={
                "dataset": "shapes", "root": None, "fingerprint": facts.fingerprint, "classes": list(facts.classes),
                "image_size": facts.image_size, "channels": facts.channels,
                "train": facts.train, "validation": facts.validation, "test": facts.test,
            },
        )  # fmt: skip
        for number, config in enumerate(CONFIGS, 1):
            train_trial(run, f"{number:03}", TrialConfig.model_validate({"data": DATA, **config}), prepared.folder)
        run.write_event("run_ended", status="finished", reason="")
    return run.path


def train_trial(run: RunFolder, name: str, config: TrialConfig, data: Path) -> None:
    config = config.model_copy(
        update={"train": config.train.model_copy(update={"precision": "fp32", "batch_size": 24})}
    )
    run.start_trial(name, config.model_dump(mode="json"))
    run.write_event(
        "asked", trial=name, parameters={"train.optimizer.lr": config.train.optimizer.lr}, size={}, number=0
    )
    stretch = Stretch(
        {
            "id": name, "trial": config.model_dump_json(), "data": str(data), "split_seed": 0,
            "folder": str(run.trial(name)), "metric": "val_accuracy", "sign": 1, "rules": [], "threads": 1, "gpu": 0,
            "latency": False, "start": [], "stop_at": None,
        }
    )  # fmt: skip
    for epoch in range(1, config.train.epochs + 1):
        row = stretch.step()["row"]
        run.write_row(name, {**row, "training_iteration": epoch, "decision": "continue", "reason": ""})
    for path in run.trial(name).glob("checkpoint_0*"):
        shutil.rmtree(path)
    run.write_event("ended", trial=name, state="finished", epoch=config.train.epochs, reason="all epochs done")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run; never written to: tests that write take `run`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYPERTUNE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        return train_run(tmp_path_factory.mktemp("results"))


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYPERTUNE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may write to: results/shapes-small."""
    return Path(shutil.copytree(trained, tmp_path / "results" / trained.name))


@pytest.fixture
def model(trained: Path) -> Model:
    """Its best trial."""
    return open_torch(trained)


Make = Callable[..., Model]
