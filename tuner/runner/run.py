"""A run from plan to outcome: the run folder, Ray started and stopped around the search, signals."""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from tuner.errors import ClusterLost, SearchFailed
from tuner.records.writer import RunFolder, now
from tuner.runner.conductor import Conductor, Trial
from tuner.runner.plan import Plan, count_cores, model_counter
from tuner.search.sampler import Sampler


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `signal` is the number of the signal that ended it, 0 for none; `broken`: an error did."""

    path: Path
    conductor: Conductor
    seconds: float
    signal: int = 0
    broken: bool = False

    @property
    def status(self) -> str:
        """The word in run.json."""
        if self.broken:
            return "failed"
        if self.signal:
            return "interrupted"
        counts = self.conductor.counts()
        return "finished" if counts["finished"] + counts["stopped"] + counts["interrupted"] else "failed"


Watch = Callable[[Conductor], None]
"""Called about ten times a second with the state of the search."""


def run(plan: Plan, folder: RunFolder, watch: Watch) -> Outcome:
    """Search, writing into `folder`; Ray's own output goes to its ray.log.

    Raises:
        HypertuneError: the search could not go on; what was done is kept.
    """
    space, start = plan.space, time.monotonic()
    folder.write_space(space.text, space.to_json())
    folder.write_run(**describe(plan, folder.path))
    command = shlex.join(sys.argv)
    folder.write_event("run_started", command_line=command)
    with signals() as caught:
        sampler = Sampler(space, model_counter(plan.prepared, plan.device))
        conductor = Conductor(
            space, sampler, folder, trials=plan.trials, full=plan.full, seconds=space.fixed.search.seconds
        )
        reason, broken, number = "", False, 0
        try:
            if search(plan, folder.path, conductor, watch, caught):
                number = caught[0]
                reason = signal.Signals(number).name
        except BaseException as error:
            reason, broken = str(error) or type(error).__name__, True
            raise
        finally:
            conductor.interrupt(reason or "the search ended")
            outcome = Outcome(folder.path, conductor, time.monotonic() - start, number, broken)
            folder.write_event("run_ended", status=outcome.status, reason=reason)
            folder.write_run(
                status=outcome.status, ended=now(), seconds=round(outcome.seconds, 3), counts=conductor.counts()
            )
    return outcome


def search(plan: Plan, path: Path, conductor: Conductor, watch: Watch, caught: list[int]) -> bool:
    """Start Ray in a neutral directory, let Tune drive the conductor, stop Ray; whether a signal cut it short.

    Raises:
        HypertuneError: what the conductor raised, or Ray's own troubles.
    """
    scratch = Path(tempfile.mkdtemp(prefix="ht-", dir="/tmp" if Path("/tmp").is_dir() else None))  # sockets: 107 bytes
    home, tmp = Path.cwd(), scratch / "cwd"
    tmp.mkdir()
    os.environ.update(SETTINGS)
    import ray
    from ray import tune

    from tuner.runner.adapters import Asking, Judging, Through, Watching
    from tuner.runner.trainable import TrialTrainable

    resources = plan.space.fixed.resources

    def job(trial: Trial) -> dict[str, Any]:
        config = trial.proposal.config
        return {
            "id": trial.id,
            "trial": config.model_dump_json(),
            "data": str(plan.folder(config)),
            "split_seed": plan.space.fixed.seed,
            "folder": str(path / "trials" / trial.id),
            "metric": conductor.metric,
            "sign": conductor.sign,
            "threads": plan.threads,
            "gpu": resources.gpu,
            "user_path": str(home),
        }

    def look() -> None:
        if caught:
            raise Through
        watch(conductor)

    os.chdir(tmp)  # Ray puts the current directory first on its workers' sys.path
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
        install(caught)  # ray.init replaces SIGTERM's handler
        if caught:
            return True
        tuner = tune.Tuner(
            tune.with_resources(TrialTrainable, {"cpu": resources.cpu, "gpu": resources.gpu}),
            tune_config=tune.TuneConfig(
                search_alg=Asking(conductor, job),
                scheduler=Judging(conductor),
                num_samples=plan.trials,
                max_concurrent_trials=plan.at_once,
                reuse_actors=True,
                trial_name_creator=lambda trial: trial.config["id"],
                trial_dirname_creator=lambda trial: trial.config["id"],
            ),
            run_config=tune.RunConfig(
                name="search",
                storage_path=str(scratch / "tune"),
                callbacks=[Watching(look)],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=0),
                verbose=0,
            ),
        )
        tuner.fit()
    except Through as through:
        if through.error:
            raise through.error from None
        return True
    except tune.TuneError as error:
        raise SearchFailed(f"Ray Tune gave up: {error}; its log is {path / 'ray.log'}") from error
    finally:
        ray.shutdown()
        os.chdir(home)
        shutil.rmtree(scratch, ignore_errors=True)
    return False


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
}


def install(caught: list[int]) -> None:
    """Signals are noted, and looked at between Ray's steps; a second one ends everything at once."""

    def note(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        if len(caught) > 1:
            worker = sys.modules.get("ray._private.worker")  # Ray may be in the middle of its import
            node = getattr(worker, "_global_node", None)
            if node is not None:
                node.kill_all_processes(check_alive=False, allow_graceful=False)
            os._exit(128 + number)

    signal.signal(signal.SIGINT, note)
    signal.signal(signal.SIGTERM, note)


@contextlib.contextmanager
def signals() -> Iterator[list[int]]:
    """Handlers for SIGINT and SIGTERM within the block; gives the list of signals caught so far."""
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    caught: list[int] = []
    install(caught)
    try:
        yield caught
    finally:
        signal.signal(signal.SIGINT, before[0])
        signal.signal(signal.SIGTERM, before[1])


@contextlib.contextmanager
def output_to(log: Path) -> Iterator[tuple[TextIO, TextIO]]:
    """Send whatever this process and its children print to `log`; gives the real stdout and stderr."""
    sys.stdout.flush()
    sys.stderr.flush()
    with (
        os.fdopen(os.dup(1), "w", encoding="utf-8") as out,
        os.fdopen(os.dup(2), "w", encoding="utf-8") as err,
        log.open("ab") as file,
    ):
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield out, err
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)


