"""Drive: Ray Tune's loop, wherever Ray runs: the conductor decides, the placer says where, a watchdog guards."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tuner.errors import ClusterLost, NoSpace, SearchFailed
from tuner.packing.packing import Packing
from tuner.runner.conductor import Conductor
from tuner.runner.placing import Placed, Placer
from tuner.runner.plan import Plan
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
    "TUNE_MAX_PENDING_TRIALS_PG": "1000",  # the placer says how many; Tune's own limit is one at a time
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""For the driver, wherever Ray runs."""

FINISH = 12.0
"""Seconds after the first signal in which running epochs may finish; 20 in all is what is promised."""

ROOM = 60.0
"""Seconds after the end of the time budget in which a job that waits for room on its machine may still begin: on a
cluster that others use too it may wait for hours."""

RESERVE = 64 * 2**20
"""Bytes that are left free on the disk: the lines of the end and a checkpoint in flight need some."""

Watch = Callable[[Conductor], None]
"""Called about ten times a second with the state of the search."""

LastWord = Callable[[Exception], None]
"""Called from another thread when the search cannot end by itself; it writes down what can be, and says it."""


@dataclass(frozen=True)
class Stage:
    """All that one search plays on: what is to be done, where, who decides, who watches, who may end it.

    say: tells a person something. store: address of the run's copy in an object store, empty where there is none.
    """

    plan: Plan
    path: Path
    conductor: Conductor
    watch: Watch
    signals: Signals
    last: LastWord
    say: Callable[[str], None]
    store: str = ""


class Nodes(Protocol):
    """The machines that jobs run on, where they come and go."""

    def look(self, placer: Placer) -> list[str]:
        """Called about once a second: let the placer know who is there; which jobs have lost their node."""

    def gone(self, address: str) -> bool:
        """Whether this machine does not answer."""


class Here:
    """This machine, which neither comes nor goes."""

    def look(self, placer: Placer) -> list[str]:
        """Nothing is lost."""
        return []

    def gone(self, address: str) -> bool:
        """Never."""
        return False


def drive(stage: Stage, placer: Placer, nodes: Nodes, watchdog: Watchdog, scratch: Path, home: Path) -> None:
    """Let Tune drive the conductor until the search is over. Ray has been started or joined.

    scratch: for what Ray writes; home: the user's directory.

    Raises:
        HypertuneError: what the conductor raised, or Ray's own troubles.
    """
    import ray
    from ray import tune

    from tuner.runner.adapters import Asking, Judging, Through, Watching, name_job, request
    from tuner.runner.trainable import TrialTrainable

    path, conductor, signals = stage.path, stage.conductor, stage.signals
    conductor.make_room = placer.lower

    def lowered(before: Packing, after: Packing, trial: str) -> None:
        conductor.folder.write_event("shared", trial=trial, before=before.at_once, at_once=after.at_once)
        stage.say(f"trial {trial} ran out of memory: {after.at_once} trials at once instead of {before.at_once}")

    placer.lowered = lowered
    judging = Judging(conductor, placer, nodes.gone)
    stopping = looked = late = 0.0

    def step() -> None:
        nonlocal stopping, looked, late
        stage.watch(conductor)
        if watchdog.lost:
            raise Through(watchdog.lost)
        if time.monotonic() - looked > 1:
            looked = time.monotonic()
            check_space(path)
            judging.leave(nodes.look(placer))
        if conductor.late or conductor.stopping:
            late = late or time.monotonic()
            if time.monotonic() - late > ROOM:
                judging.give_up()
        if signals.caught:
            stopping = stopping or time.monotonic()
            conductor.stop("")
            if not conductor.running or time.monotonic() - stopping > FINISH:
                raise Through

    tuner = tune.Tuner(
        tune.with_resources(TrialTrainable, request),
        tune_config=tune.TuneConfig(
            search_alg=Asking(conductor, placer, describer(stage, home)),
            scheduler=judging,
            num_samples=-1,  # jobs, not trials: the conductor says when there are no more
            reuse_actors=True,
            trial_name_creator=name_job,
            trial_dirname_creator=name_job,
        ),
        run_config=tune.RunConfig(
            name="search",
            storage_path=str(scratch / "tune"),
            callbacks=[Watching(conductor, judging, step)],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=0),
            verbose=0,
        ),
    )
    try:
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


