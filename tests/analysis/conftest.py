"""Run folders made by the contract of results/README.md, without tuner: what analysis can rely on is what it says.

And a browser for the pages, where there is one.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

LR = {
    "name": "train.lr",
    "path": "train.lr",
    "distribution": {
        "name": "FloatDistribution",
        "attributes": {"step": None, "low": 1e-4, "high": 0.1, "log": True},
    },
    "active_when": [],
    "ordered": True,
}
OPTIMIZER = {
    "name": "train.optimizer",
    "path": "train.optimizer",
    "distribution": {"name": "CategoricalDistribution", "attributes": {"choices": ["adam", "sgd", None]}},
    "active_when": [],
    "ordered": False,
}
DEPTH = {
    "name": "train.optimizer[sgd].depth",
    "path": "train.optimizer.depth",
    "distribution": {"name": "IntDistribution", "attributes": {"step": 1, "low": 1, "high": 3, "log": False}},
    "active_when": [{"name": "train.optimizer", "values": ["sgd"]}],
    "ordered": True,
}

MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """make_run(made, name="run", epochs=3, **run.json) writes tmp_path/name and returns it.

    A trial is {"id", "values" (val_accuracy of each epoch), "state" (left out: no end), "parameters", "label",
    "error"}; everything may be left out.
    """

    def make(made: Sequence[Mapping[str, Any]], name: str = "run", epochs: int = 3, **changes: Any) -> Path:
        folder = tmp_path / name
        events: list[dict[str, Any]] = []
        clock = itertools.count(1)
        folder.mkdir()
        for number, trial in enumerate(made, 1):
            write_trial(folder, events, clock, {"id": f"{number:03}", "values": (), "parameters": {}, **trial}, epochs)
        run = {
            "format": 1,
            "name": name,
            "status": "finished",
            "created": "2026-01-02T03:04:05+01:00",
            "seconds": 12.5,
            "objectives": [{"metric": "val_accuracy", "mode": "max"}],
            "epochs": epochs,
            "trials": len(made),
            "seeds": {"search": 0, "split": 0, "training": 0},
            "data": {"dataset": "digits", "fingerprint": "abc", "train": 80, "validation": 20},
        }
        (folder / "run.json").write_text(json.dumps(run | changes))
        (folder / "space.json").write_text(json.dumps([LR, OPTIMIZER, DEPTH]))
        (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
        return folder

    return make


def write_trial(
    folder: Path, events: list[dict[str, Any]], clock: Iterator[int], trial: Mapping[str, Any], epochs: int
) -> None:
    def stamp() -> dict[str, Any]:
        seq = next(clock)
        return {"seq": seq, "time": "2026-01-02T03:04:06+01:00", "elapsed": seq / 10}

    place = folder / "trials" / trial["id"]
    place.mkdir(parents=True)
    labels = {"label": trial["label"]} if "label" in trial else {}
    events.append(
        {**stamp(), "event": "asked", "trial": trial["id"], "parameters": trial["parameters"], **labels},
    )
    events.append({**stamp(), "event": "started", "trial": trial["id"], "host": "host", "pid": 1})
    nested = {"train": {"lr": 0.01, "epochs": epochs, "optimizer": {"name": "sgd", "depth": 2}}}
    (place / "params.json").write_text(json.dumps(nested))
    rows = [
        {
            **stamp(),
            "trial_id": trial["id"],
            "epoch": epoch,
            "training_iteration": epoch,
            "val_accuracy": value,
            "val_loss": None if value is None else 1 - value,
            "time_total_s": float(epoch),
            "decision": "continue",
            "reason": None,
        }
        for epoch, value in enumerate(trial["values"], 1)
    ]
    (place / "result.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if "error" in trial:
        (place / "error.txt").write_text(trial["error"])
    if "state" in trial:
        end = {"event": "ended", "trial": trial["id"], "state": trial["state"], "epoch": len(rows)}
        events.append({**stamp(), **end, "reason": trial.get("reason")})


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """An installed Chromium, driven by Playwright."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium on this machine")
    with api.sync_playwright() as driver:
        shown = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield shown
        shown.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """open_page(path, **options of a context) shows a file and returns its page.

    Whatever a console says fails the test, and so do an error, a request to elsewhere, and a name that was run.
    """
    said: list[str] = []
    opened: list[Page] = []

    def show(path: Path, **options: Any) -> Page:
        page = browser.new_page(**{"viewport": {"width": 1100, "height": 900}, **options})
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on(
            "request",
            lambda asked: None if asked.url.startswith(("file:", "data:", "blob:")) else said.append(asked.url),
        )
        page.goto(path.as_uri())
        opened.append(page)
        return page

    yield show
    hacked = [page.evaluate("window.hacked") for page in opened]
    for page in opened:
        page.close()
    assert said == [] and not any(hacked)
