"""MPS: NVIDIA's server that lets processes which share a GPU compute side by side, for as long as a run lasts."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tuner.errors import BadInput

PROGRAM = "nvidia-cuda-mps-control"
PATIENCE = 15.0
"""Seconds that the program has to answer."""


def check_mps(gpu: float) -> str:
    """The path of NVIDIA's program; gpu: what a trial gets.

    Raises:
        BadInput: trials get no GPU, or the program is not on this machine.
    """
    if not gpu:
        raise BadInput("resources.mps: shares a GPU, but trials get none here; write a resources.gpu, or leave mps out")
    if (program := shutil.which(PROGRAM)) is None:
        raise BadInput(
            f"resources.mps: {PROGRAM} is not on PATH; it comes with NVIDIA's driver (in a container: mount it, or use "
            "the toolkit's images); or leave mps out: trials then take turns on the GPU"
        )
    return program


@contextmanager
def serve_mps(scratch: Path, gpu: float) -> Iterator[dict[str, str]]:
    """Run MPS within the block, with its pipes and logs in `scratch`; gives the environment that its clients need.

    It serves this user's processes alone, and changes no setting of a card. scratch: a short path, as sockets lie below
    it (107 bytes).

    Raises:
        BadInput: there is no such program, no GPU, or it does not start.
    """
    program = check_mps(gpu)
    folders = {"CUDA_MPS_PIPE_DIRECTORY": scratch / "mps", "CUDA_MPS_LOG_DIRECTORY": scratch / "mps-log"}
    for folder in folders.values():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    environment = {name: str(folder) for name, folder in folders.items()}
    started = _call([program, "-d"], environment)
    if started.returncode:
        said = started.stdout.strip() or f"it ended with {started.returncode}"
        raise BadInput(f"resources.mps: {PROGRAM} does not start: {said}; leave mps out, or see to it")
    try:
        yield environment
    finally:
        with suppress(subprocess.TimeoutExpired):
            _call([program], environment, "quit\n")


def _call(command: list[str], environment: dict[str, str], text: str = "") -> subprocess.CompletedProcess[str]:
    # To a file: the daemon keeps open what it was given, and a pipe would never end.
    with tempfile.TemporaryFile("w+") as out:
        done = subprocess.run(
            command, env={**os.environ, **environment}, input=text, stdout=out, stderr=out, text=True, timeout=PATIENCE,
            check=False,
        )  # fmt: skip
        out.seek(0)
        return subprocess.CompletedProcess(command, done.returncode, out.read(), "")