def describe(plan: Plan, path: Path) -> dict[str, Any]:
    """What run.json says at the start (results/README.md)."""
    fixed, facts = plan.space.fixed, plan.facts
    search = fixed.search
    return {
        "name": path.name,
        "status": "running",
        "created": now(),
        "ended": None,
        "seconds": None,
        "objectives": [{"metric": search.metric, "mode": search.mode}],
        "epochs": plan.full,
        "trials": plan.trials,
        "sampler": search.sampler.model_dump(),
        "scheduler": search.scheduler.model_dump(),
        "time_budget": search.seconds,
        "seeds": {"search": fixed.seed, "split": fixed.seed, "training": fixed.seed},
        "data": {
            "dataset": facts.dataset,
            "root": None if fixed.data.root is None else str(Path(fixed.data.root).expanduser().resolve()),
            "fingerprint": facts.fingerprint,
            "classes": list(facts.classes),
            "image_size": facts.image_size,
            "channels": facts.channels,
            "train": facts.train,
            "validation": facts.validation,
            "test": facts.test,
        },
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("hypertune", "torch", "ray", "optuna")},
        },
        "git_commit": git_commit(),
        "hardware": hardware(),
        "working_directory": str(Path.cwd()),
        "command_line": shlex.join(sys.argv),
        "resources": {**fixed.resources.model_dump(), "trials_at_once": plan.at_once},
        "device": plan.device,
        "precision": plan.precision,
    }


def hardware() -> dict[str, Any]:
    """This machine, as far as it helps to compare times."""
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "host": platform.node(),
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": count_cores(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
    }


def git_commit() -> str | None:
    """Commit of the working directory, None where there is none."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
