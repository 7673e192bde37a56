"""Local: Ray on this machine, started around a search and gone after it, whatever ends it."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tuner.errors import ClusterLost, NoSpace, SearchFailed
from tuner.runner.caretaker import TOKEN, Caretaker, sweep
from tuner.runner.conductor import Conductor
from tuner.runner.plan import Plan, count_cores
from tuner.runner.signals import Signals
from tuner.runner.trial import Job
from tuner.spec.data import expand_home
from tuner.spec.model import Backbone
from tuner.spec.trial_config import TrialConfig

SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # one writer: ours
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_RESULT_BUFFER_LENGTH": "1",  # each epoch is judged before the next begins
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # Ray's own snapshots: nobody reads them
    "RAY_USAGE_STATS_ENABLED": "0",
    # Workers import torch before they are asked for: the first epoch comes about a second sooner. Without the second
    # setting four processes import it on two cores and it comes later.
    "RAY_preload_python_modules": "torch",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Ray's own watch over memory kills workers because of what other programs take, and Tune breaks off at that error
    # (seen with 2.60). The kernel kills workers first too, by their oom_score_adj, and that is a death like any other.
    "RAY_memory_monitor_refresh_ms": "0",
}

FINISH = 12.0
"""Seconds after the first signal in which running epochs may finish; 20 in all is what is promised."""

CLOSE = 6.0
"""Seconds that Ray has to shut down before the driver leaves it to the caretaker."""

RESERVE = 64 * 2**20
"""Bytes that are left free on the disk: the lines of the end and a checkpoint in flight need some."""

Watch = Callable[[Conductor], None]
"""Called about ten times a second with the state of the search."""

LastWord = Callable[[Exception], None]
"""Called from another thread when the search cannot end by itself; it writes down what can be, and says it."""


@dataclass(frozen=True)
class Stage:
    """All that one search plays on: what is to be done, where, who decides, who watches, who may end it."""

    plan: Plan
    path: Path
    conductor: Conductor
    watch: Watch
    signals: Signals
    last: LastWord


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
    os.environ.update(SETTINGS)
    os.chdir(neutral)  # Ray puts the current directory first on its workers' sys.path
    try:
        _drive(stage, scratch, home, token)
    finally:
        caretaker.release()
        del os.environ[TOKEN]
        os.chdir(home)


def _drive(stage: Stage, scratch: Path, home: Path, token: str) -> None:
    import ray
    from ray import tune

    from tuner.runner.adapters import Asking, Judging, Through, Watching
    from tuner.runner.trainable import TrialTrainable

    plan, path, conductor, signals = stage.plan, stage.path, stage.conductor, stage.signals
    resources = plan.space.fixed.resources
    watchdog = Watchdog(stage.last)
    stopping = 0.0
    looked = 0.0

    def look() -> None:
        nonlocal stopping, looked
        stage.watch(conductor)
        if watchdog.lost:
            raise Through(watchdog.lost)
        if time.monotonic() - looked > 1:
            looked = time.monotonic()
            check_space(path)
        if signals.caught:
            stopping = stopping or time.monotonic()
            conductor.stop("")
            if not conductor.running or time.monotonic() - stopping > FINISH:
                raise Through

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
            raise ClusterLost(f"Ray did not start: {error}; its log is {path / 'ray.log'}") from error
        signals.install()  # ray.init replaces SIGTERM's handler
        watchdog.start(servers(ray))
        if signals.caught:
            return
        tuner = tune.Tuner(
            tune.with_resources(TrialTrainable, {"cpu": resources.cpu, "gpu": resources.gpu}),
            tune_config=tune.TuneConfig(
                search_alg=Asking(conductor, describer(plan, path, conductor, home)),
                scheduler=Judging(conductor),
                num_samples=-1,  # jobs, not trials: the conductor says when there are no more
                max_concurrent_trials=plan.at_once,
                reuse_actors=True,
                trial_name_creator=name_job,
                trial_dirname_creator=name_job,
            ),
            run_config=tune.RunConfig(
                name="search",
                storage_path=str(scratch / "tune"),
                callbacks=[Watching(conductor, look)],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=0),
                verbose=0,
            ),
        )
        tuner.fit()
        if watchdog.lost:
            raise watchdog.lost
    except Through as through:
        if through.error:
            raise through.error from None
    except tune.TuneError as error:
        raise watchdog.lost or SearchFailed(f"Ray Tune gave up: {error}; its log is {path / 'ray.log'}") from error
    except (ray.exceptions.RayError, ConnectionError) as error:
        raise watchdog.lost or ClusterLost(f"Ray went away: {error}; its log is {path / 'ray.log'}") from error
    finally:
        # A shutdown can hang on servers that are gone or do not answer: then they are ended under it.
        hurry = threading.Timer(0.0 if watchdog.lost else CLOSE, sweep, [token])
        hurry.start()
        ray.shutdown()
        hurry.cancel()
        watchdog.stop()


def describer(plan: Plan, path: Path, conductor: Conductor, home: Path) -> Callable[[Job], dict[str, Any]]:
    """A function that turns a job into what its worker gets."""
    first = conductor.goal.first
    named = {*(o.metric for o in conductor.goal.objectives), *(rule.metric for rule in conductor.goal.rules)}

    def describe(job: Job) -> dict[str, Any]:
        config = at_home(job.trial.config, home)
        return {
            "id": job.trial.id,
            "job": job.number,
            "trial": config.model_dump_json(),
            "data": str(plan.folder(job.trial.config)),
            "split_seed": plan.space.fixed.seed,
            "folder": str(path / "trials" / job.trial.id),
            # Nothing is left to validate with where all images are trained on: then the last epoch is the best.
            "metric": "epoch" if config.data.train_on == "all" else first.metric,
            "sign": 1 if config.data.train_on == "all" else first.sign,
            "rules": [str(rule) for rule in conductor.goal.rules if not rule.counted],
            "threads": plan.threads,
            "gpu": plan.space.fixed.resources.gpu,
            "user_path": str(home),
            "latency": "latency_ms" in named,
            "start": list(job.start),
            "stop_at": job.stop_at,
        }

    return describe


def at_home(config: TrialConfig, home: Path) -> TrialConfig:
    """The configuration with the path of its weights absolute: workers run elsewhere."""
    model = config.model
    if not isinstance(model, Backbone) or model.weights in ("none", "imagenet"):
        return config
    weights = str((home / expand_home(model.weights)).resolve())
    return config.model_copy(update={"model": model.model_copy(update={"weights": weights})})


def name_job(trial: Any) -> str:
    """A name of its own for each job, for Ray's logs."""
    return f"{trial.config['id']}-{trial.config['job']}"


