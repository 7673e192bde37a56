"""What the driver costs a result, with 1,000 trials at once and up to 100,000 in all: no training and no Ray.

    python benchmarks/driver.py --minutes 3              500 results a second, the search by tpe
    python benchmarks/driver.py --rate 0 --sampler random --minutes 10      as many as it can take

The real conductor with the real sampler, asha and a run folder on disk, each line brought there (fsync). Results come
as Ray delivers them: a row as JSON text, and after each one what Ray's loop calls between its events: the screen of a
console that is no terminal, who hangs, whether it is over, what is best. Making the rows up is not counted. A line of
numbers a minute: `busy` is the share of the time spent in the driver's code, waiting for the disk included; `cpu` the
share it computed, `cpu ms` the same for each result, with all that follows from it; MB: written.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from report import machine
from rich.console import Console

from tuner.records import writer
from tuner.runner.conductor import Conductor
from tuner.runner.plan import Plan, make_plan
from tuner.runner.progress import Progress
from tuner.runner.trial import Job
from tuner.search.sampler import Sampler
from tuner.spec.space import parse_space

SPACE = """
name: driver
data: {dataset: digits}
model: {name: cnn, depth: {int: [1, 3]}, width: {choice: [8, 12, 16]}, dropout: {uniform: [0, 0.5]}}
train:
  epochs: 27
  batch_size: {int: [16, 256]}
  optimizer:
    choice:
      adam: {lr: {loguniform: [1.0e-5, 1.0e-1]}, weight_decay: {loguniform: [1.0e-6, 1.0e-2]}}
      sgd: {lr: {loguniform: [1.0e-4, 1]}, momentum: {uniform: [0.5, 0.99]}}
  schedule: {name: onecycle, warmup: {uniform: [0.05, 0.5]}}
"""
ALIKE = (
    "train_accuracy clean_train_accuracy val_macro_precision val_macro_recall val_balanced_accuracy val_ece val_roc_auc"
)
SIDE = {
    **dict.fromkeys([*ALIKE.split(), "val_top3_accuracy", "accuracy_gap", "lr"], 0.1128125),
    "val_class_accuracy": [0.1] * 10,
    "images_per_second": 17729.9,
    "peak_memory_mb": 873.9,
}
"""What else a row of a real run holds."""


class Clock:
    """Seconds that each call of the driver's code took, by its name: by the wall, and computing."""

    def __init__(self) -> None:
        self.calls: dict[str, list[tuple[float, float]]] = {"result": [], "ask": [], "look": []}

    def total(self, which: int) -> float:
        """All of them: 0 by the wall, 1 computing."""
        return sum(took[which] for calls in self.calls.values() for took in calls)

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        """Time the block as one call."""
        wall, cpu = time.perf_counter(), time.thread_time()
        yield
        self.calls[name].append((time.perf_counter() - wall, time.thread_time() - cpu))


def make_row(job: Job, epoch: int, chance: random.Random) -> str:
    """The next epoch of a trial as its worker would send it: the closer to lr 0.003 and a deep model, the better."""
    train, parameters = job.trial.config.train, job.trial.parameters
    off = abs(train.optimizer.lr - 0.003) ** 0.25 + 0.1 * (3 - int(str(parameters["model.depth"])))
    value = max(0.0, 0.95 - 0.4 * off) * (1 - 0.7**epoch) + chance.gauss(0, 0.01)
    return json.dumps(
        {
            **SIDE, "epoch": epoch, "val_accuracy": value, "val_macro_f1": value, "val_loss": 1 - value,
            "train_loss": 1 - value, "epoch_seconds": chance.uniform(1.5, 2.5), "params": job.trial.size.params,
            "checkpoint_epoch": epoch,
        }
    )  # fmt: skip


class Cluster:
    """Workers that train nothing: who has had no result for longest gives the next one."""

    def __init__(self, conductor: Conductor, screen: Progress, at_once: int) -> None:
        self.conductor, self.screen, self.at_once = conductor, screen, at_once
        self.jobs: deque[Job] = deque()
        self.clock = Clock()
        self.chance = random.Random(0)
        self.done = 0

    def fill(self) -> None:
        """Give every free worker a job, as far as there is one."""
        while len(self.jobs) < self.at_once:
            with self.clock.time("ask"):
                job = self.conductor.next()
                text = job and job.trial.config.model_dump_json()  # as the worker gets it
            if job is None or not text:
                return
            self.conductor.placed(job.trial.id)
            self.jobs.append(job)

    def step(self) -> bool:
        """One result and what follows from it; whether the search goes on."""
        self.fill()
        if not self.jobs:
            return False
        job = self.jobs.popleft()
        text = make_row(job, job.trial.epochs + 1, self.chance)
        with self.clock.time("result"):
            stop = self.conductor.hear(job.trial.id, json.loads(text), host="here", pid=1)
        if not stop:
            self.jobs.append(job)
        with self.clock.time("look"):
            self.screen.watch(self.conductor)
            self.conductor.hanging()
            if self.conductor.over:
                return False
            self.conductor.best()
        self.done += 1
        return True


