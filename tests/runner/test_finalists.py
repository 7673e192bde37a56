"""Real processes: the finalists of a run are trained, interrupted, gone on with, and the test images opened once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.ray

HYPERTUNE = str(Path(sys.executable).with_name("hypertune"))
SPACE = """
name: small
data: {dataset: digits, subset: 400}
model: {name: cnn, depth: 1, width: {choice: [4, 8]}}
train: {epochs: 4, optimizer: {name: adam, lr: 0.01}}
search: {trials: 2, scheduler: none}
"""


def call(folder: Path, *words: str) -> dict[str, Any]:
    done = subprocess.run([HYPERTUNE, *words, "--json"], cwd=folder, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def interrupt(folder: Path, rows: str, *words: str) -> int:
    """Start a command, send it Ctrl-C when the first epoch is on disk; its exit code."""
    process = subprocess.Popen([HYPERTUNE, *words], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    limit = time.monotonic() + 100
    while not any(path.stat().st_size for path in folder.glob(rows)):
        assert process.poll() is None and time.monotonic() < limit
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    return process.wait(timeout=60)


def test_finalize_goes_on_after_ctrl_c_and_opens_the_test_images_once(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SPACE)
    call(tmp_path, "run", "small.yaml")
    run = tmp_path / "results" / "small"
    words = ("finalize", "results/small", "--top", "2", "--seeds", "4")
    assert interrupt(tmp_path, "results/small/final/finalists/trials/*/result.json", *words) == 130
    assert not (run / "final" / "finalize.json").exists() and not (run / "final" / "test_looks.jsonl").exists()

    told = call(tmp_path, *words)
    epochs = [len(path.read_text().splitlines()) for path in run.glob("final/finalists/trials/*/result.json")]
    assert epochs == [4] * 8 and sorted(told["seeds"]) == [1, 2, 3, 4]
    assert [len(finalist["values"]) for finalist in told["finalists"]] == [4, 4]
    assert told["test"]["looks"] == 1 and told["test_accuracy"] == told["test"]["accuracy"] > 0.3
    assert (run / "final" / "model" / "model.safetensors").is_file()

    again = call(tmp_path, *words)
    assert again == told and len((run / "final" / "test_looks.jsonl").read_text().splitlines()) == 1


def test_a_run_can_end_with_it_and_its_folder_is_not_resumed_by_hand(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SPACE.replace("epochs: 4", "epochs: 1"))
    told = call(tmp_path, "run", "small.yaml", "--finalize")
    assert told["status"] == "finished" and told["final"]["winner"] in ("001", "002")
    done = subprocess.run(
        [HYPERTUNE, "resume", "results/small/final/finalists"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2 and "hypertune finalize results/small" in done.stderr