def check_space(path: Path) -> None:
    """See that there is room to go on.

    Raises:
        NoSpace: the disk is about to be full.
    """
    free = shutil.disk_usage(path).free
    if free < RESERVE:
        raise NoSpace(f"{path}: {free // 2**20} MB are left on this disk; what was written is kept. Make room, then")


def servers(ray: Any) -> list[psutil.Process]:
    """Ray's raylet and head server."""
    started = ray._private.worker._global_node.all_processes
    found = [process.process.pid for kind in ("raylet", "gcs_server") for process in started.get(kind, [])]
    return [psutil.Process(pid) for pid in found]


class Watchdog:
    """Notices that Ray's servers are gone, which the driver by itself does not.

    `lost` is then set for the driver's loop to see. If the process still lives `GRACE` seconds later, the loop hangs
    in a call to what is no more: the last word is spoken from here, and everything ends.
    """

    GRACE = 15.0

    def __init__(self, last: LastWord) -> None:
        self.lost: ClusterLost | None = None
        self._last = last
        self._done = threading.Event()

    def start(self, processes: list[psutil.Process]) -> None:
        """Watch these processes."""
        threading.Thread(target=self._watch, args=(processes,), daemon=True).start()

    def stop(self) -> None:
        """Watch no more."""
        self._done.set()

    def _watch(self, processes: list[psutil.Process]) -> None:
        while not self._done.wait(0.5):
            gone = [p for p in processes if not p.is_running() or p.status() == psutil.STATUS_ZOMBIE]
            if gone:
                self.lost = ClusterLost("Ray's server on this machine is gone: it was killed, or ran out of memory")
                break
        if self.lost and not self._done.wait(self.GRACE):
            self._last(self.lost)
            os._exit(self.lost.exit_code)
