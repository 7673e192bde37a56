"""Real processes: the finalists of a run are trained, interrupted, gone on with, and the test images opened once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.ray

Call = Callable[..., tuple[int, str, str]]

HYPERTUNE = str(Path(sys.executable).with_name("hypertune"))
SPACE = """
name: small
data: {dataset: digits, subset: 400}
model: {name: cnn, depth: 1, width: {choice: [4, 8]}}
train: {epochs: 4, optimizer: {name: adam, lr: 0.01}}
search: {trials: 2, scheduler: none}
resources: {trials_at_once: 1}
"""
ROWS = "final/finalists/trials/*/result.json"


def ask(home: Path, *words: str) -> dict[str, Any]:
    """What a command of its own process says to programs."""
    done = subprocess.run([HYPERTUNE, *words, "--json"], cwd=home, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def interrupt(run: Path, home: Path, *words: str) -> int:
    """Start a command, send it Ctrl-C when the first epoch of a finalist is on disk; its exit code."""
    process = subprocess.Popen([HYPERTUNE, *words], cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    clock = threading.Event()
    try:
        while not any(path.stat().st_size for path in run.glob(ROWS)):
            assert process.poll() is None
            clock.wait(0.02)
        os.kill(process.pid, signal.SIGINT)
        return process.wait()
    finally:
        process.kill()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search that was to end with its finalists, and was interrupted while these were trained."""
    home = tmp_path_factory.mktemp("home")
    (home / "small.yaml").write_text(SPACE)
    run = home / "results" / "small"
    assert interrupt(run, home, "run", "small.yaml", "--finalize") == 130
    return run


@pytest.fixture(scope="module")
def told(run: Path) -> dict[str, Any]:
    """What `hypertune finalize` says that goes on with it."""
    assert not (run / "final" / "finalize.json").exists() and not (run / "final" / "test_looks.jsonl").exists()
    return ask(run.parent.parent, "finalize", "results/small")


def test_finalize_goes_on_after_ctrl_c_and_opens_the_test_images_once(run: Path, told: dict[str, Any]) -> None:
    epochs = [len(path.read_text().splitlines()) for path in run.glob(ROWS)]
    assert epochs == [4] * 6 and sorted(told["seeds"]) == [1, 2, 3]
    assert [len(finalist["values"]) for finalist in told["finalists"]] == [3, 3]
    assert told["test"]["looks"] == 1 and told["test_accuracy"] == told["test"]["accuracy"] > 0.3
    assert (run / "final" / "model" / "model.safetensors").is_file()


def test_a_run_that_ends_with_it_says_the_same_again_and_leaves_the_test_images_closed(
    run: Path, told: dict[str, Any]
) -> None:
    again = ask(run.parent.parent, "run", "small.yaml", "--resume-if-exists", "--finalize")
    assert again["status"] == "finished" and again["final"] == told
    assert len((run / "final" / "test_looks.jsonl").read_text().splitlines()) == 1


def test_the_folder_of_finalists_is_not_resumed_by_hand(run: Path, call: Call) -> None:
    code, _, err = call("resume", run / "final" / "finalists")
    assert code == 2 and "hypertune finalize" in err