def look_back(cluster: Cluster, seconds: float, results: int, written: int, behind: float) -> dict[str, Any]:
    """The numbers since the last time."""
    clock, found = cluster.clock, dict[str, Any]()
    for name, took in clock.calls.items():
        ordered = sorted(wall for wall, _ in took) or [0.0]
        found[name] = {
            "count": len(took),
            "median_ms": round(1000 * statistics.median(ordered), 3),
            "p95_ms": round(1000 * ordered[int(0.95 * (len(ordered) - 1))], 3),
            "max_ms": round(1000 * ordered[-1], 1),
            "cpu_ms": round(1000 * statistics.mean([cpu for _, cpu in took] or [0.0]), 3),
        }
    return {
        "trials": len(cluster.conductor.trials),
        "results": results,
        "a_second": round(results / seconds, 1),
        **found,
        "busy": round(clock.total(0) / seconds, 3),
        "cpu": round(clock.total(1) / seconds, 3),
        "cpu_ms_a_result": round(1000 * clock.total(1) / max(1, results), 3),
        "behind_s": round(behind, 2),
        "rss_mb": round(psutil.Process().memory_info().rss / 2**20),
        "written_mb": round(written / 2**20, 1),
        "load": round(os.getloadavg()[0], 2),
    }


def play(cluster: Cluster, *, rate: float, minutes: float, every: float) -> list[dict[str, Any]]:
    """Results until the time or the trials are over; the numbers of every so many seconds."""
    cluster.fill()  # the first thousand, before the clock runs
    found: list[dict[str, Any]] = []
    cluster.clock = Clock()
    start = mark = time.monotonic()
    before, wrote, goes_on = 0, written(), True
    while goes_on and time.monotonic() - start < 60 * minutes:
        due = start + cluster.done / rate if rate else 0.0
        if (ahead := due - time.monotonic()) > 0:
            time.sleep(ahead)
        goes_on = cluster.step()
        if (passed := time.monotonic() - mark) >= every or not goes_on:
            behind = max(0.0, time.monotonic() - due) if rate else 0.0
            found.append(look_back(cluster, passed, cluster.done - before, written() - wrote, behind))
            say(found[-1])
            mark, before, wrote, cluster.clock = time.monotonic(), cluster.done, written(), Clock()
    return found


def written() -> int:
    """Bytes that this process has handed to the file system so far."""
    return int(psutil.Process().io_counters().write_chars)


HEADS = ("trials", "results/s", "result ms", "p95", "ask ms", "p95", "look ms", "busy", "cpu", "cpu ms")
REST = ("behind s", "RSS MB", "MB", "load")


def say(now: dict[str, Any]) -> None:
    """One line of the table."""
    times = [now[name][key] for name in ("result", "ask") for key in ("median_ms", "p95_ms")]
    names = ("busy", "cpu", "cpu_ms_a_result", "behind_s", "rss_mb", "written_mb", "load")
    cells = [now["trials"], now["a_second"], *times, now["look"]["median_ms"], *(now[name] for name in names)]
    print("".join(f"{cell:>10}" for cell in cells), file=sys.stderr, flush=True)


def make(options: argparse.Namespace, home: Path) -> Plan:
    text = f"{SPACE}search: {{trials: {options.trials}, sampler: {options.sampler}, scheduler: {options.scheduler}}}\n"
    return make_plan(parse_space(text, "driver.yaml"), home / "cache")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--rate", type=float, default=500.0, help="results a second; 0: as many as it can take")
    parser.add_argument("--at-once", type=int, default=1000)
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--sampler", default="tpe")
    parser.add_argument("--scheduler", default="asha")
    parser.add_argument("--every", type=float, default=60.0, help="seconds a line")
    parser.add_argument("--out", type=Path, default=None, help="where its folder is made and removed again")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.out) as made:
        home = Path(made)
        plan = make(options, home)
        with (
            writer.create(home, "driver") as folder,
            (home / "screen.log").open("w") as log,
            Progress(plan, Console(file=log, width=120, highlight=False), "again") as screen,
        ):
            sampler = Sampler(plan.space, plan.count, plan.sampler)
            conductor = Conductor(plan.space, sampler, folder, trials=plan.trials, full=plan.full, seconds=None)
            print("".join(f"{head:>10}" for head in (*HEADS, *REST)), file=sys.stderr, flush=True)
            cluster = Cluster(conductor, screen, options.at_once)
            found = play(cluster, rate=options.rate, minutes=options.minutes, every=options.every)
    if options.json:
        asked = {key: value for key, value in vars(options).items() if key not in ("json", "out")}
        print(json.dumps({"machine": machine(), **asked, "every": found}, indent=1))


if __name__ == "__main__":
    main()
