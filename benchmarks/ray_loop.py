"""What Ray Tune's own loop takes for a result, with trials that do nothing: the driver can take no more than that.

    python benchmarks/ray_loop.py --trials 2000

Trials of two epochs that return at once, on eight processes that are used again, one after the other; a searcher and a
scheduler that decide nothing, Ray's own loggers off, as hypertune has it. A line each 500 results: results a second,
and the processor time of the driver's process for each, Ray's threads in it included. Numbers that grow from line to
line are Ray's: it keeps every trial. Processes and driver share the cores of this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from typing import Any

from report import machine

EPOCHS, AT_ONCE, EVERY = 2, 8, 500
SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
    "TUNE_MAX_PENDING_TRIALS_PG": "1000",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # its servers listen on loopback alone
}


def play(trials: int) -> list[dict[str, float]]:
    """The numbers of each `EVERY` results."""
    import ray
    from ray import tune
    from ray.tune.search import Searcher

    class Nothing(tune.Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            pass

        def step(self) -> dict[str, Any]:
            return {"row": "{}", "done": self.iteration + 1 >= EPOCHS}

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            return True

    class Asking(Searcher):
        asked = 0

        def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
            self.asked += 1
            return {"id": self.asked} if self.asked <= trials else Searcher.FINISHED

        def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
            pass

    class Counting(tune.Callback):
        def __init__(self) -> None:
            self.results, self.wall, self.cpu = 0, time.perf_counter(), time.process_time()

        def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
            self.results += 1
            if self.results % EVERY == 0:
                wall, cpu = time.perf_counter(), time.process_time()
                a_second, spent = EVERY / (wall - self.wall), (cpu - self.cpu) / EVERY
                found.append(
                    {"results": self.results, "a_second": round(a_second, 1), "cpu_ms": round(1000 * spent, 2)}
                )
                print(found[-1], os.getloadavg()[0], file=sys.stderr, flush=True)
                self.wall, self.cpu = wall, cpu

    found: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="rl-", dir="/tmp") as scratch:
        ray.init(
            address="local", num_cpus=AT_ONCE, include_dashboard=False, _temp_dir=scratch, log_to_driver=False,
            object_store_memory=100 * 2**20,
        )  # fmt: skip
        try:
            tune.Tuner(
                tune.with_resources(Nothing, {"cpu": 1}),
                tune_config=tune.TuneConfig(
                    search_alg=Asking(), num_samples=-1, reuse_actors=True, max_concurrent_trials=AT_ONCE
                ),
                run_config=tune.RunConfig(
                    name="loop", storage_path=f"{scratch}/tune", callbacks=[Counting()], verbose=0,
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                ),
            ).fit()  # fmt: skip
        finally:
            ray.shutdown()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    os.environ.update(SETTINGS)
    found = play(options.trials)
    if options.json:
        print(
            json.dumps({"machine": machine(), "trials": options.trials, "at_once": AT_ONCE, "every": found}, indent=1)
        )


if __name__ == "__main__":
    main()
