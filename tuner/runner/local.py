"""Local: Ray on this machine, started around a search and gone after it, whatever ends it."""

from __future__ import annotations

import os
import secrets
import tempfile
import threading
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil

from tuner.errors import ClusterLost
from tuner.packing.machine import count_cores
from tuner.packing.mps import serve_mps
from tuner.runner.caretaker import TOKEN, Caretaker, sweep
from tuner.runner.drive import SETTINGS, Here, Stage, Watchdog, drive
from tuner.runner.placing import Node, Placer

HERE = {
    # Workers import torch before they are asked for: the first epoch comes about a second sooner. Without the second
    # setting four processes import it on two cores and it comes later.
    "RAY_preload_python_modules": "torch",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Ray's own watch over memory kills workers because of what other programs take, and Tune breaks off at that error
    # (seen with 2.60). The kernel kills workers first too, by their oom_score_adj, and that is a death like any other.
    "RAY_memory_monitor_refresh_ms": "0",
    # Without it Ray's servers listen on all interfaces (seen with 2.60); read when ray is imported.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
}
"""For a Ray of our own."""

SECRET = "RAY_AUTH_TOKEN"
"""The token of a Ray of our own lives in the environment of its processes: a file would outlive them."""

CLOSE = 6.0
"""Seconds that Ray has to shut down before the driver leaves it to the caretaker."""


def search(stage: Stage) -> None:
    """Start Ray in a neutral directory, let Tune drive the conductor, stop Ray.

    Raises:
        HypertuneError: what the conductor raised, or Ray's own troubles.
    """
    scratch = Path(tempfile.mkdtemp(prefix="ht-", dir="/tmp" if Path("/tmp").is_dir() else None))  # sockets: 107 bytes
    home, neutral = Path.cwd(), scratch / "cwd"
    neutral.mkdir()
    token = os.environ[TOKEN] = uuid.uuid4().hex
    caretaker = Caretaker(token, scratch)
    os.environ.update({**SETTINGS, **HERE})
    os.environ.setdefault(SECRET, secrets.token_hex(32))
    os.chdir(neutral)  # Ray puts the current directory first on its workers' sys.path
    try:
        with ExitStack() as until_the_end:
            if stage.plan.space.fixed.resources.mps:  # Ray's workers have its environment from here
                gpu = stage.plan.packings[0].typical.gpu
                os.environ.update(until_the_end.enter_context(serve_mps(scratch, gpu)))
            _search(stage, scratch, home, token)
    finally:
        caretaker.release()
        del os.environ[TOKEN]
        os.chdir(home)


def _search(stage: Stage, scratch: Path, home: Path, token: str) -> None:
    import ray

    (packing,) = stage.plan.packings
    placer = Placer([Node("here", "", "this machine", packing)], stage.plan.at_once)
    watchdog = Watchdog(stage.last)
    try:
        try:
            ray.init(
                address="local",
                num_cpus=count_cores(),
                include_dashboard=False,
                object_store_memory=100 * 2**20,  # images go through the page cache, not through Ray
                _temp_dir=str(scratch),
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise ClusterLost(f"Ray did not start: {error}; its log is {stage.path / 'ray.log'}") from error
        stage.signals.install()  # ray.init replaces SIGTERM's handler
        processes = servers(ray)
        watchdog.start(lambda: GONE if any(map(ended, processes)) else "")
        if not stage.signals.caught:
            drive(stage, placer, Here(), watchdog, scratch, home)
    finally:
        # A shutdown can hang on servers that are gone or do not answer: then they are ended under it.
        hurry = threading.Timer(0.0 if watchdog.lost else CLOSE, sweep, [token])
        hurry.start()
        ray.shutdown()
        hurry.cancel()
        watchdog.stop()


GONE = "Ray's server on this machine is gone: it was killed, or ran out of memory"


def ended(process: psutil.Process) -> bool:
    """Whether a process is no more."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it went between the two questions
        return True


def servers(ray: Any) -> list[psutil.Process]:
    """Ray's raylet and head server."""
    started = ray._private.worker._global_node.all_processes
    found = [process.process.pid for kind in ("raylet", "gcs_server") for process in started.get(kind, [])]
    return [psutil.Process(pid) for pid in found]
