"""NVIDIA's MPS around a run, with a stand-in that writes down what it is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuner.errors import BadInput
from tuner.packing.mps import PROGRAM, serve_mps

STAND_IN = """#!/bin/sh
echo "$CUDA_MPS_PIPE_DIRECTORY $CUDA_MPS_LOG_DIRECTORY: $* $(cat)" >> {said}
{then}
"""


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the program was told, a call a line."""
    return stand_in(tmp_path, monkeypatch, "exit 0")


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, then: str) -> Path:
    program = folder / "bin" / PROGRAM
    program.parent.mkdir()
    program.write_text(STAND_IN.format(said=folder / "said", then=then))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    return folder / "said"


def test_it_is_started_with_folders_of_its_own_and_ended(said: Path, tmp_path: Path) -> None:
    pipes, logs = tmp_path / "s" / "mps", tmp_path / "s" / "mps-log"
    with serve_mps(tmp_path / "s", 0.25) as environment:
        assert environment == {"CUDA_MPS_PIPE_DIRECTORY": str(pipes), "CUDA_MPS_LOG_DIRECTORY": str(logs)}
        assert [folder.stat().st_mode & 0o777 for folder in (pipes, logs)] == [0o700, 0o700]
        assert said.read_text() == f"{pipes} {logs}: -d \n"
    assert said.read_text().splitlines()[1:] == [f"{pipes} {logs}:  quit"]


def test_it_is_ended_after_an_error_too(said: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyError), serve_mps(tmp_path, 1):
        raise KeyError
    assert said.read_text().splitlines()[-1].endswith("quit")


def test_one_that_does_not_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, monkeypatch, "echo no device >&2; exit 3")
    with pytest.raises(BadInput, match=r"does not start: no device; leave mps out"), serve_mps(tmp_path, 1):
        pass


def test_without_the_program_or_a_gpu_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match=r"trials get none here; write a resources\.gpu"), serve_mps(tmp_path, 0):
        pass
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInput, match="nvidia-cuda-mps-control is not on PATH"), serve_mps(tmp_path, 1):
        pass