def describer(stage: Stage, home: Path) -> Callable[[Job, Placed], dict[str, Any]]:
    """A function that turns a job and its place into what its worker gets."""
    plan, conductor = stage.plan, stage.conductor
    first = conductor.goal.first
    named = {*(o.metric for o in conductor.goal.objectives), *(rule.metric for rule in conductor.goal.rules)}

    def describe(job: Job, placed: Placed) -> dict[str, Any]:
        config = at_home(job.trial.config, home)
        share = placed.share
        return {
            "id": job.trial.id,
            "job": job.number,
            "trial": config.model_dump_json(),
            "data": str(plan.folder(job.trial.config)),
            **(name_images(plan, config.data.image_size, home) if placed.node.address else {"fingerprint": ""}),
            "split_seed": plan.space.fixed.seed,
            "folder": str(stage.path / "trials" / job.trial.id),
            "store": stage.store,
            # Nothing is left to validate with where all images are trained on: then the last epoch is the best.
            "metric": "epoch" if config.data.train_on == "all" else first.metric,
            "sign": 1 if config.data.train_on == "all" else first.sign,
            "rules": [str(rule) for rule in conductor.goal.rules if not rule.counted],
            "node": placed.node.address,
            "cpu": share.cpu,
            "gpu": share.gpu,
            "threads": share.threads,
            "memory": share.memory,
            "user_path": str(home),
            "latency": "latency_ms" in named,
            "start": list(job.start),
            "epochs": job.trial.epochs,
            "stop_at": job.stop_at,
        }

    return describe


def name_images(plan: Plan, size: int | None, home: Path) -> dict[str, str]:
    """How another machine finds the images of this size: `images`, a Data as JSON, and their fingerprint."""
    data = plan.space.fixed.data.model_copy(update={"image_size": size})
    if data.root is not None:
        data = data.model_copy(update={"root": str((home / expand_home(data.root)).resolve())})
    return {"images": data.model_dump_json(), "fingerprint": plan.prepared[size].facts.fingerprint}


def at_home(config: TrialConfig, home: Path) -> TrialConfig:
    """The configuration with the path of its weights absolute: workers run elsewhere."""
    model = config.model
    if not isinstance(model, Backbone) or model.weights in ("none", "imagenet"):
        return config
    weights = str((home / expand_home(model.weights)).resolve())
    return config.model_copy(update={"model": model.model_copy(update={"weights": weights})})


def check_space(path: Path) -> None:
    """See that there is room to go on.

    Raises:
        NoSpace: the disk is about to be full.
    """
    free = shutil.disk_usage(path).free
    if free < RESERVE:
        raise NoSpace(f"{path}: {free // 2**20} MB are left on this disk; what was written is kept. Make room, then")


class Watchdog:
    """Notices that Ray is gone, which the driver by itself does not.

    `lost` is then set for the driver's loop to see. If the process still lives `GRACE` seconds later, the loop hangs
    in a call to what is no more: the last word is spoken from here, and everything ends.
    """

    GRACE = 15.0

    def __init__(self, last: LastWord) -> None:
        self.lost: ClusterLost | None = None
        self._last = last
        self._done = threading.Event()

    def start(self, gone: Callable[[], str], every: float = 0.5) -> None:
        """Ask every so many seconds; gone: what is no more there, in words, empty while all is well."""
        threading.Thread(target=self._watch, args=(gone, every), daemon=True).start()

    def stop(self) -> None:
        """Watch no more."""
        self._done.set()

    def _watch(self, gone: Callable[[], str], every: float) -> None:
        while not self._done.wait(every):
            if what := gone():
                self.lost = ClusterLost(what)
                break
        if self.lost and not self._done.wait(self.GRACE):
            self._last(self.lost)
            os._exit(self.lost.exit_code)
